import re

import cv2
import numpy as np
import pytest
import torch

from superpoint_ros import cli
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superpoint_ros.training import adaptation
from superpoint_ros.training.adaptation import AdaptationConfig, adapted_scores, label, label_image, label_path
from superpoint_ros.training.synthetic_shapes import render

SPOTS = np.array([[20, 30], [50, 17], [71, 40], [100, 60]])
"""(x, y) of bright pixels in a black picture."""


class BrightnessDetector(torch.nn.Module):
    """Scores a pixel by its brightness: a detector whose truth is known."""

    def __init__(self):
        super().__init__()
        self.parameter = torch.nn.Parameter(torch.zeros(()))
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        cells = torch.nn.functional.pixel_unshuffle(images.float(), 8).clamp(1e-6, 1)
        dustbin = (1.001 - cells.sum(dim=1, keepdim=True)).clamp(min=1e-6)
        return {'logits': torch.cat([cells, dustbin], dim=1).log()}


def picture():
    image = np.zeros((80, 120), np.uint8)
    image[SPOTS[:, 1], SPOTS[:, 0]] = 255
    return cv2.GaussianBlur(image, (0, 0), 1) * 5


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / 'weights.safetensors'
    checkpoint.save(path, SuperPoint(SuperPointConfig((8, 8, 8, 8), 8, descriptor_size=0)))
    return path


@pytest.fixture
def images(tmp_path):
    for i, name in enumerate(['a.png', 'b.png', 'deep/c.png']):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), render('cube', np.random.default_rng(i))[0])
    return tmp_path / 'images'


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*.npz')}


def test_views_put_together_find_a_point_where_it_is():
    config = AdaptationConfig(views=30, size=120, threshold=0.05)
    keypoints, scores = label_image(BrightnessDetector(), picture(), config, np.random.default_rng(0))
    assert keypoints.dtype == scores.dtype == np.float32
    assert (np.diff(scores) <= 0).all()
    distances = np.linalg.norm(keypoints[:, None] - SPOTS, axis=2)
    assert distances.min(axis=0).max() < 0.6
    assert len(keypoints) == len(SPOTS)


def test_labels_of_a_photograph_that_was_shrunk_are_in_its_own_pixels():
    large = cv2.resize(picture(), (480, 320), interpolation=cv2.INTER_CUBIC)
    config = AdaptationConfig(views=40, size=120, threshold=0.05)
    keypoints, _ = label_image(BrightnessDetector(), large, config, np.random.default_rng(0))
    errors = keypoints[:, None] - ((SPOTS + 0.5) * 4 - 0.5)
    nearest = errors[np.linalg.norm(errors, axis=2).argmin(axis=0), range(len(SPOTS))]
    assert np.abs(nearest).max() < 2.5
    assert np.abs(nearest.mean(axis=0)).max() < 0.75  # the half-pixel error would be 1.5


def test_a_score_is_the_mean_over_the_views_that_saw_the_pixel():
    image = torch.full((1, 1, 80, 120), 0.01)  # its score is the same seen from everywhere
    config = AdaptationConfig(views=25)
    scores = adapted_scores(BrightnessDetector(), image, config, np.random.default_rng(0))
    seen = scores[3:-3, 3:-3]
    assert seen.min() > 0
    torch.testing.assert_close(seen, torch.full_like(seen, seen.median().item()), rtol=0.05, atol=0)


def test_the_network_sees_the_views_in_batches():
    network = BrightnessDetector()
    config = AdaptationConfig(views=10, batch_size=4)
    adapted_scores(network, torch.zeros(1, 1, 80, 120), config, np.random.default_rng(0))
    assert network.batches == [4, 4, 2]


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(weights, images, tmp_path, caplog):
    config = AdaptationConfig(views=3)
    label(weights, images, tmp_path / 'whole', config)
    label(weights, images, tmp_path / 'killed', config)
    untouched = tmp_path / 'killed' / 'a.png.npz'
    stamp = untouched.stat().st_mtime_ns
    (tmp_path / 'killed' / 'b.png.npz').unlink()
    caplog.set_level('INFO')
    assert label(weights, images, tmp_path / 'killed', config) == []
    assert '2 of 3 photographs have labels and are skipped' in caplog.text
    assert untouched.stat().st_mtime_ns == stamp
    assert contents(tmp_path / 'killed') == contents(tmp_path / 'whole')
    assert set(contents(tmp_path / 'whole')) == {'a.png.npz', 'b.png.npz', 'deep/c.png.npz'}


def test_a_run_that_dies_leaves_no_half_file(weights, images, tmp_path, monkeypatch):
    def dies(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(adaptation.np, 'savez', dies)
    with pytest.raises(KeyboardInterrupt):
        label(weights, images, tmp_path / 'labels', AdaptationConfig(views=1))
    assert [path for path in (tmp_path / 'labels').rglob('*') if path.is_file()] == []


def test_an_unreadable_photograph_is_named_and_the_others_are_labeled(weights, images, tmp_path, capsys):
    (images / 'aa.jpg').write_text('not an image')
    assert cli.main(['label', str(weights), str(images), str(tmp_path / 'labels'), '--views=1']) == 1
    assert f'1 photographs could not be read:\n  {images / "aa.jpg"}' in capsys.readouterr().err
    assert len(contents(tmp_path / 'labels')) == 3
    assert label_path(images / 'deep/c.png', images, tmp_path / 'labels').is_file()


@pytest.mark.parametrize('device', ['cuda:99', 'gpu'])
def test_a_device_that_is_not_there_is_named(weights, images, tmp_path, capsys, device):
    assert cli.main(['label', str(weights), str(images), str(tmp_path / 'labels'), f'--device={device}']) == 1
    assert re.fullmatch(f"superpoint label: device '{device}': torch cannot use it .*\n", capsys.readouterr().err)


def test_a_folder_without_photographs_is_an_error(weights, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no images'):
        label(weights, tmp_path / 'empty', tmp_path / 'labels')


def test_labeling_without_a_terminal_logs_its_progress(weights, images, tmp_path, caplog):
    caplog.set_level('INFO')
    label(weights, images, tmp_path / 'labels', AdaptationConfig(views=1))
    assert [record.getMessage() for record in caplog.records] == [f'labeling: {i} of 3' for i in (1, 2, 3)]
