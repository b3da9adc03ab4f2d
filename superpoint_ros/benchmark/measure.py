"""Times methods in turn and summarizes the times."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from superpoint_ros.benchmark.methods import (
    EXTRACTION,
    KEYPOINTS,
    REST,
    STAGES,
    Laps,
    Message,
    Method,
    Running,
    started,
)

TOTAL = 'total'
"""Sum of the stages of a repetition; for OpenCV's methods, of conversion and extraction."""

MIN_REPETITIONS = 3
"""Repetitions that run even if the time is up."""

Row = dict[str, Any]


def measure(
    methods: Sequence[Method], messages: Sequence[Message], repetitions: int, seconds: float
) -> tuple[list[Row], list[str]]:
    """Time methods on images of one size.

    They take turns, one repetition each, so that a machine that slows down affects all of them.

    The images are used in turn. When the seconds are over, no new repetition starts.

    Returns:
        A row for each method, and a sentence for each one that cannot run here. A method that is the same as an earlier
        one (automatic precision) is left out.
    """
    with ExitStack() as stack:
        running: dict[str, Running] = {}
        failed = []
        for method in methods:
            one = stack.enter_context(started(method, messages))
            if isinstance(one, Running):
                running.setdefault(one.name, one)
            else:
                failed.append(one)
        laps: dict[str, list[Laps]] = {name: [] for name in running}
        end = time.monotonic() + seconds
        for index in range(repetitions):
            if index >= MIN_REPETITIONS and time.monotonic() > end:
                break
            for name, one in running.items():
                laps[name].append(one.measure(index % len(messages)))
        facts = [
            {'about': one.about, 'start_seconds': one.start, 'peak_memory_mb': one.peak_memory()}
            for one in running.values()
        ]
    return [summarize(name, laps[name]) | own for name, own in zip(running, facts, strict=True)], failed


def summarize(name: str, laps: Sequence[Laps]) -> Row:
    """Median and 99th percentile of each stage in milliseconds, images per second, and the samples."""
    samples = {stage: [lap[stage] for lap in laps] for stage in (*STAGES, EXTRACTION, REST) if stage in laps[0]}
    samples[TOTAL] = np.sum([samples[stage] for stage in stages_of(samples)], axis=0).tolist()
    return {
        'method': name,
        'repetitions': len(laps),
        'milliseconds': {stage: spread(values) for stage, values in samples.items()},
        'images_per_second': 1000 / float(np.mean(samples[TOTAL])),
        'keypoints': float(np.median([lap[KEYPOINTS] for lap in laps])),
        'samples': samples,
    }


def stages_of(measured: dict[str, Any]) -> tuple[str, ...]:
    """The stages whose sum is TOTAL: those of a model, or those of one of OpenCV's methods."""
    return STAGES if 'network' in measured else ('convert', EXTRACTION)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {'median': float(np.median(values)), 'p99': float(np.percentile(values, 99))}
