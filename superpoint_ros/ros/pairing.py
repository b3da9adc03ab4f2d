"""Which messages of two cameras belong together. Needs no ROS."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar('T')


class Pairing(Generic[T]):
    """Pairs the messages of two streams by their stamps, in whatever order they come.

    A message is paired with the nearest one of the other stream, if that is near enough, as soon as both are there.
    So the tolerance must be less than half of the time between two messages of a stream.

    Args:
        tolerance: largest difference of two stamps in ns.
        depth: how many messages of each stream may wait for their partner; the oldest is then given up.
    """

    def __init__(self, tolerance: int, depth: int) -> None:
        self._tolerance = tolerance
        self._depth = depth
        self._waiting: tuple[dict[int, T], dict[int, T]] = ({}, {})
        self.unpaired = 0
        """How many were given up."""

    def add(self, side: int, stamp: int, item: T) -> tuple[T, T] | None:
        """Take a message of stream 0 or 1; returns the pair that it completes, stream 0's first."""
        mine, others = self._waiting[side], self._waiting[1 - side]
        nearest = min(others, key=lambda other: abs(other - stamp), default=None)
        if nearest is not None and abs(nearest - stamp) <= self._tolerance:
            partner = others.pop(nearest)
            return (item, partner) if side == 0 else (partner, item)
        self.unpaired += stamp in mine
        mine[stamp] = item
        if len(mine) > self._depth:
            del mine[min(mine)]
            self.unpaired += 1
        return None

    def clear(self) -> None:
        """Give up all that wait."""
        for waiting in self._waiting:
            self.unpaired += len(waiting)
            waiting.clear()
