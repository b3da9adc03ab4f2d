"""Extracts the features of segments: reading, decoding of images, network and writing run at the same time."""

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
from functools import partial
from typing import Any, TypeVar

import numpy.typing as npt
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from superpoint_ros import clouds, images
from superpoint_ros.bags.job import Job
from superpoint_ros.bags.read import (
    deserialize,
    image_connections,
    messages,
    namespace,
    seconds,
)
from superpoint_ros.bags.segments import segment_writer
from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Features

T = TypeVar('T')
R = TypeVar('R')

DECODERS = min(4, os.cpu_count() or 1)
"""Number of threads that decode images."""

MAX_PENDING = 1 << 29
"""Maximum size in bytes of the messages in the pipeline, unless a single one is larger."""


@dataclass(frozen=True)
class Frame:
    """An image message in the pipeline.

    Args:
        segment: index of its segment.
        connection: topic and type of the message.
        stamp: log time in ns.
        data: the serialized message, until it is decoded.
        header: of the message.
        image: gray, (H, W), until its features are extracted.
        result: the features, or what is wrong with the image.
    """

    segment: int
    connection: Connection
    stamp: int
    data: bytes
    header: Any = None
    image: npt.NDArray[Any] | None = None
    result: Features | Exception | None = None


def extract(
    job: Job,
    segments: Sequence[int],
    extractor: Extractor,
    finished: Callable[[int], None] = lambda _: None,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Extract the features of some segments in their order. If the bag proves to be damaged, recover it and continue.

    The segments are ascending, and the extractor is made with the settings of the job. `finished` is called with each
    segment when its results are complete, `advance` with the number of images completed since the last call.

    Raises:
        OSError: the results cannot be written.
    """
    remaining = deque(segments)

    def extract_remaining(reader: AnyReader) -> None:
        # OpenVINO works on one image of a batch while another is decoded, and each result is that of a single image.
        size = job.settings.batch or (8 if extractor.runtime.name == 'openvino' else 1)
        frames = _frames(job, reader, list(remaining))
        decode, detect = partial(_decode, reader), partial(_detect, extractor)
        with (
            closing(prefetch(decode, frames, DECODERS, DECODERS + 2 * size, lambda f: len(f.data))) as decoded,
            closing(prefetch(detect, _batches(decoded, size), 1, 2)) as batches,
        ):
            groups = itertools.groupby(itertools.chain.from_iterable(batches), lambda frame: frame.segment)
            index, group = next(groups, (None, iter(())))
            while remaining:
                if index == remaining[0]:
                    _write(job, remaining[0], group, extractor, advance)
                    index, group = next(groups, (None, iter(())))
                else:
                    _write(job, remaining[0], (), extractor, advance)
                finished(remaining.popleft())

    if remaining:
        job.read(extract_remaining)


def _frames(job: Job, reader: AnyReader, segments: list[int]) -> Iterator[Frame]:
    """The image messages of some segments. Consecutive segments are read in one go."""
    connections = image_connections(reader, job.topics)
    for _, run in itertools.groupby(enumerate(segments), lambda pair: pair[1] - pair[0]):
        indices = [index for _, index in run]
        start, stop, latest = job.bounds[indices[0]], job.bounds[indices[-1] + 1], 0
        for connection, stamp, data in messages(reader, connections, start, stop):
            index = bisect_right(job.bounds, stamp) - 1
            if index >= latest:  # else the times in the file's index are wrong; the report says that images are missing
                yield Frame(index, connection, stamp, data)
                latest = index


def _decode(reader: AnyReader, frame: Frame) -> Frame:
    try:
        message = deserialize(reader, frame.data, frame.connection.msgtype)
        return dataclasses.replace(frame, header=message.header, image=images.gray(message), data=b'')
    except Exception as error:  # noqa: BLE001 - a broken message leads to any error, and concerns only this image
        return dataclasses.replace(frame, result=ValueError(str(error) or type(error).__name__), data=b'')


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Batches within segments, so that the results of a segment do not depend on where a run began."""
    for _, group in itertools.groupby(frames, lambda frame: frame.segment):
        while batch := list(itertools.islice(group, size)):
            yield batch


def _detect(extractor: Extractor, batch: list[Frame]) -> list[Frame]:
    results = iter(extractor.batch([frame.image for frame in batch if frame.image is not None]))
    return [f if f.image is None else dataclasses.replace(f, result=next(results), image=None) for f in batch]


def prefetch(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    depth: int,
    size: Callable[[T], int] = lambda _: 0,
) -> Generator[R, None, None]:
    """Like map, but threads work on the next items while the caller is busy with a result.

    At most `depth` items are in progress. Together they have at most MAX_PENDING bytes, unless there is only one;
    `size` gives the bytes of an item.
    """
    pending: deque[tuple[Future[R], int]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            pending.append((pool.submit(function, item), size(item)))
            while len(pending) > depth or (len(pending) > 1 and sum(size for _, size in pending) > MAX_PENDING):
                yield pending.popleft()[0].result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write(job: Job, index: int, frames: Iterable[Frame], extractor: Extractor, advance: Callable[[int], None]) -> None:
    descriptor_type = job.settings.descriptor_type
    infos: dict[str, str] = {}
    with segment_writer(job, index) as (writer, summary):
        for frame in frames:
            topic, result = f'{namespace(frame.connection.topic)}/features', frame.result
            if isinstance(result, Features):
                info = extractor.info(descriptor_type, result.image_size)
                if infos.get(topic) != info:
                    writer.string(f'{topic}/info', frame.stamp, info)
                    infos[topic] = info
                writer.cloud(topic, frame.stamp, clouds.encode_features(result, descriptor_type), frame.header)
                summary.frames += 1
            elif isinstance(result, ValueError):
                summary.add_error(f'{frame.connection.topic} at {seconds(frame.stamp)}: {result}')
            else:  # not the image's fault
                assert result is not None
                raise result
            advance(1)
