"""The work on one bag, cut into segments: what a killed run resumes at, and what a cluster shares out."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader

from superpoint_ros import models
from superpoint_ros.bags import recover
from superpoint_ros.bags.read import DamagedBagError, image_connections, image_topics, namespace, open_bag
from superpoint_ros.files import written_whole

SEGMENT_FRAMES = 128
"""Frames in a segment, about: so many a killed run loses at most, and a cluster's worker takes at a time."""

LAST_TIME = 2**63 - 1


@dataclass(frozen=True)
class Settings:
    """What decides the features, beside the bag.

    Args:
        model: a shipped model's name, or the path of a .safetensors or .onnx file.
        options: of the Extractor.
        descriptor_type: int8 (round(127·d)) or float32.
        batch: images given to the network at once; 0 for as many as leave the results those of one: several with
            OpenVINO, which works on one while the one before is decoded, else one.
        topics: the image topics that are wanted; none for all that the bag has.
    """

    model: str
    options: dict[str, Any]
    descriptor_type: str = 'int8'
    batch: int = 0
    topics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """The work on one bag.

    Args:
        source: the bag, an absolute path.
        output: the bag, folder or file that appears when all is done; beside it lies <output>.partial until then.
        settings: how features are extracted.
        copy: the original messages are wanted too.
        topics: the image topics.
        bounds: log times in ns; segment k is the images from bounds[k] up to but without bounds[k + 1].
        frames: how many images the bag says it has.
    """

    source: Path
    output: Path
    settings: Settings
    copy: bool
    topics: tuple[str, ...]
    bounds: tuple[int, ...]
    frames: int

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return len(self.bounds) - 1

    @property
    def scratch(self) -> Path:
        """The folder in which everything happens until it is done."""
        return _scratch(self.output)

    @property
    def recovered(self) -> Path:
        """Where a sound copy of a damaged bag is."""
        return _recovered(self.output, self.copy)

    @property
    def readable(self) -> Path:
        """The bag to read: what was recovered of it, if that was necessary."""
        return recover.find(self.recovered) or self.source

    def part(self, segment: int) -> Path:
        """The folder with the features of a segment; it appears whole."""
        return self.scratch / 'parts' / f'{segment:06d}'

    def missing(self) -> list[int]:
        """The segments that are still to be done."""
        return [segment for segment in range(self.segments) if not self.part(segment).exists()]

    def recover(self, error: DamagedBagError) -> None:
        """Make a bag readable that is damaged: write what can be read of it into a sound one.

        Raises:
            DamagedBagError: the error is not of the bag, but of what was recovered of it.
        """
        if error.path != self.source:
            raise error
        recover.recover(self.source, self.recovered, self.copy, str(error))


def plan(source: Path, output: Path, settings: Settings, copy: bool, resume: bool) -> Job:
    """Look at a bag and divide it; or take up what an earlier run left.

    Args:
        source: the bag.
        output: what shall come of it.
        settings: how features are extracted.
        copy: the original messages are wanted too.
        resume: go on with an earlier run.

    Raises:
        FileExistsError: an earlier run left something and resume is false.
        ValueError: the earlier run was with other settings or another bag, or the bag has no such images.
        FileNotFoundError: no such bag.
    """
    scratch, record = _scratch(output), _scratch(output) / 'job.json'
    if scratch.exists() and not resume:
        raise FileExistsError(f'{scratch} is left of an earlier run: --resume goes on with it; or delete it')
    identity = _identity(source, settings)
    if record.exists():
        known = json.loads(record.read_text())
        changed = [name for name, value in identity.items() if known['identity'].get(name) != value]
        if changed:
            raise ValueError(f'{scratch} is of a run with another {", ".join(changed)}; use the same, or delete it')
        job = Job(source, output, settings, copy, tuple(known['topics']), tuple(known['bounds']), known['frames'])
        for left in job.part(0).parent.glob('*.*'):  # parts that a killed run was writing
            shutil.rmtree(left)
        return job
    job = Job(source, output, settings, copy, (), (), 0)
    try:
        while not job.bounds:
            try:
                with open_bag(job.readable) as reader:
                    job = _divide(reader, job)
            except DamagedBagError as error:
                job.recover(error)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    with written_whole(record) as path:
        facts = {'identity': identity, 'topics': job.topics, 'bounds': job.bounds, 'frames': job.frames}
        path.write_text(json.dumps(facts))
    return job


def _divide(reader: AnyReader, job: Job) -> Job:
    topics = image_topics(reader, job.settings.topics)
    spaces = [namespace(topic) for topic in topics]
    for space in spaces:
        if spaces.count(space) > 1:
            rivals = ', '.join(topic for topic in topics if namespace(topic) == space)
            raise ValueError(f'{job.source}: several topics would give {space}/features: choose one of {rivals}')
    frames = sum(connection.msgcount for connection in image_connections(reader, topics))
    count = max(1, math.ceil(frames / SEGMENT_FRAMES))
    start, stop = reader.start_time, reader.end_time
    inner = sorted({start + (stop - start) * k // count for k in range(1, count)} - {0, LAST_TIME})
    return dataclasses.replace(job, topics=tuple(topics), bounds=(0, *inner, LAST_TIME), frames=frames)


def _identity(source: Path, settings: Settings) -> dict[str, Any]:
    if not source.exists():
        raise FileNotFoundError(f'{source}: no such bag')
    model = models.resolve(settings.model)
    options = {name: value for name, value in settings.options.items() if name != 'threads'}
    files = [source, *sorted(source.iterdir())] if source.is_dir() else [source]
    return json.loads(
        json.dumps(
            {
                'bag': [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files],
                **dataclasses.asdict(settings),
                'options': options,
                'model': [models.checksum(path) for path in (model.weights, model.graph) if path],
            }
        )
    )


def _scratch(output: Path) -> Path:
    return output.with_name(output.name + '.partial')


def _recovered(output: Path, copy: bool) -> Path:
    return _scratch(output) / ('recovered' if copy else 'recovered_images')


def names(sources: Sequence[Path]) -> list[str]:
    """What each bag's output is called: the bag's name without its ending.

    Raises:
        ValueError: two bags would have the same.
    """
    found = [re.sub(r'(\.bag|\.bag\.active|\.mcap|\.db3)$', '', source.absolute().name) for source in sources]
    for name in found:
        if found.count(name) > 1:
            same = ' and '.join(str(source) for source, other in zip(sources, found, strict=True) if other == name)
            raise ValueError(f'{same} would both be written to {name}; give them separate outputs')
    return found
