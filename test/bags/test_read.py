import os
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from rosbags.rosbag2.storage_mcap import zstd

from superpoint_ros.bags import limits
from superpoint_ros.bags.read import DamagedBagError, image_topics, messages, namespace, open_bag

from .conftest import DELAY, PERIOD, START, contents, image_message
from .hostile import MEGABYTE, compressed_zeros, indexed_mcap, mcap_message, run_limited


@pytest.mark.parametrize(
    ('image', 'expected'),
    [
        ('/camera/image', '/camera'),
        ('/camera/image_raw', '/camera'),
        ('/camera/image_raw/compressed', '/camera'),
        ('/robot/left/image_rect', '/robot/left'),
        ('camera/image', '/camera'),
        ('/image', ''),
        ('/image/compressed', ''),
        ('image', ''),
    ],
)
def test_namespace(image, expected):
    assert namespace(image) == expected


@pytest.mark.parametrize('make', ['ros1', 'ros2', 'mcap'])
def test_messages_are_ordered_by_time_and_within_bounds(make, record):
    path = getattr(record, make)('drive', 30)
    with open_bag(path) as reader:
        images = [c for c in reader.connections if c.topic == '/camera/image']
        everything = [stamp for _, stamp, _ in messages(reader, images)]
        assert everything == [START + number * PERIOD + DELAY for number in range(30)]
        some = [stamp for _, stamp, _ in messages(reader, images, everything[3], everything[7])]
        assert some == everything[3:7]
        assert list(messages(reader, [])) == []


def test_image_topics_are_found_by_type(record):
    with open_bag(record.ros2('drive', 3, topics=('/left/image', '/right/image'))) as reader:
        assert image_topics(reader) == ['/left/image', '/right/image']
        assert image_topics(reader, ['/right/image']) == ['/right/image']
        with pytest.raises(ValueError, match='no image topic /imu; available: /left/image, /right/image'):
            image_topics(reader, ['/imu'])


def test_depth_images_are_skipped_unless_named(record):
    def depth(number, message, types):
        return image_message(types, np.ones((64, 96), np.uint16), START, '16UC1')

    with open_bag(record.ros2('drive', 3, topics=('/depth/image',), change=depth)) as reader:
        with pytest.raises(ValueError, match='no image topics other than depth images; found: /depth/image'):
            image_topics(reader)
        assert image_topics(reader, ['/depth/image']) == ['/depth/image']


def test_a_compressed_topic_is_skipped_if_the_raw_one_exists(record):
    topics = ('/camera/image', '/camera/image/compressed', '/other/image/compressed')
    with open_bag(record.ros2('drive', 1, topics=topics)) as reader:
        assert image_topics(reader) == ['/camera/image', '/other/image/compressed']


def test_missing_and_damaged_bags(record, tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing: no such bag'), open_bag(tmp_path / 'nothing'):
        pass
    path = record.ros1('drive', 10)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(DamagedBagError, match=r'drive\.bag: '), open_bag(path):
        pass


def test_a_hole_is_noticed_when_its_messages_are_read(record):
    path = record.mcap('drive', 40)
    whole, data = contents(path), bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)
    found = []
    with open_bag(path) as reader, pytest.raises(DamagedBagError, match=r'drive\.mcap: '):
        found.extend(stamp for _, stamp, _ in messages(reader, reader.connections))
    assert 0 < len(found) < len(whole)


def read_in_little_memory(path):
    """Read all messages of a bag in a process with little memory; returns their number, or why the bag is damaged."""
    program = """
        from superpoint_ros.bags.read import DamagedBagError, messages, open_bag
        limit_memory()
        try:
            with open_bag(Path(sys.argv[1])) as reader:
                print(json.dumps(sum(1 for _ in messages(reader, reader.connections))))
        except DamagedBagError as error:
            print(json.dumps(str(error)))
    """
    return run_limited(program, path)


def test_an_index_of_chunks_is_read(tmp_path):
    path = tmp_path / 'drive.mcap'
    content = mcap_message(1) + mcap_message(2)
    path.write_bytes(indexed_mcap((zstd.compress(content), len(content))))
    assert read_in_little_memory(path) == 2


HUGE = mcap_message(1, 1000 * MEGABYTE + 22)
HOSTILE = {
    'a huge chunk': ([(compressed_zeros(1000, HUGE), 1000 * MEGABYTE + len(HUGE))], 'claims to decompress to 10485'),
    'a chunk that is larger than it claims': ([(compressed_zeros(1000), 1000)], 'decompresses to more than 1000 bytes'),
    'many chunks at once': ([(zstd.compress(bytes(1000)), 200 * MEGABYTE)] * 6, 'take 1258291200 bytes, more than'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_a_small_file_with_an_index_cannot_take_much_memory(name, tmp_path):
    chunks, expected = HOSTILE[name]
    path = tmp_path / 'hostile.mcap'
    path.write_bytes(indexed_mcap(*chunks))
    assert expected in read_in_little_memory(path)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_small_compressed_message_cannot_take_much_memory(storage, record):
    def bomb(number, message, types):
        return compressed_zeros(1000) if number == 2 else message

    path = record.ros2('drive', 3, storage, change=bomb)
    assert 'decompresses to more than 268435456 bytes' in read_in_little_memory(path)


def test_a_record_that_is_longer_than_any_record_is_not_read(record, monkeypatch):
    path = record.mcap('drive', 10, 'NONE')
    monkeypatch.setattr(limits, 'MAX_RECORD', 10_000)
    with pytest.raises(DamagedBagError, match='a record has more than 10000 bytes'), open_bag(path) as reader:
        list(messages(reader, reader.connections))


def test_metadata_of_a_huge_size_is_not_read(record):
    path = record.ros2('drive', 3)
    os.truncate(path / 'metadata.yaml', 10 * MEGABYTE)
    with pytest.raises(DamagedBagError, match=r'metadata\.yaml has more than 4194304 bytes'), open_bag(path):
        pass


def test_a_compressed_file_is_not_decompressed_to_a_temporary_folder(record):
    with (
        pytest.raises(DamagedBagError, match='is compressed') as error,
        open_bag(record.ros2('drive', 3, compression='FILE')),
    ):
        pass
    assert error.value.damage == []  # it may be sound


@pytest.mark.parametrize('name', ['pipe.bag', 'pipe.mcap', 'pipe.db3'])
def test_a_pipe_is_not_opened(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DamagedBagError, match='is not a regular file'), open_bag(tmp_path / name):
        pass


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('name', ['metadata.yaml', 'storage'])
def test_a_pipe_in_a_folder_is_not_opened(name, storage, record):
    path = record.ros2('drive', 3, storage)
    pipe = path / name if name == 'metadata.yaml' else next(path.glob('drive.*'))
    pipe.unlink()
    os.mkfifo(pipe)
    with pytest.raises(DamagedBagError, match=f'{pipe.name} is not a regular file'), open_bag(path):
        pass


def test_an_endless_view_in_a_database_is_not_read(record):
    path = record.ros2('drive', 3, 'sqlite3') / 'drive.db3'
    with closing(sqlite3.connect(path)) as database, database:
        database.execute('DROP TABLE message_definitions')
        database.execute("""
            CREATE VIEW message_definitions AS
            WITH RECURSIVE numbers(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers)
            SELECT id, '' AS topic_type, '' AS encoding, '' AS encoded_message_definition, '' AS type_description_hash
            FROM numbers
        """)
    with pytest.raises(DamagedBagError, match='message_definitions is not a plain table'), open_bag(path):
        pass
