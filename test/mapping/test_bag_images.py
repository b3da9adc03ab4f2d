"""Images of bags as files."""

import pytest

from superpoint_ros.mapping.sources import write_images
from test.bags.conftest import Recorder


@pytest.fixture
def record(tmp_path):
    return Recorder(tmp_path)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*.png'))


def test_a_compressed_bag_gives_all_images(record, tmp_path):
    sound, packed = record.ros2('sound', 5), record.ros2('packed', 5, compression='FILE')
    assert write_images(sound, tmp_path / 'images') == []
    assert write_images(packed, tmp_path / 'unpacked') == []
    assert len(files(tmp_path / 'images')) == 5
    assert files(tmp_path / 'images') == files(tmp_path / 'unpacked')


def test_a_damaged_bag_gives_what_is_readable(record, tmp_path):
    bag = record.mcap('drive', 40)
    data = bytearray(bag.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    bag.write_bytes(data)
    assert any('the chunk at byte' in line for line in write_images(bag, tmp_path / 'images'))
    found = files(tmp_path / 'images')
    assert 30 < len(found) < 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ['drive.mcap', 'drive.source', 'images']


def test_a_topic_cannot_choose_where_images_are_written(record, tmp_path):
    bag = record.ros2('drive', 2, topics=('/../../evil/image',))
    assert write_images(bag, tmp_path / 'out/images') == []
    assert len(files(tmp_path / 'out/images/_/_/evil/image')) == len(files(tmp_path)) == 2
