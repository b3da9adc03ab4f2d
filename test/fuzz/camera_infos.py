"""Calibrations of cameras: any numbers, any number of coefficients, and messages with changed bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st
from rclpy.serialization import serialize_message

from test.fuzz.live import MatcherBench, camera_info, working
from test.fuzz.runner import NUMBERS, draw, headers, mutated

FLOATS = st.sampled_from([0.0, 0.0, 1.0, 400.0, 240.0, -1.0, 1e300, float('nan'), float('inf')]) | st.floats()
MODELS = st.sampled_from(['plumb_bob', 'rational_polynomial', 'equidistant', '', 'fisheye']) | st.text(max_size=9)
SIZES = st.sampled_from([number for number in NUMBERS if number < 2**32])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Strategy of serialized calibrations."""
    message = camera_info()
    message.header, message.distortion_model = draw(headers()), draw(MODELS)
    message.width, message.height = draw(SIZES), draw(SIZES)
    message.d = draw(st.lists(FLOATS, max_size=16))
    if draw(st.booleans()):
        message.k = draw(st.lists(FLOATS, min_size=9, max_size=9))
    return serialize_message(message)


def attacks(seed: int) -> Iterator[bytes]:
    """Serialized calibrations."""
    return draw(messages() | mutated([serialize_message(camera_info())]), seed)


@contextmanager
def target(folder: Path) -> Iterator[Callable[[bytes], tuple[bool, float]]]:
    """A matcher that needs the calibrations of a pair, of which one camera gets this one."""
    with working(MatcherBench(folder)) as bench:
        yield lambda data: bench.attack(lambda: bench.describe('left/camera_info', data))
