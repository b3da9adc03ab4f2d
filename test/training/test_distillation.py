"""A small network learns from a big one: its losses by hand, and short runs of the shipped configuration."""

import math
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superpoint_ros.training import train
from superpoint_ros.training.distillation import (
    DistillationTraining,
    score_distillation_loss,
    similarity_distillation_loss,
)
from superpoint_ros.training.losses import DescriptorLossConfig
from superpoint_ros.training.photometric import PhotometricConfig
from superpoint_ros.training.synthetic_shapes import render

from .runs import CONFIG, Interruption, arguments, falls, losses

STUDENT = SuperPointConfig((8, 8, 16, 16), head_channels=16, descriptor_size=8, stem_stride=2)


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """Weights of a network that tells places apart."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = SuperPoint(SuperPointConfig((8, 8, 16, 16), head_channels=32, descriptor_size=24)).train()
        for _ in range(20):
            network(torch.rand(4, 1, 32, 48))
        network.detector[1].weight *= 5
    path = tmp_path_factory.mktemp('teacher') / 'teacher.safetensors'
    checkpoint.save(path, network)
    return path


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    images = tmp_path_factory.mktemp('images')
    for i in range(6):
        picture, points = render('checkerboard', np.random.default_rng(i))
        cv2.imwrite(str(images / f'{i}.png'), picture)
        np.savez(images / f'{i}.png.npz', keypoints=points, scores=np.ones(len(points), np.float32))
    return images


def options(teacher, photographs, *others):
    return [
        '--model.network.head_channels=16',
        '--model.network.descriptor_size=8',
        f'--model.teacher={teacher}',
        f'--data.images={photographs}',
        f'--data.labels={photographs}',
        '--data.scale=[120,160]',
        *others,
    ]


def test_a_student_learns_from_its_teacher(teacher, photographs, tmp_path):
    before = teacher.read_bytes()
    faster = ['--model.lr=0.01', '--trainer.val_check_interval=80']
    train.main(arguments('superpoint_lite', tmp_path, 80, *options(teacher, photographs, *faster)))
    for name, to in {'loss/detector': 0.5, 'loss/descriptor': 0.9, 'loss/similarity': 0.7}.items():
        assert falls(losses(tmp_path, name), to), name
        assert losses(tmp_path, f'validation/{name}'), name
    assert teacher.read_bytes() == before
    assert checkpoint.load(tmp_path / 'weights.safetensors').config == STUDENT
    state = torch.load(tmp_path / 'last.ckpt', weights_only=True)['state_dict']
    assert state.keys() == {f'network.{name}' for name in SuperPoint(STUDENT).state_dict()}


def test_a_run_in_pieces_is_the_run_in_one_piece(teacher, photographs, tmp_path, monkeypatch):
    steady = options(teacher, photographs, '--model.cooldown=0', '--trainer.limit_val_batches=0')
    train.main(arguments('superpoint_lite', tmp_path / 'whole', 6, *steady))
    monkeypatch.setattr(train, 'PieceTimer', Interruption)
    for piece in (['--piece=2'], []):
        train.main(arguments('superpoint_lite', tmp_path / 'pieces', 6, *steady, *piece))
    whole, pieces = (losses(tmp_path / run) for run in ('whole', 'pieces'))
    assert len(whole) == 6
    assert pieces == pytest.approx(whole, rel=1e-6)


def test_several_processes_train_as_one_with_the_same_batch(teacher, photographs, tmp_path):
    # Without what is not the mean of the processes' means: batch norm, and a loss over the points that an image shows.
    whole = options(teacher, photographs, '--model.network.norm=none', '--model.descriptors.weight=0')
    whole += [f'--data.homography.{name}=0' for name in ('perspective', 'scale', 'rotation', 'translation')]
    whole += ['--data.homography.crop=1', '--trainer.limit_val_batches=0']
    train.main(arguments('superpoint_lite', tmp_path / 'one', 3, *whole))
    shared = arguments('superpoint_lite', tmp_path / 'two', 3, *whole)
    shared += ['--data.batch_size=4', '--trainer.devices=2', '--trainer.strategy=ddp']
    command = [sys.executable, '-m', 'superpoint_ros.training.train', *shared]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=CONFIG.parents[1], check=False)
    assert done.returncode == 0, done.stderr
    one, two = losses(tmp_path / 'one'), losses(tmp_path / 'two')
    assert len(one) == 3
    assert two == pytest.approx(one, rel=1e-4)


def batch(size=(48, 64)):
    rng = torch.Generator().manual_seed(0)
    return {
        'image': torch.randint(0, 256, (2, 1, *size), generator=rng, dtype=torch.uint8),
        'points': torch.full((2, 1, 2), torch.nan),
        'homography': torch.eye(3, dtype=torch.float64).repeat(2, 1, 1),
        'seed': torch.tensor([1, 2]),
        'index': torch.tensor([0, 1]),
    }


def test_only_the_student_learns(teacher):
    training = DistillationTraining(STUDENT, PhotometricConfig(), DescriptorLossConfig(), teacher)
    before = {name: tensor.clone() for name, tensor in training.teacher.network.state_dict().items()}
    training.loss(batch())[0].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in training.parameters())
    torch.optim.SGD(training.parameters(), 1.0).step()
    assert all(parameter.grad is None for parameter in training.teacher.network.parameters())
    for name, tensor in training.teacher.network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_student_that_is_its_teacher_has_nothing_to_learn_but_what_noise_hides(teacher):
    config = checkpoint.load(teacher).config
    still = PhotometricConfig(0, 0, 0, 0, 0, 0, 0)
    left = []
    for photometric in (still, PhotometricConfig()):
        training = DistillationTraining(config, photometric, DescriptorLossConfig(), teacher, initial_weights=teacher)
        with torch.no_grad():
            left.append(training.eval().loss(batch())[1])
    # What is left is the teacher's rounding to bfloat16.
    for name in ('loss/detector', 'loss/similarity'):
        assert left[0][name] < 0.01, name
        assert left[1][name] > 5 * left[0][name], name


def test_score_loss_by_hand():
    targets = torch.full((1, 65, 1, 2), -1e4)
    targets[:, [3, 64], 0, 0] = 0  # half for a pixel, half for the dustbin
    targets[:, 7, 0, 1] = 0
    logits = torch.zeros(1, 65, 1, 2)
    both = torch.tensor([[[True, True]]])
    # Σ p·log(p / (1/65)): log 65 − log 2 where the teacher wavers between two, log 65 where it is sure.
    assert score_distillation_loss(logits, targets, both).item() == pytest.approx(math.log(65) - math.log(2) / 2)
    first = torch.tensor([[[True, False]]])
    assert score_distillation_loss(logits, targets, first).item() == pytest.approx(math.log(65 / 2))
    assert score_distillation_loss(logits, targets, ~(both | first)).item() == 0
    assert score_distillation_loss(targets, targets, both).item() == pytest.approx(0, abs=1e-5)
    # One class is 2·log 3 above the other 64: odds of 9 become 3 at a temperature of 2, and T² is 4.
    sure = torch.zeros(1, 65, 1, 1)
    sure[:, 5] = 2 * math.log(3)
    share = 3 / 67
    expected = 4 * (share * math.log(65 * share) + (1 - share) * math.log(65 / 67))
    found = score_distillation_loss(torch.zeros(1, 65, 1, 1), sure, both[..., :1], temperature=2)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_similarity_loss_by_hand():
    # Two cells each; the teacher finds each alike to its partner (1 against 0), the student all cells alike.
    teacher = torch.eye(2).view(1, 2, 1, 2)
    student = torch.ones(1, 3, 1, 2)
    cells = torch.ones(1, 1, 2, dtype=torch.bool)
    share = 1 / (1 + math.exp(-2))
    expected = share * math.log(2 * share) + (1 - share) * math.log(2 * (1 - share))
    loss = similarity_distillation_loss((student, student), (teacher, teacher), cells, temperature=0.5)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_turned_descriptors_are_as_alike_and_hidden_cells_do_not_count():
    rng = torch.Generator().manual_seed(3)
    views = [torch.randn(2, 5, 3, 4, generator=rng) for _ in range(2)]
    turn = torch.linalg.qr(torch.randn(7, 7, generator=rng)).Q[:, :5]
    turned = [torch.einsum('de,behw->bdhw', turn, view) * 3 for view in views]
    cells = torch.ones(2, 3, 4, dtype=torch.bool)
    assert similarity_distillation_loss(turned, views, cells, 0.1).item() == pytest.approx(0, abs=1e-5)
    other = turned[1].clone()
    other[0, :, 1, 2] = torch.randn(7, generator=rng)
    assert similarity_distillation_loss((turned[0], other), views, cells, 0.1).item() > 0.01
    cells[0, 1, 2] = False
    assert similarity_distillation_loss((turned[0], other), views, cells, 0.1).item() == pytest.approx(0, abs=1e-5)
    assert similarity_distillation_loss(views, turned, torch.zeros_like(cells), 0.1).item() == 0


def test_a_teacher_needs_both_heads(tmp_path):
    path = tmp_path / 'magicpoint.safetensors'
    checkpoint.save(path, SuperPoint(SuperPointConfig((8, 8, 8, 8), 8, descriptor_size=0)))
    with pytest.raises(ValueError, match=r'magicpoint\.safetensors: expected a SuperPoint with both heads'):
        DistillationTraining(STUDENT, PhotometricConfig(), DescriptorLossConfig(), path)
