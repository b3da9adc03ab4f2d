"""Runs the work on many bags, here or on a cluster, and reports the results."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from rosbags.highlevel import AnyReader

from superpoint_ros import models
from superpoint_ros.bags import recover
from superpoint_ros.bags.export import write_hdf5, write_npz
from superpoint_ros.bags.job import Job, Output, Settings, names, plan
from superpoint_ros.bags.merge import write_bag
from superpoint_ros.bags.pipeline import extract
from superpoint_ros.bags.read import DamagedBagError
from superpoint_ros.bags.segments import Finished, read_summary
from superpoint_ros.extractor import Extractor

logger = logging.getLogger(__name__)

SHOWN = 10
"""Problems of each kind that are listed for a bag; the others are counted."""


class Work(NamedTuple):
    """A job and its finished segments."""

    job: Job
    finished: Finished


Extraction = Callable[[Sequence[Work], Callable[[int], None]], None]
"""Extracts the missing segments of jobs; calls a function with a number of images whenever some are done."""


class Outcome(NamedTuple):
    """The number of images with features in a bag, and a sentence for each problem."""

    frames: int
    problems: list[str]


def process_bags(
    bags: Sequence[Path],
    folder: Path,
    output: Output,
    settings: Settings,
    resume: bool = False,
    cluster: str | None = None,
    workers: int = 0,
) -> bool:
    """Extract the features of the images in bags. A bag that fails does not stop the others.

    Args:
        bags: ROS 1 bags, ROS 2 bag folders, or single .mcap and .db3 files.
        folder: for the results.
        output: what is written.
        settings: how features are extracted.
        resume: continue an earlier run; bags whose output exists are done.
        cluster: address of a Ray cluster; local for workers on this machine only; None for no cluster.
        workers: Ray workers, each with its own model; 0 for one on each GPU or, without any, on each machine.

    Returns:
        Whether every bag and every image was good.

    Raises:
        ValueError: an option is out of range, or two bags have the same name.
        FileNotFoundError: the model does not exist.
        ImportError: a library is missing; the message says how to install it.
    """
    if settings.batch < 0 or workers < 0:
        raise ValueError(f'batch {settings.batch}, workers {workers}: expected at least 0')
    if output.format == 'hdf5' and importlib.util.find_spec('h5py') is None:
        raise ImportError('--to hdf5 needs h5py: pip install superpoint_ros[hdf5]')
    models.resolve(settings.model)
    run: Extraction = partial(_extract_here, settings)
    if cluster is not None:
        from superpoint_ros.bags.cluster import extract_on_cluster

        run = partial(extract_on_cluster, settings, cluster, workers)
    folder.mkdir(parents=True, exist_ok=True)
    suffix = '.h5' if output.format == 'hdf5' else ''
    targets = {bag: folder.resolve() / f'{name}{suffix}' for bag, name in zip(bags, names(bags), strict=True)}
    works, outcomes = _plan(targets, settings, output.copy, resume)
    outcomes |= _execute(works, run, partial(_write, output))
    return _report(bags, outcomes)


def _plan(
    targets: dict[Path, Path], settings: Settings, copy: bool, resume: bool
) -> tuple[dict[Path, Work], dict[Path, Outcome]]:
    """The work on the bags, and the outcome of those that fail already; finished bags are in neither."""
    works: dict[Path, Work] = {}
    outcomes: dict[Path, Outcome] = {}
    with Console(stderr=True).status('') as status:
        for bag, target in targets.items():
            status.update(f'reading {bag}')
            try:
                if not target.exists():
                    job = plan(bag.absolute(), target, settings, copy, resume)
                    works[bag] = Work(job, Finished(job))
                elif not resume:
                    raise FileExistsError(f'{target} exists: skip it with --resume, or delete it')
            except (OSError, ValueError, DamagedBagError) as error:
                outcomes[bag] = Outcome(0, [str(error)])
    return works, outcomes


def _execute(works: dict[Path, Work], run: Extraction, write: Callable[[Work], Outcome]) -> dict[Path, Outcome]:
    """Extract features and write outputs at the same time."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, ThreadPoolExecutor(1) as pool:
        bar = progress.add_task('images', total=sum(work.job.frames for work in works.values()))
        for job, _ in works.values():
            done = [read_summary(job, index) for index in set(range(job.segments)) - set(job.missing())]
            progress.advance(bar, sum(summary.frames + len(summary.errors) for summary in done))
        futures = {bag: pool.submit(write, work) for bag, work in works.items()}
        try:
            run(list(works.values()), partial(progress.advance, bar))
        except BaseException as error:
            for work in works.values():
                work.finished.fail(error)
            raise
        return {bag: future.result() for bag, future in futures.items()}


def _extract_here(settings: Settings, works: Sequence[Work], advance: Callable[[int], None]) -> None:
    if not any(job.missing() for job, _ in works):
        return
    extractor = Extractor(settings.model, **settings.options)
    for job, finished in works:
        try:
            extract(job, job.missing(), extractor, finished.add, advance)
        except Exception as error:  # noqa: BLE001 - reported; does not concern the next bag
            finished.fail(error)


def _write(output: Output, work: Work) -> Outcome:
    """Write the output of a bag as segments come, and move it to its place."""
    job, finished = work
    target = job.scratch / 'output' / job.target.name
    try:
        skipped = _write_file(job, finished, target, output)
    except Exception as error:
        finished.fail(error)
        if not isinstance(error, (OSError, ValueError, DamagedBagError)):
            logger.error('%s', job.source, exc_info=error)
        return Outcome(0, [f'{str(error) or type(error).__name__}; finished segments are in {job.scratch}'])
    summaries = [read_summary(job, index) for index in range(job.segments)]
    frames = sum(summary.frames for summary in summaries)
    errors = [line for summary in summaries for line in summary.errors]
    damage = recover.damage_of(job.recovered)
    if not damage and frames + len(errors) != job.frames:
        damage = [f'the bag claims to have {job.frames} images; {frames + len(errors)} were found']
    target.replace(job.target)
    shutil.rmtree(job.scratch)
    return Outcome(frames, _shortened(damage) + skipped + _shortened(errors))


def _write_file(job: Job, finished: Finished, target: Path, output: Output) -> list[str]:
    """Write the output; returns a sentence for each thing that could not be copied or tracked."""
    write = {'hdf5': write_hdf5, 'npz': write_npz}.get(output.format)
    if write:
        _clear(target.parent)
        write(job, finished, target)
        return []

    def write_whole_bag(reader: AnyReader) -> list[str]:
        _clear(target.parent)
        return write_bag(job, finished, target, output, reader)

    return job.read(write_whole_bag)


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _shortened(lines: list[str]) -> list[str]:
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f'… and {len(lines) - SHOWN} more like these']


def _report(bags: Sequence[Path], outcomes: dict[Path, Outcome]) -> bool:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for bag in bags:
        if bag not in outcomes:
            console.print(f'{bag}: done before', markup=False)
            continue
        frames, problems = outcomes[bag]
        console.print(f'{bag}: features of {frames} images', markup=False)
        for problem in problems:
            console.print(f'  {problem}', markup=False, style='red')
    return not any(outcome.problems for outcome in outcomes.values())


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f'{task.speed:.1f}/s' if task.speed else '')
