"""Real bags, damaged in the ways in which killed recorders and bad disks damage them."""

import shutil
import sqlite3
import struct
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2.storage_mcap import zstd

from superpoint_ros.bags import recover, salvage

from .conftest import PERIOD, START, Recorder, contents

KINDS = {
    'ros1': lambda record: record.ros1('bag', 40, chunk=20_000),
    'ros1-lz4': lambda record: record.ros1('bag', 40, 'LZ4', chunk=20_000),
    'ros1-bz2': lambda record: record.ros1('bag', 40, 'BZ2', chunk=20_000),
    'mcap': lambda record: record.mcap('bag', 40, 'NONE'),
    'mcap-zstd': lambda record: record.mcap('bag', 40, 'ZSTD'),
    'mcap-lz4': lambda record: record.mcap('bag', 40, 'LZ4'),
    'sqlite3': lambda record: record.ros2('bag', 40, 'sqlite3') / 'bag.db3',
}


def recovered(path, everything=True):
    """The messages that are recovered of a damaged bag, and what is said of it."""
    folder = path.parent / 'recovered'
    shutil.rmtree(folder, ignore_errors=True)
    recover.recover(path, folder, everything, 'as the test did it')
    return contents(recover.find(folder)), recover.damage_of(folder)


@pytest.mark.parametrize('kind', KINDS)
def test_everything_comes_back_of_a_bag_that_is_whole(kind, record):
    path = KINDS[kind](record)
    assert recovered(path) == (contents(path), ['as the test did it'])


@pytest.mark.parametrize('kind', KINDS)
def test_of_a_truncated_bag_everything_before_the_cut_comes_back(kind, record):
    path = KINDS[kind](record)
    whole, data = contents(path), path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    found, damage = recovered(path)
    # Of the 60 % some is index; of the last chunk comes what can be unpacked.
    assert 0.3 * len(whole) < len(found) < 0.7 * len(whole)
    assert found == whole[: len(found)]
    assert any(path.name in line for line in damage[1:])


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind not in ('ros1', 'mcap')])
def test_a_hole_costs_only_what_lay_in_it(kind, record):
    path = KINDS[kind](record)
    whole, data = contents(path), bytearray(path.read_bytes())
    middle, hole = len(data) // 2, bytes(range(64))
    if kind == 'sqlite3':  # a page of messages, and not one of the middle of a picture: that would go unnoticed
        middle, hole = next(at for at in range(middle // 4096 * 4096, len(data), 4096) if data[at] == 13), bytes(4096)
    data[middle : middle + len(hole)] = hole
    path.write_bytes(data)
    found, damage = recovered(path)
    assert len(damage) > 1
    assert set(found) < set(whole)
    assert len(found) > 0.8 * len(whole)
    assert found[-1] == whole[-1]


def test_a_chunk_with_a_wrong_checksum_is_left_out(record):
    path = record.mcap('bag', 40, 'NONE')
    whole, data = contents(path), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found, damage = recovered(path)
    assert 'checksum' in damage[1]
    assert set(found) < set(whole)
    assert len(found) > 0.8 * len(whole)


@pytest.mark.parametrize('kind', ['mcap-zstd', 'ros1-lz4'])
def test_topics_declared_in_a_broken_chunk_are_known_from_the_index(kind, record):
    path = KINDS[kind](record)
    data = bytearray(path.read_bytes())
    at = 4200 if kind.startswith('ros1') else 150  # behind the padded header of a ROS 1 bag; in the first chunk
    data[at : at + 32] = bytes(32)
    path.write_bytes(data)
    found, damage = recovered(path)
    assert len(damage) > 1
    assert {topic for topic, _, _ in found} == {'/camera/image', '/imu'}


def test_a_recorder_that_was_killed_leaves_no_index(record):
    path = record.ros1('drive', 10)
    whole, data = contents(path), path.read_bytes()
    active = path.with_suffix('.bag.active')
    # What the header of a bag says until it is closed: no index, no connections, no chunks.
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


def test_a_compressed_file_that_is_truncated(record):
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
    # The recorder dies here: a connection that is closed would bring the log into the database.
    crashed = record.folder / 'crashed'
    shutil.copytree(path.parent, crashed)
    database.close()
    found, _ = recovered(crashed / 'drive.db3')
    assert len(found) == len(whole) + 1
    assert found[-1][1] == START + 100 * PERIOD


def test_only_images_are_recovered_if_only_they_are_wanted(record):
    path = record.ros1('bag', 10)
    found, _ = recovered(path, everything=False)
    assert {topic for topic, _, _ in found} == {'/camera/image'}
    assert len(found) == 10


def test_a_type_without_definition_is_left_out(record):
    path = record.ros2('bag', 10, 'sqlite3') / 'bag.db3'
    with closing(sqlite3.connect(path)) as database, database:
        database.execute('DELETE FROM message_definitions')  # as before Iron
        database.execute("UPDATE topics SET type = 'mine/msg/Thing' WHERE name = '/imu'")
    found, damage = recovered(path)
    assert {topic for topic, _, _ in found} == {'/camera/image'}
    assert '/imu: nothing says what a mine/msg/Thing is' in damage[1]


def test_something_else_is_no_bag(tmp_path):
    path = tmp_path / 'notes.bag'
    path.write_text('not a bag at all')
    with pytest.raises(ValueError, match=r'notes\.bag: not a bag; expected'):
        recover.recover(path, tmp_path / 'recovered', True, '')


def test_a_chunk_that_says_it_is_huge_takes_no_memory():
    damage = []
    bomb = zstd.compress(bytes(1 << 20))
    assert salvage.inflate('zstd', bomb, 1 << 40, 'the chunk', damage) == b''
    assert 'more than' in damage[0]
    # A chunk that unpacks to more than it says is cut there.
    assert len(salvage.inflate('zstd', bomb, 1000, 'the chunk', [])) == 1000


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    """Bytes of small bags of each kind, and their messages."""
    found = {}
    for kind, make in KINDS.items():
        path = make(Recorder(tmp_path_factory.mktemp(kind)))
        found[kind] = path.suffix, path.read_bytes(), set(contents(path))
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(KINDS)), data=st.data())
def test_whatever_is_broken_nothing_raises(kind, data, samples, tmp_path):
    suffix, whole, _ = samples[kind]
    cut = data.draw(st.integers(20, len(whole)), 'cut')
    broken = bytearray(whole[:cut])
    for _ in range(data.draw(st.integers(0, 3), 'holes')):
        at = data.draw(st.integers(16, cut - 1), 'at')
        broken[at : at + 8] = struct.pack('<Q', data.draw(st.integers(0, 2**64 - 1), 'bytes'))
    path = tmp_path / f'broken{suffix}'
    path.write_bytes(broken[:cut])
    recovered(path)


def test_a_name_of_a_field_that_is_no_text_costs_nothing_else(samples, tmp_path):
    _, whole, messages = samples['ros1']
    broken = bytearray(whole)
    broken[broken.index(b'index_pos')] = 0x80
    path = tmp_path / 'broken.bag'
    path.write_bytes(broken)
    found, damage = recovered(path)
    assert set(found) == messages
    assert any('the record at byte 13 is broken' in line and 'utf-8' in line for line in damage)
