"""Parameters of the superpoint_detector node, for the node and the launch files."""

from __future__ import annotations

from dataclasses import dataclass

from superpoint_ros import models
from superpoint_ros.config import check, option
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import ExtractorConfig
from superpoint_ros.runtimes import RuntimeConfig


@dataclass(frozen=True)
class DetectorConfig:
    """Parameters of the detector node in addition to those of the extractor."""

    model: str = option(models.DEFAULT, 'Name of a shipped model, or path of a .safetensors or .onnx file.')
    cameras: tuple[str, ...] = option(
        (), 'Namespaces of the cameras: <camera>/image gives <camera>/features. If empty, image gives features.'
    )
    image_transport: str = option('raw', 'Subscribe to image, or to image/compressed.', choices=('raw', 'compressed'))
    mask: tuple[str, ...] = option(
        (), 'Mask files of the size of the images, 0 where keypoints are not allowed: one, or one for each camera.'
    )
    mask_topic: str = option(
        'none',
        'Subscribe to mask, a mono8 image with the stamp of each image, 0 where keypoints are not allowed. An image '
        'whose mask does not arrive in time is processed without it (optional) or dropped (required).',
        choices=('none', 'optional', 'required'),
    )
    mask_timeout: float = option(
        0.1, 'Longest time that an image waits for its mask.', unit='s', minimum=0.001, maximum=60
    )
    descriptor_type: str = option(
        'int8', 'Type of descriptor elements; int8 is round(127·d).', choices=('int8', 'float32')
    )
    qos_reliability: str = option(
        'auto',
        'Reliability of the image subscriptions; auto uses that of the publishers.',
        choices=('auto', 'reliable', 'best_effort'),
    )
    output_reliability: str = option(
        'reliable', 'Reliability of the feature publishers.', choices=('reliable', 'best_effort')
    )
    output_depth: int = option(5, 'Queue size of the feature publishers.', minimum=1, maximum=1000)
    autostart: bool = option(True, 'Configure and activate on startup; false leaves this to a lifecycle manager.')

    def __post_init__(self) -> None:
        check(self)


EXTRACTOR_CONFIGURATIONS = (ExtractorConfig, RuntimeConfig, DecodeConfig)
CONFIGURATIONS = (DetectorConfig, *EXTRACTOR_CONFIGURATIONS)
