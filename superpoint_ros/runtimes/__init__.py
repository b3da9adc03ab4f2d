"""Back ends: each runs a network on a device and decodes what it gives.

The table is explicit, a back end's libraries are imported when it is chosen, and nothing falls back silently.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from superpoint_ros.config import check, option
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.features import Floats
from superpoint_ros.models import Model

BACKENDS = ('auto', 'openvino', 'torch')
PRECISIONS = ('auto', 'fp32', 'bf16', 'fp16')


@dataclass(frozen=True)
class RuntimeConfig:
    """Which back end runs the network, and how."""

    backend: str = option('auto', 'Library that runs the network; auto takes a CUDA GPU if torch sees one, else OpenVINO.', choices=BACKENDS)
    device: str = option('', 'Device as the back end names it (cuda:0, cpu, GPU); empty for its own choice.')
    precision: str = option('auto', 'Arithmetic of the convolutions.', choices=PRECISIONS)
    threads: int = option(0, 'CPU threads for the network; 0 for all cores.', minimum=0)

    def __post_init__(self) -> None:
        check(self)


class Decoded(NamedTuple):
    """Keypoints of one image in the pixels of the network's input, best first; shapes and dtypes as in Features."""

    keypoints: Floats
    scores: Floats
    descriptors: Floats


class Runtime(Protocol):
    """A network on a device."""

    name: str
    """The back end: openvino, torch, …"""
    device: str
    """What runs it, for people: 'AMD EPYC', 'NVIDIA H200', …"""
    precision: str
    """What is really used: fp32, bf16, fp16."""
    descriptor_size: int
    checksum: str
    """SHA-256 of the model file that it loaded."""

    def __call__(self, images: npt.NDArray[np.uint8], sizes: list[tuple[int, int]], config: DecodeConfig) -> list[Decoded]:
        """Run and decode a batch.

        Args:
            images: (B, H, W) uint8 grey, H and W multiples of 8.
            sizes: (width, height) of the part of each image, at its top left, that is picture and not padding.
            config: how to decode.
        """
        ...
