"""What is timed: our models and OpenCV's features, each in a process of its own.

Processes of their own keep the thread pools of one library out of the times of another, and make memory tell apart.
"""

from __future__ import annotations

import array
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros import clouds
from superpoint_ros.decode import decode
from superpoint_ros.extractor import Extractor, finish, prepare
from superpoint_ros.features import Features
from superpoint_ros.images import to_gray
from superpoint_ros.runtimes import Arrays, Network

STAGES = ('convert', 'resize', 'network', 'decode', 'encode')
"""What is done to an image, from the message that comes in to the message that goes out; together the whole way."""

EXTRACTION = 'extraction'
"""An ordinary call of Extractor, or of OpenCV's detectAndCompute."""

REST = f'{EXTRACTION} less network'
"""What the Extractor costs beside the bare network within the same call."""

KEYPOINTS = 'keypoints'
"""How many were found."""

OPENCV: dict[str, Callable[[int], Any]] = {
    'SIFT': lambda count: cv2.SIFT.create(nfeatures=count),
    'ORB': lambda count: cv2.ORB.create(nfeatures=count),
}

Laps = dict[str, float]
"""Milliseconds of STAGES, EXTRACTION and REST (OpenCV has no REST, and of the stages the first alone) in one
repetition, and KEYPOINTS."""


class Message(NamedTuple):
    """The attributes of a sensor_msgs/Image."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: bytes


def color_message(image: npt.NDArray[np.uint8]) -> Message:
    """A color image as most cameras send it, bgr8, from a gray one (H, W)."""
    height, width = image.shape
    return Message(height, width, 'bgr8', 0, 3 * width, cv2.cvtColor(image, cv2.COLOR_GRAY2BGR).tobytes())


@dataclass(frozen=True)
class Subject:
    """What is timed.

    Args:
        kind: one of OPENCV, or 'model'.
        keypoints: at most this many.
        threads: of the CPU; 0 for each library's own choice.
        model: as for Extractor.
        options: of Extractor.
    """

    kind: str
    keypoints: int
    threads: int = 0
    model: str = ''
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    """A subject that can be timed.

    Args:
        name: for the tables.
        about: what exactly it is.
        start: seconds from nothing to the first image's features, libraries imported.
    """

    name: str
    about: str
    start: float


class Running:
    """A subject in a process of its own; see `started`."""

    def __init__(self, connection: Connection, ready: Ready) -> None:
        self.ready = ready
        self._connection = connection

    def measure(self, index: int) -> Laps:
        """Time one repetition with one of the messages."""
        self._connection.send(index)
        return self._connection.recv()

    def peak_memory(self) -> float:
        """Most memory that the process had, in MB; NaN where the system does not say."""
        self._connection.send(None)
        return self._connection.recv()


@contextmanager
def started(subject: Subject, messages: Sequence[Message]) -> Iterator[Running | str]:
    """Start a subject; gives a sentence instead if it cannot run here.

    Args:
        subject: what to time.
        messages: the images that it is timed with.
    """
    context = get_context('spawn')
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, subject, list(messages)), daemon=True)
    process.start()
    theirs.close()
    try:
        ready = ours.recv()
        yield Running(ours, ready) if isinstance(ready, Ready) else ready
    except EOFError:
        process.join()
        raise RuntimeError(f'the process of {subject} ended with exit code {process.exitcode}') from None
    finally:
        ours.close()
        process.join(10)
        if process.is_alive():
            process.kill()


def _serve(connection: Connection, subject: Subject, messages: Sequence[Message]) -> None:
    """Runs in the process of a subject: an index comes, laps go; None comes, the peak memory goes."""
    if subject.threads:
        cv2.setNumThreads(subject.threads)
    start = time.perf_counter()
    try:
        name, about, measure = _model(subject) if subject.kind == 'model' else _opencv(subject)
        measure(messages[0])
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        connection.send(str(error))
        return
    connection.send(Ready(name, about, time.perf_counter() - start))
    try:
        while True:
            index = connection.recv()
            connection.send(peak_memory() if index is None else measure(messages[index]))
    except (EOFError, KeyboardInterrupt):
        return


def _opencv(subject: Subject) -> tuple[str, str, Callable[[Message], Laps]]:
    algorithm = OPENCV[subject.kind](subject.keypoints)

    def measure(message: Message) -> Laps:
        image, convert = timed(to_gray, message)
        (keypoints, _), extraction = timed(algorithm.detectAndCompute, image, None)
        return {'convert': convert, EXTRACTION: extraction, KEYPOINTS: len(keypoints)}

    return subject.kind, f'OpenCV {cv2.__version__}', measure


def _model(subject: Subject) -> tuple[str, str, Callable[[Message], Laps]]:
    extractor = Extractor(subject.model, max_keypoints=subject.keypoints, threads=subject.threads, **subject.options)
    network = _TimedNetwork(extractor.runtime.network)
    runtime = extractor.runtime = dataclasses.replace(extractor.runtime, network=network)

    def measure(message: Message) -> Laps:
        image, convert = timed(to_gray, message)
        prepared, resize = timed(prepare, image, extractor.config.resize)
        heads, run = timed(next, runtime([prepared.pixels]))
        decoded, decoding = timed(decode, heads, prepared.size, extractor.decode_config)
        features, map_back = timed(finish, decoded, prepared)
        _, encode = timed(_encode, features)
        laps = dict(zip(STAGES, (convert, resize, run, decoding + map_back, encode), strict=True))
        network.milliseconds = 0.0
        _, extraction = timed(extractor, image)
        return {**laps, EXTRACTION: extraction, REST: extraction - network.milliseconds, KEYPOINTS: len(features)}

    about = f'{runtime.name} {runtime.precision} on {runtime.device}, sha256 {runtime.checksum[:12]}…'
    return f'{extractor.model.name} {runtime.name} {runtime.precision}', about, measure


class _TimedNetwork:
    """A network that adds up the time it takes."""

    def __init__(self, network: Network) -> None:
        self.device, self.precision = network.device, network.precision
        self.milliseconds = 0.0
        self._network = network

    def __call__(self, items: Sequence[Arrays]) -> Iterator[Arrays]:
        outputs = self._network(items)
        for _ in items:
            one, milliseconds = timed(next, outputs)
            self.milliseconds += milliseconds
            yield one


def _encode(features: Features) -> array.array[int]:
    data = array.array('B')
    data.frombytes(clouds.encode_features(features).view(np.uint8).data)
    return data


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a function returns, and how many milliseconds it took."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, 1000 * (time.perf_counter() - start)


def peak_memory() -> float:
    """Most resident memory that this process has had, in MB; NaN where the system does not say.

    From /proc, because getrusage counts what the parent had before it started this process.
    """
    status = Path('/proc/self/status')
    if not status.is_file():
        return float('nan')
    lines = dict(line.split(':', 1) for line in status.read_text().splitlines())
    return int(lines['VmHWM'].split()[0]) / 1024 if 'VmHWM' in lines else float('nan')
