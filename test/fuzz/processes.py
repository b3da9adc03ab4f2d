"""Nodes in processes of their own, and what they use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

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
