"""Which matches and tracks are written beside the features."""

from __future__ import annotations

from dataclasses import dataclass, field

from superpoint_ros.matching import MatchConfig
from superpoint_ros.tracking import TrackerConfig


@dataclass(frozen=True)
class Following:
    """Matches and tracks of consecutive images.

    Args:
        match: write matches.
        track: write tracks.
        match_config: what makes two features a match.
        tracker_config: how points are tracked.
    """

    match: bool = False
    track: bool = False
    match_config: MatchConfig = field(default_factory=MatchConfig)
    tracker_config: TrackerConfig = field(default_factory=TrackerConfig)
