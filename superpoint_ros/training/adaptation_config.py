"""Configuration of homographic adaptation, without torch, so that `superpoint label --help` answers everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from superpoint_ros.config import check, option


@dataclass(frozen=True)
class AdaptationConfig:
    """How photographs are labeled."""

    views: int = option(100, 'Homographies per photograph, including the identity.', minimum=1)
    size: int = option(320, 'Longest side of the photographs; larger ones are shrunk.', unit='px', minimum=16)
    threshold: float = option(0.015, 'Keypoints have mean scores above this.', minimum=0, maximum=1)
    max_keypoints: int = option(600, 'Largest number of keypoints per photograph; the best are kept.', minimum=1)
    nms_radius: int = option(4, 'No two keypoints are nearer than this in both x and y.', unit='px', minimum=0)
    batch_size: int = option(16, 'Views that the network processes at once.', minimum=1)
    seed: int = option(0, 'Seed of the homographies, together with the name of the photograph.', minimum=0)

    def __post_init__(self) -> None:
        check(self)
