"""The code for subscribers in README and docs reads our messages, with descriptors of each size and type."""

import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from superpoint_ros import clouds
from superpoint_ros.features import Matches
from superpoint_ros.tracking import Tracks
from test.conftest import features_of_size

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / 'README.md'
SLAM = ROOT / 'docs/integrating-a-slam-node.md'
PAGES = pytest.mark.parametrize('page', [README, SLAM], ids=lambda page: page.name)
DESCRIPTORS = [(128, 'int8', 0.01), (256, 'int8', 0.01), (128, 'float32', 1e-5)]
"""Size, type and rounding error."""

# Stand-ins for the parts of sensor_msgs and OpenCV that the code uses: PyPI has neither for C++.
POINT_CLOUD = """
#include <cstdint>
#include <string>
#include <vector>
namespace sensor_msgs::msg {
struct PointField { std::string name; uint32_t offset, datatype, count; };
struct PointCloud2 {
  uint32_t height = 1, width, point_step, row_step = 0;
  bool is_bigendian = false;
  std::vector<PointField> fields;
  std::vector<uint8_t> data;
};
}
"""
OPENCV = """
#include <cstddef>
#include <cstdint>
#include <vector>
enum { CV_8S = 1, CV_32F = 5 };
namespace cv {
struct Point2f { float x, y; };
struct KeyPoint {
  KeyPoint(float x, float y, float, float, float response) : pt{x, y}, response(response) {}
  Point2f pt; float response;
};
struct Mat {
  Mat(int rows, int cols, int) : rows(rows), cols(cols), own(rows * cols), data(own.data()), step(cols * 4) {}
  Mat(int rows, int cols, int, void * data, size_t step) : rows(rows), cols(cols), data(data), step(step) {}
  template<class T> T * ptr(int i) const { return reinterpret_cast<T *>(static_cast<uint8_t *>(data) + i * step); }
  int rows, cols; std::vector<float> own; void * data; size_t step;
};
}
"""
PROGRAM = """
#include <cstdio>
#include <iostream>
#include <opencv2/core.hpp>
void add_features(const std::vector<cv::KeyPoint> & keypoints, const cv::Mat & descriptors)
{
  for (size_t i = 0; i < keypoints.size(); ++i) {
    printf("%g %g", keypoints[i].pt.x, keypoints[i].pt.y);
    for (int k = 0; k < descriptors.cols; ++k) { printf(" %g", descriptors.ptr<float>(i)[k]); }
    printf("\\n");
  }
}
void add_observation(uint32_t id, float x, float y) { printf("%u %g %g\\n", id, x, y); }
void add_pair(float x0, float y0, float x1, float y1, uint32_t index0, uint32_t index1)
{
  printf("%g %g %g %g %u %u\\n", x0, y0, x1, y1, index0, index1);
}
@CODE@
int main()
{
  sensor_msgs::msg::PointCloud2 cloud;
  int fields, bytes;
  std::cin >> cloud.width >> cloud.point_step >> fields >> bytes;
  for (int i = 0; i < fields; ++i) {
    sensor_msgs::msg::PointField field;
    std::cin >> field.name >> field.offset >> field.datatype >> field.count;
    cloud.fields.push_back(field);
  }
  cloud.data.resize(bytes);
  std::cin.get();
  std::cin.read(reinterpret_cast<char *>(cloud.data.data()), bytes);
  @CALL@(cloud);
}
"""


def code(page, language):
    return re.findall(rf'^```{language}\n(.*?)^```', page.read_text(encoding='utf-8'), re.M | re.S)


def tracks():
    ids, ages = np.array([7, 2**32 - 1], np.uint32), np.array([2, 1], np.uint32)
    return Tracks(ids, ages, np.array([[3.5, 4.5], [1, 2]], np.float32), np.array([0.5, 0.4], np.float32))


class TestPython:
    @pytest.fixture
    def names(self, page):
        pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
        found = {}
        exec('\n'.join(block for block in code(page, 'python') if 'Extractor' not in block), found)
        return found

    @pytest.fixture
    def message(self):
        pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
        from std_msgs.msg import Header

        from superpoint_ros.ros.messages import cloud_message

        return lambda cloud: cloud_message(cloud, Header())

    @pytest.mark.parametrize('page', [SLAM])
    @pytest.mark.parametrize(('size', 'kind', 'tolerance'), DESCRIPTORS)
    def test_features(self, names, message, size, kind, tolerance):
        given = features_of_size(size)
        keypoints, descriptors = names['read_features'](message(clouds.encode_features(given, kind)))
        np.testing.assert_array_equal(keypoints, given.keypoints)
        np.testing.assert_allclose(descriptors, given.descriptors, atol=tolerance)

    @pytest.mark.parametrize('page', [README])
    @pytest.mark.parametrize(('size', 'kind', 'tolerance'), DESCRIPTORS)
    def test_callback(self, names, message, size, kind, tolerance):
        given, received = features_of_size(size), []
        names['add_features'] = lambda *features: received.append(features)
        names['on_features'](message(clouds.encode_features(given, kind)))
        ((keypoints, descriptors),) = received
        np.testing.assert_array_equal(keypoints, given.keypoints)
        np.testing.assert_allclose(descriptors, given.descriptors, atol=tolerance)

    @pytest.mark.parametrize('page', [SLAM])
    def test_tracks_and_matches(self, names, message):
        ids, points = names['read_tracks'](message(clouds.encode_tracks(tracks())))
        assert (ids.tolist(), points.tolist()) == ([7, 2**32 - 1], [[3.5, 4.5], [1, 2]])
        given = features_of_size(8)
        matches = Matches(np.array([[0, 4], [3, 1]], np.uint32), np.array([0.9, 0.8], np.float32))
        first, second = names['read_matches'](message(clouds.encode_matches(given, given, matches)))
        np.testing.assert_array_equal(first, given.keypoints[[0, 3]])
        np.testing.assert_array_equal(second, given.keypoints[[4, 1]])

    @pytest.mark.parametrize('page', [SLAM])
    def test_descriptors_for_rtabmap_are_zlib_rows_columns_and_type(self, names):
        class KeyPoint:
            def __init__(self, **values):
                vars(self).update(values, pt=SimpleNamespace())

        rgbd = SimpleNamespace(key_points=[], descriptors=[])
        descriptors = np.arange(12, dtype=np.float32).reshape(3, 4)
        names['fill'](rgbd, np.float32([[1, 2], [3, 4], [5, 6]]), np.float32([1, 0.5, 0.25]), descriptors, KeyPoint)
        assert [(p.pt.x, p.pt.y, p.response) for p in rgbd.key_points] == [(1, 2, 1), (3, 4, 0.5), (5, 6, 0.25)]
        data = bytes(rgbd.descriptors)
        assert struct.unpack('<3i', data[-12:]) == (3, 4, 5)
        assert zlib.decompress(data[:-12]) == descriptors.tobytes()


@pytest.mark.skipif(not shutil.which('g++'), reason='needs g++ to compile the C++ code')
class TestCpp:
    @pytest.fixture
    def compiled(self, tmp_path):
        """Compiles the code of a page to a function that gives a cloud to one of its callbacks.

        The function returns the numbers in each line that the callback prints.
        """

        def compiler(page, callback):
            for name, text in {'opencv2/core.hpp': OPENCV, 'sensor_msgs/msg/point_cloud2.hpp': POINT_CLOUD}.items():
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text(f'#pragma once\n{text}')
            (block,) = code(page, 'cpp')
            (tmp_path / 'main.cpp').write_text(PROGRAM.replace('@CODE@', block).replace('@CALL@', callback))
            flags = [
                '-std=c++17',
                '-Wall',
                '-Wextra',
                '-Werror',
                '-fsanitize=address,undefined',
                '-I.',
                f'-I{ROOT}/include',
            ]
            subprocess.run(['g++', *flags, 'main.cpp'], check=True, cwd=tmp_path)
            return run

        def run(cloud):
            fields = clouds.point_fields(cloud.dtype)
            numbers = [len(cloud), cloud.dtype.itemsize, len(fields), cloud.nbytes]
            head = ' '.join(str(value) for value in [*numbers, *(value for field in fields for value in field)])
            message = head.encode() + b'\n' + cloud.tobytes()
            result = subprocess.run([tmp_path / 'a.out'], input=message, stdout=subprocess.PIPE, check=True)
            return [[float(word) for word in line.split()] for line in result.stdout.decode().splitlines()]

        return compiler

    @PAGES
    def test_features(self, compiled, page):
        read = compiled(page, 'on_features')
        for size, kind, tolerance in DESCRIPTORS:
            given = features_of_size(size)
            found = np.array(read(clouds.encode_features(given, kind)))
            np.testing.assert_allclose(found[:, :2], given.keypoints, rtol=1e-5)
            np.testing.assert_allclose(found[:, 2:], given.descriptors, atol=tolerance)
        assert read(clouds.encode_features(features_of_size(128, count=0))) == []

    def test_tracks(self, compiled):
        read = compiled(SLAM, 'on_tracks')
        assert read(clouds.encode_tracks(tracks())) == [[7, 3.5, 4.5], [2**32 - 1, 1, 2]]

    def test_matches(self, compiled):
        given, matches = features_of_size(8), Matches(np.array([[0, 4]], np.uint32), np.array([0.9], np.float32))
        (found,) = compiled(SLAM, 'on_matches')(clouds.encode_matches(given, given, matches))
        np.testing.assert_allclose(found, [*given.keypoints[0], *given.keypoints[4], 0, 4], rtol=1e-5)
