"""Copies what is readable of a damaged bag into an intact one, which the rest of the package then reads.

A recorder that is killed leaves no index and a file that ends anywhere; a bad disk leaves holes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import apsw
from rosbags import rosbag1, rosbag2
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from superpoint_ros.bags import compression, records, sqlite
from superpoint_ros.bags.read import COMPRESSED_IMAGE, IMAGE, DamagedBagError, bag_files, open_bag, seconds
from superpoint_ros.files import folder_written_whole

T = TypeVar('T')

_READERS: dict[bytes, Callable[[Path, list[str]], records.Messages]] = {
    records.ROS1: records.ros1,
    records.MCAP: records.mcap,
    sqlite.SQLITE: sqlite.messages,
}


def read(source: Path, folder: Path, everything: bool, use: Callable[[AnyReader], T]) -> T:
    """Open a bag and return `use(reader)`. If the bag proves to be damaged, recover it and call `use` again.

    The folder is for an intact copy of a damaged bag, see `recover`; if it exists, the copy is read. `everything` tells
    whether `use` reads other messages than images.

    Raises:
        ValueError: source is not a bag.
        FileNotFoundError, PermissionError: the bag does not exist or may not be read.
    """
    while True:
        try:
            with open_bag(find(folder) or source) as reader:
                return use(reader)
        except DamagedBagError as error:
            if error.path != source:
                raise
            recover(source, folder, everything, error.damage)


def recover(source: Path, folder: Path, everything: bool, damage: list[str]) -> None:
    """Copy what is readable of a damaged bag into `folder`, which appears when it is complete; `find` returns the copy.

    Does nothing if the folder exists. The arguments are those of `read`, and why the bag is not readable as it is.

    Raises:
        ValueError: source is not a bag.
    """
    if not folder.exists():
        with folder_written_whole(folder) as scratch:
            (scratch / 'damage.json').write_text(json.dumps(damage + _copy_bag(source, scratch, everything)))


def find(folder: Path) -> Path | None:
    """The intact copy in a folder of `recover`; None if the folder does not exist."""
    return next((folder / name for name in ('bag', 'bag.bag') if (folder / name).exists()), None)


def damage_of(folder: Path) -> list[str]:
    """What is wrong with the bag, according to `recover`; nothing if the folder does not exist."""
    path = folder / 'damage.json'
    return [str(line) for line in json.loads(path.read_text())] if path.exists() else []


def _copy_bag(source: Path, scratch: Path, everything: bool) -> list[str]:
    """Copy a bag into a new one in `scratch`; returns what is wrong with it."""
    damage: list[str] = []
    files = [file for file in bag_files(source) if file == source or file.suffix in ('.mcap', '.db3', '.zstd')]
    kinds = [(_kind(path), path) for path in files]
    if not any(kind for kind, _ in kinds):
        raise ValueError('not a bag; expected a ROS 1 .bag, a ROS 2 bag folder, an .mcap or a .db3 file')
    connections: dict[tuple[str, str], Any] = {}
    with tempfile.TemporaryDirectory(dir=scratch) as temporary, _writer(scratch, kinds[0][0] == records.ROS1) as writer:
        for kind, path in kinds:
            found: list[str] = []
            if kind == compression.ZSTD:
                path = compression.decompress_file(path, Path(temporary), found)
                kind = _kind(path)
            if kind in _READERS:
                messages = _READERS[kind](_with_log(path, Path(temporary)), found)
                try:
                    _copy_messages(messages, writer, connections, everything, found)
                except (apsw.Error, ValueError) as error:
                    found.append(f'{path.name} cannot be read: {error}')
            else:
                found.append(f'{path.name} is empty or not a bag file')
            damage += [line if path.name in line else f'{path.name}: {line}' for line in found]
    return damage


def _copy_messages(
    messages: records.Messages,
    writer: Any,
    connections: dict[tuple[str, str], Any],
    everything: bool,
    damage: list[str],
) -> None:
    for topic, stamp, data in messages:
        key = topic.name, topic.msgtype
        if not everything and topic.msgtype not in (IMAGE, COMPRESSED_IMAGE):
            continue
        if key not in connections:
            connections[key] = _declare(writer, topic)
            if connections[key] is None:
                damage.append(f'{topic.name} is skipped: the bag has no definition of {topic.msgtype}')
        if connections[key] is None:
            continue
        # A recorder that compresses single messages says so only in metadata.yaml, which may be lost.
        if data[:4] == compression.ZSTD:
            data, problem = compression.decompress('zstd', data, compression.MAX_RECORD)
            if problem:
                damage.append(f'{topic.name}: the message at {seconds(stamp)} {problem}')
                continue
        writer.write(connections[key], stamp, data)


def _declare(writer: Any, topic: records.Topic) -> Any:
    """A connection for a topic; None if the type of its messages is unknown."""
    first = isinstance(writer, rosbag1.Writer)
    types = _types(topic, Stores.ROS1_NOETIC if first else Stores.ROS2_JAZZY)
    if types is None:
        return None
    if first:
        return writer.add_connection(topic.name, topic.msgtype, typestore=types, latching=int(topic.latching))
    return writer.add_connection(topic.name, topic.msgtype, typestore=types, offered_qos_profiles=topic.qos)


def _types(topic: records.Topic, default: Stores) -> Typestore | None:
    types = get_typestore(Stores.EMPTY)
    try:
        types.register(get_types_from_msg(topic.definition, topic.msgtype))
        types.generate_msgdef(topic.msgtype)
        if topic.definition:
            return types
    except Exception:  # noqa: BLE001 - broken bytes in a definition lead to any error of the parser
        pass
    types = get_typestore(default)
    return types if topic.msgtype in types.fielddefs else None


def _writer(scratch: Path, first: bool) -> Any:
    if first:
        return rosbag1.Writer(scratch / 'bag.bag')
    return rosbag2.Writer(scratch / 'bag', version=8, storage_plugin=rosbag2.StoragePlugin.MCAP)


def _kind(path: Path) -> bytes:
    """The first bytes of a file if they are those of a bag file or of a compressed file, else b''."""
    with path.open('rb') as file:
        start = file.read(16)
    return next((magic for magic in (*_READERS, compression.ZSTD) if start.startswith(magic)), b'')


def _with_log(path: Path, folder: Path) -> Path:
    """The file, or a copy of a database with the messages in the write-ahead log beside it."""
    log = path.with_name(path.name + '-wal')
    if not log.exists() or not log.stat().st_size:
        return path
    copy = Path(shutil.copy(path, folder))
    shutil.copy(log, folder)
    with closing(apsw.Connection(str(copy))) as database:
        database.pragma('wal_checkpoint', 'TRUNCATE')
    return copy
