"""Descriptions of features: JSON of other structure, deep JSON, text that is not JSON, and changed bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from std_msgs.msg import String

from test.fuzz.live import INFO, LATCHED, MatcherBench, working
from test.fuzz.runner import draw, mutated

KEYS = st.sampled_from(['model', 'checksum', 'image_size', 'descriptor_size']) | st.text(max_size=5)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just('\ud800') | st.just(10**400)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=10)
TEXTS = (
    st.dictionaries(KEYS, VALUES).map(json.dumps)
    | VALUES.map(json.dumps)
    | st.text()
    | st.sampled_from(['[' * 5000, '{"a":' * 10**5, 'x' * 10**6, '9' * 5000, '', '\0', 'null'])
)


def attacks(seed: int) -> Iterator[bytes]:
    """Serialized strings."""
    return draw(
        TEXTS.map(lambda text: serialize_message(String(data=text))) | mutated([serialize_message(String(data=INFO))]),
        seed,
    )


@contextmanager
def target(folder: Path) -> Iterator[Callable[[bytes], tuple[bool, float]]]:
    """A matcher of a pair, of which one camera gets the description."""
    with working(MatcherBench(folder)) as bench:
        yield lambda data: bench.attack(lambda: bench.describe('left/features/info', data, LATCHED))
