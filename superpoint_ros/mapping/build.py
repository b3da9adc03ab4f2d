"""From images to COLMAP's database. Each step keeps what an earlier run finished, so a killed run continues."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from superpoint_ros import feature_files
from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Features
from superpoint_ros.files import written_whole
from superpoint_ros.mapping.cameras import MAX_ERROR, CameraConfig
from superpoint_ros.mapping.colmap import add_images, largest_size, match_pairs
from superpoint_ros.mapping.extract import extract, scale
from superpoint_ros.mapping.pairs import Pair
from superpoint_ros.matching import Matcher

CACHED = 128
"""Number of images whose features are kept in memory."""


class Built(NamedTuple):
    """A database of matched images."""

    path: Path
    names: list[str]
    pairs: list[Pair]
    features: Callable[[str], Features]
    """The features of an image, by name."""
    failed: list[str]
    """A sentence for each image that is not in the database."""
    max_error: float
    """Largest distance of a keypoint from the geometry, in pixels of the images."""


def build_database(
    folder: Path,
    names: Sequence[str],
    output: Path,
    extractor: Extractor,
    matcher: Matcher,
    choose_pairs: Callable[[Sequence[str]], list[Pair]],
    cameras: Mapping[str, CameraConfig],
    max_error: float = MAX_ERROR,
) -> Built:
    """Extract and match the features of images, and write OUTPUT/database.db and OUTPUT/features/NAME.npz.

    Until the database is complete it is called database.partial.db; more images go into a database that exists.

    Images are named by their paths below the folder, and cameras by folders below it, '' for all others. The function
    `choose_pairs` gives the pairs to match out of some names. The largest error is the distance of a match from the
    epipolar geometry, in pixels that the network sees of the largest images.
    """
    path, partial = output / 'database.db', output / 'database.partial.db'
    failed = extract(folder, names, output / 'features', extractor)

    @lru_cache(CACHED)
    def features(name: str) -> Features:
        return feature_files.read_npz(output / 'features' / f'{name}.npz')

    names = [name for name in names if name not in failed]
    if path.exists():
        path.replace(partial)
    failed |= add_images(partial, folder, names, features, cameras)
    names = [name for name in names if name not in failed]
    pairs = choose_pairs(names)
    limit = max_error / scale(largest_size(partial), extractor.config.resize)
    match_pairs(partial, features, pairs, matcher, limit)
    partial.replace(path)
    return Built(path, names, pairs, features, list(failed.values()), limit)


def check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a run to a file, or compare them with those of the run that wrote it.

    Raises:
        ValueError: the earlier run had other settings.
    """
    settings = json.loads(json.dumps(settings))
    if path.exists():
        known = json.loads(path.read_text(encoding='utf-8'))
        changed = [name for name in settings if settings[name] != known.get(name)]
        if changed:
            before = ', '.join(f'{name} {known.get(name)}' for name in changed)
            raise ValueError(f'{path.parent} has a map with {before}; use the same, or another --output')
    else:
        with written_whole(path) as partial:
            partial.write_text(json.dumps(settings), encoding='utf-8')
