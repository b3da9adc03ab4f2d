"""Times matchers on random features; their time depends on the number of keypoints alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from superpoint_ros.benchmark.measure import spread
from superpoint_ros.features import Features
from superpoint_ros.learned_matching import NEAREST, LearnedMatcher, make_matcher
from superpoint_ros.matching import MatchConfig, Matcher
from superpoint_ros.reports import table
from superpoint_ros.runtimes import RuntimeConfig

COUNTS = (512, 1024)
"""Keypoints of each image."""

Row = dict[str, Any]


def measure_matchers(names: Sequence[str], repetitions: int, threads: int) -> list[Row]:
    """Time nearest neighbors and learned matchers; they take turns.

    Args:
        names: of learned matchers, as LearnedMatcher takes them.
        repetitions: of each matcher, after one that compiles its network.
        threads: CPU threads of learned matchers; 0 for the back end's default.

    Returns:
        A row for each number of keypoints and matcher: keypoints, matcher, milliseconds.
    """
    runtime = RuntimeConfig(threads=threads)
    matchers = [make_matcher(name, MatchConfig(), runtime) for name in (NEAREST, *names)]
    size = next((m.runtime.config.descriptor_size for m in matchers if isinstance(m, LearnedMatcher)), 128)
    rows = []
    for count in COUNTS:
        samples: list[list[float]] = [[] for _ in matchers]
        for _ in range(repetitions + 1):
            for matcher, laps in zip(matchers, samples, strict=True):
                own = matcher.runtime.config.descriptor_size if isinstance(matcher, LearnedMatcher) else size
                features = _features(count, own, 0), _features(count, own, 1)
                start = time.perf_counter()
                matcher(*features)
                laps.append(1000 * (time.perf_counter() - start))
        rows += [
            {'keypoints': count, 'matcher': _describe(matcher, size), 'milliseconds': spread(laps[1:])}
            for matcher, laps in zip(matchers, samples, strict=True)
        ]
    return rows


def matching_section(rows: Sequence[Row]) -> list[str]:
    """The measurements of matchers: one in each row, median (99th percentile)."""
    lines = []
    for name in dict.fromkeys(row['matcher'] for row in rows):
        times = [row['milliseconds'] for row in rows if row['matcher'] == name]
        lines.append([name, *(f'{one["median"]:.1f} ({one["p99"]:.1f})' for one in times)])
    return ['## Matching', table(['ms', *(f'{count} × {count} keypoints' for count in COUNTS)], lines)]


def _describe(matcher: Matcher, size: int) -> str:
    if not isinstance(matcher, LearnedMatcher):
        return f'nearest neighbors, {size} elements'
    return f'{matcher.model.name}, {matcher.runtime.name} {matcher.runtime.network.precision}'


def _features(count: int, size: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, size)).astype(np.float32)
    return Features(
        rng.uniform(0, 480, (count, 2)).astype(np.float32),
        np.linspace(1, 0.1, count, dtype=np.float32),
        descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        (640, 480),
    )
