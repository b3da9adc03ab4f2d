"""Reads the messages of damaged MCAP files and ROS 1 bags from the front, record by record, without the index.

Formats: https://mcap.dev/spec and https://wiki.ros.org/Bags/Format/2.0. A reader appends a sentence to `damage` for
each problem and continues after it where it can. The memory for a record and the work for a file are limited, whatever
sizes the file claims.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Footer, Message, Schema
from rosbags.interfaces import Qos
from rosbags.rosbag1.reader import Header, RecordType
from rosbags.rosbag2.metadata import parse_qos
from rosbags.typesys.msg import normalize_msgtype

from superpoint_ros.bags import compression
from superpoint_ros.bags.compression import MAX_RECORD

ROS1, MCAP = b'#ROSBAG V2.0\n', b'\x89MCAP0\r\n'
"""First bytes of the files."""

MAX_DAMAGE = 10_000
"""Number of problems in a file, or of consecutive lost messages in a database, after which the rest is skipped."""


class Topic(NamedTuple):
    """A topic as a bag file declares it; definition is the text of the message definition, '' if the file has none."""

    name: str
    msgtype: str
    definition: str
    qos: tuple[Qos, ...] = ()
    latching: bool = False


Messages = Iterator[tuple[Topic, int, bytes]]
"""Topic, log time in ns, and serialized message."""


class _Declaration(NamedTuple):
    """Declares the topic with a number."""

    number: int
    topic: Topic


class _Message(NamedTuple):
    """A message on the topic with a number."""

    number: int
    stamp: int
    data: bytes


class _Chunk(NamedTuple):
    """Compressed records; checksum is 0 if there is none."""

    compression: str
    data: bytes
    size: int
    checksum: int
    problem: str


_Record = _Declaration | _Message | _Chunk | None


def mcap(path: Path, damage: list[str]) -> Messages:
    """Yield the messages of an MCAP file in the order of the file."""
    schemas: dict[int, Schema] = {}

    def read_record(stream: BinaryIO, end: int) -> _Record:
        opcode, length = struct.unpack('<BQ', _whole(*_read(stream, 9, end)))
        data, problem = _read(stream, length, end)
        fields = ReadDataStream(BytesIO(data))
        if opcode == Opcode.CHUNK:
            chunk = Chunk.read(fields)
            return _Chunk(chunk.compression, chunk.data, chunk.uncompressed_size, chunk.uncompressed_crc, problem)
        _whole(data, problem)
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(fields)
            schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(fields)
            schema = schemas[channel.schema_id]
            definition = schema.data.decode() if schema.encoding == 'ros2msg' else ''
            qos = tuple(parse_qos(channel.metadata.get('offered_qos_profiles', '')))
            return _Declaration(channel.id, Topic(channel.topic, schema.name, definition, qos))
        elif opcode == Opcode.MESSAGE:
            message = Message.read(fields, length)
            return _Message(message.channel_id, message.log_time, message.data)
        elif opcode == Opcode.FOOTER and end - stream.tell() == len(MCAP):
            stream.seek(end)
        elif opcode == 0:
            _skip_zeros(stream, end)
        return None

    def find_index(file: BinaryIO, size: int) -> int:
        file.seek(max(0, size - 20 - len(MCAP)))
        footer = Footer.read(ReadDataStream(file))
        return footer.summary_start if file.read() == MCAP else 0

    return _messages(path, damage, len(MCAP), find_index, read_record)


def ros1(path: Path, damage: list[str]) -> Messages:
    """Yield the messages of a ROS 1 bag in the order of the file."""

    def read_field(stream: BinaryIO, end: int) -> tuple[bytes, str]:
        return _read(stream, int.from_bytes(_whole(*_read(stream, 4, end)), 'little'), end)

    def read_record(stream: BinaryIO, end: int) -> _Record:
        packed = _whole(*read_field(stream, end))
        data, problem = read_field(stream, end)
        if not packed:
            _skip_zeros(stream, end)
        header = _ros1_header(packed)
        kind = header.get_uint8('op')
        if kind == RecordType.CHUNK:
            return _Chunk(header.get_string('compression'), data, header.get_uint32('size'), 0, problem)
        _whole(data, problem)
        if kind == RecordType.CONNECTION:
            return _Declaration(header.get_uint32('conn'), _ros1_topic(header, _ros1_header(data)))
        if kind == RecordType.MSGDATA:
            return _Message(header.get_uint32('conn'), header.get_time('time'), data)
        return None

    def find_index(file: BinaryIO, size: int) -> int:
        file.seek(len(ROS1))
        return _ros1_header(_whole(*read_field(file, size))).get_uint64('index_pos')

    return _messages(path, damage, len(ROS1), find_index, read_record)


def _messages(
    path: Path,
    damage: list[str],
    start: int,
    find_index: Callable[[BinaryIO, int], int],
    read_record: Callable[[BinaryIO, int], _Record],
) -> Messages:
    """Yield the messages of a file whose records begin at `start`.

    `find_index` returns the position of the index at the end of the file, 0 if there is none. `read_record` reads a
    record and leaves the stream after it; it raises anything if the record is broken.
    """
    topics: dict[int, Topic] = {}
    undeclared = 0
    size = path.stat().st_size
    most = budget = compression.max_decompressed(size)

    def read(stream: BinaryIO, end: int, where: str, kinds: tuple[type, ...]) -> Messages:
        nonlocal undeclared
        while (at := stream.tell()) < end and len(damage) < MAX_DAMAGE and budget > 0:
            try:
                record = read_record(stream, end)
            except Exception as error:  # noqa: BLE001 - broken bytes lead to any error
                damage.append(f'{where}: the record at byte {at} is broken: {error or type(error).__name__}')
                continue
            if record is None or not isinstance(record, kinds):
                continue
            if isinstance(record, _Declaration):
                topics[record.number] = record.topic
            elif isinstance(record, _Chunk):
                yield from read_chunk(record, f'{where}: the chunk at byte {at}')
            elif record.number in topics:
                yield topics[record.number], record.stamp, record.data
            else:
                undeclared += 1

    def read_chunk(chunk: _Chunk, where: str) -> Messages:
        nonlocal budget
        data, problem = compression.decompress(chunk.compression, chunk.data, chunk.size)
        damage.extend(f'{where} {text}' for text in (chunk.problem, problem) if text)
        budget -= len(data)
        if budget <= 0:
            damage.append(f'{path.name} decompresses to more than {most} bytes; the rest is skipped')
            return
        if chunk.checksum and len(data) == chunk.size and zlib.crc32(data) != chunk.checksum:
            damage.append(f'{where} has a wrong checksum and is skipped')
        else:
            yield from read(BytesIO(data), len(data), where, (_Declaration, _Message))

    with path.open('rb') as file:
        try:
            index = find_index(file, size)
        except Exception:  # noqa: BLE001 - broken bytes lead to any error; reading from the front reports it
            index = 0
        if 0 < index < size:
            # A topic is declared before its first message, where it may be lost, and again in the index.
            file.seek(index)
            yield from read(file, size, f'the index of {path.name}', (_Declaration,))
        file.seek(start)
        yield from read(file, size, path.name, (_Declaration, _Message, _Chunk))
    if undeclared:
        damage.append(f'{path.name}: {undeclared} messages belong to topics that the file does not declare')


def _read(stream: BinaryIO, length: int, end: int) -> tuple[bytes, str]:
    """Read up to `length` bytes, and say why there are fewer; leaves the stream after all of them."""
    start = stream.tell()
    data = stream.read(min(length, end - start, MAX_RECORD))
    stream.seek(min(start + length, end))
    if len(data) == length:
        return data, ''
    if start + length > end:
        return data, f'is cut off after {len(data)} of {length} bytes'
    return data, f'has {length} bytes, more than {MAX_RECORD}'


def _whole(data: bytes, problem: str) -> bytes:
    if problem:
        raise ValueError(f'it {problem}')
    return data


def _skip_zeros(stream: BinaryIO, end: int) -> None:
    stream.seek(end)
    raise ValueError('it is all zeros; what follows is skipped')


def _ros1_header(packed: bytes) -> Header:
    return Header.read(BytesIO(struct.pack('<I', len(packed)) + packed))


def _ros1_topic(header: Header, fields: Header) -> Topic:
    return Topic(
        '/' + header.get_string('topic').strip('/'),
        normalize_msgtype(fields.get_string('type')),
        fields.get_string('message_definition'),
        latching=fields.get('latching') == b'1',
    )
