"""Points followed over the frames of one camera, each with an identity of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from superpoint_ros.config import check, option
from superpoint_ros.features import Features, Floats, Matches
from superpoint_ros.geometry import transform_points
from superpoint_ros.matching import MatchConfig, match, verify

Ids = npt.NDArray[np.uint32]


MIN_SUPPORT = 12
"""Matches that must agree on how the image moved before it is believed."""


@dataclass(frozen=True)
class TrackerConfig:
    """How points are followed."""

    max_lost_frames: int = option(
        5,
        'Frames for which a point that is not seen is kept, to be picked up again.',
        minimum=0,
        maximum=1000,
        live=True,
    )
    prediction: str = option(
        'homography',
        'Around what the window of tracks is: where a homography between the images takes the point, or where it was.',
        choices=('homography', 'none'),
        live=True,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, eq=False)
class Tracks:
    """The tracks seen in one image, one for each of its features and in the same order.

    Args:
        ids: (N,) uint32, the same number for the same point in every image.
        ages: (N,) uint32, in how many images the point was seen; 1 when it is new.
        keypoints: (N, 2) float32, pixels.
        scores: (N,) float32.
    """

    ids: Ids
    ages: Ids
    keypoints: Floats
    scores: Floats

    def __len__(self) -> int:
        return len(self.ids)


class Tracker:
    """Gives the features of each image the identities that they had in the images before.

    A feature that matches one of the previous image's (matching.match, two-way) continues its track. What is left is
    matched with the points that were lost up to max_lost_frames ago, by the descriptors they had when last seen. What
    is left then starts new tracks. A number is given once; after 2³² − 1 come 0, 1, …, without those still in use.

    With a window, points are looked for near where they are expected. To know that, the images are matched without
    the window, and the homography that most matches agree on moves all points, the lost ones in every image again.
    That holds for a camera that turns or looks at something flat, and roughly for others: the window takes the
    rest. If fewer than MIN_SUPPORT matches agree on one, the image is searched without a window.

    Args:
        config: how points are followed.
        match_config: what makes two features a match; the defaults if not given.
        first_id: the number of the first track.
    """

    def __init__(
        self, config: TrackerConfig = TrackerConfig(), match_config: MatchConfig | None = None, first_id: int = 0
    ) -> None:
        self.config = config
        self.match_config = match_config or MatchConfig()
        self._next_id = first_id
        self._known: _Known | None = None

    def reset(self) -> None:
        """Forget every point; the numbers go on."""
        self._known = None

    def update(self, features: Features) -> Tracks:
        """The tracks of the next image.

        Raises:
            ValueError: the features have no descriptors, or not of the size of those before; nothing changes then.
        """
        known = _nothing(features) if self._known is None else self._known
        expected, match_config = self._expect(known, features)
        ids, ages = np.zeros(len(features), np.uint32), np.ones(len(features), np.uint32)
        new, missing = np.ones(len(features), bool), np.ones(len(known.ids), bool)
        for group in (known.lost == 0, known.lost > 0):
            rows, free = np.flatnonzero(group), np.flatnonzero(new)
            found = match(known.features[rows], features[free], match_config, expected[rows]).indices
            before, now = rows[found[:, 0]], free[found[:, 1]]
            ids[now], ages[now] = known.ids[before], known.ages[before] + 1
            new[now] = missing[before] = False
        ids[new] = self._take(int(new.sum()), known.ids)

        kept = missing & (known.lost < self.config.max_lost_frames)
        lost = replace(known.features, keypoints=expected)[kept]
        self._known = _Known(
            features=replace(
                features,
                keypoints=np.concatenate([features.keypoints, lost.keypoints]),
                scores=np.concatenate([features.scores, lost.scores]),
                descriptors=np.concatenate([features.descriptors, lost.descriptors]),
            ),
            ids=np.concatenate([ids, known.ids[kept]]),
            ages=np.concatenate([ages, known.ages[kept]]),
            lost=np.concatenate([np.zeros(len(features), np.int32), known.lost[kept] + 1]),
        )
        return Tracks(ids, ages, features.keypoints, features.scores)

    def _expect(self, known: _Known, features: Features) -> tuple[Floats, MatchConfig]:
        """Where in the new image the known points should be, and how they are to be matched."""
        positions = known.features.keypoints
        if not self.match_config.window or self.config.prediction == 'none':
            return positions, self.match_config
        anywhere = replace(self.match_config, window=0.0)
        seen = np.flatnonzero(known.lost == 0)
        indices0, indices1 = match(known.features[seen], features, anywhere).indices.T
        motion = verify(
            positions[seen[indices0]], features.keypoints[indices1], 'homography', self.match_config.window / 2
        )
        if motion.matrix is None or np.count_nonzero(motion.inliers) < MIN_SUPPORT:
            return positions, anywhere
        return transform_points(motion.matrix, positions).astype(np.float32), self.match_config

    def _take(self, count: int, in_use: Ids) -> Ids:
        candidates = (self._next_id + np.arange(count + len(in_use), dtype=np.int64)) % 2**32
        candidates = candidates[~np.isin(candidates, in_use)][:count]
        if count:
            self._next_id = int(candidates[-1]) + 1
        return candidates.astype(np.uint32)


@dataclass(frozen=True, eq=False)
class _Known:
    """Points and their tracks.

    Args:
        features: N of them, as last seen, but at the positions where they should be in the last image.
        ids: (N,) uint32.
        ages: (N,) uint32.
        lost: (N,) int32, in how many images up to the last one they were not seen.
    """

    features: Features
    ids: Ids
    ages: Ids
    lost: npt.NDArray[np.int32]


def _nothing(features: Features) -> _Known:
    none = np.empty(0, np.uint32)
    return _Known(features[:0], none, none, np.empty(0, np.int32))


def continued(tracks0: Tracks, tracks1: Tracks, features0: Features, features1: Features) -> Matches:
    """The matches that the tracks of two images say: the features that have the same identity in both.

    Args:
        tracks0: of the first image.
        tracks1: of the second image, by the same tracker.
        features0: what the tracks of the first image were made from.
        features1: the same of the second image.
    """
    _, index0, index1 = np.intersect1d(tracks0.ids, tracks1.ids, assume_unique=True, return_indices=True)
    order = np.argsort(index0)
    index0, index1 = index0[order], index1[order]
    similarities = np.einsum('md,md->m', features0.descriptors[index0], features1.descriptors[index1])
    return Matches(np.stack([index0, index1], axis=1).astype(np.uint32), similarities.astype(np.float32))
