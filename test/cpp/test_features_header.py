"""The C++ header reads the clouds that the package writes, and refuses bad ones."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from superpoint_ros import clouds
from superpoint_ros.features import Matches
from superpoint_ros.tracking import Tracks
from test.conftest import features_of_size

ROOT = Path(__file__).resolve().parents[2]
OPENCV = Path('/usr/include/opencv4')
pytestmark = pytest.mark.skipif(not shutil.which('g++'), reason='needs g++ to compile the C++ header')


@pytest.fixture(scope='module', params=['alone', 'with OpenCV', 'with sensor_msgs'])
def read(request, tmp_path_factory):
    """Compiles the program and returns a function that gives it a cloud and returns the lines that it prints."""
    program = tmp_path_factory.mktemp('read') / 'read_cloud'
    flags = ['-std=c++17', '-Wall', '-Wextra', '-Werror', '-fsanitize=address,undefined', f'-I{ROOT / "include"}']
    libraries = []
    if request.param == 'with OpenCV':
        if not (OPENCV / 'opencv2/core.hpp').exists():
            pytest.skip(f'needs the headers of OpenCV in {OPENCV} (libopencv-core-dev)')
        flags, libraries = [*flags, '-isystem', str(OPENCV)], ['-lopencv_core']
    if request.param == 'with sensor_msgs':
        folders = list((Path(sys.prefix) / 'include').glob('*/'))
        if not any((folder / 'sensor_msgs/msg/point_cloud2.hpp').exists() for folder in folders):
            pytest.skip(f'needs the C++ headers of sensor_msgs in {sys.prefix}/include')
        flags += [word for folder in folders for word in ('-isystem', str(folder))]
    source = Path(__file__).with_name('read_cloud.cpp')
    subprocess.run(['g++', *flags, str(source), '-o', str(program), *libraries], check=True, timeout=120)

    def run(kind, cloud, fields=None, **changed):
        fields = clouds.point_fields(cloud.dtype) if fields is None else fields
        facts = {'height': 1, 'width': len(cloud), 'is_bigendian': 0, 'point_step': cloud.dtype.itemsize}
        facts = facts | {'row_step': cloud.nbytes} | changed
        numbers = [*facts.values(), len(fields), cloud.nbytes]
        head = ' '.join(str(value) for value in [*numbers, *(value for field in fields for value in field)])
        message = head.encode() + b'\n' + cloud.tobytes()
        result = subprocess.run([program, kind], input=message, stdout=subprocess.PIPE, check=True, timeout=60)
        return result.stdout.decode().splitlines()

    return run


def numbers(lines):
    return np.array([[float(word) for word in line.split()] for line in lines])


@pytest.mark.parametrize('kind', ['int8', 'float32'])
@pytest.mark.parametrize('size', [128, 256])
def test_features_are_those_of_the_python_decoder(read, size, kind):
    cloud = clouds.encode_features(features_of_size(size), kind)
    values = {'data': cloud.tobytes(), 'fields': clouds.point_fields(cloud.dtype), **clouds.message_values(cloud)}
    expected = clouds.decode_features(SimpleNamespace(**values))
    rows = np.column_stack([expected.keypoints, expected.scores, expected.descriptors])
    lines = read('features', cloud)
    np.testing.assert_allclose(numbers(line for line in lines if not line.startswith('cv')), rows, rtol=1e-6, atol=1e-7)
    by_opencv = [line[2:] for line in lines if line.startswith('cv')]
    if by_opencv:
        np.testing.assert_allclose(numbers(by_opencv), rows, rtol=1e-6, atol=1e-7)


def test_features_without_descriptors_and_no_features_at_all(read):
    points = features_of_size(0)
    lines = read('features', clouds.encode_features(points))
    np.testing.assert_allclose(numbers(lines[:5]), np.column_stack([points.keypoints, points.scores]), rtol=1e-8)
    assert read('features', clouds.encode_features(features_of_size(128, count=0))) == []


def test_matches(read):
    given = features_of_size(8)
    matches = Matches(np.array([[0, 4], [3, 1]], np.uint32), np.array([0.9, 0.8], np.float32))
    expected = [
        [*given.keypoints[first], *given.keypoints[second], similarity, first, second]
        for (first, second), similarity in zip(matches.indices, matches.similarities, strict=True)
    ]
    np.testing.assert_allclose(
        numbers(read('matches', clouds.encode_matches(given, given, matches))), expected, rtol=1e-8
    )


def test_tracks(read):
    ids, ages = np.array([7, 2**32 - 1], np.uint32), np.array([2, 1], np.uint32)
    tracks = Tracks(ids, ages, np.array([[3.5, 4.5], [1, 2]], np.float32), np.array([0.5, 0.25], np.float32))
    lines = read('tracks', clouds.encode_tracks(tracks))
    assert lines == ['7 2 3.5 4.5 0.5', f'{2**32 - 1} 1 1 2 0.25']


def test_fields_are_found_by_name_wherever_they_are(read):
    layout = np.dtype({'names': ['score', 'y', 'x'], 'formats': ['<f4'] * 3, 'offsets': [1, 9, 5], 'itemsize': 13})
    cloud = np.zeros(2, layout)
    cloud['x'], cloud['y'], cloud['score'] = [1, 2], [3, 4], [0.5, 0.25]
    assert read('features', cloud)[:2] == ['1 3 0.5', '2 4 0.25']


def test_rows_without_padding_are_read(read):
    cloud = clouds.encode_features(features_of_size(0, count=6))
    assert read('features', cloud, height=3, width=2, row_step=2 * cloud.dtype.itemsize) == read('features', cloud)


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        ({'width': 6}, '6 points of 140 bytes, but only 700 bytes'),
        ({'width': 2**32 - 1, 'height': 2**32 - 1}, 'points of 140 bytes, but only 700 bytes'),
        ({'point_step': 0}, '5 points of 0 bytes'),
        ({'point_step': 100, 'width': 3}, 'field descriptor has type 1 or does not fit'),
        ({'height': 2, 'width': 2, 'row_step': 300}, 'expected one row, or rows without padding'),
        ({'is_bigendian': 1}, 'expected little-endian data'),
        ({'fields': []}, 'no field x'),
        ({'fields': [('x', 0, 8, 1)]}, 'field x has type 8'),
        ({'fields': [('x', 0, 7, 2)]}, 'expected one element in field x'),
        ({'fields': [('x', 2**32 - 1, 7, 1)]}, 'field x has type 7 or does not fit'),
        ({'fields': [('x', 0, 7, 2**32 - 1)]}, 'field x has type 7 or does not fit'),
    ],
)
def test_a_bad_cloud_gets_one_sentence(read, changed, said):
    (line,) = read('features', clouds.encode_features(features_of_size(128)), **changed)
    assert line.startswith('error: point cloud: ')
    assert said in line


def test_cmake_finds_the_installed_header(tmp_path):
    if not shutil.which('cmake'):
        pytest.skip('needs cmake')
    share = tmp_path / 'prefix/share/superpoint_ros'
    for folder in ('cmake', 'include'):
        shutil.copytree(ROOT / folder, share / folder)
    (tmp_path / 'CMakeLists.txt').write_text(
        'cmake_minimum_required(VERSION 3.16)\nproject(consumer CXX)\nfind_package(superpoint_ros REQUIRED)\n'
        f'add_executable(consumer {Path(__file__).with_name("read_cloud.cpp")})\n'
        'target_compile_features(consumer PRIVATE cxx_std_17)\n'
        'target_link_libraries(consumer superpoint_ros::superpoint_ros)\n'
    )
    configure = ['cmake', '-S', '.', '-B', 'build', f'-DCMAKE_PREFIX_PATH={tmp_path / "prefix"}']
    subprocess.run(configure, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    subprocess.run(['cmake', '--build', 'build'], cwd=tmp_path, check=True, capture_output=True, timeout=120)
