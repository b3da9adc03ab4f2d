"""Parts become one bag, in their order, with matches, tracks and the original messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from heapq import merge
from operator import itemgetter
from pathlib import Path

from rosbags.convert.converter import create_connections_converters
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from superpoint_ros import clouds
from superpoint_ros.bags.follow import Following
from superpoint_ros.bags.job import Job
from superpoint_ros.bags.parts import Finished, Message, features_of, part_messages
from superpoint_ros.bags.read import messages, namespace, open_bag
from superpoint_ros.bags.write import CLOUD, BagWriter, bag_writer, string_of
from superpoint_ros.stream_tracker import Frame, StreamTracker

OUR_TOPICS = ('features', 'features/info', 'matches', 'matches/first', 'tracks')
"""Names of the topics that are written beside an image topic."""


def write_bag(job: Job, finished: Finished, target: Path, storage: str, following: Following) -> list[str]:
    """Write a bag, as far as segments are done, and on as they come.

    Returns:
        What could not be copied or tracked, one sentence each.

    Raises:
        DamagedBagError: the original messages cannot be copied from the bag as it is.
    """
    with open_bag(job.readable) as reader, bag_writer(target, storage) as writer:
        copied, left_out = _copied(job, reader)
        connections, convert = create_connections_converters(copied, None, reader, writer.writer)
        ours = _Ours(writer, following)

        def originals(segment: int) -> Iterator[tuple[int, Callable[[], None]]]:
            for connection, stamp, data in messages(reader, copied, *job.bounds[segment : segment + 2]):
                target, converted = connections[connection.id, connection.owner], convert[connection.msgtype](data)
                yield stamp, partial(writer.writer.write, target, stamp, converted)

        def found(segment: int) -> Iterator[tuple[int, Callable[[], None]]]:
            for message in part_messages(job, segment):
                yield message.stamp, partial(ours.write, message)

        for segment in finished:
            # Of messages with one log time the original comes first: the image before what was found in it.
            for _, write in merge(originals(segment), found(segment), key=itemgetter(0)):
                write()
    return left_out + ours.complaints()


class _Ours:
    """Writes the messages of parts, and what follows from them."""

    def __init__(self, writer: BagWriter, following: Following) -> None:
        self._writer = writer
        self._following = following
        self._infos: dict[str, bytes] = {}
        self._trackers: dict[str, StreamTracker] = {}

    def write(self, message: Message) -> None:
        camera = message.topic.removesuffix('/info').removesuffix('/features')
        if message.msgtype == CLOUD:
            self._writer.raw(message.topic, message.msgtype, message.stamp, message.data)
            if self._following.match or self._following.track:
                self._follow(camera, message)
        elif self._infos.get(camera) != message.data:  # each part says it again
            self._writer.raw(message.topic, message.msgtype, message.stamp, message.data)
            self._infos[camera] = message.data

    def _follow(self, camera: str, message: Message) -> None:
        config = self._following
        tracker = self._trackers.setdefault(camera, StreamTracker(config.match_config, config.tracker_config))
        features, header = features_of(message, string_of(self._infos[camera]))
        step = tracker.update(Frame(header, features))
        if step and config.track:
            self._writer.cloud(f'{camera}/tracks', message.stamp, clouds.encode_tracks(step.tracks), header)
        if step and step.matched and config.match:
            first, matches = step.matched
            self._writer.reference(f'{camera}/matches/first', message.stamp, header, first.header)
            cloud = clouds.encode_matches(first.features, features, matches)
            self._writer.cloud(f'{camera}/matches', message.stamp, cloud, header)

    def complaints(self) -> list[str]:
        return [
            f'{camera}/features: {tracker.stream.late} images are not tracked, their stamps are not after those before '
            'them'
            for camera, tracker in self._trackers.items()
            if tracker.stream.late
        ]


def _copied(job: Job, reader: AnyReader) -> tuple[list[Connection], list[str]]:
    """The connections to copy, and of each that cannot be, why."""
    ours = {f'{namespace(topic)}/{name}' for topic in job.topics for name in OUR_TOPICS}
    wanted = [c for c in reader.connections if job.copy and c.topic not in ours]
    known = [c for c in wanted if c.msgtype in reader.typestore.fielddefs]
    left_out = [
        f'{c.topic} is not copied: the bag does not say what a {c.msgtype} is' for c in wanted if c not in known
    ]
    return known, left_out
