"""Waits for the masks of images, which have the same stamps. Needs no ROS."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar('T')
M = TypeVar('M')

WAITING = 30
"""Number of images, and of masks, that wait at most; then the oldest is given up."""


class MaskWait(Generic[T, M]):
    """Passes each image on with its mask, in the order of arrival.

    The mask of an image comes before or after it. An image is given up when its mask has not come within the timeout,
    or when a later image has its mask: it is then passed on without one, or dropped. Not thread-safe.

    Args:
        timeout: seconds.
        required: drop the images that are given up.
        pass_on: called with an image and its mask, or None.
    """

    def __init__(self, timeout: float, required: bool, pass_on: Callable[[T, M | None], None]) -> None:
        self._timeout = timeout
        self._required = required
        self._pass_on = pass_on
        self._images: dict[int, tuple[float, T]] = {}
        self._masks: dict[int, M] = {}
        self.paired = 0
        """Number of images that were passed on with their mask."""
        self.missing = 0
        """Number of images that were given up."""
        self.late = 0
        """Number of masks that came after their images had been given up."""
        self._given_up: deque[int] = deque(maxlen=WAITING)

    def add_image(self, stamp: int, image: T, now: float) -> None:
        """Add an image with its stamp in ns, and the monotonic time in seconds."""
        if stamp in self._images:
            self._give_up_before(stamp)
            self._give_up(stamp)
        self._images[stamp] = now + self._timeout, image
        if stamp in self._masks:
            self._complete(stamp, self._masks.pop(stamp))
        elif len(self._images) > WAITING:
            self._give_up(next(iter(self._images)))

    def add_mask(self, stamp: int, mask: M) -> None:
        """Add a mask with its stamp in ns."""
        if stamp in self._images:
            self._complete(stamp, mask)
            return
        if stamp in self._given_up:  # an image that now comes with this stamp is another one, after a clock reset
            self._given_up.remove(stamp)
            self.late += 1
            return
        self._masks[stamp] = mask
        if len(self._masks) > WAITING:
            del self._masks[next(iter(self._masks))]

    def expire(self, now: float) -> None:
        """Give up the images whose timeout has passed; to be called periodically."""
        for stamp in [stamp for stamp, (deadline, _) in self._images.items() if deadline <= now]:
            self._give_up(stamp)

    def clear(self) -> None:
        """Forget all images and masks that wait."""
        self._images.clear()
        self._masks.clear()

    def _complete(self, stamp: int, mask: M) -> None:
        self._give_up_before(stamp)
        self.paired += 1
        self._pass_on(self._images.pop(stamp)[1], mask)

    def _give_up_before(self, stamp: int) -> None:
        for earlier in itertools.takewhile(lambda other: other != stamp, list(self._images)):
            self._give_up(earlier)

    def _give_up(self, stamp: int) -> None:
        _, image = self._images.pop(stamp)
        self.missing += 1
        self._given_up.append(stamp)
        if not self._required:
            self._pass_on(image, None)
