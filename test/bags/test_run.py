"""`superpoint bag` from end to end, with a tiny network."""

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader, Writer

from superpoint_ros import clouds
from superpoint_ros.bags import job
from superpoint_ros.bags.read import typestore
from superpoint_ros.bags.report import LONGEST
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import Extractor
from superpoint_ros.learned_matching import LearnedMatcher
from superpoint_ros.matching import MatchConfig
from superpoint_ros.runtimes import RuntimeConfig

from .conftest import DELAY, PERIOD, START, contents, decoded, header, image_message, picture


@pytest.fixture
def extractor(tiny_model):
    return Extractor(str(tiny_model), backend='openvino', threads=1)


def check_features(bag, extractor, numbers, topic='/camera/features'):
    """Assert that a bag has the features of these pictures, with their stamps."""
    found = decoded(bag, topic)
    assert [stamp for stamp, _ in found] == [START + number * PERIOD + DELAY for number in numbers]
    for number, (_, cloud) in zip(numbers, found, strict=True):
        assert cloud.header.stamp.sec * 10**9 + cloud.header.stamp.nanosec == START + number * PERIOD
        assert cloud.header.frame_id == 'camera'
        expected = clouds.encode_features(extractor(picture(number)))
        assert len(expected) > 10
        assert cloud.data.tobytes() == expected.tobytes()
        assert (cloud.height, cloud.width, cloud.point_step) == (1, len(expected), expected.dtype.itemsize)


BAGS = {
    'ros1': lambda record: record.ros1('drive', 12),
    'ros1-lz4': lambda record: record.ros1('drive', 12, 'LZ4'),
    'ros1-bz2': lambda record: record.ros1('drive', 12, 'BZ2'),
    'sqlite3': lambda record: record.ros2('drive', 12, 'sqlite3'),
    'sqlite3-file': lambda record: record.ros2('drive', 12, 'sqlite3') / 'drive.db3',
    'sqlite3-zstd-messages': lambda record: record.ros2('drive', 12, 'sqlite3', 'MESSAGE'),
    'mcap': lambda record: record.ros2('drive', 12),
    'mcap-zstd-file': lambda record: record.ros2('drive', 12, compression='FILE'),
    'mcap-zstd-messages': lambda record: record.ros2('drive', 12, compression='MESSAGE'),
    'mcap-zstd-chunks': lambda record: record.mcap('drive', 12, 'ZSTD'),
    'mcap-lz4-chunks': lambda record: record.mcap('drive', 12, 'LZ4'),
}


@pytest.mark.parametrize('kind', BAGS)
def test_every_kind_of_bag_gives_the_same_features(kind, record, run, extractor, tmp_path):
    assert run(BAGS[kind](record))
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['drive']
    check_features(tmp_path / 'out/drive', extractor, range(12))


@pytest.mark.parametrize('to', ['mcap', 'sqlite3'])
def test_topics_and_their_quality_of_service(to, record, run, tmp_path):
    assert run(record.ros1('drive', 3), to=to, match=True, track=True)
    with Reader(tmp_path / 'out/drive') as bag:
        found = {c.topic: (c.msgtype, c.msgcount, c.ext.offered_qos_profiles[0]) for c in bag.connections}
    counts = {topic: count for topic, (_, count, _) in found.items()}
    assert counts == {
        '/camera/features': 3,
        '/camera/features/info': 1,
        '/camera/tracks': 3,
        '/camera/matches': 2,
        '/camera/matches/first': 2,
    }
    assert found['/camera/features/info'][0] == 'std_msgs/msg/String'
    assert found['/camera/features/info'][2].durability.name == 'TRANSIENT_LOCAL'
    assert found['/camera/features'][0] == 'sensor_msgs/msg/PointCloud2'
    assert found['/camera/features'][2].reliability.name == 'RELIABLE'
    assert found['/camera/features'][2].durability.name == 'VOLATILE'


def test_matches_of_a_learned_matcher(record, run, extractor, make_matcher, tmp_path):
    checksum = extractor.runtime.checksum
    path = str(make_matcher(descriptor_size=32, extractor='tiny', extractor_checksum=checksum))
    assert run(record.ros1('drive', 3), match=True, matcher=path, matching=MatchConfig(min_similarity=0.0))
    matcher = LearnedMatcher(path, 0.0, backend='openvino', threads=1)
    info = clouds.features_info('tiny', checksum, 32, 'int8', (96, 64))

    def received(number):
        cloud = clouds.encode_features(extractor(picture(number)))
        values = {'data': cloud.tobytes(), 'fields': clouds.point_fields(cloud.dtype), **clouds.message_values(cloud)}
        return clouds.decode_features(SimpleNamespace(**values), info)

    found = decoded(tmp_path / 'out/drive', '/camera/matches')
    assert len(found) == 2
    for number, (_, cloud) in enumerate(found):
        features = received(number), received(number + 1)
        expected = clouds.encode_matches(*features, matcher(*features))
        assert len(expected) > 0
        assert cloud.data.tobytes() == expected.tobytes()


def test_a_matcher_of_another_model_is_refused_before_the_work(record, run, tiny_model, make_matcher, tmp_path):
    path = make_matcher(descriptor_size=32, extractor='superpoint', extractor_checksum='0' * 64)
    graph = shutil.copy(tiny_model, tmp_path / 'graph_alone.onnx')
    drive = record.ros1('drive', 3)
    for model in (tiny_model, graph):
        with pytest.raises(ValueError, match='was trained for features of superpoint'):
            run(drive, match=True, model=str(model), matcher=str(path))
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('option', ['match', 'track'])
def test_a_model_without_descriptors_is_refused_before_the_work(option, record, run, tmp_path):
    with pytest.raises(ValueError, match='features without descriptors cannot be matched'):
        run(record.ros1('drive', 3), model='magicpoint', **{option: True})
    assert not (tmp_path / 'out').exists()


def test_the_machine_that_starts_a_cluster_need_not_run_the_model(run, tmp_path, monkeypatch):
    monkeypatch.setattr('superpoint_ros.bags.run.process_bags', lambda *_: True)
    there = RuntimeConfig(backend='openvino', device='GPU.7')
    assert run(tmp_path / 'drive.bag', runtime=there, match=True, track=True, cluster='head:6379')
    with pytest.raises(ValueError, match=r'GPU\.7'):
        run(tmp_path / 'drive.bag', runtime=there, match=True)


def test_the_mcap_library_reads_the_output(record, run, tmp_path):
    assert run(record.ros1('drive', 5), copy=True)
    with (tmp_path / 'out/drive/drive.mcap').open('rb') as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        assert summary.statistics.message_count == 5 * 3 + 1
        assert {schema.name for schema in summary.schemas.values()} >= {'sensor_msgs/msg/PointCloud2'}
        stamps = [message.log_time for _, _, message in reader.iter_messages('/camera/features')]
    assert stamps == [START + number * PERIOD + DELAY for number in range(5)]


@pytest.mark.parametrize('kind', ['sqlite3', 'mcap'])
def test_copied_messages_have_the_same_bytes(kind, record, run, tmp_path):
    bag = record.ros2('drive', 10, kind)
    assert run(bag, copy=True)
    originals = contents(bag)
    found = contents(tmp_path / 'out/drive')
    assert [message for message in found if message[0] in ('/camera/image', '/imu')] == originals
    assert len(found) == len(originals) + 10 + 1
    # An image comes before its features, although both have the same log time.
    topics = [topic for topic, _, _ in found]
    assert topics.index('/camera/image') < topics.index('/camera/features')


def test_copied_messages_of_ros_1_become_messages_of_ros_2(record, run, tmp_path):
    assert run(record.ros1('drive', 4), copy=True)
    images = decoded(tmp_path / 'out/drive', '/camera/image')
    for number, (stamp, image) in enumerate(images):
        assert stamp == START + number * PERIOD + DELAY
        np.testing.assert_array_equal(image.data.reshape(64, 96), picture(number))
        assert not hasattr(image.header, 'seq')
    assert [imu.angular_velocity.z for _, imu in decoded(tmp_path / 'out/drive', '/imu')] == [0, 1, 2, 3]


def test_our_own_topics_are_replaced_and_not_copied(record, run, tmp_path):
    assert run(record.ros1('drive', 4), copy=True, match=True)
    again = (tmp_path / 'out/drive').rename(tmp_path / 'drive')
    assert run(again, copy=True, match=True)
    assert contents(tmp_path / 'out/drive') == contents(again)


def test_several_cameras(record, run, extractor, tmp_path):
    assert run(record.ros2('drive', 6, topics=('/left/image_raw', '/right/image_raw')), track=True)
    for side in ('left', 'right'):
        check_features(tmp_path / 'out/drive', extractor, range(6), f'/{side}/features')
        assert len(decoded(tmp_path / 'out/drive', f'/{side}/tracks')) == 6


def test_topics_that_would_collide_are_refused(record, run, capfd):
    bag = record.ros2('drive', 2, topics=('/camera/image_raw', '/camera/image_rect'))
    assert not run(bag)
    assert 'several topics would give /camera/features: choose one of /camera/image_raw' in capfd.readouterr().err
    assert run(bag, topics=('/camera/image_rect',))


def test_compressed_images(record, run, extractor, tmp_path):
    """PNG is lossless, so the features are those of the raw images."""
    path = tmp_path / 'drive'
    types, kind = typestore(), 'sensor_msgs/msg/CompressedImage'

    with Writer(path, version=8) as writer:
        connection = writer.add_connection('/camera/image/compressed', kind, typestore=types)
        for number in range(5):
            stamp = START + number * PERIOD
            png = cv2.imencode('.png', picture(number))[1]
            message = types.types['sensor_msgs/msg/CompressedImage'](
                header(types, stamp), 'mono8; png', png.reshape(-1)
            )
            writer.write(connection, stamp + DELAY, types.serialize_cdr(message, 'sensor_msgs/msg/CompressedImage'))
    assert run(path)
    check_features(tmp_path / 'out/drive', extractor, range(5))


def bad(number, message, types):
    """Breaks every third image, each in another way."""
    if number % 3:
        return message
    if number == 0:
        return image_message(types, picture(number), START, 'no such encoding')
    if number == 3:
        message.data = message.data[:100]
        return message
    if number == 6:
        message.width = 10**6
        return message
    if number == 9:
        return b'\x00\x01\x00\x00broken'
    return image_message(types, np.zeros((8, 8), np.uint8), START)  # too small for the network


@pytest.mark.parametrize('batch', [0, 1, 3])
def test_bad_images_are_reported_and_do_not_affect_others(batch, record, run, extractor, tmp_path, capfd):
    assert not run(record.ros2('drive', 14, change=bad), batch=batch)
    check_features(tmp_path / 'out/drive', extractor, [number for number in range(14) if number % 3])
    told = capfd.readouterr().err
    assert 'features of 9 images' in told
    assert "encoding 'no such encoding' is unknown" in told
    assert told.count('/camera/image at 17000000') == 5


def test_many_bad_images_are_counted_and_the_first_are_listed(record, run, capfd):
    assert not run(record.ros2('drive', 30, change=lambda *_: b'broken'))
    told = capfd.readouterr().err
    assert told.count('/camera/image at 17000000') == 10
    assert '… and 20 more like these' in told


def test_damaged_bags_give_what_is_readable_and_do_not_affect_others(
    record, run, extractor, tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(job, 'SEGMENT_FRAMES', 8)
    truncated = record.ros1('truncated', 30, chunk=20_000)
    holed, sound = record.mcap('holed', 30), record.ros1('sound', 5)
    truncated.write_bytes(truncated.read_bytes()[:120_000])
    data = bytearray(holed.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    holed.write_bytes(data)
    assert not run(truncated, holed, tmp_path / 'missing.bag', sound)
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['holed', 'sound', 'truncated']
    found = [(stamp - START - DELAY) // PERIOD for stamp, _ in decoded(tmp_path / 'out/truncated', '/camera/features')]
    assert found == list(range(len(found)))
    assert 12 <= len(found) < 30
    check_features(tmp_path / 'out/truncated', extractor, found)
    found = [(stamp - START - DELAY) // PERIOD for stamp, _ in decoded(tmp_path / 'out/holed', '/camera/features')]
    assert 20 <= len(found) < 30
    check_features(tmp_path / 'out/holed', extractor, found)
    check_features(tmp_path / 'out/sound', extractor, range(5))
    told = capfd.readouterr().err
    for what in ('is cut off after', 'holed.mcap: the chunk at byte', 'missing.bag: no such bag'):
        assert what in told


def test_broken_messages_of_ros_1_are_not_copied(record, run, tmp_path, capfd):
    """Conversion to ROS 2 parses them."""
    assert not run(record.ros1('drive', 6, change=lambda n, message, _: b'broken' if n % 2 else message), copy=True)
    told = capfd.readouterr().err
    assert 'features of 3 images' in told
    assert '/camera/image: 3 broken messages are not copied' in told
    assert len(decoded(tmp_path / 'out/drive', '/camera/image')) == 3
    assert len(decoded(tmp_path / 'out/drive', '/imu')) == 6


def test_a_problem_is_one_short_printable_line(record, run, capfd):
    bag = record.ros1('drive', 6)
    data = bag.read_bytes()
    definition = b'std_msgs/Header header'
    bag.write_bytes(data.replace(definition, b'\x00\x1b' + definition[2:]))
    assert not run(bag)
    problems = [line for line in capfd.readouterr().err.splitlines() if line.startswith('  ')]
    assert 1 <= len(problems) < 5
    assert all(line.isprintable() and len(line) <= LONGEST + 3 for line in problems)


def test_damage_between_copied_messages(record, run, extractor, tmp_path, capfd):
    """The images of a bag are sound, but a chunk of other messages is not."""
    bag = record.mcap('drive', 200, chunk=2_000)
    data = bytearray(bag.read_bytes())
    at = next(at for at in range(len(data) // 2, len(data)) if data[at : at + 4] == b'\x28\xb5\x2f\xfd')
    data[at + 8 : at + 24] = bytes(16)
    bag.write_bytes(data)
    assert not run(bag, copy=True)
    assert len(decoded(tmp_path / 'out/drive', '/imu')) >= 190
    assert 'checksum' in (told := capfd.readouterr().err) or 'cannot be decompressed' in told


def test_a_change_of_the_image_size_is_announced(record, run, tmp_path):
    def larger_later(number, message, types):
        return message if number < 3 else image_message(types, picture(number, 128, 96), START + number * PERIOD)

    assert run(record.ros2('drive', 6, change=larger_later), track=True)
    infos = decoded(tmp_path / 'out/drive', '/camera/features/info')
    assert [stamp for stamp, _ in infos] == [START + number * PERIOD + DELAY for number in (0, 3)]
    assert ['"image_size": [96, 64]' in infos[0][1].data, '"image_size": [128, 96]' in infos[1][1].data] == [True] * 2
    ages = [clouds.read_cloud(c)['age'] for _, c in decoded(
        tmp_path / 'out/drive', '/camera/tracks')]  # fmt: skip
    assert ages[2].max() == 3
    assert ages[3].max() == 1


def test_an_existing_output_is_not_overwritten(record, run, tmp_path, capfd):
    bag = record.ros1('drive', 3)
    assert run(bag)
    before = contents(tmp_path / 'out/drive')
    assert not run(bag, decode=DecodeConfig(max_keypoints=5))
    assert 'exists: skip it with --resume' in capfd.readouterr().err
    assert contents(tmp_path / 'out/drive') == before
    assert run(bag, resume=True)
    assert 'done before' in capfd.readouterr().err


def test_two_bags_with_the_same_name_are_refused(record, run):
    with pytest.raises(ValueError, match='have the same name drive'):
        run(record.ros1('drive', 1), record.ros2('drive', 1))


@pytest.mark.parametrize(
    ('source', 'name'),
    [
        ('drive.bag', 'drive'),
        ('drive.bag.active', 'drive'),
        ('2024.01.31.mcap', '2024.01.31'),
        ('folder/run.1', 'run.1'),
        ('x.db3', 'x'),
    ],
)
def test_the_output_has_the_name_of_the_bag(source, name):
    assert job.names([Path(source)]) == [name]


def test_images_that_a_wrong_index_hides_are_reported(record, run, capfd, monkeypatch):
    """The index of an mcap file has later times for its first chunk than the messages in it."""
    monkeypatch.setattr(job, 'SEGMENT_FRAMES', 8)
    path = record.mcap('drive', 40, 'NONE', imu=False)
    data = bytearray(path.read_bytes())
    last = max(at for at in range(len(data)) if data[at : at + 8] == (START + DELAY).to_bytes(8, 'little'))
    data[last : last + 8] = (START + 30 * PERIOD).to_bytes(8, 'little')
    path.write_bytes(data)
    assert not run(path)
    assert re.search('the bag claims to have 40 images; 3[0-9] were found', capfd.readouterr().err)


@pytest.mark.parametrize('option', ['match', 'track', 'copy'])
def test_hdf5_cannot_hold_messages(option, record, run):
    with pytest.raises(ValueError, match='need a bag as output'):
        run(record.ros1('drive', 1), to='hdf5', **{option: True})


def test_a_bag_without_images(record, run, capfd, tmp_path):
    assert not run(record.ros2('drive', 3, topics=()))
    assert 'no image topics other than depth images; found: none' in capfd.readouterr().err
    assert list((tmp_path / 'out').iterdir()) == []


def test_a_file_that_is_not_a_bag(run, capfd, tmp_path):
    (tmp_path / 'notes.mcap').write_text('not a bag at all')
    assert not run(tmp_path / 'notes.mcap')
    assert 'notes.mcap: not a bag; expected' in capfd.readouterr().err
    assert list((tmp_path / 'out').iterdir()) == []


def test_a_bag_with_an_image_topic_but_no_messages(record, run, tmp_path):
    assert run(record.ros2('drive', 0))
    assert contents(tmp_path / 'out/drive') == []


@pytest.mark.parametrize('name', ['pipe.bag', 'pipe.mcap', 'pipe.db3'])
def test_a_pipe_is_not_a_bag(name, run, capfd, tmp_path):
    os.mkfifo(tmp_path / name)
    assert not run(tmp_path / name)
    assert f'{name}: not a bag; expected' in capfd.readouterr().err


def test_folders_and_pipes_beside_a_readable_file_are_ignored(record, run, tmp_path, capfd):
    bag = record.ros2('drive', 5)
    (bag / 'a.mcap').mkdir()
    os.mkfifo(bag / 'z.mcap')
    assert not run(bag)
    assert 'z.mcap is not a regular file' in capfd.readouterr().err
    assert len(decoded(tmp_path / 'out/drive', '/camera/features')) == 5
    (bag / 'z.mcap').unlink()
    (tmp_path / 'out/drive').rename(tmp_path / 'damaged')
    (bag / 'z.mcap').mkdir()
    assert run(bag)
    (bag / 'metadata.yaml').unlink()
    (tmp_path / 'out/drive').rename(tmp_path / 'sound')
    assert not run(bag)
    assert contents(tmp_path / 'out/drive') == contents(tmp_path / 'sound') == contents(tmp_path / 'damaged')


@pytest.mark.parametrize('resume', [False, True])
def test_the_output_is_never_the_bag_nor_in_it(resume, record, run, tmp_path):
    inside, itself = record.ros2('out', 3), record.ros2('drive', 3)
    before = contents(inside), contents(itself)
    with pytest.raises(ValueError, match='is, or is in, the bag itself: choose another --output'):
        run(inside, resume=resume)
    inside.rename(tmp_path / 'inside')
    (tmp_path / 'out').symlink_to(tmp_path)
    with pytest.raises(ValueError, match='is, or is in, the bag itself: choose another --output'):
        run(itself, resume=resume)
    assert (contents(tmp_path / 'inside'), contents(itself)) == before


def test_a_bag_and_the_unfinished_run_of_another_one_cannot_have_the_same_name(record, run):
    with pytest.raises(ValueError, match=r'bags named drive and drive\.partial cannot be written to one folder'):
        run(record.ros1('drive', 1), record.ros1('drive.partial', 1))


@pytest.mark.parametrize('kind', ['ros1', 'mcap'])
def test_the_damage_of_a_bag_without_readable_images_is_reported(kind, record, run, capfd, tmp_path):
    bag = getattr(record, kind)('drive', 20, chunk=20_000)
    data = bytearray(bag.read_bytes())
    data[40:] = bytes(len(data) - 40)
    bag.write_bytes(data)
    assert not run(bag)
    told = capfd.readouterr().err
    assert f'{bag}: no image topics other than depth images; found: none' in told
    assert 'drive.partial' not in told
    assert f'{bag.name}: the record at byte' in told
    assert list((tmp_path / 'out').iterdir()) == []


def test_a_topic_cannot_choose_where_a_file_is_written(record, run, tmp_path):
    assert run(record.ros2('drive', 2, topics=('/../../../evil/image', '/a/./b/image')), to='npz')
    folders = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob('*.npz')}
    assert folders == {'out/drive/_/_/_/evil/image', 'out/drive/a/_/b/image'}


@pytest.mark.parametrize('kind', ['ros1', 'mcap', 'sqlite3'])
@pytest.mark.parametrize('name', [b'drive \xff\x1b[2J', b'100%41?a=b#c', b'dr\xc3\xafve'])
def test_a_bag_with_any_file_name(name, kind, record, run, extractor, tmp_path, capfd):
    bag = (
        record.ros2('source', 3, 'sqlite3') / 'source.db3' if kind == 'sqlite3' else getattr(record, kind)('source', 3)
    )
    renamed = tmp_path / os.fsdecode(name + os.fsencode(bag.suffix))
    bag.rename(renamed)
    assert run(renamed)
    output = tmp_path / 'out' / os.fsdecode(name)
    assert list((tmp_path / 'out').iterdir()) == [output]
    told = capfd.readouterr().err
    assert 'features of 3 images' in told
    assert '\x1b[2J' not in told
    output.rename(tmp_path / 'out/plain')
    check_features(tmp_path / 'out/plain', extractor, range(3))


def test_a_matcher_without_matches_is_refused(record, run, make_matcher):
    with pytest.raises(ValueError, match='add --match'):
        run(record.ros1('drive', 1), track=True, matcher=str(make_matcher(descriptor_size=32)))


def test_workers_without_a_cluster_are_refused(record, run):
    with pytest.raises(ValueError, match='add --cluster'):
        run(record.ros1('drive', 1), workers=2)
