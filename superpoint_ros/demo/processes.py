"""Starts and stops the nodes of the demo, each in its own process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PATIENCE = 10.0
"""Seconds after which a process that does not end is killed."""


class Process(NamedTuple):
    """A running node, and its log file."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path


@contextmanager
def started(name: str, module: str, arguments: Sequence[str], log: Path) -> Iterator[Process]:
    """Run a module's `main` with the words behind --ros-args; when the block ends, it gets a SIGINT.

    Its output goes to the log file, its name to messages.
    """
    command = [sys.executable, '-c', f'from {module} import main; main()', '--ros-args', *arguments]
    with log.open('wb') as output:
        # Its own session, so that Ctrl-C reaches it only through us, and in order.
        popen = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            yield Process(name, popen, log)
        finally:
            popen.send_signal(signal.SIGINT)
            try:
                popen.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()
