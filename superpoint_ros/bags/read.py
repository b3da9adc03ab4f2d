"""Reads ROS 1 and ROS 2 bags without a ROS installation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from superpoint_ros.bags.compression import ZSTD
from superpoint_ros.bags.limits import BagPath, CompressedFileError, decompress_strictly, limit_messages, limited
from superpoint_ros.stream_tracker import nanoseconds

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'

_DEPTH = ('16UC1', '32FC1')
"""Encodings of depth images (REP 118)."""


class DamagedBagError(Exception):
    """A bag that cannot be read to its end; `reason` says why."""

    def __init__(self, path: Path, reason: object) -> None:
        line = str(reason).partition('\n')[0].rstrip('.:') or type(reason).__name__
        super().__init__(f'{path}: {line}')
        self.path = path
        # A bag whose files are compressed as a whole may be sound, but is only readable from its front.
        self.damage = [] if isinstance(reason, CompressedFileError) else [str(self)]


@cache
def typestore(distribution: Stores = Stores.ROS2_JAZZY) -> Typestore:
    """The types of a ROS distribution."""
    return get_typestore(distribution)


def bag_files(path: Path) -> list[Path]:
    """The regular files of a bag, sorted by name.

    Raises:
        FileNotFoundError, PermissionError: the bag does not exist or may not be read.
    """
    if not path.exists():
        raise FileNotFoundError(f'{path}: no such bag')
    return sorted(file for file in (path.iterdir() if path.is_dir() else [path]) if file.is_file())


@contextmanager
def open_bag(path: Path) -> Iterator[AnyReader]:
    """Open a ROS 1 bag, a ROS 2 bag folder, or a single .mcap or .db3 file.

    Raises:
        FileNotFoundError, PermissionError: the bag does not exist or may not be read.
        DamagedBagError: the bag cannot be opened as it is.
    """
    size = sum(file.stat().st_size for file in bag_files(path))
    with ExitStack() as stack:
        try:
            for file in path.iterdir() if path.is_dir() else [path, path.with_name(f'{path.name}-wal')]:
                if file.exists() and not (file.is_file() or file.is_dir()):
                    raise ValueError(f'{file.name} is not a regular file')
                if file.name.endswith('-wal') and file.exists() and file.stat().st_size:
                    raise ValueError(f'{file.name} has messages that are not in the bag yet')
            # ROS 2 bags from before Iron have no message definitions; those of the image types are still the same.
            reader = AnyReader([BagPath(path)], default_typestore=typestore())
            with limited(size):
                stack.enter_context(reader)
            limit_messages(reader)
        except PermissionError:
            raise
        except Exception as error:  # broken bytes lead to any error: of struct, zstd, apsw, assertions
            raise DamagedBagError(path, error) from error
        yield reader


def messages(
    reader: AnyReader, connections: Sequence[Connection], start: int | None = None, stop: int | None = None
) -> Iterator[tuple[Connection, int, bytes]]:
    """Yield the messages of some topics in order of log time (ns), from start up to but not including stop.

    Raises:
        DamagedBagError: the bag cannot be read to its end.
    """
    if not connections:
        return
    stream = reader.messages(connections, start, stop)
    while True:
        try:
            connection, stamp, data = next(stream)
            if reader.is2 and data[: len(ZSTD)] == ZSTD:
                data = decompress_strictly('zstd', data)
        except StopIteration:
            return
        except Exception as error:
            raise DamagedBagError(Path(str(reader.paths[0])), error) from error
        yield connection, stamp, data


def deserialize(reader: AnyReader, data: bytes, msgtype: str) -> Any:
    """The message in `data`, by ROS's own definition of the type and not by that in the bag, which may be hostile."""
    if reader.is2:
        return typestore().deserialize_cdr(data, msgtype)
    return typestore(Stores.ROS1_NOETIC).deserialize_ros1(data, msgtype)


def image_connections(reader: AnyReader, topics: Sequence[str]) -> list[Connection]:
    """The connections of these image topics."""
    return [c for c in reader.connections if c.topic in topics and c.msgtype in (IMAGE, COMPRESSED_IMAGE)]


def image_topics(reader: AnyReader, wanted: Sequence[str] = ()) -> list[str]:
    """The wanted image topics, or all if none are given.

    All does not include depth images (16UC1 and 32FC1, REP 118; compressedDepth), nor a compressed topic if the bag has
    the raw topic too.

    Raises:
        ValueError: the bag does not have the wanted topics, or any; the message lists its image topics.
        DamagedBagError: the bag cannot be read.
    """
    images = {c.topic: c for c in reader.connections if c.msgtype in (IMAGE, COMPRESSED_IMAGE)}
    there = ', '.join(sorted(images)) or 'none'
    if wanted:
        missing = [topic for topic in wanted if topic not in images]
        if missing:
            raise ValueError(f'no image topic {", ".join(missing)}; available: {there}')
        return list(dict.fromkeys(wanted))
    found = [t for t in sorted(images) if t.removesuffix('/compressed') not in images or not t.endswith('/compressed')]
    found = [topic for topic in found if not _is_depth(reader, images[topic])]
    if not found:
        raise ValueError(f'no image topics other than depth images; found: {there}')
    return found


def namespace(image_topic: str) -> str:
    """The namespace of an image topic: /camera for /camera/image_raw and /camera/image/compressed, '' for /image.

    The features go there, as from a detector in that namespace: /camera/features, /camera/matches, …
    """
    parent = image_topic.removesuffix('/compressed').strip('/').rpartition('/')[0]
    return f'/{parent}' if parent else ''


def topic_path(topic: str) -> str:
    """A topic as a path below a folder: without the first slash, and with _ for names that are . or .. or empty."""
    return '/'.join('_' if name in ('', '.', '..') else name for name in topic.strip('/').split('/'))


def image_name(topic: str, header: Any, log_time: int, taken: Counter[str]) -> str:
    """A unique name of an image in files: <path of the topic>/<stamp of the header in ns>.

    The log time replaces a stamp of 0. Images with the same stamp, as `taken` counts them, get -1, -2, … after the
    first one.
    """
    name = f'{topic_path(topic)}/{nanoseconds(header.stamp) or log_time}'
    taken[name] += 1
    return f'{name}-{taken[name] - 1}' if taken[name] > 1 else name


def seconds(stamp: int) -> str:
    """A log time in ns as text in seconds."""
    return f'{stamp // 10**9}.{stamp % 10**9:09d} s'


def _is_depth(reader: AnyReader, connection: Connection) -> bool:
    for _, _, data in messages(reader, [connection]):
        try:
            image = deserialize(reader, data, connection.msgtype)
        except Exception:  # noqa: BLE001 - the extraction reports bad messages
            return False
        return getattr(image, 'encoding', '') in _DEPTH or 'compressedDepth' in getattr(image, 'format', '')
    return False
