"""A thread that works on everything in its order: for tracks, where every frame matters."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar('T')


class Fifo(Generic[T]):
    """Calls a function, in a thread of its own, with one item after the other in the order in which they came.

    Args:
        process: called with each item; must not raise.
        dropped: called with the key of each item that had to make room.
        depth: how many items of a key may wait; the oldest makes room for a new one.
    """

    def __init__(self, process: Callable[[T], None], dropped: Callable[[str], None], depth: int) -> None:
        self._process = process
        self._dropped = dropped
        self._depth = depth
        self._waiting: deque[tuple[str, T]] = deque()
        self._changed = threading.Condition()
        self._running = True
        self._thread = threading.Thread(target=self._run, name='fifo')
        self._thread.start()

    def put(self, key: str, item: T) -> None:
        """Add an item; returns at once."""
        with self._changed:
            same = [waiting for waiting in self._waiting if waiting[0] == key]
            full = len(same) >= self._depth
            if full:
                self._waiting.remove(same[0])
            self._waiting.append((key, item))
            self._changed.notify()
        if full:
            self._dropped(key)

    def stop(self) -> None:
        """Forget what is waiting, and wait for what is being processed."""
        with self._changed:
            self._running = False
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or not self._running)
                if not self._running:
                    return
                _, item = self._waiting.popleft()
            self._process(item)
