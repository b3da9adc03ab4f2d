import os

import pytest
import torch


@pytest.fixture(autouse=True, scope='session')
def one_thread():
    """Networks this small are fastest on one thread, and many times slower on two that wait for a busy machine."""
    os.environ['OMP_NUM_THREADS'] = '1'  # of the processes that tests start
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
