"""Images of bags as files."""

import dataclasses

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from superpoint_ros.mapping.cameras import CameraConfig
from superpoint_ros.mapping.sources import CAMERA_INFO, cameras_of, find_images, is_bag, write_images
from test.bags.conftest import START, Recorder, header, image_message, picture


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


def test_images_with_the_same_stamp_are_all_written(record, tmp_path):
    def stopped(_, message, types):
        return dataclasses.replace(message, header=header(types, START))

    bag = record.ros2('drive', 3, change=stopped)
    for _ in range(2):  # a second run keeps the files
        assert write_images(bag, tmp_path / 'images') == []
        names = [f'camera/image/{START}{suffix}.png' for suffix in ('-1', '-2', '')]
        assert files(tmp_path / 'images') == names


def test_what_a_killed_run_left_is_no_image(record, tmp_path):
    bag = record.ros2('drive', 2)
    (tmp_path / 'images/camera/image').mkdir(parents=True)
    (tmp_path / 'images/camera/image/.5.123.partial.png').write_bytes(b'half')
    assert len(find_images(bag, tmp_path / 'images', CameraConfig()).names) == 2


def test_the_folder_of_a_killed_recorder_is_a_bag(record, tmp_path):
    bag = record.ros2('drive', 2)
    assert is_bag(bag)
    (bag / 'metadata.yaml').unlink()
    assert is_bag(bag)
    (bag / 'picture.png').touch()
    assert not is_bag(bag)  # rather photographs, beside a recording
    assert not is_bag(tmp_path / 'missing')
    (tmp_path / 'photographs').mkdir()
    assert not is_bag(tmp_path / 'photographs')
    assert is_bag(tmp_path / 'missing.mcap')


def test_the_first_good_camera_info_gives_the_camera_of_raw_and_rectified_images(tmp_path):
    types = get_typestore(Stores.ROS2_JAZZY)
    k, p = [300.0, 0, 48, 0, 301, 32, 0, 0, 1], [250.0, 0, 50, 0, 0, 251, 30, 0, 0, 0, 1, 0]
    roi = types.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    info = types.types[CAMERA_INFO](
        header(types, START), 64, 96, 'plumb_bob', np.array([-0.2, 0.05, 0, 0, 0]),
        np.array(k, float), np.eye(3).ravel(), np.array(p, float), 0, 0, roi,
    )  # fmt: skip
    with Writer(tmp_path / 'drive', version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        for name in ('left/image_raw', 'right/image_rect'):
            image = writer.add_connection(f'/{name}', 'sensor_msgs/msg/Image', typestore=types)
            message = image_message(types, picture(0), START)
            writer.write(image, START, types.serialize_cdr(message, 'sensor_msgs/msg/Image'))
            infos = writer.add_connection(f'/{name.split("/")[0]}/camera_info', CAMERA_INFO, typestore=types)
            writer.write(infos, START, b'broken')
            writer.write(infos, START + 1, types.serialize_cdr(info, CAMERA_INFO))
    found = cameras_of(tmp_path / 'drive')
    assert found['left/image_raw'].camera_params == '300.0,301.0,48.5,32.5,-0.2,0.05,0.0,0.0'
    assert found['right/image_rect'].camera_params == '250.0,251.0,50.5,30.5'
