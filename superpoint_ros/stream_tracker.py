"""Tracks and matches of the features of one camera, image by image.

The matcher node and `superpoint bag` both use it, so a bag and a live run of the same images give the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from superpoint_ros.features import Features, Matches
from superpoint_ros.matching import MatchConfig, Matcher, check_comparable, match
from superpoint_ros.tracking import Tracker, TrackerConfig, Tracks, continued

JUMP_BACK = 10**9
"""Nanoseconds: if a stamp is at least this much before the last one, the clock was reset; less is a late image."""


@dataclass(frozen=True, eq=False)
class Frame:
    """The features of one image.

    Args:
        header: std_msgs/Header of the image, from rclpy or rosbags.
        features: of the image.
        publishers: identities of the publishers of the stream; empty if unknown, as in a bag.
    """

    header: Any
    features: Features
    publishers: frozenset[Hashable] = frozenset()

    @property
    def stamp(self) -> int:
        """Time of the image in ns."""
        return nanoseconds(self.header.stamp)


def nanoseconds(stamp: Any) -> int:
    """A builtin_interfaces/Time in ns."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


class Stream:
    """Detects late frames and restarts of one camera's stream.

    A stream restarts when its publisher, its model, its image size or its descriptor size changes, and when the clock
    jumps back by JUMP_BACK or more.
    """

    def __init__(self) -> None:
        self.last: Frame | None = None
        """The last frame that was not late."""
        self.late = 0
        """Number of late frames."""
        self.restarts = 0
        """Number of restarts."""

    def add(self, frame: Frame) -> str:
        """Compare a frame with the last one; it becomes the last one itself unless it is late.

        Returns:
            Why the stream restarts with this frame, or an empty string.
        """
        restart = _restart(self.last, frame) if self.last else ''
        if self.last and not restart and frame.stamp <= self.last.stamp:
            self.late += 1
        else:
            self.last = frame
        self.restarts += bool(restart)
        return restart


def _restart(last: Frame, frame: Frame) -> str:
    """Why a frame restarts its stream, or an empty string."""
    before, now = last.features, frame.features
    old_size, new_size = before.descriptors.shape[1], now.descriptors.shape[1]
    back = last.stamp - frame.stamp
    if last.publishers and frame.publishers - last.publishers:
        return 'the publisher changed'
    if before.checksum and before.checksum != now.checksum:
        return 'the model changed'
    if any(before.image_size) and before.image_size != now.image_size:
        return 'the image size changed from {}×{} to {}×{}'.format(*before.image_size, *now.image_size)
    if old_size != new_size:
        return f'the descriptor size changed from {old_size} to {new_size}'
    if back >= JUMP_BACK:
        return f'the clock jumped back by {back / 1e9:.1f} s'
    return ''


@dataclass(frozen=True, eq=False)
class Step:
    """Result for one frame.

    Args:
        tracks: one for each feature of the frame.
        match: returns the reference frame or the previous frame, and the matches of that frame (index 0) and this one
            (index 1); None for the first frame of a stream. Raises ValueError if the matcher refuses the features.
        restart: why tracks and matches start again with this frame; empty if they do not.
    """

    tracks: Tracks
    match: Callable[[], tuple[Frame, Matches] | None]
    restart: str


class StreamTracker:
    """Tracks the features of one camera, and matches each frame with the previous one or with a reference frame.

    Without a matcher, features of consecutive frames match if they belong to one track, and those of a reference
    frame match their nearest neighbors anywhere in the image.

    Args:
        match_config: for tracks. Its epipolar band is ignored, as it holds only between two cameras; with a matcher, so
            is min_similarity, which may be a probability: tracks then have the default.
        tracker_config: for tracks.
        matcher: makes the matches, but not the tracks.
    """

    def __init__(
        self,
        match_config: MatchConfig = MatchConfig(),
        tracker_config: TrackerConfig = TrackerConfig(),
        matcher: Matcher | None = None,
    ) -> None:
        self.matcher = matcher
        self.stream = Stream()
        self.reference: Frame | None = None
        """If set, each frame is matched with this one."""
        self._tracker = Tracker()
        self._last: tuple[Frame, Tracks] | None = None
        self.set_config(match_config, tracker_config)

    def set_config(self, match_config: MatchConfig, tracker_config: TrackerConfig) -> None:
        """Change the configuration from the next frame on."""
        similarity = MatchConfig.min_similarity if self.matcher else match_config.min_similarity
        self._tracker.match_config = replace(match_config, epipolar_band=0.0, min_similarity=similarity)
        self._tracker.config = tracker_config

    def reset(self) -> None:
        """Forget all frames, also the reference. Track identities continue."""
        self.stream.last = None
        self._forget()

    def update(self, frame: Frame) -> Step | None:
        """Process the next frame; returns None if it is late.

        Raises:
            ValueError: the features have no descriptors; then nothing changes.
        """
        check_comparable(frame.features, frame.features)
        reference, late = self.reference, self.stream.late  # a service may set the reference at any time
        restart = self.stream.add(frame)
        if self.stream.late > late:
            return None
        if restart:
            self._forget()
            reference = None
        last, tracks = self._last, self._tracker.update(frame.features)
        self._last = frame, tracks
        return Step(tracks, partial(self._match, reference, last, frame, tracks), restart)

    def _forget(self) -> None:
        self._tracker.reset()
        self._last = self.reference = None

    def _match(
        self, reference: Frame | None, last: tuple[Frame, Tracks] | None, frame: Frame, tracks: Tracks
    ) -> tuple[Frame, Matches] | None:
        first = reference or (last[0] if last else None)
        if first is None:
            return None
        if self.matcher:
            return first, self.matcher(first.features, frame.features)
        if last and first is last[0]:
            return first, continued(last[1], tracks, first.features, frame.features)
        anywhere = replace(self._tracker.match_config, window=0.0)
        return first, match(first.features, frame.features, anywhere)
