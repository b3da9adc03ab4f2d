"""Clouds of features: fields, sizes and numbers that do not fit, and messages with changed bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import PointCloud2, PointField

from test.fuzz.live import MatcherBench, good_features, working
from test.fuzz.runner import draw, headers, mutated

COUNTS = st.sampled_from([0, 1, 2, 40, 16384, 2**16, 10**6, 2**31, 2**32 - 1]) | st.integers(0, 100)
FLOATS = st.floats(width=32) | st.sampled_from([0.0, 1.0, 100.0, 3e38, float('nan'), float('inf')])
MOST = 2**22


@st.composite
def odd_layouts(draw: st.DrawFn) -> bytes:
    """Strategy of serialized clouds of any fields."""
    names = st.sampled_from(['x', 'y', 'score', 'descriptor']) | st.text(max_size=5)
    offsets, kinds = st.integers(0, 40) | COUNTS, st.sampled_from([1, 7, 7, 7]) | st.integers(0, 255)
    fields = st.builds(PointField, name=names, offset=offsets, datatype=kinds, count=COUNTS)
    message = PointCloud2(header=draw(headers()), height=draw(st.just(1) | COUNTS), width=draw(COUNTS))
    message.fields = draw(st.lists(fields, max_size=6))
    message.point_step, message.row_step = draw(COUNTS), draw(COUNTS)
    message.is_bigendian, message.is_dense = draw(st.booleans()), draw(st.booleans())
    length = draw(st.just(message.point_step * message.width) | COUNTS)
    message.data = np.resize(np.frombuffer(draw(st.binary(min_size=1)), np.uint8), min(length, MOST)).tobytes()
    return serialize_message(message)


@st.composite
def odd_numbers(draw: st.DrawFn) -> bytes:
    """Strategy of serialized clouds in the right layout with any numbers."""
    message = good_features(draw(headers()), draw(st.sampled_from([0, 1, 5, 8, 40])), draw(st.sampled_from([0, 1, 16])))
    data = np.frombuffer(message.data, np.uint8).copy()
    for number in draw(st.lists(FLOATS, max_size=10)):
        if len(data) > 4:
            at = draw(st.integers(0, len(data) // 4 - 1)) * 4
            data[at : at + 4] = np.array([number], '<f4').view(np.uint8)
    message.data = data.tobytes()
    return serialize_message(message)


def attacks(seed: int) -> Iterator[bytes]:
    """Serialized clouds."""
    good = serialize_message(good_features(PointCloud2().header))
    return draw(odd_layouts() | odd_numbers() | mutated([good]), seed)


@contextmanager
def target(folder: Path) -> Iterator[Callable[[bytes], tuple[bool, float]]]:
    """A matcher that gets each cloud from both cameras."""
    with working(MatcherBench(folder)) as bench:

        def publish(data: bytes) -> None:
            for side in ('left', 'right'):
                bench.publish(f'{side}/features', data)

        yield lambda data: bench.attack(lambda: publish(data))
