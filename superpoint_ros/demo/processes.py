"""The nodes of the demo, each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

PATIENCE = 10.0
"""Seconds that a process has to end before it is killed."""


class Process(NamedTuple):
    """A node that runs, and the file with what it prints."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        """The end of what it has printed."""
        return '\n'.join(self.log.read_text(errors='replace').splitlines()[-8:])


@contextmanager
def started(name: str, module: str, arguments: Sequence[str], log: Path) -> Iterator[Process]:
    """Run a module's `main` with ROS arguments until the block ends; then it gets a SIGINT.

    Args:
        name: for people.
        module: has a function main().
        arguments: what goes behind --ros-args.
        log: file for what it prints.
    """
    command = [sys.executable, '-c', f'from {module} import main; main()', '--ros-args', *arguments]
    with ExitStack() as stack:
        output = stack.enter_context(log.open('wb'))
        # A session of its own, so that Ctrl-C reaches it through us alone, and in order.
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
