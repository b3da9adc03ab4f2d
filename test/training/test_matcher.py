"""The matcher's loss against answers worked out by hand, and a short training that must learn."""

from functools import partial

import numpy as np
import pytest
import torch

from superpoint_ros.learned_matching import LearnedMatcher
from superpoint_ros.models import checksum, resolve
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.lightglue import LightGlue
from superpoint_ros.networks.lightglue_config import LightGlueConfig
from superpoint_ros.training import scene_features, train
from superpoint_ros.training.datasets import EndlessDataset
from superpoint_ros.training.matcher import matching_loss, recall_and_precision
from superpoint_ros.training.matcher_data import draw_pair
from superpoint_ros.training.scene_features import NONE, UNSURE, ScenesConfig
from superpoint_ros.training.stage import start_from

from .runs import CONFIG, losses

PROBABILITIES = torch.tensor([[[0.8, 0.1, 0.1], [0.1, 0.2, 0.3], [0.1, 0.75, 0.05]]])
PARTNERS = torch.tensor([[[0, 1, NONE], [0, 1, UNSURE]]])
VALID = torch.ones(1, 2, 3)


def test_the_loss_is_that_of_equation_12():
    logits = torch.zeros(1, 2, 3)
    logits[0, 0, 2] = np.log(3)
    # Matches 0–0 and 1–1 have probabilities 4/5 and 1/5; the keypoint without a partner is matchable with 3/4.
    expected = (np.log(5 / 4) + np.log(5)) / 2 + np.log(4)
    assert matching_loss(PROBABILITIES.log(), logits, PARTNERS, VALID).item() == pytest.approx(expected, rel=1e-6)


def test_padding_and_pairs_without_matches_have_a_finite_loss():
    nothing = torch.full((1, 2, 3), NONE)
    log_assignment = PROBABILITIES.log().requires_grad_()
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    assert matching_loss(log_assignment, logits, nothing, 0 * VALID).item() == 0
    loss = matching_loss(log_assignment, logits, nothing, VALID)
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    assert logits.grad.isfinite().all()


def test_recall_and_precision_are_of_likely_mutual_matches():
    # Mutual: 0–0 and 2–1 (0.75). Of the known matches 0–0 is found, 1–1 is not; 2–1 is wrong.
    recall, precision = recall_and_precision(PROBABILITIES.log(), PARTNERS, VALID)
    assert (recall.item(), precision.item()) == (0.5, 0.5)
    # Without the padded keypoint 2 of the first image nothing is wrong, and 1–1 is still too unlikely.
    valid = VALID.clone()
    valid[0, 0, 2] = 0
    recall, precision = recall_and_precision(PROBABILITIES.log(), PARTNERS, valid)
    assert (recall.item(), precision.item()) == (0.5, 1)


def test_a_matcher_of_other_descriptors_gives_all_layers_but_the_first(make_matcher):
    file = make_matcher(descriptor_size=8)
    given = checkpoint.load_matcher(file).state_dict()
    network = LightGlue(LightGlueConfig(descriptor_size=16, width=32, heads=2, layers=2))
    first = network.input.weight.clone()
    start_from(network, file)
    assert torch.equal(network.input.weight, first)
    state = network.state_dict()
    assert all(torch.equal(state[name], given[name]) for name in state if not name.startswith('input.'))
    with pytest.raises(ValueError, match='do not fit the network'):
        start_from(LightGlue(LightGlueConfig(descriptor_size=16, width=64, heads=2, layers=2)), file)


@pytest.fixture(scope='module')
def scenes(photographs, tiny_model, tmp_path_factory):
    config = ScenesConfig(count=3, views=3, keypoints=60)
    return scene_features.obtain(
        sorted(photographs.iterdir()), str(tiny_model), config, tmp_path_factory.mktemp('scenes'), workers=0
    )


def pairs(scenes, keypoints=60, unrelated=0.0, stream=0):
    draw = partial(draw_pair, files=scenes, keypoints=keypoints, unrelated=unrelated)
    return EndlessDataset(draw, seed=0, stream=stream)


def test_pairs_name_each_others_rows(scenes):
    dataset = pairs(scenes)
    matched = 0
    for index in range(6):
        sample = dataset[index]
        first, second = sample['partners']
        rows = np.flatnonzero(first >= 0)
        assert np.array_equal(second[first[rows]], rows)
        assert (sample['valid'][:, : len(rows)] == 1).all()
        matched += len(rows)
    assert matched > 10


def test_keypoints_whose_partner_is_left_out_have_none(scenes):
    few = pairs(scenes, keypoints=20)[1]
    every = pairs(scenes)[1]
    known = every['partners'][:, :20]
    assert np.array_equal(few['partners'], np.where(known >= 20, NONE, known))
    assert (known >= 20).any()
    assert np.array_equal(few['keypoints'], every['keypoints'][:, :20])


def test_views_of_two_scenes_have_no_partners(scenes):
    dataset = pairs(scenes, unrelated=1.0)
    none = [bool((dataset[index]['partners'] == NONE).all()) for index in range(12)]
    assert sum(none) >= 4, 'but where the same scene was drawn twice'


def test_a_sample_is_a_function_of_its_number(scenes):
    one, again, other = (pairs(scenes, unrelated=0.1, stream=stream)[5] for stream in (0, 0, 1))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one['keypoints'], other['keypoints'])


def test_training_learns_and_its_matcher_serves_its_extractor(photographs, random_features, tmp_path):
    run = tmp_path / 'run'
    arguments = [
        f'--config={CONFIG / "matcher"}.yaml',
        f'--run={run}',
        '--trainer.max_steps=60',
        '--model.network.width=64',
        '--model.network.layers=2',
        '--model.warmup=5',
        f'--data.images=[{photographs}]',
        f'--data.cache={tmp_path / "cache"}',
        '--data.scenes.count=4',
        '--data.scenes.views=3',
        '--data.scenes.keypoints=100',
        '--data.keypoints=100',
        '--data.batch_size=8',
        '--data.validation_pairs=4',
        '--data.workers=0',
        '--trainer.val_check_interval=30',
        '--trainer.log_every_n_steps=1',
        '--trainer.logger=CSVLogger',
        f'--trainer.logger.save_dir={run}',
        '--trainer.num_sanity_val_steps=0',
        '--trainer.enable_progress_bar=false',
        '--trainer.accelerator=cpu',
        '--trainer.precision=32',
    ]
    train.main(arguments)
    curve = losses(run)
    assert np.mean(curve[-10:]) < 0.8 * np.mean(curve[:5])
    assert len(losses(run, 'validation/recall')) == 2
    config = checkpoint.load_matcher(run / 'weights.safetensors').config
    extractor = resolve('unsuperpoint_lite').file('weights')
    assert (config.extractor, config.extractor_checksum) == ('unsuperpoint_lite', checksum(extractor))
    matcher = LearnedMatcher(str(run / 'weights.safetensors'), backend='torch')
    with pytest.raises(ValueError, match='was trained for features of unsuperpoint_lite'):
        matcher(random_features(3, checksum='0123'), random_features(3))
