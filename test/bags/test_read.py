import numpy as np
import pytest

from superpoint_ros.bags.read import DamagedBagError, image_topics, messages, namespace, open_bag

from .conftest import DELAY, PERIOD, START, contents, image_message


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
