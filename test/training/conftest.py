import os

import cv2
import numpy as np
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


@pytest.fixture(scope='session')
def photographs(tmp_path_factory):
    """A folder with four pictures of soft squares of random gray."""
    folder = tmp_path_factory.mktemp('photographs')
    for number in range(4):
        image = np.random.default_rng(number).integers(0, 256, (12, 16)).astype(np.uint8)
        cv2.imwrite(str(folder / f'{number}.png'), cv2.resize(image, (160, 120), interpolation=cv2.INTER_CUBIC))
    return folder
