"""Small runs of every stage, from the shipped configuration files, through the command's own entrance."""

import errno
import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from superpoint_ros import cli
from superpoint_ros.decode import score_map
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPointConfig
from superpoint_ros.training import adaptation, train
from superpoint_ros.training.adaptation_config import AdaptationConfig
from superpoint_ros.training.datasets import VALIDATION, ShapesData
from superpoint_ros.training.homography import HomographyConfig
from superpoint_ros.training.photometric import PhotometricConfig
from superpoint_ros.training.stage import Stage
from superpoint_ros.training.superpoint import MagicPointTraining, detections_near_labels
from superpoint_ros.training.synthetic_shapes import render

from .runs import CONFIG, Interruption, arguments, falls, losses

WIDER = ['--model.network.channels=[16,16,32,32]', '--model.network.head_channels=64', '--data.batch_size=16']


@pytest.fixture(scope='module')
def magicpoint(tmp_path_factory):
    run = tmp_path_factory.mktemp('magicpoint')
    train.main(arguments('magicpoint', run, 300, *WIDER, '--model.lr=0.003', '--trainer.val_check_interval=300'))
    return run


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    """Folders of pictures and of their labels by the little MagicPoint."""
    images = tmp_path_factory.mktemp('images')
    for i in range(6):
        picture, _ = render('checkerboard', np.random.default_rng(i))
        cv2.imwrite(str(images / f'{i}.png'), picture)
    return images


def test_magicpoint_learns(magicpoint):
    curve = losses(magicpoint)
    assert len(curve) == 300
    assert falls(curve, to=0.3)
    assert losses(magicpoint, 'recall/clean')
    network = checkpoint.load(magicpoint / 'weights.safetensors')
    assert network.descriptor is None


def test_validation_counts_detections_and_labels_apart():
    logits = np.full((2, 65, 2, 3), -5.0, np.float32)
    logits[:, 64] = 5  # no keypoint anywhere, but in the first image at (2, 1) and at (20, 12)
    logits[0, 8 * 1 + 2, 0, 0] = 12  # higher, so it comes first
    logits[0, 8 * 4 + 4, 1, 2] = 10
    nothing = [np.nan, np.nan]
    labels = np.array([[[2.0, 1.0], [3.5, 1.5], [9.0, 9.0]], [[1.0, 1.0], nothing, nothing]])
    right, recalled = detections_near_labels(logits, labels)
    assert right.tolist() == [True, False]
    assert recalled.tolist() == [True, True, False, False]  # two labels beside one detection are one right detection


def test_its_scores_are_higher_at_corners_than_elsewhere(magicpoint):
    network = checkpoint.load(magicpoint / 'weights.safetensors')
    dataset = ShapesData(HomographyConfig(), 64, 48).dataset(VALIDATION)
    at_corners, by_chance, others = [], [], np.empty((0, 2))
    for sample in map(dataset.__getitem__, range(80)):
        with torch.no_grad():
            logits = network(torch.from_numpy(sample['image'])[None, None].float() / 255)['logits']
        scores = cv2.dilate(score_map(logits[0].numpy()), np.ones((3, 3), np.uint8))
        for ranks, points in ((at_corners, sample['points']), (by_chance, others)):
            ranks += [(scores < scores[round(float(y)), round(float(x))]).mean() for x, y in points]
        others = sample['points']
    assert len(at_corners) > 100
    # Chance is what the corners of another picture score here: more than a half, as corners keep to the middle.
    assert np.mean(at_corners) > np.mean(by_chance) + 0.15


@pytest.mark.parametrize('loss', ['contrastive', 'hinge'])
def test_superpoint_learns_from_the_labels_of_magicpoint(magicpoint, photographs, tmp_path, loss):
    labels = tmp_path / 'labels'
    weights = magicpoint / 'weights.safetensors'
    config = AdaptationConfig(views=4, size=160, threshold=0.02)
    assert adaptation.label(weights, photographs, labels, config) == []
    assert len(list(labels.iterdir())) == 6
    run = tmp_path / 'superpoint'
    train.main(
        arguments(
            'superpoint',
            run,
            60,
            *WIDER,
            '--model.network.descriptor_size=16',
            '--model.lr=0.003',
            f'--model.initial_weights={weights}',
            f'--model.descriptors.kind={loss}',
            '--model.descriptors.weight=1',
            f'--data.images={photographs}',
            f'--data.labels={labels}',
            '--trainer.val_check_interval=60',
        )
    )
    assert falls(losses(run), to=0.9)
    assert falls(losses(run, 'loss/descriptor'), to=0.8)
    assert losses(run, 'validation/loss/descriptor')
    assert checkpoint.load(run / 'weights.safetensors').config.descriptor_size == 16


@pytest.mark.parametrize('cut', ['interrupted', 'prolonged'])
def test_a_run_in_pieces_is_the_run_in_one_piece(tmp_path, monkeypatch, cut):
    options = ['--model.cooldown=0', '--data.workers=1', '--trainer.limit_val_batches=0']
    train.main(arguments('magicpoint', tmp_path / 'whole', 8, *options))
    monkeypatch.setattr(train, 'PieceTimer', Interruption)
    first = ['--trainer.max_steps=3'] if cut == 'prolonged' else ['--piece=3']
    train.main(arguments('magicpoint', tmp_path / 'pieces', 8, *options, *first))
    assert len(losses(tmp_path / 'pieces')) == 3
    train.main(arguments('magicpoint', tmp_path / 'pieces', 8, *options))
    whole, pieces = losses(tmp_path / 'whole'), losses(tmp_path / 'pieces')
    assert len(whole) == 8
    assert pieces == pytest.approx(whole, rel=1e-6)
    states = [checkpoint.load(tmp_path / run / 'weights.safetensors').state_dict() for run in ('whole', 'pieces')]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name])


def test_a_piece_stops_by_the_clock_and_its_time_does_not_count_in_the_next(tmp_path):
    steps = []
    for _ in range(2):
        options = ['--piece=00:00:00:01', '--trainer.limit_val_batches=0']
        train.main(arguments('magicpoint', tmp_path, 100000, *options))
        steps.append(len(losses(tmp_path)))
    assert 0 < steps[0] < steps[1]


def test_a_piece_stops_between_steps_that_take_several_batches(tmp_path, monkeypatch):
    # A checkpoint does not hold gradients: after a stop within a step, the rest of it would be a step of its own.
    # The time is over with the first batch.
    monkeypatch.setattr(train.PieceTimer, 'time_elapsed', lambda timer, *_: float(timer.start_time() is not None))
    options = ['--trainer.accumulate_grad_batches=2', '--piece=00:00:00:01', '--trainer.limit_val_batches=0']
    for steps in (1, 2):
        train.main(arguments('magicpoint', tmp_path, 4, *options))
        assert torch.load(tmp_path / 'last.ckpt', weights_only=True)['global_step'] == steps


@pytest.mark.parametrize(
    ('max_steps', 'factors'),
    [
        (100, {0: 0.1, 4: 0.5, 9: 1, 50: 1, 75: 0.5, 90: 0.5 * (1 - math.cos(math.pi / 5)), 100: 0}),
        (-1, {0: 0.1, 9: 1, 10**6: 1}),
    ],
)
def test_the_learning_rate_rises_stays_and_falls(max_steps, factors):
    stage = MagicPointTraining(SuperPointConfig(descriptor_size=0), PhotometricConfig(), warmup=10, cooldown=0.5)
    trainer = SimpleNamespace(max_steps=max_steps)
    stage.trainer = trainer
    assert {step: stage.lr_factor(step) for step in factors} == pytest.approx(factors)


def test_a_continued_run_learns_at_its_own_rate(tmp_path, monkeypatch):
    rates, step = [], torch.optim.AdamW.step

    def noted(optimizer, *args, **kwargs):
        rates.extend((group['lr'], group['weight_decay']) for group in optimizer.param_groups)
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, 'step', noted)
    for steps, rate in ((2, 0.004), (4, 0.002)):
        options = ['--model.cooldown=0', '--model.warmup=0', '--trainer.limit_val_batches=0']
        train.main(
            arguments('magicpoint', tmp_path, steps, *options, f'--model.lr={rate}', f'--model.weight_decay={rate}')
        )
    assert rates == [(0.004, 0.004)] * 2 + [(0.002, 0.002)] * 2
    assert losses(tmp_path, 'lr') == pytest.approx([0.004] * 2 + [0.002] * 2)


def test_several_processes_train_as_one_with_the_same_batch(tmp_path):
    # Without batch norm, whose statistics are those of each process on a CPU, and unwarped, so that all cells count.
    options = ['--model.network.norm=none', '--data.warped=0', '--trainer.limit_val_batches=0']
    train.main(arguments('magicpoint', tmp_path / 'one', 5, *options))
    shared = arguments('magicpoint', tmp_path / 'two', 5, *options)
    shared += ['--data.batch_size=4', '--trainer.devices=2', '--trainer.strategy=ddp']
    command = [sys.executable, '-m', 'superpoint_ros.training.train', *shared]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=CONFIG.parents[1], check=False)
    assert done.returncode == 0, done.stderr
    one, two = losses(tmp_path / 'one'), losses(tmp_path / 'two')
    assert len(one) == 5
    assert two == pytest.approx(one, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_samples(tmp_path):
    options = ['--model.lr=1e30', '--model.network.norm=none', '--trainer.limit_val_batches=0']
    with pytest.raises(FloatingPointError, match=r'step \d: the loss is nan .*samples \[8, 9, 10, .*with seeds \['):
        train.main(arguments('magicpoint', tmp_path, 5, *options, '--model.warmup=0'))


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--config=none.yaml', '--run=run'], r'Parser key "config": File does not exist: .*none\.yaml.'),
        (['--run=run'], 'the following arguments are required: model'),
        ([f'--config={CONFIG}/magicpoint.yaml'], '--run is missing: name a folder for the run'),
        ([f'--config={CONFIG}/magicpoint.yaml', '--run=run', '--model.learning_rate=1'], r'.*learning_rate.*'),
        (
            [f'--config={CONFIG}/magicpoint.yaml', '--run=run', '--data.batch_size=many'],
            r'.*"batch_size".*Got value: many',
        ),
        (
            [f'--config={CONFIG}/magicpoint.yaml', '--run=run', '--data.width=100'],
            'width and height: expected multiples of 8, got 100 and 120',
        ),
        (
            [f'--config={CONFIG}/magicpoint.yaml', '--run=run', '--data.homography.perspective=3'],
            r'perspective: 3\.0 is out of range, expected 0 to 0\.085; a view could fold over',
        ),
    ],
)
def test_a_wrong_option_gets_one_line(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        train.main(words)
    assert stop.value.code == 2
    assert re.fullmatch(f'superpoint train: {message}\n', capsys.readouterr().err)
    assert not (tmp_path / 'run').exists()


def test_missing_initial_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'^none\.safetensors: no such file$'):
        train.main(arguments('magicpoint', tmp_path, 1, '--model.initial_weights=none.safetensors'))


def test_initial_weights_of_another_network_are_refused(magicpoint, tmp_path):
    wider = [
        *WIDER,
        '--model.network.channels=[16,16,32,24]',
        f'--model.initial_weights={magicpoint / "weights.safetensors"}',
    ]
    with pytest.raises(ValueError, match=r'initial weights .* do not fit the network'):
        train.main(arguments('magicpoint', tmp_path, 1, *wider))


class RunsCode:
    """An object whose unpickling runs code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


def hostile(path, proof):
    torch.save({'state_dict': RunsCode(proof)}, path)


def legacy_hostile(path, proof):
    path.write_bytes(pickle.dumps(RunsCode(proof)))


def half(path, proof):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path, proof):
    path.write_bytes(b'')


def foreign(path, proof):
    torch.save({'weights': torch.zeros(3)}, path)


def nonsense(path, proof):
    state = torch.load(path, weights_only=True)
    torch.save(state | {'loops': 3, 'callbacks': ['x']}, path)


@pytest.fixture(scope='module')
def short_run(tmp_path_factory):
    run = tmp_path_factory.mktemp('short')
    train.main(arguments('magicpoint', run, 1, '--trainer.limit_val_batches=0'))
    return run


@pytest.mark.parametrize('attack', [hostile, legacy_hostile, half, empty, foreign, nonsense])
def test_a_broken_or_hostile_checkpoint_gets_one_sentence_and_runs_no_code(short_run, tmp_path, attack):
    run, proof = tmp_path / 'run', tmp_path / 'proof'
    shutil.copytree(short_run, run)
    attack(run / 'last.ckpt', proof)
    with pytest.raises(ValueError, match=r'last\.ckpt: not a checkpoint of this run') as stop:
        train.main(arguments('magicpoint', run, 2, '--trainer.limit_val_batches=0'))
    assert '\n' not in str(stop.value)
    assert not proof.exists()


def test_a_checkpoint_of_another_network_is_refused(short_run, tmp_path):
    shutil.copytree(short_run, tmp_path / 'run')
    with pytest.raises(ValueError, match=r'last\.ckpt: not a checkpoint of this run'):
        train.main(arguments('magicpoint', tmp_path / 'run', 2, '--model.network.channels=[8,8,8,8]'))


def test_a_killed_run_ends_as_if_it_had_not_been_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(train, 'CHECKPOINT_EVERY', 2)
    options = ['--model.cooldown=0.5', '--trainer.limit_val_batches=0']
    train.main(arguments('magicpoint', tmp_path / 'whole', 6, *options))

    def die(self, batch, index):
        if index == 3:
            raise MemoryError
        return Stage.training_step(self, batch, index)

    monkeypatch.setattr(MagicPointTraining, 'training_step', die)
    with pytest.raises(MemoryError):
        train.main(arguments('magicpoint', tmp_path / 'killed', 6, *options))
    monkeypatch.undo()
    monkeypatch.setattr(train, 'CHECKPOINT_EVERY', 2)
    train.main(arguments('magicpoint', tmp_path / 'killed', 6, *options))
    states = [checkpoint.load(tmp_path / run / 'weights.safetensors').state_dict() for run in ('whole', 'killed')]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name])


def test_ctrl_c_is_told_apart_from_an_error(tmp_path, monkeypatch):
    def ctrl_c(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(MagicPointTraining, 'training_step', ctrl_c)
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert cli.main(['train', *arguments('magicpoint', tmp_path, 1, '--trainer.limit_val_batches=0')]) == 130
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores further ones


def test_a_run_whose_folder_moved_keeps_one_checkpoint(short_run, tmp_path):
    shutil.copytree(short_run, tmp_path / 'run')
    train.main(arguments('magicpoint', tmp_path / 'run', 3, '--trainer.limit_val_batches=0'))
    assert [path.name for path in (tmp_path / 'run').glob('*.ckpt')] == ['last.ckpt']
    assert torch.load(tmp_path / 'run' / 'last.ckpt', weights_only=True)['global_step'] == 3


def test_a_checkpoint_is_replaced_at_once(short_run, tmp_path, monkeypatch):
    shutil.copytree(short_run, tmp_path / 'run')
    last, old = tmp_path / 'run' / 'last.ckpt', tmp_path / 'old.ckpt'
    old.hardlink_to(last)
    before = old.read_bytes()

    def another_disk(*args, **kwargs):
        raise OSError(errno.EXDEV, 'Invalid cross-device link')

    monkeypatch.setattr(os, 'rename', another_disk)  # as from the folder of temporary files
    train.main(arguments('magicpoint', tmp_path / 'run', 2, '--trainer.limit_val_batches=0'))
    assert torch.load(last, weights_only=True)['global_step'] == 2
    assert old.read_bytes() == before, 'the old file was written over instead of replaced'


def test_what_is_wrong_with_the_data_of_a_continued_run_is_not_blamed_on_its_checkpoint(photographs, tmp_path):
    def piece(steps, images, *options):
        small = ['--model.losses.matching=0', f'--data.images={images}', '--trainer.limit_val_batches=0', *options]
        train.main(arguments('unsuperpoint', tmp_path / 'run', steps, *small))

    images = tmp_path / 'images'
    shutil.copytree(photographs, images)
    piece(1, images)
    with pytest.raises(FileNotFoundError, match=r'^none: no such folder$'):
        piece(2, 'none')
    for path in images.iterdir():
        path.write_text('no image')
    with pytest.raises(ValueError, match=r'^\S+/\d\.png: not an image \(8 bytes\), expected .*$'):
        piece(2, images, '--data.workers=1')


def test_the_result_is_the_mean_of_the_weights_over_the_steps(tmp_path):
    train.main(arguments('magicpoint', tmp_path, 3, '--trainer.limit_val_batches=0', '--model.cooldown=0'))
    state = torch.load(tmp_path / 'last.ckpt', weights_only=True)['state_dict']
    for name, tensor in checkpoint.load(tmp_path / 'weights.safetensors').state_dict().items():
        torch.testing.assert_close(tensor, state[f'average.{name}'])
    assert not torch.equal(state['average.encoder.0.conv.weight'], state['network.encoder.0.conv.weight'])


def test_a_run_logs_its_result_once_and_nothing_of_its_libraries(tmp_path):
    words = arguments('magicpoint', tmp_path / 'run', 1, '--trainer.limit_val_batches=0')
    command = [sys.executable, '-m', 'superpoint_ros.cli', 'train', *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    said = ''.join((done.stdout + done.stderr).split())
    assert re.fullmatch(r'(INFO)?\S*run/weights\.safetensors:weightsafterstep1of1', said)
