"""What is attacked runs in processes of its own, so that their memory is measured and their end is noticed."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from test.fuzz.attacks import Attack, FaultError

DOMAIN = os.getpid() % 40 + 50
"""ROS_DOMAIN_ID, which separates the nodes from other ROS programs on the machine."""
MAX_SECONDS = 120
"""Longest time that an attack may take."""


class NodeProcess:
    """The detector or the matcher in its own process, whose output goes to a file."""

    def __init__(self, name: str, log: Path, **parameters: object) -> None:
        program = f'from superpoint_ros.ros.start import {name}; {name}()'
        words = [word for key, value in parameters.items() for word in ('-p', f'{key}:={value}')]
        self.name, self.log = name, log
        with log.open('ab') as output:
            self.popen = subprocess.Popen(
                [sys.executable, '-c', program, '--ros-args', *words],
                env={**os.environ, 'ROS_DOMAIN_ID': str(DOMAIN)},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def usage(self) -> dict[str, int]:
        """Memory in MB, number of open files and number of threads."""
        proc = Path('/proc', str(self.popen.pid))
        pages = int((proc / 'statm').read_text().split()[1])
        return {
            'MB': pages * os.sysconf('SC_PAGE_SIZE') // 2**20,
            'files': len(list((proc / 'fd').iterdir())),
            'threads': len(list((proc / 'task').iterdir())),
        }

    def stop(self, seconds: float = 30) -> int | None:
        """Send SIGINT and wait; returns the exit code, None if the process had to be killed."""
        self.popen.send_signal(signal.SIGINT)
        return self.wait(seconds)

    def wait(self, seconds: float) -> int | None:
        """Wait for the end; returns the exit code, None if the process had to be killed."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.popen.kill()
            self.popen.wait()


def peak(pid: int | str) -> float:
    """Most memory of a process in MB since the last call."""
    found = re.search(r'VmHWM:\s*(\d+)', Path(f'/proc/{pid}/status').read_text())
    Path(f'/proc/{pid}/clear_refs').write_text('5')
    return int(found[1]) / 1024 if found else 0


@contextmanager
def isolated(function: Callable[[bytes, Path], bool], folder: Path, max_megabytes: float = 1500) -> Iterator[Attack]:
    """Calls a function with each attack and a folder, in a process of its own that is replaced after a fault.

    The function returns whether the attack was processed.
    """
    context = multiprocessing.get_context('spawn')

    def start() -> tuple[SpawnProcess, Connection]:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, function, folder), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def attack(data: bytes) -> tuple[bool, float]:
        nonlocal process, connection
        connection.send(data)
        megabytes, fault = 0.0, f'did not end in {MAX_SECONDS} s'
        try:
            if connection.poll(MAX_SECONDS):
                processed, megabytes, fault = connection.recv()
        except EOFError:
            process.join()
            fault = f'ended the process with {process.exitcode}'
        if megabytes > max_megabytes:
            fault = f'took {megabytes:.0f} MB'
        if not fault:
            return processed, megabytes
        process.kill()
        process.join()
        process, connection = start()
        raise FaultError(fault)

    process, connection = start()
    try:
        yield attack
    finally:
        process.kill()
        process.join()


def _serve(connection: Connection, function: Callable[[bytes, Path], bool], folder: Path) -> None:
    while True:
        data = connection.recv()
        peak('self')
        processed, fault = False, ''
        try:
            processed = function(data, folder)
        except FaultError as error:
            fault = str(error)
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            fault = f'{type(error).__name__}: {error}'
        connection.send((processed, peak('self'), fault))
