"""The parameters of the node superpoint_matcher; needs no ROS, so that launch files can list them."""

from __future__ import annotations

from dataclasses import dataclass

from superpoint_ros.config import check, option
from superpoint_ros.matching import GEOMETRIES, MatchConfig
from superpoint_ros.tracking import TrackerConfig


@dataclass(frozen=True)
class MatcherConfig:
    """What the matcher node does beside matching and tracking."""

    cameras: tuple[str, ...] = option(
        (),
        'Cameras to follow in time: <camera>/features gives <camera>/matches and <camera>/tracks; empty, and no pairs, '
        'is one camera without a namespace.',
    )
    pairs: tuple[str, ...] = option(
        (),
        'Pairs of cameras, as first:second. <first>/features and <second>/features give matches if there is one pair, '
        '<first>/<second>/matches if there are several.',
    )
    sync_tolerance: float = option(
        0.0, 'Largest difference of the stamps of a pair; 0 pairs equal stamps.', unit='s', minimum=0.0, maximum=10.0
    )
    max_disparity: float = option(
        0.0,
        'Largest |dx| and |dy| between the two images of a pair; 0 is no limit. The window is for a camera in time.',
        unit='px',
        minimum=0.0,
        live=True,
    )
    geometry: str = option(
        'none',
        'Publish only matches that agree on one geometry; essential needs camera_info. Tracks are not concerned.',
        choices=('none', *GEOMETRIES),
    )
    geometry_threshold: float = option(
        2.0, 'How far a match may be from the geometry.', unit='px', minimum=0.01, maximum=100.0, live=True
    )
    rectified: bool = option(False, 'Whether the images are rectified: then camera_info is used without distortion.')
    image_transport: str = option(
        'raw', 'Images for the annotated matches: image, or image/compressed.', choices=('raw', 'compressed')
    )
    qos_reliability: str = option(
        'auto',
        'Reliability of the feature subscriptions; auto takes what the publishers offer.',
        choices=('auto', 'reliable', 'best_effort'),
    )
    depth: int = option(
        10,
        'Frames of each camera that may wait to be processed, or for their partner; then the oldest is dropped.',
        minimum=1,
        maximum=1000,
    )
    autostart: bool = option(True, 'Configure and activate at the start; false leaves it to a lifecycle manager.')

    def __post_init__(self) -> None:
        check(self)


CONFIGURATIONS = (MatcherConfig, MatchConfig, TrackerConfig)
