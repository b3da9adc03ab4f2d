"""The matcher's loss against answers worked out by hand, and a short training that must learn."""

from functools import partial

import numpy as np
import pytest
import torch

from superpoint_ros import image_files
from superpoint_ros.extractor import Extractor
from superpoint_ros.learned_matching import LearnedMatcher
from superpoint_ros.models import checksum, resolve
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.lightglue import LightGlue
from superpoint_ros.networks.lightglue_config import LightGlueConfig
from superpoint_ros.runtimes.export import export
from superpoint_ros.training import scene_features, train
from superpoint_ros.training.datasets import EndlessDataset
from superpoint_ros.training.matcher import matching_loss, recall_and_precision
from superpoint_ros.training.matcher_data import draw_pair
from superpoint_ros.training.matcher_transfer import Places, fit_first_layer
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


def test_the_first_layer_is_fitted_exactly_where_descriptors_and_scores_are_linear_functions(make_matcher):
    rng = np.random.default_rng(0)
    given = checkpoint.load_matcher(make_matcher(descriptor_size=16)).eval()
    basis = np.linalg.qr(rng.normal(size=(24, 16)))[0].astype(np.float32)  # 24 elements, of which 16 hold everything
    descriptors = rng.normal(size=(500, 16)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    scores = rng.random(500, np.float32)
    places = Places(descriptors, descriptors @ basis.T, scores, (scores + 1) / 5)
    network = LightGlue(LightGlueConfig(descriptor_size=24, width=32, heads=2, layers=2)).eval()
    network.load_state_dict({name: tensor for name, tensor in given.state_dict().items() if 'input' not in name}, False)
    fit_first_layer(network, given, places)
    keypoints, valid = torch.rand(1, 2, 250, 2), torch.ones(1, 2, 250)
    answers = []
    for matcher, rows, values in ((given, descriptors, scores), (network, places.wanted, places.wanted_scores)):
        described, scored = torch.from_numpy(rows).view(1, 2, 250, -1), torch.from_numpy(values).view(1, 2, 250)
        answers.append(matcher(keypoints, described, valid, scored)['log_assignment'])
    assert torch.allclose(*answers, atol=0.05)
    assert answers[0].std() > 1


@pytest.fixture(scope='module')
def turned_model(tiny_model, tmp_path_factory):
    """The tiny model with descriptors in another basis: an orthogonal matrix times the former ones."""
    network = checkpoint.load(tiny_model.with_suffix('.safetensors'))
    basis = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))[0]
    layer = network.descriptor[-1]
    with torch.no_grad():
        layer.weight.copy_(torch.einsum('ij,jkhw->ikhw', basis, layer.weight))
        layer.bias.copy_(basis @ layer.bias)
    path = tmp_path_factory.mktemp('turned') / 'turned.safetensors'
    checkpoint.save(path, network)
    export(path, path.with_suffix('.onnx'))
    return path.with_suffix('.onnx')


def transfer(matcher, extractor, photographs, folder, *options):
    """A matcher for an extractor, from one for another extractor, without further training."""
    train.main(
        [
            f'--config={CONFIG / "matcher"}.yaml',
            f'--run={folder}',
            '--trainer.max_steps=0',
            '--model.network={descriptor_size: 32, width: 32, heads: 2, layers: 2}',
            f'--model.initial_weights={matcher}',
            f'--data.images=[{photographs}]',
            f'--data.extractor={extractor}',
            f'--data.cache={folder / "cache"}',
            '--data.scenes={count: 1, views: 2, keypoints: 400}',
            '--data.workers=0',
            '--trainer.num_sanity_val_steps=0',
            '--trainer.logger=false',
            '--trainer.accelerator=cpu',
            *options,
        ]
    )
    return folder / 'weights.safetensors'


def test_a_matcher_becomes_one_for_another_extractor(make_matcher, tiny_model, turned_model, photographs, tmp_path):
    owner = {'extractor': 'tiny', 'extractor_checksum': checksum(tiny_model.with_suffix('.safetensors'))}
    given = make_matcher(descriptor_size=32, **owner)
    chosen = f'--model.initial_extractor={tiny_model}'
    fitted = transfer(given, turned_model, photographs, tmp_path / 'run', chosen)
    assert checkpoint.load_matcher(fitted).config.extractor == 'turned'
    image = image_files.read(min(photographs.iterdir()))
    states = []
    for extractor, matcher in ((tiny_model, given), (turned_model, fitted)):
        features = Extractor(str(extractor), threshold=0.0, max_keypoints=400)(image)
        inputs = torch.from_numpy(np.column_stack([features.descriptors, features.scores]))
        states.append(checkpoint.load_matcher(matcher).input(inputs))
    assert (states[1] - states[0]).norm() < 0.1 * states[0].norm()
    for wrong in ('superpoint', 'null'):
        with pytest.raises(ValueError, match=r'trained for tiny .* name its file as --model'):
            transfer(given, turned_model, photographs, tmp_path / 'other', f'--model.initial_extractor={wrong}')


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
    with pytest.raises(
        ValueError, match=r'^network\.descriptor_size is 64, but descriptors of unsuperpoint_lite have 128$'
    ):
        train.main([*arguments, f'--run={tmp_path / "other"}', '--model.network.descriptor_size=64'])
    config = checkpoint.load_matcher(run / 'weights.safetensors').config
    extractor = resolve('unsuperpoint_lite').file('weights')
    assert (config.extractor, config.extractor_checksum) == ('unsuperpoint_lite', checksum(extractor))
    matcher = LearnedMatcher(str(run / 'weights.safetensors'), backend='torch')
    with pytest.raises(ValueError, match='was trained for features of unsuperpoint_lite'):
        matcher(random_features(3, checksum='0123'), random_features(3))
