"""Starts and stops ROS nodes, each in its own process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE = 10.0
"""Seconds after which a process that does not end is killed."""


class Process(NamedTuple):
    """A running node, and its log file."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path


@contextmanager
def started(name: str, module: str, arguments: Sequence[str], log: Path) -> Iterator[Process]:
    """Run a module's `main` with the words after --ros-args; it is interrupted when the block or this process ends.

    Its output goes to the log file, its name to messages.
    """
    watched = f'from {__name__} import interrupt_at_input; interrupt_at_input(0)'
    command = [sys.executable, '-c', f'{watched}; from {module} import main; main()', '--ros-args', *arguments]
    with log.open('wb') as output:
        # Its own session, so that Ctrl-C reaches it only through us, and in order.
        popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True)
        assert popen.stdin
        try:
            yield Process(name, popen, log)
        finally:
            popen.stdin.close()
            try:
                popen.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()


def interrupt_at_input(descriptor: int) -> None:
    """Send this process a SIGINT when a file descriptor has data or its other end is closed; end it if that fails."""

    def wait() -> None:
        os.read(descriptor, 1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(PATIENCE)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Let Ctrl-C set an event: a KeyboardInterrupt inside rclpy's compiled code comes out as another error."""
    interrupt = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: interrupt.set())
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def ros_arguments(namespace: str, parameters: Mapping[str, Any], remappings: Mapping[str, str]) -> list[str]:
    """The words after --ros-args for a node with these parameters and remappings."""
    # JSON is YAML, and keeps the string "0" from becoming a number.
    given = [f'{name}:={json.dumps(value)}' for name, value in parameters.items()]
    remapped = [f'{name}:={to}' for name, to in {'__ns': namespace, **remappings}.items()]
    return [*(word for p in given for word in ('-p', p)), *(word for r in remapped for word in ('-r', r))]
