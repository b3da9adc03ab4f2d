"""The work on one bag, divided into segments that can be resumed and shared out to machines."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from rosbags.highlevel import AnyReader

from superpoint_ros import models
from superpoint_ros.bags import recover
from superpoint_ros.bags.read import bag_files, image_connections, image_topics, namespace
from superpoint_ros.bags.report import shortened
from superpoint_ros.bags.scratch import clear, scratch_of, write_json
from superpoint_ros.matching import MatchConfig, Matcher
from superpoint_ros.tracking import TrackerConfig

T = TypeVar('T')

Format = Literal['mcap', 'sqlite3', 'npz', 'hdf5']

SEGMENT_FRAMES = 128
"""Approximate number of images in a segment: what a killed run loses at most."""

LAST_TIME = 2**63 - 1


@dataclass(frozen=True)
class Settings:
    """How features are extracted: `options` of the Extractor, and options of `superpoint bag`."""

    model: str
    options: dict[str, Any]
    descriptor_type: str = 'int8'
    batch: int = 0
    topics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Output:
    """What is written: options of `superpoint bag`. Without a matcher, matches are nearest neighbors.

    Raises:
        ValueError: the format cannot hold messages, or there is a matcher but no matches are wanted.
    """

    format: Format = 'mcap'
    copy: bool = False
    match: bool = False
    track: bool = False
    match_config: MatchConfig = MatchConfig()
    tracker_config: TrackerConfig = TrackerConfig()
    matcher: Matcher | None = None

    def __post_init__(self) -> None:
        if self.format in ('npz', 'hdf5') and (self.match or self.track or self.copy):
            raise ValueError(f'--match, --track and --copy need a bag as output (--to mcap), not {self.format}')
        if self.matcher and not self.match:
            raise ValueError('--matcher makes the matches that --match writes: add --match')


@dataclass(frozen=True)
class Job:
    """The work on one bag.

    Args:
        source: absolute path of the bag.
        target: path of the output, which appears when it is complete.
        settings: how features are extracted.
        copy: whether the original messages are wanted too.
        topics: image topics.
        bounds: log times in ns; segment k has the images from bounds[k] up to but not including bounds[k + 1].
        frames: number of images according to the bag.
        key: identifies the job in the results of its segments.
    """

    source: Path
    target: Path
    settings: Settings
    copy: bool
    topics: Sequence[str] = ()
    bounds: Sequence[int] = ()
    frames: int = 0
    key: str = ''

    @property
    def segments(self) -> int:
        """Number of segments."""
        return len(self.bounds) - 1

    @property
    def scratch(self) -> Path:
        """Folder for intermediate files until the target is complete."""
        return scratch_of(self.target)

    @property
    def recovered(self) -> Path:
        """Folder for an intact copy of a damaged bag."""
        return self.scratch / ('recovered' if self.copy else 'recovered_images')

    def segment(self, index: int) -> Path:
        """Folder for the results of a segment, which appears when they are complete."""
        return self.scratch / f'segment-{index:06d}'

    def missing(self) -> list[int]:
        """The segments without results."""
        return [index for index in range(self.segments) if not self.segment(index).exists()]

    def read(self, use: Callable[[AnyReader], T]) -> T:
        """Open the bag and return `use(reader)`, as recover.read does."""
        return recover.read(self.source, self.recovered, self.copy, use)


def plan(source: Path, target: Path, settings: Settings, copy: bool) -> Job:
    """Divide the work on a bag, or continue an earlier run. The folder for the work must be claimed.

    Raises:
        ValueError: the earlier run had other settings or another bag; or the bag does not have the images.
        FileNotFoundError: the bag does not exist.
    """
    job = Job(source, target, settings, copy)
    record = job.scratch / 'job.json'
    identity = _identity(source, settings)
    if record.exists():
        known = json.loads(record.read_text())
        before = known.pop('identity')
        if changed := [name for name, value in identity.items() if before.get(name) != value]:
            what = ', '.join(changed)
            raise ValueError(f'{job.scratch} is an unfinished run with different {what}: use the same, or delete it')
        job = dataclasses.replace(job, **known)
        for folder in job.scratch.glob('segment-*'):
            if not _belongs(folder, job):
                shutil.rmtree(folder)
        return job
    clear(target)
    try:
        job = job.read(partial(_divide, job))
    except ValueError as error:
        damage = recover.damage_of(job.recovered)
        raise ValueError('\n'.join([f'{source}: {error}', *shortened(damage, len(damage))])) from error
    job = dataclasses.replace(job, key=uuid.uuid4().hex)
    facts = {'topics': job.topics, 'bounds': job.bounds, 'frames': job.frames, 'key': job.key}
    write_json(record, {'identity': identity, **facts})
    return job


def _belongs(folder: Path, job: Job) -> bool:
    """Whether a folder has complete results of a segment of this job."""
    try:
        return bool(json.loads((folder / 'summary.json').read_text())['job'] == job.key) and '.' not in folder.name
    except (OSError, ValueError, LookupError):
        return False


def _divide(job: Job, reader: AnyReader) -> Job:
    topics = image_topics(reader, job.settings.topics)
    for space in map(namespace, topics):
        rivals = [topic for topic in topics if namespace(topic) == space]
        if len(rivals) > 1:
            choice = ', '.join(rivals)
            raise ValueError(f'several topics would give {space}/features: choose one of {choice} with --topics')
    frames = sum(connection.msgcount for connection in image_connections(reader, topics))
    count = max(1, math.ceil(frames / SEGMENT_FRAMES))
    start, stop = reader.start_time, reader.end_time
    inner = sorted({start + (stop - start) * k // count for k in range(1, count)} - {0, LAST_TIME})
    return dataclasses.replace(job, topics=topics, bounds=[0, *inner, LAST_TIME], frames=frames)


def _identity(source: Path, settings: Settings) -> dict[str, Any]:
    """What must be the same to continue a run."""
    model = models.resolve(settings.model)
    options = {name: value for name, value in settings.options.items() if name != 'threads'}
    identity = {
        'bag': [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in bag_files(source)],
        **dataclasses.asdict(settings),
        'options': options,
        'model': [models.checksum(path) for path in (model.weights, model.graph, model.quantized) if path],
    }
    return json.loads(json.dumps(identity))


def names(sources: Sequence[Path]) -> list[str]:
    """The name of each bag's output: the name of the bag without its suffix.

    Raises:
        ValueError: two bags have the same name, or the output of one has the name of another's scratch folder.
    """
    found = [re.sub(r'(\.bag|\.bag\.active|\.mcap|\.db3)$', '', source.absolute().name) for source in sources]
    for name in found:
        if found.count(name) > 1:
            same = ' and '.join(str(source) for source, other in zip(sources, found, strict=True) if other == name)
            raise ValueError(f'{same} have the same name {name}; write them to different folders')
        if f'{name}.partial' in found:
            raise ValueError(f'bags named {name} and {name}.partial cannot be written to one folder')
    return found
