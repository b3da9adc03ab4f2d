"""Results of the segments of a job: a small bag of features for each, which appears when it is complete."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection

from superpoint_ros import clouds, feature_files
from superpoint_ros.bags.job import Job
from superpoint_ros.bags.read import image_name, messages, namespace, open_bag, typestore
from superpoint_ros.bags.report import SHOWN
from superpoint_ros.bags.write import CLOUD, STRING, BagWriter, bag_writer, string_of
from superpoint_ros.features import Features
from superpoint_ros.files import folder_written_whole


@dataclass
class Summary:
    """Summary of the results of a segment.

    Args:
        job: key of its job.
        frames: number of images with features.
        bad: number of bad image messages.
        errors: a sentence for each of the first bad messages, with its topic and time.
    """

    job: str
    frames: int = 0
    bad: int = 0
    errors: list[str] = field(default_factory=list)

    def add_error(self, error: str) -> None:
        """Count a bad message."""
        self.bad += 1
        if self.bad <= SHOWN:
            self.errors.append(error)


def read_summary(job: Job, index: int) -> Summary:
    """The summary of a segment with results."""
    return Summary(**json.loads((job.segment(index) / 'summary.json').read_text()))


@contextmanager
def segment_writer(job: Job, index: int) -> Iterator[tuple[BagWriter, Summary]]:
    """Write the results of a segment: a bag of features, and a summary. They appear when the block ends well."""
    summary = Summary(job.key)
    # If a worker that was believed dead has written the same results, they stay.
    with folder_written_whole(job.segment(index)) as folder:
        with bag_writer(folder / 'bag') as writer:
            yield writer, summary
        (folder / 'summary.json').write_text(json.dumps(asdict(summary)))


def segment_messages(job: Job, index: int) -> Iterator[tuple[Connection, int, bytes]]:
    """The messages of a segment's results with their topics and log times in ns, in order of log time."""
    with open_bag(job.segment(index) / 'bag') as reader:
        yield from messages(reader, reader.connections)


def features_of(data: bytes, info: str) -> tuple[Features, Any]:
    """The features in a serialized message, and its header; `info` is the text of features/info."""
    cloud: Any = typestore().deserialize_cdr(data, CLOUD)
    return clouds.decode_features(cloud, info), cloud.header


def images(job: Job, finished: Iterable[int]) -> Iterator[tuple[str, Features]]:
    """The features of all images, each with the name of `image_name`."""
    topics = {f'{namespace(topic)}/features': topic for topic in job.topics}
    infos: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for index in finished:
        for connection, log_time, data in segment_messages(job, index):
            if connection.msgtype == STRING:
                infos[connection.topic.removesuffix('/info')] = string_of(data)
                continue
            features, header = features_of(data, infos[connection.topic])
            yield image_name(topics[connection.topic], header, log_time, taken), features


def write_hdf5(job: Job, finished: Iterable[int], target: Path) -> None:
    """Write the features of all images to one HDF5 file for hloc; names as in `images`."""
    import h5py

    with h5py.File(target, 'w', libver='latest') as file:
        for name, features in images(job, finished):
            feature_files.write_hdf5(file, name, features)


def write_npz(job: Job, finished: Iterable[int], target: Path) -> None:
    """Write the features of each image to an .npz file; names as in `images`."""
    target.mkdir()
    for name, features in images(job, finished):
        feature_files.write_npz(target / f'{name}.npz', features)


class Finished:
    """The finished segments of a job. Iterating yields all segments in order and waits for those that are missing."""

    def __init__(self, job: Job) -> None:
        self._futures: list[Future[None]] = [Future() for _ in range(job.segments)]
        for index in set(range(job.segments)) - set(job.missing()):
            self.add(index)

    def add(self, index: int) -> None:
        """Add a segment.

        Raises:
            InvalidStateError: the job has failed.
        """
        self._futures[index].set_result(None)

    def fail(self, error: BaseException) -> None:
        """End the job: raise this error where missing segments are awaited."""
        for future in self._futures:
            with suppress(InvalidStateError):  # it is finished, or has failed before
                future.set_exception(error)

    @property
    def failed(self) -> bool:
        """Whether the job ended early."""
        return any(future.done() and future.exception() for future in self._futures)

    def __iter__(self) -> Iterator[int]:
        for index, future in enumerate(self._futures):
            future.result()
            yield index
