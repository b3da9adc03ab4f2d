"""A C++ program that embeds Python as RTAB-Map does takes the detector and the matcher."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import cv2
import numpy as np
import pytest

from superpoint_ros import Extractor, match
from superpoint_ros.matching import MatchConfig

pytest.importorskip('openvino', reason='needs OpenVINO to run the model')
ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / 'rtabmap'


@pytest.fixture(scope='module')
def embed(tmp_path_factory):
    """The compiled program."""
    compiler = shutil.which('g++')
    library = Path(sysconfig.get_config_var('LIBDIR')) / str(sysconfig.get_config_var('LDLIBRARY'))
    include = sysconfig.get_path('include')
    if not compiler or not (Path(include) / 'Python.h').exists() or not library.exists():
        pytest.skip('needs g++, and the headers and library of Python (python3-dev)')
    program = tmp_path_factory.mktemp('embed') / 'embed'
    subprocess.run(
        [
            compiler, '-std=c++17', '-Wall', str(Path(__file__).with_name('embed.cpp')), '-o', str(program),
            f'-I{include}', f'-I{np.get_include()}', str(library), f'-Wl,-rpath,{library.parent}', '-lpthread',
            '-Wl,--export-dynamic', *' '.join(sysconfig.get_config_vars('LIBS', 'SYSLIBS')).split(),
        ],
        check=True, timeout=120,
    )  # fmt: skip
    return program


@pytest.fixture(scope='module')
def pictures():
    """Two views of the same corners."""
    rng = np.random.default_rng(0)
    image = np.full((160, 220), 90, np.uint8)
    for _ in range(40):
        corner, size = rng.integers(0, 200, 2), rng.integers(12, 50, 2)
        cv2.rectangle(image, corner.tolist(), (corner + size).tolist(), int(rng.integers(256)), -1)
    return image[:, :200].copy(), image[:, 20:].copy()


@pytest.fixture(scope='module')
def run(embed, pictures, tmp_path_factory):
    """What the program printed, and the folder of its results."""
    folder = tmp_path_factory.mktemp('run')
    for name, picture in zip(('0.pgm', '1.pgm'), pictures, strict=True):
        cv2.imwrite(str(folder / name), picture)
    scripts = [str(SCRIPTS / name) for name in ('rtabmap_detector.py', 'rtabmap_matcher.py')]
    modules = os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith('-packages'))])
    environment = {**os.environ, 'PYTHONHOME': sys.base_prefix, 'PYTHONPATH': modules}
    command = [embed, *scripts, folder / '0.pgm', folder / '1.pgm', folder]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result, folder


@pytest.fixture(scope='module')
def features(pictures):
    extractor = Extractor('superpoint', backend='openvino', max_keypoints=1024)
    return [extractor(picture) for picture in pictures]


def read(path, dtype=np.float32):
    return np.fromfile(path, dtype)


def test_the_detector_gives_what_the_extractor_gives(run, features):
    _, folder = run
    assert len(features[0]) > 30
    np.testing.assert_array_equal(read(folder / 'keypoints0').reshape(-1, 2), features[0].keypoints)
    np.testing.assert_array_equal(read(folder / 'scores0'), features[0].scores)
    np.testing.assert_array_equal(read(folder / 'descriptors0').reshape(len(features[0]), -1), features[0].descriptors)
    np.testing.assert_array_equal(read(folder / 'keypoints1').reshape(-1, 2), features[1].keypoints)


def test_the_matcher_gives_what_matching_gives(run, features):
    _, folder = run
    expected = match(*features, MatchConfig(min_similarity=0.7)).indices
    assert len(expected) > 20
    np.testing.assert_array_equal(read(folder / 'matches', np.int32).reshape(-1, 2), expected)


def test_errors_reach_rtabmap_as_ascii(run):
    result, _ = run
    printed = result.stdout.partition('ERRORS')[2]
    assert 'expected each side 16 to 8192' in printed
    assert 'RuntimeError: ' in printed
    assert 'ni' in printed
    assert 'o.onnx' in printed
    assert printed.isascii()


def test_nothing_of_torch_or_ros_is_imported():
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy, rtabmap_detector, rtabmap_matcher
rtabmap_detector.init(0)
rtabmap_matcher.init(256, 0.7, 20, 0, 'indoor')
image = numpy.random.default_rng(0).integers(0, 256, (64, 64), numpy.uint8)
keypoints, descriptors = rtabmap_detector.detect(image)
points, scores = keypoints[:, :2].copy(), keypoints[:, 2].copy()
rtabmap_matcher.match(points, points, scores, scores, descriptors, descriptors, 64, 64)
print(sorted({'torch', 'rclpy', 'jsonargparse'} & set(sys.modules)))
"""
    command = [sys.executable, '-c', program, str(SCRIPTS)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == '[]'
