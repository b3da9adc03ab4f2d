"""What came of the segments of a job: small bags that are whole from the moment they are there."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from superpoint_ros import clouds
from superpoint_ros.bags.job import Job
from superpoint_ros.bags.read import messages, namespace, open_bag
from superpoint_ros.bags.write import STRING, BagWriter, bag_writer, string_of, typestore
from superpoint_ros.features import Features


@dataclass(frozen=True)
class Part:
    """What came of a segment.

    Args:
        segment: its number.
        frames: how many images gave features.
        bad: of each image message that could not be used, one sentence with its topic and time.
    """

    segment: int
    frames: int
    bad: tuple[str, ...]


def read_part(job: Job, segment: int) -> Part:
    """What came of a segment that is done."""
    facts = json.loads((job.part(segment) / 'part.json').read_text())
    return Part(segment, facts['frames'], tuple(facts['bad']))


@contextmanager
def part_writer(job: Job, segment: int) -> Iterator[tuple[BagWriter, list[str]]]:
    """Write a part: the bag, and a list for what is wrong with images. The part is there when the block ends well."""
    target = job.part(segment)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f'{segment:06d}.', dir=target.parent))
    bad: list[str] = []
    with bag_writer(scratch / 'bag') as writer:
        yield writer, bad
    (scratch / 'part.json').write_text(json.dumps({'frames': writer.clouds, 'bad': bad}))
    try:
        scratch.replace(target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(scratch)  # a worker that was thought dead has done the same work


class Message(NamedTuple):
    """A message of a part."""

    stamp: int
    topic: str
    msgtype: str
    data: bytes


def part_messages(job: Job, segment: int) -> Iterator[Message]:
    """The messages of a part by log time."""
    with open_bag(job.part(segment) / 'bag') as reader:
        for connection, stamp, data in messages(reader, reader.connections):
            yield Message(stamp, connection.topic, connection.msgtype, data)


def features_of(message: Message, info: str) -> tuple[Features, Any]:
    """The features in a message of a part, of which features/info says this, and its header."""
    cloud: Any = typestore().deserialize_cdr(message.data, message.msgtype)
    return clouds.decode_features(cloud.data, cloud.width, cloud.point_step, cloud.fields, info), cloud.header


def images(job: Job, finished: Iterable[int]) -> Iterator[tuple[str, Features]]:
    """The features of all images, each with a name of its own: <topic>/<stamp of the header in ns>.

    The topic is without the first slash. An image without a stamp goes by its log time, and if several have one stamp,
    those after the first get -1, -2, … behind it.
    """
    topics = {f'{namespace(topic)}/features': topic.strip('/') for topic in job.topics}
    infos: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for segment in finished:
        for message in part_messages(job, segment):
            if message.msgtype == STRING:
                infos[message.topic.removesuffix('/info')] = string_of(message.data)
                continue
            features, header = features_of(message, infos[message.topic])
            stamp = header.stamp.sec * 10**9 + header.stamp.nanosec or message.stamp
            name = f'{topics[message.topic]}/{stamp}'
            yield f'{name}-{seen[name]}' if seen[name] else name, features
            seen[name] += 1


class Finished:
    """The segments of a job that are done; iterating waits for each in its order."""

    def __init__(self, job: Job) -> None:
        self._missing = set(job.missing())
        self._count = job.segments
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def add(self, segment: int) -> None:
        """One more is done."""
        with self._changed:
            self._missing.discard(segment)
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """No more will come; who waits gets this error."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    @property
    def failed(self) -> bool:
        """Whether no more will come."""
        return self._error is not None

    def __iter__(self) -> Iterator[int]:
        for segment in range(self._count):
            with self._changed:
                while segment in self._missing:
                    if self._error:
                        raise self._error
                    self._changed.wait()
            yield segment
