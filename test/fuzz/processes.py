"""What is attacked runs in processes of its own, so that their memory is measured and their end is noticed."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from test.fuzz.runner import FaultError

DOMAIN = os.getpid() % 40 + 50
"""ROS_DOMAIN_ID, which separates the nodes from other ROS programs on the machine."""


class NodeProcess:
    """A node in its own process, whose output goes to a file.

    Args:
        name: detector or matcher.
        log: path of the file.
        parameters: of the node.
    """

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

    def stop(self, number: int = signal.SIGINT, seconds: float = 30) -> int | None:
        """Send a signal; returns the exit code, None if the process had to be killed."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            return None


def peak(pid: int | str) -> float:
    """Most memory of a process in MB since reset_peak."""
    found = re.search(r'VmHWM:\s*(\d+)', Path(f'/proc/{pid}/status').read_text())
    return int(found[1]) / 1024 if found else 0


def reset_peak(pid: int | str) -> None:
    """Begin to measure the most memory of a process."""
    Path(f'/proc/{pid}/clear_refs').write_text('5')


class Isolated:
    """Calls a function with an attack and a folder in another process.

    Args:
        function: returns whether the attack was processed; raises FaultError.
        folder: for its files.
        seconds: longest time that a call may take.
        megabytes: most memory that a call may take.
    """

    def __init__(self, function: Callable[[bytes, Path], bool], folder: Path, seconds: float, megabytes: float) -> None:
        self._function, self._folder = function, folder
        self._seconds, self._megabytes = seconds, megabytes
        self._context = multiprocessing.get_context('spawn')

    def __enter__(self) -> Isolated:
        self._connection, other = self._context.Pipe()
        arguments = other, self._function, self._folder
        self._process = self._context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        other.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def __call__(self, data: bytes) -> tuple[bool, float]:
        """Whether the attack was processed, and the memory in MB.

        Raises:
            FaultError: the attack had another result, or took too long or too much.
        """
        self._connection.send(data)
        result: bool | str
        try:
            result, megabytes = f'did not end in {self._seconds} s', 0.0
            if self._connection.poll(self._seconds):
                result, megabytes = self._connection.recv()
                if megabytes > self._megabytes:
                    result = f'took {megabytes:.0f} MB'
        except EOFError:
            self._process.join()
            result = f'ended the process with {self._process.exitcode}'
        if not isinstance(result, str):
            return result, megabytes
        self.__exit__()
        self.__enter__()
        raise FaultError(result)


def _serve(connection: Connection, function: Callable[[bytes, Path], bool], folder: Path) -> None:
    while True:
        data = connection.recv()
        reset_peak('self')
        result: bool | str
        try:
            result = function(data, folder)
        except FaultError as fault:
            result = str(fault)
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            result = f'{type(error).__name__}: {error}'
        connection.send((result, peak('self')))
