"""A thread that always works on the newest: what it has no time for is dropped and counted, never queued."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar('T')


class Worker(Generic[T]):
    """Calls a function, in a thread of its own, with the newest item of each key that has one.

    Args:
        process: called with {key: item} of all that is waiting; must not raise.
        dropped: called with the key of each item that a newer one replaced before it was processed.
    """

    def __init__(self, process: Callable[[dict[str, T]], None], dropped: Callable[[str], None]) -> None:
        self._process = process
        self._dropped = dropped
        self._waiting: dict[str, T] = {}
        self._changed = threading.Condition()
        self._running = True
        self._thread = threading.Thread(target=self._run, name='worker')
        self._thread.start()

    def put(self, key: str, item: T) -> None:
        """Give the newest item of a key; returns at once."""
        with self._changed:
            replaced = key in self._waiting
            self._waiting[key] = item
            self._changed.notify()
        if replaced:
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
                items, self._waiting = self._waiting, {}
            self._process(items)
