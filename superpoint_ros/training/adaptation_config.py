"""Configuration of homographic adaptation, without torch, so that `superpoint label --help` answers everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from superpoint_ros.config import check, option


@dataclass(frozen=True)
class AdaptationConfig:
    """How photographs are labeled."""

    views: int = option(100, 'Homographies per photograph, the identity among them.', minimum=1)
    size: int = option(320, 'Longest side at which photographs are seen; larger ones shrink.', unit='px', minimum=16)
    threshold: float = option(0.015, 'Keypoints have a mean score above this.', minimum=0, maximum=1)
    max_keypoints: int = option(600, 'At most this many keypoints per photograph, the best.', minimum=1)
    nms_radius: int = option(4, 'No two keypoints are nearer than this in both x and y.', unit='px', minimum=0)
    batch_size: int = option(16, 'Views in one run of the network.', minimum=1)
    seed: int = option(0, 'Picks the homographies, together with the name of the photograph.', minimum=0)

    def __post_init__(self) -> None:
        check(self)
