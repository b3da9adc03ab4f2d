"""Images: sizes, steps, encodings and data that do not fit, and messages with changed bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from superpoint_ros.images import _ENCODINGS
from superpoint_ros.ros.messages import image_message
from test.bags.conftest import picture
from test.fuzz.live import DetectorBench, working
from test.fuzz.runner import draw, headers, mutated

SIDES = st.integers(16, 300) | st.sampled_from([0, 1, 2, 15, 16, 97, 640, 4096, 8192, 16384, 2**31, 2**32 - 1])
TYPES = st.sampled_from(sorted(_ENCODINGS)) | st.sampled_from(['32SC1', '', 'x' * 10**6]) | st.text(max_size=20)
FILLS = np.zeros(1, np.uint8), np.full(1, 255, np.uint8), np.array([np.nan, np.inf, 1e38], '<f4').view(np.uint8)
MOST = 2**22


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Strategy of serialized images."""
    width, height, encoding = draw(SIDES), draw(SIDES), draw(TYPES)
    known = _ENCODINGS.get(encoding, _ENCODINGS['mono8'])
    row = min(width * known.channels * np.dtype(known.dtype).itemsize, 2**32 - 1)
    step = draw(st.sampled_from([row, row, row, row + 8]) | SIDES)
    size = int(step * height * known.rows)
    length = min(draw(st.sampled_from([size, size, size - 1]) | st.integers(0, 10**5)), MOST)
    fill = draw(st.sampled_from(FILLS)) if draw(st.booleans()) else np.frombuffer(draw(st.binary(min_size=1)), np.uint8)
    message = Image(header=draw(headers()), width=width, height=height, step=step, encoding=encoding)
    message.is_bigendian = draw(st.sampled_from([0, 0, 1, 255]))
    message.data = np.resize(fill, max(length, 0)).tobytes()
    return serialize_message(message)


def attacks(seed: int) -> Iterator[bytes]:
    """Serialized images."""
    good = serialize_message(image_message(picture(0), Image().header))
    return draw(messages() | mutated([good]), seed)


@contextmanager
def target(folder: Path) -> Iterator[Callable[[bytes], tuple[bool, float]]]:
    """A detector."""
    with working(DetectorBench(folder)) as bench:
        yield lambda data: bench.attack(lambda: bench.publish('image', data))
