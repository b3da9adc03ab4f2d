"""The methods that are timed: our models and OpenCV's features, each in its own process.

Separate processes keep the thread pools of one library from affecting the times of another, and separate peak memory.
"""

from __future__ import annotations

import array
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from superpoint_ros import clouds
from superpoint_ros.decode import decode
from superpoint_ros.extractor import Extractor, finish, prepare
from superpoint_ros.features import Features, Image
from superpoint_ros.images import to_gray
from superpoint_ros.runtimes import Arrays, Network

STAGES = ('convert', 'resize', 'network', 'decode', 'encode')
"""The steps from image message to features message."""

EXTRACTION = 'extraction'
"""A call of Extractor, or of OpenCV's detectAndCompute."""

REST = f'{EXTRACTION} less network'
"""Time of the Extractor besides the network within the same call."""

KEYPOINTS = 'keypoints'
"""The number of keypoints found."""

OPENCV: dict[str, Callable[[int], Any]] = {'SIFT': cv2.SIFT.create, 'ORB': cv2.ORB.create}
"""OpenCV's methods, of a number of features."""

PATIENCE = 5.0
"""Seconds after which a process that does not end is killed."""

Laps = dict[str, float]
"""Milliseconds of STAGES, EXTRACTION and REST in one repetition, and KEYPOINTS. OpenCV's methods have only the first
stage and no REST."""


class Message(NamedTuple):
    """The attributes of a sensor_msgs/Image."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: bytes


def color_message(image: Image) -> Message:
    """A gray image (H, W) as a bgr8 message, as most cameras send it."""
    height, width = image.shape
    return Message(height, width, 'bgr8', 0, 3 * width, cv2.cvtColor(image, cv2.COLOR_GRAY2BGR).tobytes())


@dataclass(frozen=True)
class Method:
    """A method to time."""

    kind: str
    """One of OPENCV, or 'model'."""
    keypoints: int
    """Maximum number of keypoints."""
    threads: int = 0
    """CPU threads; 0 for the default of each library."""
    model: str = ''
    options: dict[str, Any] = field(default_factory=dict)
    """Of Extractor."""


class Running(NamedTuple):
    """A method that is ready to be timed, in its own process."""

    name: str
    about: str
    """Back end, device and weights."""
    start: float
    """Seconds from the start to the features of the first image, with libraries imported."""
    measure: Callable[[int], Laps]
    """Times one repetition with the message at an index."""
    peak_memory: Callable[[], float]


@contextmanager
def started(method: Method, messages: Sequence[Message]) -> Iterator[Running | str]:
    """Start a method, which is timed with some images; gives the reason as a sentence if it cannot run here."""
    with child(_serve, method, list(messages)) as (process, connection):
        first = receive(process, connection)
        answer = partial(ask, process, connection)
        yield first if isinstance(first, str) else Running(**first, measure=answer, peak_memory=answer)


@contextmanager
def child(function: Callable[..., None], *arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """Call a function with a connection and arguments in its own process, which ends with the block."""
    context = get_context('spawn')
    ours, theirs = context.Pipe()
    process = context.Process(target=function, args=(theirs, *arguments), daemon=True)
    # It starts without Python's handler: Ctrl-C ends it by closing the connection, not with a traceback.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    theirs.close()
    try:
        yield process, ours
    finally:
        ours.close()
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


def receive(process: BaseProcess, connection: Connection) -> Any:
    """What a child sends next.

    Raises:
        RuntimeError: it ended instead.
    """
    try:
        return connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise RuntimeError(f'a process of the benchmark ended with exit code {process.exitcode}') from None


def ask(process: BaseProcess, connection: Connection, question: int | None = None) -> Any:
    """What a child answers; raises what receive raises."""
    with suppress(ConnectionError):
        connection.send(question)
    return receive(process, connection)


def _serve(connection: Connection, method: Method, messages: Sequence[Message]) -> None:
    """Run in the process of a method: answer an index with laps, and None with the peak memory."""
    if method.threads:
        cv2.setNumThreads(method.threads)
    start = time.perf_counter()
    try:
        name, about, measure = _model(method) if method.kind == 'model' else _opencv(method)
        measure(messages[0])
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        connection.send(str(error))
        return
    connection.send({'name': name, 'about': about, 'start': time.perf_counter() - start})
    try:
        while True:
            index = connection.recv()
            connection.send(peak_memory() if index is None else measure(messages[index]))
    except (EOFError, ConnectionError):
        return


def _opencv(method: Method) -> tuple[str, str, Callable[[Message], Laps]]:
    algorithm = OPENCV[method.kind](method.keypoints)

    def measure(message: Message) -> Laps:
        image, convert = timed(to_gray, message)
        (keypoints, _), extraction = timed(algorithm.detectAndCompute, image, None)
        return {'convert': convert, EXTRACTION: extraction, KEYPOINTS: len(keypoints)}

    return method.kind, f'OpenCV {cv2.__version__}', measure


def _model(method: Method) -> tuple[str, str, Callable[[Message], Laps]]:
    extractor = Extractor(method.model, max_keypoints=method.keypoints, threads=method.threads, **method.options)
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
        self.device, self.precision, self.keep = network.device, network.precision, network.keep
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
    """The result of a call, and its time in milliseconds."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, 1000 * (time.perf_counter() - start)


def peak_memory() -> float:
    """Peak resident memory of this process in MB; NaN if the system does not report it.

    From /proc, because getrusage includes the memory of the parent at the start.
    """
    status = Path('/proc/self/status')
    if not status.is_file():
        return float('nan')
    lines = dict(line.split(':', 1) for line in status.read_text().splitlines())
    return int(lines['VmHWM'].split()[0]) / 1024 if 'VmHWM' in lines else float('nan')
