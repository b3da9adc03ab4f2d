"""`superpoint match` with a learned matcher."""

import cv2
import numpy as np
import pytest

from superpoint_ros.commands.match import match
from superpoint_ros.matching import MatchConfig
from superpoint_ros.models import checksum


@pytest.fixture
def images(tmp_path):
    """An image, and the same moved by 8 pixels."""
    texture = np.random.default_rng(0).integers(0, 256, (20, 28)).astype(np.uint8)
    large = cv2.resize(texture, (208, 152), interpolation=cv2.INTER_CUBIC)
    paths = tmp_path / '0.png', tmp_path / '1.png'
    for path, left in zip(paths, (0, 8), strict=True):
        cv2.imwrite(str(path), large[:, left : left + 200])
    return paths


def test_a_learned_matcher_makes_the_matches(images, tiny_model, make_matcher, tmp_path):
    weights = tiny_model.with_suffix('.safetensors')
    path = make_matcher(descriptor_size=32, extractor='tiny', extractor_checksum=checksum(weights))

    def count(min_similarity):
        matching = MatchConfig(min_similarity=min_similarity)
        said = match(*images, tmp_path / 'm.png', str(tiny_model), str(path), matching=matching)
        return int(said.split(', ')[1].split()[0])

    assert cv2.imread(str(tmp_path / 'm.png')) is None
    assert count(0.0) > 0
    assert cv2.imread(str(tmp_path / 'm.png')).shape[1] >= 400
    assert count(1.0) == 0


def test_a_matcher_of_another_model_is_refused(images, tiny_model, make_matcher, tmp_path):
    path = make_matcher(descriptor_size=32, extractor='superpoint', extractor_checksum='0' * 64)
    with pytest.raises(ValueError, match=r'was trained for features of superpoint \(checksum 000000000000\)'):
        match(*images, tmp_path / 'm.png', str(tiny_model), str(path))
    assert not (tmp_path / 'm.png').exists()


def test_the_shipped_matcher_makes_the_matches(images, tmp_path):
    matching = MatchConfig(min_similarity=0.3)
    said = match(*images, tmp_path / 'm.png', matcher='learned', matching=matching)
    assert int(said.split(', ')[1].split()[0]) > 20
