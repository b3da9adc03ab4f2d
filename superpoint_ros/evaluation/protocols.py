"""Who measured how: the published protocols as named presets.

Figures of different authors are not comparable unless the protocol is the same, so every figure is printed with it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from superpoint_ros.evaluation.metrics import Frame


@dataclass(frozen=True)
class Setting:
    """How points are taken from an image, and what counts as correct.

    Args:
        size: (width, height) that images are brought to, keeping their aspect ratio, and cropped to at the center.
        keypoints: at most so many of an image are used, the best by score.
        nms_radius: of two points closer than this in x and in y, only the better stays, in pixels; 0 keeps all.
        nms_all: whether SIFT, ORB and AKAZE are thinned in the same way, or are left as OpenCV gives them.
        candidates: how many points are detected; more than `keypoints` only makes sense with `in_common`.
        in_common: drop the points outside the shared region before, not after, the best `keypoints` are taken.
        border: points closer than this to the image's edge are dropped, in pixels.
        threshold: least score of a learned detector's point.
        quality: least response of Harris and Shi-Tomasi, as a share of the image's strongest.
        whole_pixels: round points to whole pixels.
        frame: in which image repeatability is measured, see metrics.correspondence_distances.
        mutual: match only mutual nearest neighbors, or else the nearest neighbor of every point.
        epsilon: correctness distance of repeatability, localization error and matches, in pixels.
    """

    size: tuple[int, int]
    keypoints: int
    nms_radius: int
    nms_all: bool = False
    candidates: int = 0
    in_common: bool = False
    border: int = 4
    threshold: float = 0.001
    quality: float = 0.0
    whole_pixels: bool = False
    frame: Frame = 'each'
    mutual: bool = False
    epsilon: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, 'candidates', max(self.candidates, self.keypoints))

    def points(self) -> str:
        """In words: how points are taken from an image."""
        thinned = f'NMS {self.nms_radius} px' + ('' if self.nms_all else ' (not for SIFT, ORB and AKAZE)')
        whole = ', rounded to whole pixels' if self.whole_pixels else ''
        least = f'border {self.border} px; learned score > {self.threshold:g}'
        return f'at most {self.keypoints} points{whole}; {thinned}; {least}'

    def pair(self, matching: bool) -> str:
        """In words: how a pair of images is measured, with or without matching."""
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
    """A published way to measure on pairs of images with a known homography.

    Args:
        name: what it is called on the command line.
        source: whose it is.
        detection: the settings at which repeatability and localization error of detectors are measured.
        description: the setting at which everything that needs descriptors is measured.
    """

    name: str
    source: str
    detection: tuple[Setting, ...]
    description: Setting


_PAPER = Setting(size=(320, 240), keypoints=300, nms_radius=4)
_RPAUTRAT = Setting(
    size=(320, 240),
    keypoints=300,
    # Its NMS of 4 keeps boxes of side 4 that overlap by less than a tenth: nearest to it is our square of radius 3, and
    # of radius 5 for its NMS of 8.
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

VIEWS = dataclasses.replace(_PAPER, keypoints=1000, candidates=1000, threshold=0.005)
