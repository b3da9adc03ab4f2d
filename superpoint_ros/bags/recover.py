"""What can still be read of a damaged bag, written into a sound one.

A recorder that was killed leaves no index and a file that ends anywhere; a bad disk leaves holes. The rest of the
package only ever sees sound bags.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from superpoint_ros.bags import salvage
from superpoint_ros.bags.read import COMPRESSED_IMAGE, IMAGE, seconds

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ZSTD = b'\x28\xb5\x2f\xfd'
_MAGICS: dict[bytes, Callable[[Path, list[str]], salvage.Salvaged]] = {
    salvage.ROS1: salvage.ros1,
    salvage.MCAP: salvage.mcap,
    salvage.SQLITE: salvage.sqlite,
}


def recover(source: Path, folder: Path, everything: bool, reason: str) -> None:
    """Write what can be read of a damaged bag into folder; a second call finds it there and does nothing.

    Args:
        source: the damaged bag.
        folder: appears when all is done; `find(folder)` is then the sound bag.
        everything: the messages of all topics, and not only the images.
        reason: why the bag cannot be read as it is.

    Raises:
        ValueError: source is no bag at all.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f'{folder.name}.', dir=folder.parent))
        try:
            damage = [reason, *_rewrite(source, scratch, everything)]
            (scratch / 'damage.json').write_text(json.dumps(damage))
            scratch.replace(folder)
        except OSError:
            if not folder.exists():  # else another worker was faster
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def find(folder: Path) -> Path | None:
    """The sound bag that recover wrote into this folder; None if it was not called."""
    return next((folder / name for name in ('bag', 'bag.bag') if (folder / name).exists()), None)


def damage_of(folder: Path) -> list[str]:
    """What recover found to be wrong; nothing if it was not called."""
    path = folder / 'damage.json'
    return [str(line) for line in json.loads(path.read_text())] if path.exists() else []


def _rewrite(source: Path, scratch: Path, everything: bool) -> list[str]:
    damage: list[str] = []
    files = [source]
    if source.is_dir():
        files = sorted(p for p in source.iterdir() if p.suffix in ('.mcap', '.db3', '.zstd'))
    kinds = [(_magic(path), path) for path in files]
    if not any(kind for kind, _ in kinds):
        raise ValueError(f'{source}: not a bag; expected a ROS 1 .bag, a ROS 2 bag folder, an .mcap or a .db3 file')
    with _writer(scratch, kinds[0][0] == salvage.ROS1) as writer:
        for kind, path in kinds:
            if kind == _ZSTD:
                path = _unpack(path, scratch, damage)
                kind = _magic(path)
            if kind not in _MAGICS:
                damage.append(f'{path.name} is empty or not a bag file')
                continue
            found = len(damage)
            try:
                _copy(_MAGICS[kind](_with_log(path, scratch), damage), writer, everything, damage)
            except sqlite3.Error as error:
                damage.append(f'{path.name} cannot be read ({error})')
            damage[found:] = [line if path.name in line else f'{path.name}: {line}' for line in damage[found:]]
    return damage


def _copy(messages: salvage.Salvaged, writer: Any, everything: bool, damage: list[str]) -> None:
    connections: dict[salvage.Topic, Any] = {}
    for topic, stamp, data in messages:
        if not everything and topic.msgtype not in (IMAGE, COMPRESSED_IMAGE):
            continue
        if topic not in connections:
            connections[topic] = _declare(writer, topic)
            if connections[topic] is None:
                damage.append(f'{topic.name}: nothing says what a {topic.msgtype} is; its messages are left out')
        if connections[topic] is not None:
            # A recorder that compresses message by message says so only in metadata.yaml, which may be lost.
            if data[:4] == _ZSTD:
                where = f'{topic.name}: the message at {seconds(stamp)}'
                data = salvage.inflate('zstd', data, salvage.MAX_CHUNK, where, damage)
            writer.write(connections[topic], stamp, data)


def _declare(writer: Any, topic: salvage.Topic) -> Any:
    for connection in writer.connections:
        if (connection.topic, connection.msgtype) == (topic.name, topic.msgtype):
            return connection
    first = isinstance(writer, rosbag1.Writer)
    types = _types(topic, Stores.ROS1_NOETIC if first else Stores.ROS2_JAZZY)
    if types is None:
        return None
    if first:
        return writer.add_connection(topic.name, topic.msgtype, typestore=types, latching=int(topic.latching))
    return writer.add_connection(topic.name, topic.msgtype, typestore=types, offered_qos_profiles=topic.qos)


def _types(topic: salvage.Topic, default: Stores) -> Typestore | None:
    types = get_typestore(Stores.EMPTY)
    try:
        types.register(get_types_from_msg(topic.definition, topic.msgtype))
        types.generate_msgdef(topic.msgtype)
        if topic.definition:
            return types
    except Exception:  # noqa: BLE001 - a definition with broken bytes: whatever the parser makes of it
        pass
    types = get_typestore(default)
    return types if topic.msgtype in types.fielddefs else None


def _writer(scratch: Path, first: bool) -> Any:
    if first:
        return rosbag1.Writer(scratch / 'bag.bag')
    return rosbag2.Writer(scratch / 'bag', version=8, storage_plugin=rosbag2.StoragePlugin.MCAP)


def _magic(path: Path) -> bytes:
    with path.open('rb') as file:
        start = file.read(16)
    return next((magic for magic in (*_MAGICS, _ZSTD) if start.startswith(magic)), b'')


def _unpack(path: Path, scratch: Path, damage: list[str]) -> Path:
    """The file in a file that is compressed as a whole, as far as it can be unpacked."""
    target = scratch / path.stem
    try:
        with zstd.open(path, 'rb') as packed, target.open('wb') as file:
            while piece := packed.read(1 << 20):
                file.write(piece)
    except (zstd.ZstdError, EOFError) as error:
        damage.append(f'{path.name} cannot be unpacked to its end ({error})')
    return target


def _with_log(path: Path, scratch: Path) -> Path:
    """The file, or a copy of a database into which SQLite has brought what stood in the write-ahead log beside it."""
    log = path.with_name(path.name + '-wal')
    if not log.exists() or not log.stat().st_size:
        return path
    copy = Path(shutil.copy(path, scratch))
    shutil.copy(log, scratch)
    database = sqlite3.connect(copy)
    database.execute('PRAGMA wal_checkpoint(TRUNCATE)')
    database.close()
    return copy
