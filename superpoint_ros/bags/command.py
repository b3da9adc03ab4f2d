"""What `superpoint bag` does: many bags in, features out, on this machine or on a cluster."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from superpoint_ros import models
from superpoint_ros.bags import recover
from superpoint_ros.bags.assemble import write_bag
from superpoint_ros.bags.export import write_hdf5, write_npz
from superpoint_ros.bags.follow import Following
from superpoint_ros.bags.job import Job, Settings, names, plan
from superpoint_ros.bags.parts import Finished, read_part
from superpoint_ros.bags.pipeline import extract
from superpoint_ros.bags.read import DamagedBagError
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import Extractor, ExtractorConfig
from superpoint_ros.matching import MatchConfig
from superpoint_ros.runtimes import RuntimeConfig
from superpoint_ros.tracking import TrackerConfig

logger = logging.getLogger(__name__)

Format = Literal['mcap', 'sqlite3', 'npz', 'hdf5']

SHOWN = 10
"""Broken places, and bad images, of a bag that are told one by one; of the others the number is told."""


class Work(NamedTuple):
    """A job, and how far it is."""

    job: Job
    finished: Finished


Run = Callable[[Sequence[Work], Callable[[int], None]], None]
"""Does the segments that are missing, and calls a function with a number of frames whenever some are done."""


class Outcome(NamedTuple):
    """What became of a bag: how many images gave features, and one sentence for each thing that is wrong."""

    frames: int
    problems: list[str]


def process_bags(
    bags: Sequence[Path],
    output: Path,
    *,
    to: Format = 'mcap',
    topics: Sequence[str] = (),
    match: bool = False,
    track: bool = False,
    copy: bool = False,
    resume: bool = False,
    cluster: str | None = None,
    workers: int = 0,
    model: str = 'superpoint',
    descriptor_type: Literal['int8', 'float32'] = 'int8',
    batch: int = 0,
    extractor: ExtractorConfig = ExtractorConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
    decode: DecodeConfig = DecodeConfig(),
    matching: MatchConfig = MatchConfig(),
    tracking: TrackerConfig = TrackerConfig(),
) -> bool:
    """Extract the features of the images in some bags, with the topics, stamps and bytes of a live detector.

    Of drive.bag comes the bag OUTPUT/drive; while it is in the making there is only OUTPUT/drive.partial. A bag that
    fails does not stop the others; what is wrong is listed at the end.

    Args:
        bags: ROS 1 bags, ROS 2 bag folders, or single .mcap and .db3 files.
        output: the folder for what comes of them.
        to: mcap or sqlite3 for a bag; npz for a file for each image; hdf5 for a file for each bag, as hloc reads it.
        topics: the image topics to work on; all that are in a bag, without depth images, if none are given.
        match: write matches of consecutive images.
        track: write tracks.
        copy: copy the original messages along.
        resume: go on with what an earlier run left; bags whose output is there are done.
        cluster: address of a Ray cluster; local for workers on this machine alone; None for no Ray.
        workers: of the cluster, each with a model of its own; 0 for one on each GPU or, without any, on each machine.
        model: a shipped model's name, or the path of a .safetensors or .onnx file.
        descriptor_type: how descriptors are written into a bag; npz and hdf5 always have float32.
        batch: images given to the network at once: several are faster on a GPU, and may differ from one in the last
            bits; 0 for as many as make no difference.
        extractor: at which size the network sees the images.
        runtime: which back end runs the network.
        decode: which keypoints are taken.
        matching: what makes a match.
        tracking: how points are followed.

    Returns:
        Whether all went well: every bag sound, every image good.

    Raises:
        ValueError: an option is out of range, two do not go together, or two bags have one name.
        FileNotFoundError: no such model.
        ImportError: a library is missing; the message says how to install it.
    """
    into_bag = to in ('mcap', 'sqlite3')
    if not into_bag and (match or track or copy):
        raise ValueError(f'--match, --track and --copy write messages into a bag; they do not go with --to {to}')
    if batch < 0 or workers < 0:
        raise ValueError(f'batch {batch}, workers {workers}: expected at least 0')
    if to == 'hdf5' and importlib.util.find_spec('h5py') is None:
        raise ImportError('--to hdf5 needs h5py, which is not installed; pip install superpoint_ros[hdf5]')
    models.resolve(model)
    options = {k: v for config in (extractor, runtime, decode) for k, v in dataclasses.asdict(config).items()}
    settings = Settings(model, options, descriptor_type if into_bag else 'float32', batch, tuple(topics))
    run: Run = partial(_run_here, settings)
    if cluster is not None:
        from superpoint_ros.bags.cluster import run_on_cluster

        run = partial(run_on_cluster, settings, cluster, workers)
    output.mkdir(parents=True, exist_ok=True)
    targets = [output.resolve() / (f'{name}.h5' if to == 'hdf5' else name) for name in names(bags)]
    works, outcomes = _plan(dict(zip(bags, targets, strict=True)), settings, copy, resume)
    following = Following(match, track, matching, tracking)
    outcomes |= _execute(works, run, lambda work: _assemble(work, to, following))
    return _report(bags, outcomes)


def _plan(
    targets: dict[Path, Path], settings: Settings, copy: bool, resume: bool
) -> tuple[dict[Path, Work], dict[Path, Outcome]]:
    """What is to be done, and what cannot be; a bag that is done is in neither."""
    works: dict[Path, Work] = {}
    outcomes: dict[Path, Outcome] = {}
    with Console(stderr=True).status('') as status:
        for bag, target in targets.items():
            status.update(f'looking at {bag}')
            try:
                if not target.exists():
                    job = plan(bag.absolute(), target, settings, copy, resume)
                    works[bag] = Work(job, Finished(job))
                elif not resume:
                    raise FileExistsError(f'{target} is there already; --resume takes it as done; or delete it')
            except (OSError, ValueError, DamagedBagError) as error:
                outcomes[bag] = Outcome(0, [str(error)])
    return works, outcomes


def _execute(works: dict[Path, Work], run: Run, assemble: Callable[[Work], Outcome]) -> dict[Path, Outcome]:
    """Extract and assemble at the same time; the outcome of each."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, ThreadPoolExecutor(1) as pool:
        bar = progress.add_task('frames', total=sum(work.job.frames for work in works.values()))
        for job, _ in works.values():
            parts = [read_part(job, segment) for segment in set(range(job.segments)) - set(job.missing())]
            progress.advance(bar, sum(part.frames + len(part.bad) for part in parts))
        futures = {bag: pool.submit(assemble, work) for bag, work in works.items()}
        try:
            run(list(works.values()), lambda frames: progress.advance(bar, frames))
        except BaseException as error:
            for work in works.values():
                work.finished.fail(error)
            raise
        return {bag: future.result() for bag, future in futures.items()}


def _run_here(settings: Settings, works: Sequence[Work], advance: Callable[[int], None]) -> None:
    if not any(job.missing() for job, _ in works):
        return
    extractor = Extractor(settings.model, **settings.options)
    for job, finished in works:
        try:
            for part in extract(job, job.missing(), extractor, lambda: advance(1)):
                finished.add(part.segment)
                if finished.failed:
                    break
        except Exception as error:  # noqa: BLE001 - told in the report; the next bag is another matter
            finished.fail(error)


def _assemble(work: Work, to: Format, following: Following) -> Outcome:
    """Make the output as the segments come, and move it to its place."""
    job, finished = work
    target = job.scratch / 'output' / job.output.name
    left_out: list[str] = []
    try:
        while True:
            shutil.rmtree(target.parent, ignore_errors=True)
            target.parent.mkdir()
            try:
                if to == 'hdf5':
                    write_hdf5(job, finished, target)
                elif to == 'npz':
                    write_npz(job, finished, target)
                else:
                    left_out = write_bag(job, finished, target, to, following)
                break
            except DamagedBagError as error:  # in the original messages that are copied
                job.recover(error)
    except Exception as error:
        finished.fail(error)
        if not isinstance(error, (OSError, ValueError, DamagedBagError)):
            logger.error('%s', job.source, exc_info=error)
        return Outcome(0, [f'{str(error) or type(error).__name__}; what is done so far is in {job.scratch}'])
    parts = [read_part(job, segment) for segment in range(job.segments)]
    bad = [line for part in parts for line in part.bad]
    frames = sum(part.frames for part in parts)
    damage = recover.damage_of(job.recovered)
    if not damage and frames + len(bad) != job.frames:
        damage = [f'the bag says that it has {job.frames} images; {frames + len(bad)} were found']
    problems = _short(damage) + left_out + _short(bad)
    target.replace(job.output)
    shutil.rmtree(job.scratch)
    return Outcome(frames, problems)


def _short(lines: list[str]) -> list[str]:
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
