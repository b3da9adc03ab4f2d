"""A thread that processes the messages of several topics."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar('T')

PATIENCE = 5.0
"""Seconds that stop waits for the call in progress."""


class Worker(Generic[T]):
    """Calls a function in its own thread with the oldest waiting item of each key.

    The items of a key keep their order. With depth 1 only the newest item of a key waits.

    Args:
        process: called with {key: item} for every key that has an item.
        failed: called with what `process` raises; the thread continues.
        dropped: called with the key of each item that is dropped to make room for a newer one.
        depth: number of items of a key that may wait.
    """

    def __init__(
        self,
        process: Callable[[dict[str, T]], None],
        failed: Callable[[Exception], None],
        dropped: Callable[[str], None],
        depth: int = 1,
    ) -> None:
        self._process = process
        self._failed = failed
        self._dropped = dropped
        self._depth = depth
        self._waiting: dict[str, deque[T]] = {}
        self._changed = threading.Condition()
        self._running = True
        self._thread = threading.Thread(target=self._run, name='worker', daemon=True)
        self._thread.start()

    def put(self, key: str, item: T) -> None:
        """Add an item and return at once."""
        with self._changed:
            items = self._waiting.setdefault(key, deque(maxlen=self._depth))
            full = len(items) == self._depth
            items.append(item)
            self._changed.notify()
        if full:
            self._dropped(key)

    def stop(self) -> None:
        """Discard the waiting items and wait for the call in progress to return.

        Raises:
            TimeoutError: it takes longer than PATIENCE.
        """
        with self._changed:
            self._running = False
            self._changed.notify()
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise TimeoutError(f'the message in progress takes longer than {PATIENCE:.0f} s; try again later')

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or not self._running)
                if not self._running:
                    return
                oldest = {key: items.popleft() for key, items in self._waiting.items()}
                self._waiting = {key: items for key, items in self._waiting.items() if items}
            try:
                self._process(oldest)
            except Exception as error:  # noqa: BLE001 - the thread must go on with the next items
                self._failed(error)
