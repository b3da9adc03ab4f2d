"""Processes many bags, here or on a cluster, and reports the results."""

from __future__ import annotations

import importlib.util
import logging
import resource
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from rosbags.highlevel import AnyReader

from superpoint_ros import models
from superpoint_ros.bags import recover
from superpoint_ros.bags.job import Job, Output, Settings, names, plan
from superpoint_ros.bags.merge import write_bag
from superpoint_ros.bags.pipeline import extract
from superpoint_ros.bags.read import DamagedBagError
from superpoint_ros.bags.report import Outcome, printable, report, shortened
from superpoint_ros.bags.scratch import claim, discard, read_outcome, resumable, scratch_of, write_outcome
from superpoint_ros.bags.segments import Finished, read_summary, write_hdf5, write_npz
from superpoint_ros.extractor import Extractor
from superpoint_ros.files import move

logger = logging.getLogger(__name__)


class Work(NamedTuple):
    """The work on a bag and its finished segments."""

    bag: Path
    job: Job
    finished: Finished


Extraction = Callable[[Sequence[Work], Callable[[int], None]], None]
"""Extracts the missing segments of jobs, and calls a function with the number of newly completed images."""


def process_bags(
    bags: Sequence[Path],
    folder: Path,
    output: Output,
    settings: Settings,
    resume: bool = False,
    cluster: str | None = None,
    workers: int = 0,
) -> bool:
    """Do the work of `superpoint bag`, which has the same arguments; the results go to `folder`.

    Returns:
        Whether every bag and every image was good.

    Raises:
        ValueError: an option is out of range, or two bags have the same name.
        FileNotFoundError: the model does not exist.
        ImportError: a library is missing; the message says how to install it.
    """
    if settings.batch < 0 or workers < 0:
        raise ValueError(f'batch {settings.batch}, workers {workers}: expected at least 0')
    if workers and cluster is None:
        raise ValueError('--workers is the number of workers of a cluster: add --cluster')
    if output.format == 'hdf5' and importlib.util.find_spec('h5py') is None:
        raise ImportError('--to hdf5 needs h5py: pip install superpoint_ros[hdf5]')
    models.resolve(settings.model)
    run: Extraction = partial(_extract_here, settings)
    if cluster is not None:
        from superpoint_ros.bags.cluster import extract_on_cluster

        run = partial(extract_on_cluster, settings, cluster, workers)
    suffix = '.h5' if output.format == 'hdf5' else ''
    targets = {bag: folder.resolve() / f'{name}{suffix}' for bag, name in zip(bags, names(bags), strict=True)}
    for bag, target in targets.items():
        if bag.resolve() in (target, *target.parents):
            raise ValueError(f'{target} is, or is in, the bag itself: choose another --output')
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    _allow_open_files(len(bags))
    with ExitStack() as locks:
        begun = [_begin(bag, target, settings, output.copy, resume, locks, console) for bag, target in targets.items()]
        works = [work for work in begun if isinstance(work, Work)]
        good = _execute(works, run, partial(_finish, output, console), console)
    bad = begun.count(False) + good.count(False)
    if bad and len(bags) > 1:
        console.print(f'{bad} of {len(bags)} bags have problems, listed above')
    return not bad


def _allow_open_files(bags: int) -> None:
    """Raise the limit of open files: each bag has a lock file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < bags + 1000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (bags + 1000 if hard < 0 else min(bags + 1000, hard), hard))


def _begin(
    bag: Path, target: Path, settings: Settings, copy: bool, resume: bool, locks: ExitStack, console: Console
) -> Work | bool:
    """Plan the work on a bag. If there is nothing to do, report why, and return whether there is no problem."""
    outcome, claimed = None, False
    try:
        if target.exists() and not resume:
            raise FileExistsError(f'{target} exists: skip it with --resume, or choose another --output')
        if not target.exists() or scratch_of(target).exists():
            locks.enter_context(claim(target, resume))
            claimed = True
            outcome = read_outcome(target)
        if not target.exists():
            with console.status(Text(f'reading {printable(str(bag))}')):
                job = plan(bag.absolute(), target, settings, copy)
            return Work(bag, job, Finished(job))
    except (OSError, ValueError, DamagedBagError) as error:
        outcome = Outcome(0, str(error).splitlines())
    finally:
        if claimed and not target.exists() and not resumable(target):
            discard(target)
    report(console, bag, outcome)
    if claimed and target.exists():
        discard(target)
    return not (outcome and outcome.problems)


def _execute(works: Sequence[Work], run: Extraction, finish: Callable[[Work], bool], console: Console) -> list[bool]:
    """Extract features and write outputs at the same time; returns the results of `finish`."""
    if not works:
        return []
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(1) as pool:
        bar = progress.add_task('images', total=sum(work.job.frames for work in works))
        for work in works:
            done = [read_summary(work.job, index) for index in set(range(work.job.segments)) - set(work.job.missing())]
            progress.advance(bar, sum(summary.frames + summary.bad for summary in done))
        futures = [pool.submit(finish, work) for work in works]
        try:
            run(works, partial(progress.advance, bar))
        except BaseException as error:
            for work in works:
                work.finished.fail(error)
            raise
        return [future.result() for future in futures]


def _extract_here(settings: Settings, works: Sequence[Work], advance: Callable[[int], None]) -> None:
    if not any(work.job.missing() for work in works):
        return
    extractor = Extractor(settings.model, **settings.options)
    for work in works:
        try:
            extract(work.job, work.job.missing(), extractor, work.finished.add, advance)
        except Exception as error:  # noqa: BLE001 - reported; does not concern the next bag
            work.finished.fail(error)


def _finish(output: Output, console: Console, work: Work) -> bool:
    """Write the output of a bag as its segments are completed, and report; returns whether there is no problem."""
    try:
        outcome = _complete(work.job, work.finished, output)
    except Exception as error:
        work.finished.fail(error)
        if not isinstance(error, (OSError, ValueError, DamagedBagError)):
            logger.error('%s', work.bag, exc_info=error)
        problem = f'{str(error) or type(error).__name__}; finished segments are in {work.job.scratch}'
        report(console, work.bag, Outcome(0, [problem]))
        return False
    report(console, work.bag, outcome)
    discard(work.job.target)
    return not outcome.problems


def _complete(job: Job, finished: Finished, output: Output) -> Outcome:
    """Write the output of a bag, and move it to its place."""
    target = job.scratch / 'output' / job.target.name
    skipped = _write(job, finished, target, output)
    summaries = [read_summary(job, index) for index in range(job.segments)]
    frames = sum(summary.frames for summary in summaries)
    bad = sum(summary.bad for summary in summaries)
    errors = [line for summary in summaries for line in summary.errors]
    damage = recover.damage_of(job.recovered)
    if not damage and frames + bad != job.frames:
        damage = [f'the bag claims to have {job.frames} images; {frames + bad} were found']
    outcome = Outcome(frames, shortened(damage, len(damage)) + skipped + shortened(errors, bad))
    write_outcome(job.target, outcome)  # if the run is killed before its report, the next one reports it
    move(target, job.target)
    return outcome


def _write(job: Job, finished: Finished, target: Path, output: Output) -> list[str]:
    """Write the output; returns a sentence for each thing that could not be copied or tracked."""
    write = {'hdf5': write_hdf5, 'npz': write_npz}.get(output.format)
    if write:
        _empty(target.parent)
        write(job, finished, target)
        return []

    def write_all(reader: AnyReader) -> list[str]:
        _empty(target.parent)
        return write_bag(job, finished, target, output, reader)

    return job.read(write_all)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f'{task.speed:.1f}/s' if task.speed else '')
