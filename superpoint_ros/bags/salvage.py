"""Messages out of damaged bag files, read from the front without the files' indexes.

What stands in the way is appended to `damage`, one sentence each; reading goes on behind it where that can be done.
Formats: https://mcap.dev/spec, https://wiki.ros.org/Bags/Format/2.0, and rosbag2's sqlite3 schema.
"""

from __future__ import annotations

import bz2
import sqlite3
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import lz4.frame
from rosbags.interfaces import Qos
from rosbags.rosbag1.reader import Header
from rosbags.rosbag2.metadata import parse_qos
from rosbags.typesys.msg import normalize_msgtype

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROS1, MCAP, SQLITE = b'#ROSBAG V2.0\n', b'\x89MCAP0\r\n', b'SQLite format 3\0'
"""How the files begin."""

MAX_CHUNK = 1 << 30
"""Most bytes that a compressed chunk may unpack to; recorders write a few megabytes."""


class Topic(NamedTuple):
    """A topic as a bag file declares it; definition is the text of the message definition, '' if the file has none."""

    name: str
    msgtype: str
    definition: str
    qos: tuple[Qos, ...] = ()
    latching: bool = False


Salvaged = Iterator[tuple[Topic, int, bytes]]
"""Topic, log time in ns, and the message as it was serialized."""


def mcap(path: Path, damage: list[str]) -> Salvaged:
    """The messages of an .mcap file, chunk by chunk, by time within a chunk."""
    schemas: dict[int, tuple[str, str]] = {}
    topics: dict[int, Topic] = {}
    strays: Counter[int] = Counter()

    def read(stream: BinaryIO, size: int, where: str) -> Salvaged:
        while stream.tell() < size:
            at = stream.tell()
            opcode, length = struct.unpack('<BQ', stream.read(9).ljust(9, b'\0'))
            record = stream.read(min(length, size - at))
            if len(record) < length or at + 9 > size:
                damage.append(f'{where} ends in the middle of a record, at byte {at} of {size}')
            try:
                if opcode == 0x06:
                    yield from chunk(record, f'{where}: the chunk at byte {at}')
                elif len(record) < length:
                    return
                elif opcode == 0x03:
                    name, at_encoding = _string(record, 2)
                    encoding, at_text = _string(record, at_encoding)
                    schemas[_u16(record, 0)] = name, _string(record, at_text)[0] if encoding == 'ros2msg' else ''
                elif opcode == 0x04:
                    name, at_encoding = _string(record, 4)
                    metadata = _strings(record, _string(record, at_encoding)[1])
                    msgtype, definition = schemas[_u16(record, 2)]
                    qos = tuple(parse_qos(metadata.get('offered_qos_profiles', '')))
                    topics[_u16(record, 0)] = Topic(name, msgtype, definition, qos)
                elif opcode == 0x05:
                    channel, _, stamp = struct.unpack_from('<HIQ', record)
                    if channel in topics:
                        yield topics[channel], stamp, record[22:]
                    else:
                        strays[channel] += 1
            except (struct.error, KeyError, ValueError, TypeError) as error:
                damage.append(f'{where}: the record at byte {at} is broken ({type(error).__name__}: {error})')

    def chunk(record: bytes, where: str) -> Salvaged:
        _, _, size, checksum = struct.unpack_from('<QQQI', record)
        compression, at = _string(record, 28)
        data = inflate(compression, record[at + 8 :], size, where, damage)
        if checksum and len(data) == size and zlib.crc32(data) != checksum:
            damage.append(f'{where} has a wrong checksum; it is left out')
            return
        yield from sorted(read(BytesIO(data), len(data), where), key=lambda message: message[1])

    with path.open('rb') as file:
        size = path.stat().st_size
        file.seek(max(0, size - 28))
        footer = file.read()
        if footer.endswith(MCAP):
            # Topics are declared once, with their first message, and again in the summary at the end.
            size -= 8
            file.seek(struct.unpack_from('<Q', footer)[0] or size)
            yield from read(file, size, f'the summary of {path.name}')
        file.seek(len(MCAP))
        yield from read(file, size, path.name)
    if strays:
        damage.append(f'{path.name}: nothing is left that says of which topics {strays.total()} messages are')


def ros1(path: Path, damage: list[str]) -> Salvaged:
    """The messages of a ROS 1 bag in the order of the file."""
    topics: dict[int, Topic] = {}
    strays: Counter[int] = Counter()

    def read(stream: BinaryIO, size: int, where: str) -> Salvaged:
        while stream.tell() < size:
            at = stream.tell()
            (packed, _), (record, whole) = _ros1_field(stream, size), _ros1_field(stream, size)
            try:
                header = _ros1_header(packed)
                opcode = header.get_uint8('op')
                if opcode == 5:
                    compression, unpacked = header.get_string('compression'), header.get_uint32('size')
                elif opcode == 7 and whole:
                    topics[header.get_uint32('conn')] = _ros1_topic(header, record)
                elif opcode == 2:
                    connection, stamp = header.get_uint32('conn'), header.get_time('time')
            except Exception as error:  # noqa: BLE001 - whatever a broken header leads to
                damage.append(f'{where}: the record at byte {at} is broken ({error})')
                continue
            if not whole:
                damage.append(f'{where} ends in the middle of a record, at byte {at} of {size}')
            if opcode == 5:
                inner = f'{where}: the chunk at byte {at}'
                data = inflate(compression, record, unpacked, inner, damage)
                yield from read(BytesIO(data), len(data), inner)
            elif opcode == 2 and whole and connection in topics:
                yield topics[connection], stamp, record
            elif opcode == 2 and whole:
                strays[connection] += 1

    with path.open('rb') as file:
        size = path.stat().st_size
        file.seek(len(ROS1))
        try:
            index = _ros1_header(_ros1_field(file, size)[0]).get_uint64('index_pos')
        except Exception:  # noqa: BLE001 - whatever a broken header leads to; the same is said when the file is read
            index = 0
        if 0 < index < size:
            # Topics are declared once, before their first message, and again in the index at the end.
            file.seek(index)
            yield from read(file, size, f'the index of {path.name}')
        file.seek(len(ROS1))
        yield from read(file, size, path.name)
    if strays:
        damage.append(f'{path.name}: nothing is left that says of which topics {strays.total()} messages are')


def _ros1_field(stream: BinaryIO, end: int) -> tuple[bytes, bool]:
    """Bytes that are stored behind their length, and whether they are all there before the end."""
    length = int.from_bytes(stream.read(4).ljust(4, b'\xff'), 'little')
    content = stream.read(min(length, max(end - stream.tell(), 0)))
    return content, len(content) == length


def _ros1_header(packed: bytes) -> Header:
    return Header.read(BytesIO(struct.pack('<I', len(packed)) + packed))


def _ros1_topic(header: Header, record: bytes) -> Topic:
    fields = _ros1_header(record)
    return Topic(
        '/' + header.get_string('topic').strip('/'),
        normalize_msgtype(fields.get_string('type')),
        fields.get_string('message_definition'),
        latching=fields.get('latching') == b'1',
    )


def sqlite(path: Path, damage: list[str]) -> Salvaged:
    """The messages of a .db3 file in the order in which they were written."""
    missing, last = 0, 0
    with closing(sqlite3.connect(f'{path.absolute().as_uri()}?immutable=1', uri=True)) as database:
        database.execute('PRAGMA writable_schema = ON')  # SQLite then opens a file that is shorter than its header says
        topics = _sqlite_topics(database)
        partial = path.stat().st_size % database.execute('PRAGMA page_size').fetchone()[0]
        before: tuple[Topic, int, bytes] | None = None
        while missing < 10_000:
            try:
                row = database.execute(
                    'SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? ORDER BY id LIMIT 1', (last,)
                ).fetchone()
                if row is None:
                    break
                number, topic, stamp, data = row
                if number <= last or not isinstance(data, bytes):
                    raise sqlite3.DatabaseError('a page is lost')  # SQLite reads pages behind the file's end as zeros
            except sqlite3.Error as error:
                if not missing:
                    damage.append(f'{path.name}: messages after number {last} cannot be read ({error})')
                last, missing = last + 1, missing + 1
                continue
            if before:
                yield before
            before, last, missing = (topics[topic], stamp, data), number, 0
        if before and not partial:  # else the last message may end in the page that was cut, and so in zeros
            yield before


def _sqlite_topics(database: sqlite3.Connection) -> dict[int, Topic]:
    columns = [row[1] for row in database.execute('PRAGMA table_info(topics)')]
    qos = 'offered_qos_profiles' if 'offered_qos_profiles' in columns else "''"
    definitions: dict[str, str] = {}
    if database.execute('PRAGMA table_info(message_definitions)').fetchall():
        query = "SELECT topic_type, encoded_message_definition FROM message_definitions WHERE encoding = 'ros2msg'"
        definitions = dict(database.execute(query))
    return {
        number: Topic(name, msgtype, definitions.get(msgtype, ''), tuple(parse_qos(profiles)))
        for number, name, msgtype, profiles in database.execute(f'SELECT id, name, type, {qos} FROM topics')
    }


def inflate(compression: str, data: bytes, size: int, where: str, damage: list[str]) -> bytes:
    """Unpack as much of a chunk as can be unpacked, `size` bytes at most."""
    if compression in ('', 'none'):
        return data[:size]
    if size > MAX_CHUNK:
        damage.append(f'{where} says that it unpacks to {size} bytes, more than {MAX_CHUNK}; it is left out')
        return b''
    makers = {'zstd': zstd.ZstdDecompressor, 'lz4': lz4.frame.LZ4FrameDecompressor, 'bz2': bz2.BZ2Decompressor}
    if compression not in makers:
        damage.append(f'{where} is packed with {compression!r}; known are {", ".join(makers)}')
        return b''
    unpacker, out = makers[compression](), bytearray()
    try:
        # Bit by bit, so that what stands before a broken byte is not lost with it.
        for start in range(0, len(data), 4096):
            piece = data[start : start + 4096]
            while len(out) < size and not unpacker.eof:
                out += unpacker.decompress(piece, size - len(out))
                piece = b''
                if unpacker.needs_input:
                    break
    except Exception as error:  # noqa: BLE001 - each library has its own
        damage.append(f'{where} cannot be unpacked behind byte {len(out)} of {size} ({error})')
    return bytes(out)


def _u16(record: bytes, at: int) -> int:
    return int(struct.unpack_from('<H', record, at)[0])


def _string(record: bytes, at: int) -> tuple[str, int]:
    """A string with its length before it, and where the next field begins."""
    end = at + 4 + struct.unpack_from('<I', record, at)[0]
    return record[at + 4 : end].decode(), end


def _strings(record: bytes, at: int) -> dict[str, str]:
    end, found = at + 4 + struct.unpack_from('<I', record, at)[0], {}
    at += 4
    while at < end:
        key, at = _string(record, at)
        found[key], at = _string(record, at)
    return found
