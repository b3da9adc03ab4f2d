"""Compressed images: files with changed bytes, cut off, of other formats, and messages with changed bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage

from test.bags.conftest import picture
from test.fuzz.live import DetectorBench, working
from test.fuzz.runner import draw, headers, mutated

FORMATS = st.sampled_from(['jpeg', 'png', '16UC1; png compressed', 'compressedDepth', '']) | st.text(max_size=20)


def files() -> list[bytes]:
    """Good files of several formats."""
    gray = picture(0)
    color = np.dstack([gray] * 3)
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    made = [
        *[cv2.imencode(suffix, gray)[1] for suffix in ('.jpg', '.png', '.bmp', '.tiff', '.webp', '.pgm')],
        *[cv2.imencode('.jpg', image, progressive)[1] for image in (gray, color)],
        cv2.imencode('.png', gray.astype(np.uint16) * 257)[1],
        cv2.imencode('.png', np.dstack([color, gray]))[1],
    ]
    return [array.tobytes() for array in made]


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Strategy of serialized compressed images."""
    data = draw(mutated(files()) | st.binary())
    return serialize_message(CompressedImage(header=draw(headers()), format=draw(FORMATS), data=data))


def attacks(seed: int) -> Iterator[bytes]:
    """Serialized compressed images."""
    good = serialize_message(CompressedImage(format='png', data=files()[1]))
    return draw(messages() | messages() | mutated([good]), seed)


@contextmanager
def target(folder: Path) -> Iterator[Callable[[bytes], tuple[bool, float]]]:
    """A detector of compressed images."""
    with working(DetectorBench(folder, 'compressed')) as bench:
        yield lambda data: bench.attack(lambda: bench.publish('image/compressed', data))
