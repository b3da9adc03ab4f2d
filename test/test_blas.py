"""Commands and nodes multiply matrices in one thread."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PRODUCT = 'import numpy as np; ones = np.ones((1000, 1000), np.float32); ones @ ones'
THREADS = "import os; print(len(os.listdir('/proc/self/task')))"
COMMAND = "from superpoint_ros import cli; cli.run = lambda *_: ''; cli.main(['match'])"
NODE = """
import types
from superpoint_ros.ros import start
start.importlib = types.SimpleNamespace(import_module=lambda _: types.SimpleNamespace(main=lambda: None))
start.matcher()
"""


def threads_after(code: str, **environment: str) -> int:
    """Number of threads of a process after some code and a product of matrices."""
    ended = subprocess.run(
        [sys.executable, '-c', '\n'.join([code, PRODUCT, THREADS])],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(ended.stdout.split()[-1])


@pytest.mark.parametrize('code', [COMMAND, NODE])
def test_commands_and_nodes_start_no_threads_for_products(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('OPENBLAS_NUM_THREADS', raising=False)
    assert threads_after(code) == 1


@pytest.mark.skipif(os.cpu_count() == 1, reason='needs two processors')
def test_the_environment_decides_the_number_of_threads() -> None:
    assert threads_after(COMMAND, OPENBLAS_NUM_THREADS='2') > 1
