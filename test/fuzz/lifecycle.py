"""Lifecycle transitions of both nodes in any order, also those that do not exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from test.fuzz.live import both
from test.fuzz.runner import draw

TRANSITIONS = st.integers(0, 4) | st.integers(1, 4) | st.sampled_from([5, 6, 7, 10, 99, 255])


def attacks(seed: int) -> Iterator[bytes]:
    """The node and the numbers of transitions."""
    numbers = st.lists(TRANSITIONS, min_size=1, max_size=8).map(bytes)
    return draw(st.tuples(st.sampled_from([b'd', b'm']), numbers).map(b''.join), seed)


@contextmanager
def target(folder: Path) -> Iterator[Callable[[bytes], tuple[bool, float]]]:
    """A detector and a matcher."""
    with both(folder) as nodes:

        def change(data: bytes) -> bool:
            changed = [nodes[data[:1]].change_state(number) for number in data[1:]]
            nodes[data[:1]].bring_to('active')
            return all(changed)

        yield lambda data: nodes[data[:1]].attack(lambda: change(data))
