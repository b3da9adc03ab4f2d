"""Runs a node in its own process until a signal ends it."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from superpoint_ros.ros.diagnostics import printable
from superpoint_ros.ros.lifecycle import ManagedNode


def run(make: Callable[[], ManagedNode], args: list[str] | None = None) -> int:
    """Run a node until SIGINT or SIGTERM. An error in a callback is logged and counted, and the node continues.

    Returns:
        The exit code: 0, or 1 if a given parameter is wrong or the node cannot start itself (`autostart`).
    """
    interrupted: Future[None] = Future()
    with _signals(lambda: interrupted.set_result(None)):
        # rclpy's own handlers end ROS while it is in use, and a second signal may be a segmentation fault.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        try:
            return _run(make, interrupted)
        finally:
            rclpy.try_shutdown()


def _run(make: Callable[[], ManagedNode], interrupted: Future[None]) -> int:
    try:
        node = make()
    except (ParameterException, ValueError) as error:
        rclpy.logging.get_logger('superpoint_ros').fatal(printable(str(error)))
        return 1
    interrupted.add_done_callback(lambda _: node.ended.set_result(0))
    core, handler = logging.getLogger('superpoint_ros'), _ToRos(node)
    core.addHandler(handler)
    core.setLevel(logging.INFO)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while node.running:
            try:
                executor.spin_until_future_complete(node.ended)
            except ExternalShutdownException:
                break
            except Exception as error:  # noqa: BLE001 - also those of rclpy itself, such as a /clock before 1970
                node.log_unexpected(error)
        return node.ended.result() or 0
    finally:
        core.removeHandler(handler)
        executor.shutdown(timeout_sec=0)
        node.destroy_node()


@contextmanager
def _signals(action: Callable[[], None]) -> Iterator[None]:
    """Call a function once in its own thread when SIGINT or SIGTERM arrives; afterwards, ignore both.

    Python's handlers wait for the main thread, which may be inside ROS for long; the file descriptor does not.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def wait() -> None:
        if ours.recv(1):
            action()

    thread = threading.Thread(target=wait, name='signals', daemon=True)
    thread.start()
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        # At exit Python restores the defaults, unless they are ignored, and a late signal would end in a traceback.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        theirs.close()
        thread.join()
        ours.close()


class _ToRos(logging.Handler):
    """Forwards the log of the core to the log of a node."""

    def __init__(self, node: ManagedNode) -> None:
        super().__init__()
        self._log = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        text = printable(record.getMessage(), 1000)
        if record.levelno < logging.WARNING:  # rclpy allows one severity for each place that logs
            self._log.info(text)
        else:
            self._log.warning(text)
