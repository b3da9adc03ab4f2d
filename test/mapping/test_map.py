"""`superpoint map` from images and bags to COLMAP's database, hloc's files and a reconstruction."""

import shutil
import signal
import subprocess
import sys
import time

import cv2
import h5py
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from superpoint_ros import feature_files
from superpoint_ros.commands.map import map as build_map
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.mapping.cameras import CameraConfig
from superpoint_ros.matching import MatchConfig, match

from . import scenes

pycolmap = pytest.importorskip('pycolmap', reason='needs pycolmap (the extra map)')
pytest.importorskip('openvino', reason='needs OpenVINO to run the model')
from superpoint_ros.evaluation.reconstruction import pose_errors  # noqa: E402

CAMERA = CameraConfig('PINHOLE', scenes.COLMAP_PARAMS)
FAST = {'model': 'superpoint_lite', 'camera': CAMERA, 'decode': DecodeConfig(max_keypoints=300)}


@pytest.fixture(scope='module')
def truth():
    return {f'{number}.png': pose for number, pose in enumerate(scenes.poses(6))}


@pytest.fixture(scope='module')
def rendered(truth, tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    for name, pose in truth.items():
        cv2.imwrite(str(folder / name), scenes.room(pose))
    return folder


@pytest.fixture
def images(rendered, tmp_path):
    return shutil.copytree(rendered, tmp_path / 'images')


def tables(path):
    """What a database has, by the names of the images."""
    with pycolmap.Database.open(path) as database:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        keypoints = {name: database.read_keypoints(number) for name, number in ids.items()}
        pairs = [(a, b) for a in ids for b in ids if a < b]
        matches = {(a, b): database.read_matches(ids[a], ids[b]) for a, b in pairs}
        inliers = {(a, b): database.read_two_view_geometry(ids[a], ids[b]).inlier_matches for a, b in pairs}
    return keypoints, matches, inliers


def assert_same(database, other):
    for mine, theirs in zip(tables(database), tables(other), strict=True):
        assert mine.keys() == theirs.keys()
        for key in mine:
            np.testing.assert_array_equal(mine[key], theirs[key])


def test_a_room_comes_back_with_its_cameras(images, truth, tmp_path, capsys):
    output = tmp_path / 'out'
    assert build_map(images, output=output, reconstruct=True, camera=CAMERA)
    part = pycolmap.Reconstruction(output / 'sparse' / '0')
    assert part.num_reg_images() == len(truth)
    angles, distances = pose_errors(part, truth)
    assert angles.max() < 1
    assert distances.max() < 0.03
    printed = capsys.readouterr().out
    assert f'{output}/database.db: 6 images' in printed
    assert f'{output}/sparse/0: 6 of 6 images registered' in printed
    assert sorted(path.name for path in output.iterdir()) == ['database.db', 'features', 'map.json', 'sparse']


def test_a_broken_image_is_named_and_the_rest_is_done(images, tmp_path, capsys):
    (images / '6.png').write_bytes(b'no image')
    cv2.imwrite(str(images / '7.png'), np.zeros((64, 64), np.uint8))
    assert not build_map(images, output=tmp_path / 'out', **FAST)
    printed = capsys.readouterr()
    assert 'database.db: 6 images' in printed.out
    assert '2 failed:' in printed.err
    assert f'{images}/6.png: not an image' in printed.err
    assert f'{images}/7.png: COLMAP' in printed.err


def test_a_killed_run_continues_and_ends_as_if_it_had_not_been_killed(images, tmp_path):
    def command(output):
        options = ['--model', FAST['model'], '--max_keypoints', '300', '--camera_params', scenes.COLMAP_PARAMS]
        options += ['--camera_model', 'PINHOLE', '--output', str(output)]
        return [sys.executable, '-m', 'superpoint_ros.cli', 'map', str(images), *options]

    output, whole = tmp_path / 'out', tmp_path / 'whole'
    process = subprocess.Popen(command(output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list((output / 'features').glob('*.npz'))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / 'database.db').exists()
    kept = {path: path.stat().st_mtime_ns for path in (output / 'features').glob('*.npz')}
    assert kept
    subprocess.run(command(output), check=True, timeout=120, capture_output=True)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert build_map(images, output=whole, **FAST)
    assert_same(output / 'database.db', whole / 'database.db')


def test_a_run_interrupted_while_matching_keeps_the_pairs(images, tmp_path, monkeypatch):
    output, calls = tmp_path / 'out', []

    def counted(*features):
        if len(features[0]):  # not the check of the model, before any are extracted
            calls.append(features)
            if len(calls) == 5:
                raise KeyboardInterrupt
        return match(*features)

    monkeypatch.setattr('superpoint_ros.commands.map.make_matcher', lambda *_: counted)
    with pytest.raises(KeyboardInterrupt):
        build_map(images, output=output, **FAST)
    assert not (output / 'database.db').exists()
    assert build_map(images, output=output, **FAST)
    assert len(calls) == 5 + 15 - 4  # the interrupted pair is matched again
    assert not (output / 'database.partial.db').exists()


def test_new_images_go_into_the_database_that_exists(images, tmp_path):
    (images / '5.png').rename(tmp_path / '5.png')
    output = tmp_path / 'out'
    assert build_map(images, output=output, **FAST)
    (tmp_path / '5.png').rename(images / '5.png')
    assert build_map(images, output=output, **FAST)
    assert build_map(images, output=tmp_path / 'whole', **FAST)
    assert_same(output / 'database.db', tmp_path / 'whole' / 'database.db')


def test_other_settings_are_refused(images, tmp_path):
    output = tmp_path / 'out'
    assert build_map(images, output=output, **FAST)
    with pytest.raises(ValueError, match=r'out has a map with min_similarity 0.7; use the same, or another --output'):
        build_map(images, output=output, **FAST, matching=MatchConfig(min_similarity=0.8, max_ratio=0.9))


def test_hloc_gets_features_and_matches(images, tmp_path):
    (images / 'more').mkdir()
    (images / '5.png').rename(images / 'more' / '5.png')
    output = tmp_path / 'out'
    pairs = tmp_path / 'pairs.txt'
    pairs.write_text('1.png more/5.png\n3.png 4.png\n')
    assert build_map(images, output=output, hloc=True, pairs=str(pairs), **FAST)
    with h5py.File(output / 'features.h5') as file:
        for name in ('1.png', 'more/5.png'):
            expected = feature_files.read_npz(output / 'features' / f'{name}.npz')
            np.testing.assert_array_equal(file[name]['keypoints'], expected.keypoints)
            np.testing.assert_array_equal(file[name]['descriptors'], expected.descriptors.T)
    _, matches, _ = tables(output / 'database.db')
    with h5py.File(output / 'matches.h5') as file:
        assert set(file) == {'1.png', '3.png'}
        partners = file['1.png/more-5.png/matches0'][:]
        scores = file['1.png/more-5.png/matching_scores0'][:]
    rows = np.flatnonzero(partners >= 0)
    np.testing.assert_array_equal(np.column_stack([rows, partners[rows]]), matches['1.png', 'more/5.png'])
    assert scores[rows].min() >= 0.69
    assert not scores[partners < 0].any()


def test_a_bag_gives_images_cameras_and_sequential_pairs(rendered, truth, tmp_path, capsys):
    bag, output = tmp_path / 'drive', tmp_path / 'out'
    write_bag(bag, [cv2.imread(str(rendered / name), cv2.IMREAD_GRAYSCALE) for name in truth])
    options = {'model': FAST['model'], 'decode': FAST['decode'], 'overlap': 1}
    assert not build_map(bag, output=output, **options)
    assert '1 failed:' in capsys.readouterr().err
    files = sorted(path.relative_to(output / 'images').as_posix() for path in (output / 'images').rglob('*.png'))
    assert files == [f'camera/image_raw/{number + 1}000000007.png' for number in range(len(truth))]
    np.testing.assert_array_equal(cv2.imread(str(output / 'images' / files[0]), -1), scenes.room(truth['0.png']))
    with pycolmap.Database.open(output / 'database.db') as database:
        (camera,) = database.read_all_cameras()
        assert camera.model_name == 'PINHOLE'
        np.testing.assert_allclose(camera.params, [float(number) for number in scenes.COLMAP_PARAMS.split(',')])
        assert len(database.read_two_view_geometries()[0]) == len(truth) - 1
    assert build_map(bag, output=tmp_path / 'fourth', every=4, **options)
    with pycolmap.Database.open(tmp_path / 'fourth' / 'database.db') as database:
        names = {image.name for image in database.read_all_images()}
    assert names == {files[0], files[4]}


def write_bag(path, pictures):
    """A bag with /camera/image_raw, one broken message at its end, and /camera/camera_info."""
    types = get_typestore(Stores.ROS2_JAZZY)
    kinds = types.types
    width, height = scenes.SIZE
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        image = writer.add_connection('/camera/image_raw', 'sensor_msgs/msg/Image', typestore=types)
        info = writer.add_connection('/camera/camera_info', 'sensor_msgs/msg/CameraInfo', typestore=types)
        for number, picture in enumerate([*pictures, None], 1):
            stamp = kinds['builtin_interfaces/msg/Time'](sec=number, nanosec=7)
            header = kinds['std_msgs/msg/Header'](stamp=stamp, frame_id='camera')
            calibration = kinds['sensor_msgs/msg/CameraInfo'](
                header=header, height=height, width=width, distortion_model='plumb_bob', d=np.zeros(5),
                k=scenes.CAMERA.ravel(), r=np.eye(3).ravel(), p=np.zeros(12), binning_x=0, binning_y=0,
                roi=kinds['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False),
            )  # fmt: skip
            pixels = np.zeros(5, np.uint8) if picture is None else picture.ravel()
            message = kinds['sensor_msgs/msg/Image'](header, height, width, 'mono8', 0, width, pixels)
            writer.write(info, number * 10**9, types.serialize_cdr(calibration, 'sensor_msgs/msg/CameraInfo'))
            writer.write(image, number * 10**9, types.serialize_cdr(message, 'sensor_msgs/msg/Image'))


def test_a_command_that_was_wrong_can_be_corrected(images, tmp_path):
    wrong = [
        (tmp_path / 'imgaes', {}, 'imgaes: no such folder'),
        (images, {'camera': CameraConfig('PINHOL')}, "camera_model: 'PINHOL' is not one of .*PINHOLE"),
        (images, {'camera': CameraConfig('PINHOLE', '1,2')}, "expected numbers for fx, fy, cx, cy, got '1,2'"),
        (images, {'camera': CameraConfig('PINHOLE', 'a,b,c,d')}, "expected numbers for fx, fy, cx, cy, got 'a,b,c,d'"),
        (images, {'model': 'magicpoint'}, 'features without descriptors cannot be matched'),
        (images, {'matcher': 'learned'}, 'was trained for features of unsuperpoint_lite'),
        (images, {'every': 0}, 'expected every and overlap of at least 1'),
    ]
    for source, options, message in wrong:
        with pytest.raises((OSError, ValueError), match=message):
            build_map(source, output=tmp_path / 'out', **FAST | options)
        assert not (tmp_path / 'out').exists()
