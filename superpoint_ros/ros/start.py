"""Entry points of the nodes, which end cleanly on a signal even while Python still imports what a node needs."""

from __future__ import annotations

import importlib
import os
import signal

from superpoint_ros import blas


def detector() -> None:
    """Run superpoint_detector."""
    _start('detector_node')


def matcher() -> None:
    """Run superpoint_matcher."""
    _start('matcher_node')


def _start(module: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    blas.use_one_thread()
    importlib.import_module(f'superpoint_ros.ros.{module}').main()
