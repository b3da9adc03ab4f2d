"""Matches and tracks of one camera's features, as the matcher node makes them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from superpoint_ros import clouds
from superpoint_ros.features import Features
from superpoint_ros.matching import MatchConfig
from superpoint_ros.tracking import Tracker, TrackerConfig, Tracks, continued

JUMP_BACK = 10**9
"""A stamp that is this much before the last one, in ns, means that time began anew; less means a late image."""


@dataclass(frozen=True)
class Following:
    """What is made of the features of consecutive images.

    Args:
        match: write matches.
        track: write tracks.
        match_config: what makes two features a match.
        tracker_config: how points are followed.
    """

    match: bool = False
    track: bool = False
    match_config: MatchConfig = field(default_factory=MatchConfig)
    tracker_config: TrackerConfig = field(default_factory=TrackerConfig)


@dataclass(frozen=True, eq=False)
class Step:
    """What the features of an image give, with those of the image before.

    Args:
        tracks: records of clouds.TRACK.
        matches: records of clouds.MATCH; None for the first image.
        first: the header of the image before.
    """

    tracks: npt.NDArray[np.void]
    matches: npt.NDArray[np.void] | None = None
    first: Any = None


class Follower:
    """Follows the features of one camera from image to image.

    Args:
        following: how.
    """

    def __init__(self, following: Following) -> None:
        # The band is for two cameras side by side, not for one that moves.
        self._tracker = Tracker(following.tracker_config, replace(following.match_config, epipolar_band=0.0))
        self._last: tuple[Any, Features, Tracks] | None = None
        self.late = 0
        """How many images were left out, because their stamp is not after that of the image before."""

    def reset(self) -> None:
        """Forget all images; the numbers of tracks go on."""
        self._tracker.reset()
        self._last = None

    def take(self, features: Features, header: Any) -> Step | None:
        """What the next features give; None if they are late.

        Raises:
            ValueError: the features have no descriptors.
        """
        if self._last and _nanoseconds(self._last[0]) - _nanoseconds(header) >= JUMP_BACK:
            self.reset()
        if self._last and _nanoseconds(self._last[0]) >= _nanoseconds(header):
            self.late += 1
            return None
        last, tracks = self._last, self._tracker.update(features)
        self._last = header, features, tracks
        cloud = clouds.encode_tracks(tracks.ids, tracks.ages, tracks.keypoints, tracks.scores)
        if last is None:
            return Step(cloud)
        first, before, tracks_before = last
        matches = continued(tracks_before, tracks, before, features)
        return Step(cloud, clouds.encode_matches(before, features, matches), first)


def _nanoseconds(header: Any) -> int:
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)
