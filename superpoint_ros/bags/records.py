"""Reads the messages of damaged bag files from the front, record by record, without the index.

Formats: https://mcap.dev/spec, https://wiki.ros.org/Bags/Format/2.0, and rosbag2's SQLite schema. A reader appends a
sentence to `damage` for each problem and continues behind it where it can. The memory for a record and the work for a
file are limited, whatever sizes the file claims.
"""

from __future__ import annotations

import bz2
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import apsw
import lz4.frame
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Footer, Message, Schema
from rosbags.interfaces import Qos
from rosbags.rosbag1.reader import Header, RecordType
from rosbags.rosbag2.metadata import parse_qos
from rosbags.typesys.msg import normalize_msgtype

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROS1, MCAP, SQLITE, ZSTD = b'#ROSBAG V2.0\n', b'\x89MCAP0\r\n', b'SQLite format 3\0', b'\x28\xb5\x2f\xfd'
"""First bytes of the files."""

MAX_RECORD = 1 << 28
"""Maximum size of a record, chunk or message in bytes, compressed or not. Recorders write chunks of a few megabytes."""

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


def max_decompressed(size: int) -> int:
    """Maximum number of bytes to decompress from a file of this size: 1000 times as many, but at least 1 GiB."""
    return max(1 << 30, 1000 * size)


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
    record and leaves the stream behind it; it raises anything if the record is broken.
    """
    topics: dict[int, Topic] = {}
    undeclared = 0
    size = path.stat().st_size
    budget = max_decompressed(size)

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
        data, problem = decompress(chunk.compression, chunk.data, chunk.size)
        damage.extend(f'{where} {text}' for text in (chunk.problem, problem) if text)
        budget -= len(data)
        if budget <= 0:
            damage.append(f'{path.name} decompresses to more than {max_decompressed(size)} bytes; the rest is skipped')
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
    """Read up to `length` bytes, and say why there are fewer; leaves the stream behind all of them."""
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


def sqlite(path: Path, damage: list[str]) -> Messages:
    """Yield the messages of a .db3 file in the order in which they were written.

    Raises:
        apsw.Error, ValueError: the file is not a database with the tables of a bag.
    """
    query = 'SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? ORDER BY id LIMIT 1'
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with closing(apsw.Connection(f'{path.absolute().as_uri()}?immutable=1', flags)) as database:
        database.pragma('writable_schema', True)  # SQLite then opens a file that is shorter than its header says
        limit_database(database, path.stat().st_size)
        topics = _sqlite_topics(database)
        cut = path.stat().st_size % database.pragma('page_size') != 0
        last, missing = 0, 0
        previous: tuple[Topic, int, bytes] | None = None
        while missing < MAX_DAMAGE:
            try:
                row = database.execute(query, (last,)).fetchone()
                if row is None:
                    break
                number, topic, stamp, data = row
                # SQLite reads pages behind the end of the file as zeros.
                if not (last < number and topic in topics and 0 <= stamp < 1 << 63 and isinstance(data, bytes)):
                    raise ValueError('a page is lost')
            except (apsw.Error, TypeError, ValueError) as error:
                if not missing:
                    damage.append(f'{path.name}: messages after number {last} cannot be read: {error}')
                last, missing = last + 1, missing + 1
                continue
            if previous:
                yield previous
            previous, last, missing = (topics[topic], stamp, data), number, 0
        if previous and not cut:  # else the last message may end in the page that is cut, and so in zeros
            yield previous


def limit_database(database: apsw.Connection, size: int) -> None:
    """Limit the memory for a value and the work for a file of `size` bytes, and refuse computed tables and columns.

    Raises:
        ValueError: a table of a bag is a view, a virtual table, or has generated columns.
    """
    database.limit(apsw.SQLITE_LIMIT_LENGTH, MAX_RECORD)
    database.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    millions = iter(range(100 + size // 10_000))

    def count() -> bool:
        if next(millions, None) is None:
            raise ValueError('reading takes too many steps')
        return False

    database.set_progress_handler(count, 1_000_000)
    for table in ('schema', 'topics', 'message_definitions', 'messages'):
        query = "SELECT rootpage > 0 AND type = 'table' FROM sqlite_master WHERE lower(name) = ?"
        stored = all(row[0] for row in database.execute(query, (table,)))
        if not stored or any(row[6] for row in database.execute(f'PRAGMA table_xinfo({table})')):
            raise ValueError(f'{table} is not a plain table')


def _sqlite_topics(database: apsw.Connection) -> dict[int, Topic]:
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


def decompress_file(path: Path, folder: Path, damage: list[str]) -> Path:
    """Decompress a file that is compressed as a whole, as far as possible, to a file in `folder`."""
    target = folder / path.stem
    left = max_decompressed(path.stat().st_size)
    try:
        with zstd.open(path, 'rb') as compressed, target.open('wb') as file:
            while piece := compressed.read(min(left, 1 << 20)):
                file.write(piece)
                left -= len(piece)
        if not left:
            damage.append(f'{path.name} decompresses to more than {target.stat().st_size} bytes; the rest is skipped')
    except (zstd.ZstdError, EOFError) as error:
        damage.append(f'{path.name} cannot be decompressed to its end: {error}')
    return target


def decompress(compression: str, data: bytes, size: int, step: int = 4096) -> tuple[bytes, str]:
    """Decompress as much as possible, but at most the expected `size` in bytes, and say why that is not everything.

    The compression is '', none, zstd, lz4 or bz2. `step` is the number of bytes to decompress at once: small ones lose
    less before a broken byte, large ones are faster.
    """
    if size > MAX_RECORD:
        return b'', f'claims to decompress to {size} bytes, more than {MAX_RECORD}, and is skipped'
    if compression in ('', 'none'):
        return data[:size], ''
    makers = {'zstd': zstd.ZstdDecompressor, 'lz4': lz4.frame.LZ4FrameDecompressor, 'bz2': bz2.BZ2Decompressor}
    if compression not in makers:
        return b'', f'has the unknown compression {compression!r:.100}; known: {", ".join(makers)}'
    decompressor, pieces, problem = makers[compression](), [], ''
    left = size + 1  # one more than expected, to notice that there is more
    try:
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            while left and not decompressor.eof:
                pieces.append(decompressor.decompress(piece, left))
                left -= len(pieces[-1])
                piece = b''
                if decompressor.needs_input or not pieces[-1]:
                    break
    except Exception as error:  # noqa: BLE001 - each library has its own
        problem = f'cannot be decompressed after byte {size + 1 - left} of {size}: {error}'
    if not left:
        pieces[-1], problem = pieces[-1][:-1], f'decompresses to more than {size} bytes; the rest is skipped'
    return b''.join(pieces), problem
