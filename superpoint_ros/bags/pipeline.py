"""Segments of a bag become parts: images are read, unpacked, sent through the network and written, all at once."""

from __future__ import annotations

import dataclasses
import itertools
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy.typing as npt
from rosbags.highlevel import AnyReader

from superpoint_ros import clouds, images
from superpoint_ros.bags.job import Job
from superpoint_ros.bags.parts import Part, part_writer, read_part
from superpoint_ros.bags.read import (
    COMPRESSED_IMAGE,
    DamagedBagError,
    image_connections,
    messages,
    namespace,
    open_bag,
    seconds,
)
from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Features

T = TypeVar('T')
R = TypeVar('R')

DECODERS = min(4, os.cpu_count() or 1)
"""Threads that unpack images."""


@dataclass(frozen=True)
class Frame:
    """An image message on its way.

    Args:
        segment: where it belongs.
        topic: of the image.
        msgtype: of the message.
        stamp: log time in ns.
        data: the message as it was serialized.
        header: of the message.
        image: gray, (H, W).
        features: of the image.
        error: what is wrong with the message, if anything is.
    """

    segment: int
    topic: str
    msgtype: str
    stamp: int
    data: bytes
    header: Any = None
    image: npt.NDArray[Any] | None = None
    features: Features | None = None
    error: str = ''


def extract(
    job: Job, segments: Sequence[int], extractor: Extractor, advance: Callable[[], None] = lambda: None
) -> Iterator[Part]:
    """Extract the features of some segments, in their order; each is yielded when its part is whole.

    Reading and unpacking, the network, and writing run at the same time, a few frames apart. If the bag turns out to
    be damaged, what can be read of it is recovered, and the work goes on with that.

    Args:
        job: the work on the bag.
        segments: which of it, ascending.
        extractor: made with the job's settings.
        advance: called after every frame.

    Raises:
        OSError: the parts cannot be written.
    """
    remaining = deque(segments)
    while remaining:
        try:
            with open_bag(job.readable) as reader:
                for part in _extract(job, reader, list(remaining), extractor, advance):
                    remaining.popleft()
                    yield part
        except DamagedBagError as error:
            job.recover(error)


def _extract(
    job: Job, reader: AnyReader, segments: list[int], extractor: Extractor, advance: Callable[[], None]
) -> Iterator[Part]:
    def unpack(frame: Frame) -> Frame:
        try:
            message: Any = reader.deserialize(frame.data, frame.msgtype)
            convert = images.decompress if frame.msgtype == COMPRESSED_IMAGE else images.to_gray
            return dataclasses.replace(frame, header=message.header, image=convert(message), data=b'')
        except Exception as error:  # noqa: BLE001 - whatever a broken message leads to; the next image is another matter
            return dataclasses.replace(frame, error=str(error) or type(error).__name__, data=b'')

    def find(frames: list[Frame]) -> list[Frame]:
        results = iter(extractor.batch([frame.image for frame in frames if frame.image is not None]))
        return [frame if frame.image is None else extracted(frame, next(results)) for frame in frames]

    def extracted(frame: Frame, result: Features | Exception) -> Frame:
        if isinstance(result, ValueError):
            return dataclasses.replace(frame, error=str(result), image=None)
        if isinstance(result, Exception):  # not the image's fault
            raise result
        return dataclasses.replace(frame, features=result, image=None)

    size = job.settings.batch or (8 if extractor.runtime.name == 'openvino' else 1)
    with (
        closing(ahead(unpack, _frames(job, reader, segments), DECODERS, DECODERS + 2 * size)) as unpacked,
        closing(ahead(find, _batches(unpacked, size), 1, 2)) as found,
    ):
        grouped = itertools.groupby(itertools.chain.from_iterable(found), lambda frame: frame.segment)
        upcoming = next(grouped, None)
        for segment in segments:
            if upcoming and upcoming[0] == segment:
                yield _write(job, segment, upcoming[1], extractor, advance)
                upcoming = next(grouped, None)
            else:
                yield _write(job, segment, [], extractor, advance)


def _frames(job: Job, reader: AnyReader, segments: list[int]) -> Iterator[Frame]:
    """The image messages of some segments; neighboring segments are read in one go."""
    connections = image_connections(reader, job.topics)
    for _, run in itertools.groupby(enumerate(segments), lambda pair: pair[1] - pair[0]):
        run_segments = [segment for _, segment in run]
        start, stop, latest = job.bounds[run_segments[0]], job.bounds[run_segments[-1] + 1], 0
        for connection, stamp, data in messages(reader, connections, start, stop):
            segment = bisect_right(job.bounds, stamp) - 1
            if segment >= latest:  # else the file's index says wrong times; that images are missing is told at the end
                yield Frame(segment, connection.topic, connection.msgtype, stamp, data)
                latest = segment


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Groups of frames that do not cross segments: so a segment's results do not depend on who did the one before."""
    for _, group in itertools.groupby(frames, lambda frame: frame.segment):
        while batch := list(itertools.islice(group, size)):
            yield batch


def ahead(function: Callable[[T], R], items: Iterable[T], workers: int, depth: int) -> Generator[R, None, None]:
    """Like map, but threads work on the next `depth` items while the caller is busy with a result."""
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write(job: Job, segment: int, frames: Iterable[Frame], extractor: Extractor, advance: Callable[[], None]) -> Part:
    runtime, descriptor_type = extractor.runtime, job.settings.descriptor_type
    infos: dict[str, str] = {}
    with part_writer(job, segment) as (writer, bad):
        for frame in frames:
            topic = f'{namespace(frame.topic)}/features'
            if frame.features is None:
                bad.append(f'{frame.topic} at {seconds(frame.stamp)}: {frame.error}')
            else:
                info = clouds.features_info(
                    extractor.model.name,
                    runtime.checksum,
                    runtime.descriptor_size,
                    descriptor_type,
                    frame.features.image_size,
                )
                if infos.get(topic) != info:
                    writer.string(f'{topic}/info', frame.stamp, info)
                    infos[topic] = info
                writer.cloud(topic, frame.stamp, clouds.encode_features(frame.features, descriptor_type), frame.header)
            advance()
    return read_part(job, segment)
