"""Synchronization of two streams by stamps. Needs no ROS."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar('T')


class Pairing(Generic[T]):
    """Pairs the messages of two streams by their stamps, in any order of arrival.

    As soon as both have arrived, a message is paired with the nearest message of the other stream within the tolerance.
    The tolerance must therefore be less than half the period of a stream.

    Args:
        tolerance: largest difference between two stamps in ns.
        depth: number of messages of each stream that may wait for their pair; beyond that, the oldest is dropped.
    """

    def __init__(self, tolerance: int, depth: int) -> None:
        self._tolerance = tolerance
        self._depth = depth
        self._waiting: tuple[dict[int, T], dict[int, T]] = ({}, {})
        self.unpaired = 0
        """Number of messages dropped without a pair."""

    def add(self, side: int, stamp: int, item: T) -> tuple[T, T] | None:
        """Add a message of stream 0 or 1; returns the pair that it completes, stream 0 first."""
        mine, others = self._waiting[side], self._waiting[1 - side]
        nearest = min(others, key=lambda other: abs(other - stamp), default=None)
        if nearest is not None and abs(nearest - stamp) <= self._tolerance:
            other = others.pop(nearest)
            return (item, other) if side == 0 else (other, item)
        self.unpaired += stamp in mine
        mine[stamp] = item
        if len(mine) > self._depth:
            del mine[min(mine)]
            self.unpaired += 1
        return None

    def smallest_difference(self) -> int | None:
        """Smallest difference in ns between waiting messages of the two streams; None if only one stream waits.

        It may be called while another thread adds messages.
        """
        mine, others = (list(waiting) for waiting in self._waiting)
        return min((abs(stamp - other) for stamp in mine for other in others), default=None)

    def clear(self) -> None:
        """Drop all waiting messages."""
        for waiting in self._waiting:
            self.unpaired += len(waiting)
            waiting.clear()
