"""Real bags with the damage that killed recorders and bad disks do, and small bags that claim to be large."""

import os
import shutil
import sqlite3
import struct
from contextlib import closing

import apsw
import lz4.frame
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.opcode import Opcode
from rosbags.rosbag2.storage_mcap import zstd

from superpoint_ros.bags import compression, records, recover, sqlite

from .conftest import PERIOD, START, Recorder, contents, single_files
from .hostile import (
    GIGABYTE,
    MEGABYTE,
    compressed_zeros,
    declared_topic,
    mcap_chunk,
    mcap_message,
    mcap_record,
    run_limited,
)

KINDS = single_files(40)


def recovered(path, everything=True):
    """The messages that are recovered from a damaged bag, and the damage that is reported."""
    folder = path.parent / 'recovered'
    shutil.rmtree(folder, ignore_errors=True)
    recover.recover(path, folder, everything, ['the reason'])
    return contents(recover.find(folder)), recover.damage_of(folder)


@pytest.mark.parametrize('kind', KINDS)
def test_a_sound_bag_is_copied_completely(kind, record):
    path = KINDS[kind](record)
    assert recovered(path) == (contents(path), ['the reason'])


@pytest.mark.parametrize('kind', KINDS)
def test_a_truncated_bag_gives_everything_before_the_cut(kind, record):
    path = KINDS[kind](record)
    whole, data = contents(path), path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    found, damage = recovered(path)
    # Part of the 60 % is index; the last chunk gives what can be decompressed.
    assert 0.3 * len(whole) < len(found) < 0.7 * len(whole)
    assert found == whole[: len(found)]
    assert any(path.name in line for line in damage[1:])


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind not in ('ros1', 'mcap')])
def test_a_hole_loses_only_what_lay_in_it(kind, record):
    path = KINDS[kind](record)
    whole, data = contents(path), bytearray(path.read_bytes())
    middle, hole = len(data) // 2, bytes(range(64))
    if kind == 'sqlite3':  # a page of messages, not one in the middle of an image: that would go unnoticed
        middle, hole = next(at for at in range(middle // 4096 * 4096, len(data), 4096) if data[at] == 13), bytes(4096)
    data[middle : middle + len(hole)] = hole
    path.write_bytes(data)
    found, damage = recovered(path)
    assert len(damage) > 1
    assert set(found) < set(whole)
    assert len(found) > 0.8 * len(whole)
    assert found[-1] == whole[-1]


def test_a_chunk_with_a_wrong_checksum_is_skipped(record):
    path = record.mcap('bag', 40, 'NONE')
    whole, data = contents(path), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found, damage = recovered(path)
    assert 'checksum' in damage[1]
    assert set(found) < set(whole)
    assert len(found) > 0.8 * len(whole)


@pytest.mark.parametrize('kind', ['mcap-zstd', 'ros1-lz4'])
def test_the_index_declares_topics_whose_first_chunk_is_broken(kind, record):
    path = KINDS[kind](record)
    data = bytearray(path.read_bytes())
    at = 4200 if kind.startswith('ros1') else 150  # behind the padded header of a ROS 1 bag; in the first chunk
    data[at : at + 32] = bytes(32)
    path.write_bytes(data)
    found, damage = recovered(path)
    assert len(damage) > 1
    assert {topic for topic, _, _ in found} == {'/camera/image', '/imu'}


def test_a_bag_without_index_of_a_killed_recorder(record):
    path = record.ros1('drive', 10)
    whole, data = contents(path), path.read_bytes()
    active = path.with_suffix('.bag.active')
    # The header of a bag until it is closed: no index, no connections, no chunks.
    active.write_bytes(data.replace(*(b'index_pos=' + value for value in (data.split(b'index_pos=')[1][:8], bytes(8)))))
    assert recovered(active)[0] == whole


def test_a_folder_without_metadata(record):
    path = record.ros2('drive', 10)
    whole = contents(path)
    (path / 'metadata.yaml').unlink()
    assert recovered(path)[0] == whole


@pytest.mark.parametrize('compression', ['FILE', 'MESSAGE'])
@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_compressed_folder_without_metadata(compression, storage, record):
    path = record.ros2('drive', 10, storage, compression)
    whole = contents(path)
    (path / 'metadata.yaml').unlink()
    assert recovered(path)[0] == whole
    assert sorted(p.name for p in (path.parent / 'recovered').iterdir()) == ['bag', 'damage.json']


def test_a_truncated_compressed_file(record):
    path = record.ros2('drive', 400, compression='FILE')
    whole = contents(path)
    packed = path / 'drive.mcap.zstd'
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    found, damage = recovered(path)
    assert 0.2 * len(whole) < len(found) < 0.8 * len(whole)
    assert 'drive.mcap.zstd' in damage[1]


def test_messages_in_the_write_ahead_log_are_found(record):
    path = record.ros2('drive', 10, 'sqlite3') / 'drive.db3'
    whole = contents(path)
    database = sqlite3.connect(path)
    database.execute('PRAGMA journal_mode = WAL')
    database.execute(
        'INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, ?, data FROM messages WHERE id = 1',
        (START + 100 * PERIOD,),
    )
    database.commit()
    # The recorder dies here: closing the connection would write the log into the database.
    crashed = record.folder / 'crashed'
    shutil.copytree(path.parent, crashed)
    database.close()
    found, _ = recovered(crashed / 'drive.db3')
    assert len(found) == len(whole) + 1
    assert found[-1][1] == START + 100 * PERIOD


def test_only_images_are_copied_unless_everything_is_wanted(record):
    path = record.ros1('bag', 10)
    found, _ = recovered(path, everything=False)
    assert {topic for topic, _, _ in found} == {'/camera/image'}
    assert len(found) == 10


def test_a_type_without_definition_is_skipped(record):
    path = record.ros2('bag', 10, 'sqlite3') / 'bag.db3'
    with closing(sqlite3.connect(path)) as database, database:
        database.execute('DELETE FROM message_definitions')  # as before Iron
        database.execute("UPDATE topics SET type = 'mine/msg/Thing' WHERE name = '/imu'")
    found, damage = recovered(path)
    assert {topic for topic, _, _ in found} == {'/camera/image'}
    assert '/imu is skipped: the bag has no definition of mine/msg/Thing' in damage[1]


def test_messages_of_an_unknown_topic_in_a_database_are_skipped(record):
    path = record.ros2('bag', 10, 'sqlite3') / 'bag.db3'
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM topics WHERE name = '/imu'")
    found, damage = recovered(path)
    assert [topic for topic, _, _ in found] == ['/camera/image'] * 10
    assert len(damage) > 1


def test_a_file_that_is_not_a_bag_is_refused(tmp_path):
    path = tmp_path / 'notes.bag'
    path.write_text('not a bag at all')
    with pytest.raises(ValueError, match='not a bag; expected'):
        recover.recover(path, tmp_path / 'recovered', True, [])


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    """Bytes of small bags of each kind, and their messages."""
    found = {}
    for kind, make in KINDS.items():
        path = make(Recorder(tmp_path_factory.mktemp(kind)))
        found[kind] = path.suffix, path.read_bytes(), set(contents(path))
    return found


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(KINDS)), data=st.data())
def test_no_damage_raises_an_error(kind, data, samples, tmp_path):
    suffix, whole, _ = samples[kind]
    cut = data.draw(st.integers(20, len(whole)), 'cut')
    broken = bytearray(whole[:cut])
    for _ in range(data.draw(st.integers(0, 3), 'holes')):
        at = data.draw(st.integers(16, cut - 1), 'at')
        broken[at : at + 8] = struct.pack('<Q', data.draw(st.integers(0, 2**64 - 1), 'bytes'))
    path = tmp_path / f'broken{suffix}'
    path.write_bytes(broken[:cut])
    recovered(path)


def test_a_field_name_that_is_not_text_loses_nothing_else(samples, tmp_path):
    _, whole, messages = samples['ros1']
    broken = bytearray(whole)
    broken[broken.index(b'index_pos')] = 0x80
    path = tmp_path / 'broken.bag'
    path.write_bytes(broken)
    found, damage = recovered(path)
    assert set(found) == messages
    assert any('the record at byte 13 is broken' in line and 'utf-8' in line for line in damage)


def messages_in_little_memory(path):
    """The number of messages that are recovered from a bag file by a process with little memory, and the damage."""
    program = """
        from superpoint_ros.bags import records
        limit_memory()
        path, damage = Path(sys.argv[1]), []
        read = {'.mcap': records.mcap, '.bag': records.ros1}[path.suffix]
        print(json.dumps([sum(1 for _ in read(path, damage)), damage]))
    """
    return run_limited(program, path)


def ros1_record(data, length=None, **fields):
    fields = [name.encode() + b'=' + value for name, value in fields.items()]
    header = b''.join(struct.pack('<I', len(field)) + field for field in fields)
    return struct.pack('<I', len(header)) + header + struct.pack('<I', len(data) if length is None else length) + data


def ros1_chunk(data, size, compression):
    return ros1_record(data, op=b'\x05', compression=compression, size=struct.pack('<I', size))


HOSTILE = {
    # name: first bytes of the file, size of the file in GB (the rest is a hole), number of messages, reported damage
    'a record that is longer than any record': (
        lambda: mcap_message(1) + mcap_message(2, 3 * GIGABYTE),
        4,
        (1, '3221225472 bytes, more than 268435456'),
    ),
    'a record that is longer than the file': (
        lambda: mcap_message(1) + mcap_record(Opcode.SCHEMA, b'', 1 << 62),
        2,
        (1, 'is cut off after 268435456 of 4611686018427387904 bytes'),
    ),
    'a chunk that claims to be huge': (
        lambda: mcap_chunk(compressed_zeros(1024), GIGABYTE) + mcap_message(1),
        0,
        (1, 'claims to decompress to 1073741824 bytes'),
    ),
    'a chunk that is larger than it claims': (
        lambda: mcap_chunk(compressed_zeros(1024), 200) + mcap_message(1),
        0,
        (1, 'decompresses to more than 200 bytes'),
    ),
    'chunks within a chunk': (
        lambda: mcap_chunk(zstd.compress(mcap_chunk(compressed_zeros(200), 200 * MEGABYTE) * 1000), 10 * MEGABYTE),
        0,
        (0, ''),
    ),
    'a large hole': (lambda: mcap_message(1), 8, (1, 'all zeros')),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_a_small_mcap_file_cannot_take_much_memory(name, tmp_path):
    make, gigabytes, expected = HOSTILE[name]
    path = tmp_path / 'hostile.mcap'
    path.write_bytes(records.MCAP + declared_topic() + make())
    if gigabytes:
        os.truncate(path, gigabytes * GIGABYTE)
    count, damage = messages_in_little_memory(path)
    assert (count, expected[1] in ' '.join(damage)) == (expected[0], True), damage
    assert len(damage) < 3


HOSTILE_ROS1 = {
    'a record that is longer than any record': (
        lambda: ros1_record(b'', 3 * GIGABYTE, op=b'\x02', conn=bytes(4), time=bytes(8)),
        5,
        '3221225472 bytes, more than 268435456',
    ),
    'a chunk that claims to be huge': (
        lambda: ros1_chunk(lz4.frame.compress(bytes(64)), GIGABYTE, b'lz4'),
        0,
        'claims to decompress to 1073741824 bytes',
    ),
    'a chunk that is larger than it claims': (
        lambda: ros1_chunk(lz4.frame.compress(bytes(GIGABYTE)), 200, b'lz4'),
        0,
        'decompresses to more than 200 bytes',
    ),
    'a large hole': (lambda: ros1_record(b'', op=b'\x04'), 8, 'all zeros'),
}


@pytest.mark.parametrize('name', HOSTILE_ROS1)
def test_a_small_ros_1_bag_cannot_take_much_memory(name, tmp_path):
    make, gigabytes, expected = HOSTILE_ROS1[name]
    path = tmp_path / 'hostile.bag'
    path.write_bytes(records.ROS1 + make())
    if gigabytes:
        os.truncate(path, gigabytes * GIGABYTE)
    count, damage = messages_in_little_memory(path)
    assert count == 0
    assert expected in ' '.join(damage)
    assert len(damage) < 4


ENDLESS = 'WITH RECURSIVE numbers(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers)'
HOSTILE_TABLES = {
    'an endless view': f'CREATE VIEW messages AS {ENDLESS} SELECT id, 1 AS topic_id, 1 AS timestamp FROM numbers',
    'a virtual table': 'CREATE VIRTUAL TABLE messages USING fts3(topic_id, timestamp, data)',
    'a generated column': (
        'CREATE TABLE messages (id INTEGER PRIMARY KEY, topic_id, timestamp, data AS (zeroblob(1000000000)))'
    ),
}


@pytest.mark.parametrize('name', HOSTILE_TABLES)
def test_only_stored_tables_are_read_from_a_database(name, tmp_path):
    path = tmp_path / 'hostile.db3'
    with closing(sqlite3.connect(path)) as database, database:
        database.execute('CREATE TABLE topics (id INTEGER PRIMARY KEY, name, type)')
        database.execute(HOSTILE_TABLES[name])
    with pytest.raises(ValueError, match='messages is not a plain table'):
        next(sqlite.messages(path, []))


def test_the_steps_of_a_query_are_limited():
    with closing(apsw.Connection(':memory:')) as database:
        sqlite.limit_database(database, 0)
        with pytest.raises(ValueError, match='too many steps'):
            database.execute(f'{ENDLESS} SELECT count(id) FROM numbers').fetchall()


def test_what_is_decompressed_from_a_file_is_limited_in_all(record, tmp_path, monkeypatch):
    """A hundred chunks, each of which is small enough, and a file that is compressed as a whole."""
    monkeypatch.setattr(compression, 'max_decompressed', lambda _: 10 * MEGABYTE)
    many, damage = tmp_path / 'many.mcap', []
    block = mcap_message(1) + mcap_record(Opcode.METADATA, bytes(MEGABYTE))
    many.write_bytes(records.MCAP + declared_topic() + mcap_chunk(zstd.compress(block), len(block)) * 100)
    assert sum(1 for _ in records.mcap(many, damage)) == 9
    assert damage == ['many.mcap decompresses to more than 10485760 bytes; the rest is skipped']

    packed = tmp_path / 'packed'
    packed.mkdir()
    (packed / 'packed.mcap.zstd').write_bytes(zstd.compress(many.read_bytes()[:200] + bytes(100 * MEGABYTE)))
    _, damage = recovered(packed)
    assert 'packed.mcap.zstd decompresses to more than 10485760 bytes; the rest is skipped' in damage


def test_reading_ends_after_too_many_problems(tmp_path, monkeypatch):
    monkeypatch.setattr(records, 'MAX_DAMAGE', 100)
    path, damage = tmp_path / 'broken.mcap', []
    path.write_bytes(records.MCAP + declared_topic() + mcap_record(Opcode.MESSAGE, b'') * 1000 + mcap_message(1))
    assert list(records.mcap(path, damage)) == []
    assert len(damage) == 100
