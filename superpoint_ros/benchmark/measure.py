"""Times subjects in turn and sums the times up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from superpoint_ros.benchmark.subjects import (
    EXTRACTION,
    KEYPOINTS,
    REST,
    STAGES,
    Laps,
    Message,
    Running,
    Subject,
    started,
)

TOTAL = 'in all'
"""Sum of the stages, repetition by repetition; of OpenCV's methods, of the conversion and the extraction."""

LEAST = 3
"""Repetitions that are made however long they take."""

Row = dict[str, Any]


def measure(
    subjects: Sequence[Subject], messages: Sequence[Message], repetitions: int, seconds: float
) -> tuple[list[Row], list[str]]:
    """Time subjects on images of one size.

    They take turns, one repetition each, so that a machine that slows down slows all alike.

    Args:
        subjects: what to time.
        messages: the images, taken one after the other.
        repetitions: of each subject.
        seconds: after which no further repetition begins.

    Returns:
        a row for each subject, and a sentence for each that cannot run here. A subject that turns out to be the same
        as an earlier one (automatic precision) is left out.
    """
    with ExitStack() as stack:
        running: dict[str, Running] = {}
        failed = []
        for subject in subjects:
            one = stack.enter_context(started(subject, messages))
            if isinstance(one, Running):
                running.setdefault(one.ready.name, one)
            else:
                failed.append(one)
        laps: dict[str, list[Laps]] = {name: [] for name in running}
        end = time.monotonic() + seconds
        for index in range(repetitions):
            if index >= LEAST and time.monotonic() > end:
                break
            for name, one in running.items():
                laps[name].append(one.measure(index % len(messages)))
        rows = [summarize(name, laps[name]) | _facts(one) for name, one in running.items()]
    return rows, failed


def summarize(name: str, laps: Sequence[Laps]) -> Row:
    """Median and 99th percentile of each stage in milliseconds, images a second, and the samples."""
    samples = {stage: [lap[stage] for lap in laps] for stage in (*STAGES, EXTRACTION, REST) if stage in laps[0]}
    parts = STAGES if 'network' in samples else ('convert', EXTRACTION)
    samples[TOTAL] = np.sum([samples[part] for part in parts], axis=0).tolist()
    return {
        'method': name,
        'repetitions': len(laps),
        'milliseconds': {stage: spread(values) for stage, values in samples.items()},
        'images_per_second': 1000 / float(np.mean(samples[TOTAL])),
        'keypoints': float(np.median([lap[KEYPOINTS] for lap in laps])),
        'samples': samples,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {'median': float(np.median(values)), 'p99': float(np.percentile(values, 99))}


def _facts(one: Running) -> Row:
    return {'about': one.ready.about, 'start_seconds': one.ready.start, 'peak_memory_mb': one.peak_memory()}
