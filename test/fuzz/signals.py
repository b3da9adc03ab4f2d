"""SIGINT and SIGTERM, one or several, at any time after a node was started."""

from __future__ import annotations

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


def _attack(data: bytes, log: Path) -> tuple[bool, float]:
    log.write_text('')
    process = NodeProcess('detector' if data[:1] == b'd' else 'matcher', log)
    try:
        end = time.monotonic() + 60
        while not log.read_text() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)  # the handlers are set at once, but after the line was printed
        for number, delay in zip(data[1::2], data[2::2], strict=True):
            time.sleep(delay / 50)
            process.popen.send_signal(number)
        code = process.popen.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        process.popen.kill()
    text = log.read_text()
    if code != 0 or 'Traceback' in text or 'cannot' in text:
        raise FaultError(f'exit code {code}: {text[-1500:]}')
    return True, 0.0
