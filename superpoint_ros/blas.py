"""The threads of NumPy's matrix products."""

from __future__ import annotations

import os


def use_one_thread() -> None:
    """Make NumPy multiply matrices in one thread, unless the environment says otherwise; call it before NumPy's import.

    After each product, the other threads of OpenBLAS spin for 30 ms: a matcher at 30 Hz keeps a whole core busy. Where
    other processes need the cores, a product waits for all of its threads and takes several times as long.
    """
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
