"""Merges the results of segments into one bag, with matches, tracks and the original messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from heapq import merge
from operator import itemgetter
from pathlib import Path

from rosbags.convert.converter import create_connections_converters
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from superpoint_ros import clouds
from superpoint_ros.bags.job import Job, Output
from superpoint_ros.bags.read import messages, namespace
from superpoint_ros.bags.segments import features_of, segment_messages
from superpoint_ros.bags.write import CLOUD, STRING, BagWriter, bag_writer, string_of
from superpoint_ros.stream_tracker import Frame, StreamTracker

OUR_TOPICS = ('features', 'features/info', 'matches', 'matches/first', 'tracks')
"""Names of the topics that are written beside an image topic."""


def write_bag(job: Job, finished: Iterable[int], target: Path, output: Output, reader: AnyReader) -> list[str]:
    """Write the output bag, segment by segment as `finished` yields them.

    Returns:
        A sentence for each thing that could not be copied or tracked.

    Raises:
        DamagedBagError: the original messages cannot be copied to their end.
    """
    with bag_writer(target, output.format) as writer:
        copied, skipped = _copied(job, reader)
        connections, convert = create_connections_converters(copied, None, reader, writer.writer)
        results = _Results(writer, output)
        broken: Counter[str] = Counter()

        def originals(index: int) -> Iterator[tuple[int, Callable[[], None]]]:
            for connection, stamp, data in messages(reader, copied, *job.bounds[index : index + 2]):
                try:
                    converted = convert[connection.msgtype](data)
                except Exception:  # noqa: BLE001 - a broken message leads to any error
                    broken[connection.topic] += 1
                else:
                    target = connections[connection.id, connection.owner]
                    yield stamp, partial(writer.writer.write, target, stamp, converted)

        def ours(index: int) -> Iterator[tuple[int, Callable[[], None]]]:
            for connection, stamp, data in segment_messages(job, index):
                yield stamp, partial(results.write, connection, stamp, data)

        for index in finished:
            # If log times are equal, the original comes first: the image before its features.
            for _, write in merge(originals(index), ours(index), key=itemgetter(0)):
                write()
    skipped += [f'{topic}: {count} broken messages are not copied' for topic, count in broken.items()]
    return skipped + results.problems()


class _Results:
    """Writes the messages of segments, and the matches and tracks of their features."""

    def __init__(self, writer: BagWriter, output: Output) -> None:
        self._writer = writer
        self._output = output
        self._infos: dict[str, bytes] = {}
        self._trackers: dict[str, StreamTracker] = {}

    def write(self, connection: Connection, stamp: int, data: bytes) -> None:
        camera = connection.topic.removesuffix('/info').removesuffix('/features')
        if connection.msgtype == STRING:
            if self._infos.get(camera) == data:  # each segment repeats it
                return
            self._infos[camera] = data
        self._writer.raw(connection.topic, connection.msgtype, stamp, data)
        if connection.msgtype == CLOUD and (self._output.match or self._output.track):
            self._track(camera, stamp, data)

    def _track(self, camera: str, stamp: int, data: bytes) -> None:
        output = self._output
        configs = output.match_config, output.tracker_config, output.matcher
        tracker = self._trackers.setdefault(camera, StreamTracker(*configs))
        features, header = features_of(data, string_of(self._infos[camera]))
        step = tracker.update(Frame(header, features))
        if step and output.track:
            self._writer.cloud(f'{camera}/tracks', stamp, clouds.encode_tracks(step.tracks), header)
        if step and output.match and (matched := step.match()):
            first, matches = matched
            self._writer.reference(f'{camera}/matches/first', stamp, header, first.header)
            cloud = clouds.encode_matches(first.features, features, matches)
            self._writer.cloud(f'{camera}/matches', stamp, cloud, header)

    def problems(self) -> list[str]:
        """What could not be tracked."""
        return [
            f'{camera}/features: {tracker.stream.late} images are not tracked: their stamps are not later than the last'
            for camera, tracker in self._trackers.items()
            if tracker.stream.late
        ]


def _copied(job: Job, reader: AnyReader) -> tuple[list[Connection], list[str]]:
    """The connections to copy, and a sentence for each that cannot be copied."""
    ours = {f'{namespace(topic)}/{name}' for topic in job.topics for name in OUR_TOPICS}
    wanted = [c for c in reader.connections if job.copy and c.topic not in ours]
    known = [c for c in wanted if c.msgtype in reader.typestore.fielddefs]
    unknown = [c for c in wanted if c not in known]
    return known, [f'{c.topic} is not copied: the bag has no definition of {c.msgtype}' for c in unknown]
