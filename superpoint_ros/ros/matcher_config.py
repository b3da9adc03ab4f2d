"""Parameters of the superpoint_matcher node, for the node and the launch files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from superpoint_ros.config import check, option
from superpoint_ros.matching import GEOMETRIES, MatchConfig
from superpoint_ros.runtimes import TABLE
from superpoint_ros.tracking import TrackerConfig


@dataclass(frozen=True)
class MatcherConfig:
    """Parameters of the matcher node in addition to those of matching and tracking."""

    cameras: tuple[str, ...] = option(
        (),
        'Cameras to track: <camera>/features gives <camera>/matches and <camera>/tracks. If cameras and pairs are '
        'empty, one camera without a namespace.',
    )
    pairs: tuple[str, ...] = option(
        (),
        'Pairs of cameras to match, as first:second. <first>/features and <second>/features give matches, or '
        '<first>/<second>/matches if there are several pairs.',
    )
    matcher: str = option(
        'nearest',
        'Nearest neighbors (nearest), the learned matcher of the default model (learned), or the name '
        '(lightglue_superpoint) or path of another learned matcher. Tracks always use nearest neighbors; with a '
        'learned matcher, they use the default min_similarity.',
    )
    backend: str = option(
        'auto',
        'Library that runs a learned matcher; auto is torch if it finds a CUDA GPU, else OpenVINO.',
        choices=('auto', *TABLE),
    )
    device: str = option('', 'Device of a learned matcher, as the back end names it; empty for its default.')
    threads: int = option(0, "CPU threads of a learned matcher; 0 for the back end's default.", minimum=0, maximum=1024)
    sync_tolerance: float = option(
        0.0, 'Largest difference between the stamps of a pair; 0 for equal stamps.', unit='s', minimum=0.0, maximum=10.0
    )
    max_disparity: float = option(
        0.0,
        'Largest |dx| and |dy| between the images of a pair, for which window does not apply; 0 for no limit.',
        unit='px',
        minimum=0.0,
        live=True,
    )
    geometry: str = option(
        'none',
        'Publish only matches that agree on one geometry; essential needs camera_info. Tracks are not filtered.',
        choices=('none', *GEOMETRIES),
    )
    geometry_threshold: float = option(
        2.0, 'Largest distance of a match from the geometry.', unit='px', minimum=0.01, maximum=100.0, live=True
    )
    rectified: bool = option(False, 'Whether the images are rectified; then the distortion in camera_info is ignored.')
    image_transport: str = option(
        'raw', 'Images for matches/image: image, or image/compressed.', choices=('raw', 'compressed')
    )
    qos_reliability: str = option(
        'auto',
        'Reliability of the feature subscriptions; auto uses that of the publishers.',
        choices=('auto', 'reliable', 'best_effort'),
    )
    depth: int = option(
        10,
        'Number of frames of each camera that may wait for processing or for their pair; then the oldest is dropped.',
        minimum=1,
        maximum=1000,
    )
    max_points: int = option(
        4096,
        'Largest number of points in a cloud of features; more are refused. Memory and time grow with its square.',
        minimum=1,
        maximum=100_000,
        live=True,
    )
    autostart: bool = option(True, 'Configure and activate on startup; false leaves this to a lifecycle manager.')

    def __post_init__(self) -> None:
        check(self)


class Configs(NamedTuple):
    """The configurations in the parameters of the node."""

    node: MatcherConfig = MatcherConfig()
    match: MatchConfig = MatchConfig()
    tracker: TrackerConfig = TrackerConfig()


CONFIGURATIONS = (MatcherConfig, MatchConfig, TrackerConfig)
