"""SIGINT and SIGTERM, one or several, at any time after a node handles them."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from test.fuzz.processes import NodeProcess
from test.fuzz.runner import FaultError, draw

SIGNALS = signal.SIGINT, signal.SIGTERM
PATIENCE = 120


def attacks(seed: int) -> Iterator[bytes]:
    """The node, and for each signal its number and the time to wait before it in 1/50 s."""
    times = st.tuples(st.sampled_from(SIGNALS), st.integers(0, 10) | st.integers(0, 200)).map(bytes)
    signals = st.lists(times, min_size=1, max_size=3).map(b''.join)
    return draw(st.tuples(st.sampled_from([b'd', b'm']), signals).map(b''.join), seed)


@contextmanager
def target(folder: Path) -> Iterator[Callable[[bytes], tuple[bool, float]]]:
    """A process for each attack."""
    yield lambda data: _attack(data, folder / 'log')


def _handles_signals(pid: int) -> bool:
    """Whether a process has begun to handle SIGTERM; before that, the interpreter itself starts."""
    caught = re.search(r'SigCgt:\s*(\w+)', Path(f'/proc/{pid}/status').read_text())
    return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def _attack(data: bytes, log: Path) -> tuple[bool, float]:
    log.write_text('')
    process = NodeProcess('detector' if data[:1] == b'd' else 'matcher', log)
    try:
        while process.popen.poll() is None and not _handles_signals(process.popen.pid):
            time.sleep(0.01)
        for number, delay in zip(data[1::2], data[2::2], strict=True):
            time.sleep(delay / 50)
            process.popen.send_signal(number)
        code = process.popen.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        process.popen.kill()
        process.popen.wait()
    text = log.read_text()
    if code != 0 or 'Traceback' in text or 'cannot' in text:
        raise FaultError(f'exit code {code}: {text[-1500:]}')
    return True, 0.0
