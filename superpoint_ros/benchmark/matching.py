"""Times matchers on random features; their time depends on the number of keypoints alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from superpoint_ros.benchmark.measure import Row, spread
from superpoint_ros.benchmark.methods import timed
from superpoint_ros.features import Features
from superpoint_ros.learned_matching import LearnedMatcher
from superpoint_ros.matching import Matcher, match
from superpoint_ros.reports import table

COUNTS = (512, 1024)
"""Keypoints of each image."""


def measure_matchers(names: Sequence[str], repetitions: int, threads: int) -> list[Row]:
    """Time nearest neighbors and learned matchers, which take turns; each runs once before, to compile its network.

    Returns:
        A row for each number of keypoints and matcher: keypoints, matcher, milliseconds.
    """
    learned = [LearnedMatcher(name, threads=threads) for name in names]
    size = learned[0].runtime.config.descriptor_size if learned else 128
    matchers: list[tuple[str, Matcher, int]] = [(f'nearest neighbors, {size} elements', match, size)]
    for one in learned:
        label = f'{one.model.name}, {one.runtime.name} {one.runtime.network.precision}'
        matchers.append((label, one, one.runtime.config.descriptor_size))
    rows = []
    for count in COUNTS:
        samples: list[list[float]] = [[] for _ in matchers]
        for _ in range(repetitions + 1):
            for (_, matcher, elements), laps in zip(matchers, samples, strict=True):
                _, milliseconds = timed(matcher, _features(count, elements, 0), _features(count, elements, 1))
                laps.append(milliseconds)
        rows += [
            {'keypoints': count, 'matcher': label, 'milliseconds': spread(laps[1:])}
            for (label, _, _), laps in zip(matchers, samples, strict=True)
        ]
    return rows


def matching_section(rows: Sequence[Row]) -> list[str]:
    """The measurements of matchers: one in each row, median (99th percentile)."""
    lines = []
    for name in dict.fromkeys(row['matcher'] for row in rows):
        times = [row['milliseconds'] for row in rows if row['matcher'] == name]
        lines.append([name, *(f'{one["median"]:.1f} ({one["p99"]:.1f})' for one in times)])
    return ['## Matching', table(['ms', *(f'{count} × {count} keypoints' for count in COUNTS)], lines)]


def _features(count: int, size: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, size)).astype(np.float32)
    return Features(
        rng.uniform(0, 480, (count, 2)).astype(np.float32),
        np.linspace(1, 0.1, count, dtype=np.float32),
        descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        (640, 480),
    )
