"""Tracks: points with identities over the frames of one camera."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from superpoint_ros.config import check, option
from superpoint_ros.features import Features, Floats, Matches, joined
from superpoint_ros.geometry import transform_points
from superpoint_ros.matching import MatchConfig, match, verify

Ids = npt.NDArray[np.uint32]

MIN_SUPPORT = 12
"""Smallest number of inliers of a homography that predicts positions."""


@dataclass(frozen=True)
class TrackerConfig:
    """How tracks continue."""

    max_lost_frames: int = option(
        5,
        'Number of frames for which a point that is not found is kept, so that its track can continue.',
        minimum=0,
        maximum=1000,
        live=True,
    )
    prediction: str = option(
        'homography',
        'Center of the search window: position predicted by a homography between the images, or last position (none).',
        choices=('homography', 'none'),
        live=True,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, eq=False)
class Tracks:
    """Tracks of one image, one for each of its features and in the same order.

    Args:
        ids: (N,) uint32, identity of the point, the same in every image.
        ages: (N,) uint32, number of images in which the point was found; 1 for a new point.
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
    """Gives the features of each image the identities of the same points in earlier images.

    A feature that matches a feature of the previous image (matching.match) continues its track. The remaining features
    are matched with points lost for up to max_lost_frames frames, by the descriptors from when they were last found.
    The rest start new tracks. Identities are counted up; after 2³² − 1 they start again at 0, without those in use.

    With a window, points are searched near their predicted positions. For the prediction, the images are first matched
    without the window, and the homography that most matches agree on moves all points, lost points in every image. It
    is exact for a camera that rotates or looks at a plane; for others the window covers the rest. With fewer than
    MIN_SUPPORT inliers, the image is searched without a window.
    """

    def __init__(self, config: TrackerConfig = TrackerConfig(), match_config: MatchConfig = MatchConfig()) -> None:
        self.config = config
        self.match_config = match_config
        self._next_id = 0
        self._known: _Known | None = None

    def reset(self) -> None:
        """Forget all points. Identities continue."""
        self._known = None

    def update(self, features: Features) -> Tracks:
        """The tracks of the next image.

        Raises:
            ValueError: the features have no descriptors, or descriptors of another size or model than before; then
                nothing changes.
        """
        none = np.empty(0, np.uint32)
        known = self._known or _Known(features[:0], none, none, np.empty(0, np.int32))
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
            features=joined([features, lost]),
            ids=np.concatenate([ids, known.ids[kept]]),
            ages=np.concatenate([ages, known.ages[kept]]),
            lost=np.concatenate([np.zeros(len(features), np.int32), known.lost[kept] + 1]),
        )
        return Tracks(ids, ages, features.keypoints, features.scores)

    def _expect(self, known: _Known, features: Features) -> tuple[Floats, MatchConfig]:
        """Predicted positions of the known points in the new image, and the conditions to match them."""
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
    """Points that can be found in the next image.

    Args:
        features: N features as last found, at their predicted positions in the last image.
        ids: (N,) uint32.
        ages: (N,) uint32.
        lost: (N,) int32, number of images since they were last found.
    """

    features: Features
    ids: Ids
    ages: Ids
    lost: npt.NDArray[np.int32]


def continued(tracks0: Tracks, tracks1: Tracks, features0: Features, features1: Features) -> Matches:
    """Matches of the features of two images that have the same identity; the tracks are from one tracker."""
    _, index0, index1 = np.intersect1d(tracks0.ids, tracks1.ids, assume_unique=True, return_indices=True)
    order = np.argsort(index0)
    index0, index1 = index0[order], index1[order]
    similarities = np.einsum('md,md->m', features0.descriptors[index0], features1.descriptors[index1])
    return Matches(np.stack([index0, index1], axis=1).astype(np.uint32), similarities.astype(np.float32))
