"""The published protocols as named presets.

Figures of different authors are only comparable under the same protocol, so every report names it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from superpoint_ros.evaluation.metrics import Frame


@dataclass(frozen=True)
class Setting:
    """How points are taken from an image, and what counts as correct."""

    size: tuple[int, int]
    """(width, height) to which images are resized with their aspect ratio kept, and cropped at the center."""
    keypoints: int
    """Largest number of keypoints of an image, the best by score."""
    nms_radius: int
    """No two keypoints are nearer than this in both x and y, in pixels; 0 keeps all."""
    nms_all: bool = False
    """Non-maximum suppression also for SIFT, ORB and AKAZE."""
    candidates: int = 0
    """Number of keypoints that are detected; more than `keypoints` only matters with `in_common`."""
    in_common: bool = False
    """Drop keypoints outside the shared region before, not after, the best `keypoints` are taken."""
    border: int = 4
    """No keypoints nearer than this to the edge of the image, in pixels."""
    threshold: float = 0.001
    """Smallest score of a model's keypoint."""
    quality: float = 0.0
    """Smallest response of Harris and Shi-Tomasi, relative to the strongest in the image."""
    whole_pixels: bool = False
    """Round keypoints to whole pixels."""
    frame: Frame = 'each'
    """Image in which repeatability is measured, see metrics.correspondence_distances."""
    mutual: bool = False
    """Match only mutual nearest neighbors, else the nearest neighbor of every keypoint."""
    epsilon: float = 3.0
    """Correctness distance of repeatability, localization error and matches, in pixels."""

    def __post_init__(self) -> None:
        object.__setattr__(self, 'candidates', max(self.candidates, self.keypoints))

    def points(self) -> str:
        """How points are taken from an image, in words."""
        thinned = f'NMS {self.nms_radius} px' + ('' if self.nms_all else ' (not for SIFT, ORB and AKAZE)')
        whole = ', rounded to whole pixels' if self.whole_pixels else ''
        least = f'border {self.border} px; learned score > {self.threshold:g}'
        return f'at most {self.keypoints} points{whole}; {thinned}; {least}'

    def pair(self, matching: bool) -> str:
        """How a pair of images is measured, with or without matching, in words."""
        when = 'before' if self.in_common else 'after'
        neighbors = 'mutual nearest neighbors' if self.mutual else 'nearest neighbors of all points'
        return '; '.join(
            [
                f'images {self.size[0]}×{self.size[1]}, aspect ratio kept, cropped at the center',
                self.points(),
                f'points outside the shared region dropped {when} the best are taken',
                f'correct within {self.epsilon:g} px',
                f'repeatability measured in {"the second" if self.frame == "second" else "each"} image',
                *([neighbors, 'homographies by RANSAC and by MAGSAC++, 3 px'] if matching else []),
            ]
        )


@dataclass(frozen=True)
class Protocol:
    """A published way to measure on pairs of images with a known homography."""

    name: str
    source: str
    """Publication."""
    detection: tuple[Setting, ...]
    """For repeatability and localization error of detectors."""
    description: Setting
    """For everything that needs descriptors."""


_PAPER = Setting(size=(320, 240), keypoints=300, nms_radius=4)
_RPAUTRAT = Setting(
    size=(320, 240),
    keypoints=300,
    # Its NMS of 4 keeps boxes of side 4 that overlap by less than a tenth: our square of radius 3 is nearest to it, and
    # radius 5 to its NMS of 8.
    nms_radius=3,
    nms_all=True,
    candidates=1000,
    in_common=True,
    whole_pixels=True,
    frame='second',
    mutual=True,
)

PROTOCOLS = {
    'paper': Protocol(
        'paper',
        'DeTone et al., arXiv 1712.07629v4, tables 3 and 4',
        (_PAPER, dataclasses.replace(_PAPER, nms_radius=8)),
        dataclasses.replace(_PAPER, size=(640, 480), keypoints=1000, candidates=1000),
    ),
    'rpautrat': Protocol(
        'rpautrat',
        'the README and evaluation code of github.com/rpautrat/SuperPoint',
        (_RPAUTRAT,),
        dataclasses.replace(_RPAUTRAT, size=(640, 480), keypoints=1000, candidates=1500, nms_radius=5),
    ),
}

SYNTHETIC = Setting(size=(160, 120), keypoints=300, nms_radius=4, border=0, quality=0.01, epsilon=2.0)

VIEWS = dataclasses.replace(_PAPER, keypoints=1000, candidates=3000, in_common=True, threshold=0.0)
"""Turned and shrunk photographs; up to half of a turned view lies beyond the edges of the photograph. All models have
as many points, however they scale their scores."""
