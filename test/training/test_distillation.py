"""A small network learns from a large one: its losses by hand, and short runs of the shipped configuration."""

import math
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superpoint_ros.networks.unsuperpoint import UnSuperPoint, UnSuperPointConfig
from superpoint_ros.training import train
from superpoint_ros.training.distillation import (
    DistillationTraining,
    Teacher,
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
    path = tmp_path_factory.mktemp('teacher') / 'teacher.safetensors'
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = SuperPoint(SuperPointConfig((8, 8, 16, 16), head_channels=32, descriptor_size=24)).train()
        for _ in range(20):
            network(torch.rand(4, 1, 32, 48))
        network.detector[1].weight *= 5
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
    student = checkpoint.load(tmp_path / 'weights.safetensors')
    assert student.config == STUDENT
    state = torch.load(tmp_path / 'last.ckpt', weights_only=True)['state_dict']
    assert state.keys() == {f'{part}.{name}' for part in ('network', 'average') for name in student.state_dict()}


def test_a_network_learns_stronger_views_with_itself_as_teacher(teacher, photographs, tmp_path):
    shape = ['--model.network.channels=[8,8,16,16]', '--model.network.head_channels=32']
    files = [f'--model.teacher={teacher}', f'--model.initial_weights={teacher}', f'--data.images={photographs}']
    faster = ['--model.network.descriptor_size=24', '--model.lr=0.01', '--trainer.val_check_interval=60']
    train.main(arguments('superpoint_unlabeled', tmp_path, 60, *shape, *files, *faster))
    assert falls(losses(tmp_path, 'loss/descriptor'), 0.95)
    assert losses(tmp_path, 'validation/loss/descriptor')
    assert not losses(tmp_path, 'recall/clean'), 'there are no labels'
    assert checkpoint.load(tmp_path / 'weights.safetensors').config == checkpoint.load(teacher).config


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
    # Without batch norm, the contrastive loss and borders, whose means over a batch are not the processes' mean.
    whole = options(teacher, photographs, '--model.network.norm=none', '--model.descriptors.weight=0')
    whole += ['--data.views.borders=0']
    whole += ['--trainer.limit_val_batches=0']
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
    images, warped = torch.randint(0, 256, (2, 2, 1, *size), generator=rng, dtype=torch.uint8)
    return {
        'image': images,
        'image1': warped,
        'points': torch.full((2, 1, 2), torch.nan),
        'points1': torch.full((2, 1, 2), torch.nan),
        'visible': torch.ones(2, 1, *size, dtype=torch.bool),
        'visible1': torch.ones(2, 1, *size, dtype=torch.bool),
        'homography': torch.eye(3, dtype=torch.float64).repeat(2, 1, 1),
        'seed': torch.tensor([1, 2]),
        'index': torch.tensor([0, 1]),
    }


def distillation(config, photometric, teacher):
    training = DistillationTraining(config, photometric, DescriptorLossConfig(), teacher)
    training.teacher.load(teacher)
    return training


def test_only_the_student_learns(teacher):
    training = distillation(STUDENT, PhotometricConfig(), teacher)
    before = {name: tensor.clone() for name, tensor in training.teacher.network.state_dict().items()}
    training.loss(batch())[0].backward()
    student = training.network.parameters()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in student)
    torch.optim.SGD(training.parameters(), 1.0).step()
    assert all(parameter.grad is None for parameter in training.teacher.network.parameters())
    for name, tensor in training.teacher.network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_student_that_equals_its_teacher_learns_only_to_ignore_noise(teacher):
    network = checkpoint.load(teacher)
    unchanged = PhotometricConfig(**dict.fromkeys(vars(PhotometricConfig()), 0))
    left = []
    for photometric in (unchanged, PhotometricConfig()):
        training = distillation(network.config, photometric, teacher)
        training.network.load_state_dict(network.state_dict())
        with torch.no_grad():
            left.append(training.eval().loss(batch())[1])
    for name in ('loss/detector', 'loss/similarity'):
        assert left[0][name] < 0.01, name  # the teacher computes in bfloat16
        assert left[1][name] > 5 * left[0][name], name


def test_score_loss_by_hand():
    targets = torch.full((1, 65, 1, 2), -1e4)
    targets[:, [3, 64], 0, 0] = 0  # half for a pixel, half for the dustbin
    targets[:, 7, 0, 1] = 0
    logits = torch.zeros(1, 65, 1, 2)
    # Σ p·log(p / (1/65)): log 65 − log 2 where the teacher wavers between two, log 65 where it is sure.
    assert score_distillation_loss(logits, targets).item() == pytest.approx(math.log(65) - math.log(2) / 2)
    assert score_distillation_loss(targets, targets).item() == pytest.approx(0, abs=1e-5)
    # One class is 2·log 3 above the other 64: odds of 9 become 3 at a temperature of 2, and T² is 4.
    sure = torch.zeros(1, 65, 1, 1)
    sure[:, 5] = 2 * math.log(3)
    share = 3 / 67
    expected = 4 * (share * math.log(65 * share) + (1 - share) * math.log(65 / 67))
    found = score_distillation_loss(torch.zeros(1, 65, 1, 1), sure, temperature=2)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_similarity_loss_by_hand():
    # Two cells each; the teacher finds each similar to its partner (1 against 0), the student all cells to all.
    teacher = torch.eye(2).view(1, 2, 1, 2)
    student = torch.ones(1, 3, 1, 2)
    share, cells = 1 / (1 + math.exp(-2)), torch.ones(1, 1, 1, 2, dtype=torch.bool)
    expected = share * math.log(2 * share) + (1 - share) * math.log(2 * (1 - share))
    loss = similarity_distillation_loss((student, student), (teacher, teacher), (cells, cells), temperature=0.5)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_turned_and_scaled_descriptors_have_the_same_similarities():
    rng = torch.Generator().manual_seed(3)
    views = [torch.randn(2, 5, 3, 4, generator=rng) for _ in range(2)]
    whole = (torch.ones(2, 1, 3, 4, dtype=torch.bool),) * 2
    turn = torch.linalg.qr(torch.randn(7, 7, generator=rng)).Q[:, :5]
    turned = [torch.einsum('de,behw->bdhw', turn, view) * 3 for view in views]
    assert similarity_distillation_loss(turned, views, whole, 0.1).item() == pytest.approx(0, abs=1e-5)
    turned[1][0, :, 1, 2] = torch.randn(7, generator=rng)
    assert similarity_distillation_loss(turned, views, whole, 0.1).item() > 0.01


def test_a_student_learns_that_black_borders_have_no_keypoints(teacher):
    training = distillation(checkpoint.load(teacher).config, PhotometricConfig(), teacher)
    sure = torch.zeros(4, 65, 6, 8)
    sure[:, 64] = 20  # the last class: no keypoint
    outputs = {'logits': sure, 'descriptors': torch.rand(4, training.network.config.descriptor_size, 6, 8)}
    training.forward = lambda images: outputs  # noqa: ARG005
    covered = batch()
    covered['visible'][:], covered['visible1'][:] = False, False
    assert training.loss(covered)[1]['loss/detector'].item() == pytest.approx(0, abs=1e-5)
    assert training.loss(covered)[1]['loss/similarity'].item() == 0
    assert training.loss(batch())[1]['loss/detector'].item() > 0.1
    covered['visible'][:, :, 8:, 8:], covered['visible1'][:] = True, True  # one row and one column of cells
    part = training.loss(covered)[1]['loss/detector'].item()
    assert 0 < part < training.loss(batch())[1]['loss/detector'].item()


@pytest.mark.parametrize(
    'network',
    [
        SuperPoint(SuperPointConfig((8, 8, 8, 8), 8, descriptor_size=0)),
        UnSuperPoint(UnSuperPointConfig((8, 8, 8, 8), 8)),
    ],
)
def test_a_teacher_is_a_superpoint_with_descriptors(tmp_path, network):
    path = tmp_path / 'other.safetensors'
    checkpoint.save(path, network)
    with pytest.raises(ValueError, match=r'other\.safetensors: expected SuperPoint with descriptors, got '):
        Teacher().load(path)
