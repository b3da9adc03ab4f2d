"""The parameters of the node superpoint_detector; apart from the node, so that launch files can list them."""

from __future__ import annotations

from dataclasses import dataclass

from superpoint_ros import models
from superpoint_ros.config import check, option
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import ExtractorConfig
from superpoint_ros.ros.subscription import RELIABILITIES
from superpoint_ros.runtimes import RuntimeConfig


@dataclass(frozen=True)
class DetectorConfig:
    """What the detector node does beside extracting features."""

    model: str = option(models.DEFAULT, 'Name of a shipped model, or path of a .safetensors or .onnx file.')
    cameras: tuple[str, ...] = option(
        (), 'Namespaces of the cameras: each <camera>/image gives <camera>/features; empty for just image and features.'
    )
    image_transport: str = option('raw', 'Subscribe to image, or to image/compressed.', choices=('raw', 'compressed'))
    mask: tuple[str, ...] = option(
        (), 'Gray pictures of the size of the images, 0 where no keypoint may be: one for all cameras, or one for each.'
    )
    descriptor_type: str = option(
        'int8', 'How descriptors are sent: int8 is round(127·d).', choices=('int8', 'float32')
    )
    qos_reliability: str = option(
        'auto',
        'Reliability of the image subscriptions; auto takes what the publishers offer.',
        choices=RELIABILITIES,
    )
    output_reliability: str = option(
        'reliable', 'Reliability that the feature publishers offer.', choices=('reliable', 'best_effort')
    )
    output_depth: int = option(5, 'Messages kept for slow readers of the features.', minimum=1, maximum=1000)
    autostart: bool = option(True, 'Configure and activate at the start; false leaves it to a lifecycle manager.')

    def __post_init__(self) -> None:
        check(self)


EXTRACTOR_CONFIGURATIONS = (ExtractorConfig, RuntimeConfig, DecodeConfig)
CONFIGURATIONS = (DetectorConfig, *EXTRACTOR_CONFIGURATIONS)
