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
from superpoint_ros.networks.unsuperpoint import UnSuperPoint, UnSuperPointConfig
from superpoint_ros.training import train
from superpoint_ros.training.distillation import (
    DistillationTraining,
    UnSuperPointDistillationTraining,
    point_distillation_losses,
    score_distillation_loss,
    similarity_distillation_loss,
)
from superpoint_ros.training.losses import DescriptorLossConfig
from superpoint_ros.training.photometric import PhotometricConfig
from superpoint_ros.training.synthetic_shapes import render

from .runs import CONFIG, Interruption, arguments, falls, losses

STUDENTS = {
    'superpoint_lite': SuperPointConfig((8, 8, 16, 16), head_channels=16, descriptor_size=8, stem_stride=2),
    'unsuperpoint_lite': UnSuperPointConfig((8, 8, 16, 16), head_channels=16, descriptor_size=8, stem_stride=2),
}
TRAININGS = {'superpoint_lite': DistillationTraining, 'unsuperpoint_lite': UnSuperPointDistillationTraining}
LESSONS = {  # what a short training brings down, and to which share of the start
    'superpoint_lite': {'loss/detector': 0.5, 'loss/descriptor': 0.9, 'loss/similarity': 0.7},
    'unsuperpoint_lite': {'loss/score': 0.9, 'loss/position': 0.8, 'loss/descriptor': 0.9, 'loss/similarity': 0.7},
}


@pytest.fixture(scope='module', params=STUDENTS)
def stage(request):
    return request.param


@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    """For each student, weights of a network of its kind that tells places apart."""
    folder = tmp_path_factory.mktemp('teachers')
    shape = {'channels': (8, 8, 16, 16), 'head_channels': 32, 'descriptor_size': 24}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        networks = SuperPoint(SuperPointConfig(**shape)).train(), UnSuperPoint(UnSuperPointConfig(**shape)).train()
        for network in networks:
            for _ in range(20):
                network(torch.rand(4, 1, 32, 48))
        networks[0].detector[1].weight *= 5
        networks[1].score[1].weight *= 5
        networks[1].position[1].weight *= 5
    paths = {student: folder / f'{student}.safetensors' for student in STUDENTS}
    for path, network in zip(paths.values(), networks, strict=True):
        checkpoint.save(path, network)
    return paths


@pytest.fixture(scope='module')
def teacher(teachers, stage):
    return teachers[stage]


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


def test_a_student_learns_from_its_teacher(stage, teacher, photographs, tmp_path):
    before = teacher.read_bytes()
    faster = ['--model.lr=0.01', '--trainer.val_check_interval=80']
    train.main(arguments(stage, tmp_path, 80, *options(teacher, photographs, *faster)))
    for name, to in LESSONS[stage].items():
        assert falls(losses(tmp_path, name), to), name
        assert losses(tmp_path, f'validation/{name}'), name
    assert teacher.read_bytes() == before
    student = checkpoint.load(tmp_path / 'weights.safetensors')
    assert student.config == STUDENTS[stage]
    state = torch.load(tmp_path / 'last.ckpt', weights_only=True)['state_dict']
    assert state.keys() == {f'network.{name}' for name in student.state_dict()}


def test_a_run_in_pieces_is_the_run_in_one_piece(stage, teacher, photographs, tmp_path, monkeypatch):
    steady = options(teacher, photographs, '--model.cooldown=0', '--trainer.limit_val_batches=0')
    train.main(arguments(stage, tmp_path / 'whole', 6, *steady))
    monkeypatch.setattr(train, 'PieceTimer', Interruption)
    for piece in (['--piece=2'], []):
        train.main(arguments(stage, tmp_path / 'pieces', 6, *steady, *piece))
    whole, pieces = (losses(tmp_path / run) for run in ('whole', 'pieces'))
    assert len(whole) == 6
    assert pieces == pytest.approx(whole, rel=1e-6)


def test_several_processes_train_as_one_with_the_same_batch(teachers, photographs, tmp_path):
    # Without what is not the mean of the processes' means: batch norm, and a loss over the points that an image shows.
    whole = options(
        teachers['superpoint_lite'], photographs, '--model.network.norm=none', '--model.descriptors.weight=0'
    )
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


def test_only_the_student_learns(stage, teacher):
    training = TRAININGS[stage](STUDENTS[stage], PhotometricConfig(), DescriptorLossConfig(), teacher)
    before = {name: tensor.clone() for name, tensor in training.teacher.network.state_dict().items()}
    training.loss(batch())[0].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in training.parameters())
    torch.optim.SGD(training.parameters(), 1.0).step()
    assert all(parameter.grad is None for parameter in training.teacher.network.parameters())
    for name, tensor in training.teacher.network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_student_that_is_its_teacher_has_nothing_to_learn_but_what_noise_hides(stage, teacher):
    config = checkpoint.load(teacher).config
    still = PhotometricConfig(0, 0, 0, 0, 0, 0, 0)
    left = []
    for photometric in (still, PhotometricConfig()):
        training = TRAININGS[stage](config, photometric, DescriptorLossConfig(), teacher, initial_weights=teacher)
        with torch.no_grad():
            left.append(training.eval().loss(batch())[1])
    # What is left is the teacher's rounding to bfloat16.
    for name in LESSONS[stage].keys() - {'loss/descriptor'}:
        assert left[0][name] < (0.02 if name == 'loss/position' else 0.01), name
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


def test_point_losses_by_hand():
    cells = torch.tensor([[[True, True, False]]])
    targets = {'scores': torch.tensor([0.5, 0.25, 0.5]), 'positions': torch.full((6,), 0.5)}
    outputs = {'scores': torch.full((3,), 0.5), 'positions': torch.tensor([0.5, 0.875, 0, 0.5, 1.0, 0])}
    targets, outputs = (
        {'scores': heads['scores'].view(1, 1, 1, 3), 'positions': heads['positions'].view(1, 2, 1, 3)}
        for heads in (targets, outputs)
    )
    score, position = point_distillation_losses(outputs, targets, cells)
    assert score.item() == pytest.approx((0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2)
    # The second cell's point is 3 and 4 px off, and counts 0.25 against the 0.5 of the first, which is right.
    assert position.item() == pytest.approx(0.25 * 5 / 0.75)
    for loss in point_distillation_losses(outputs, targets, torch.zeros_like(cells)):
        assert loss.item() == 0
    sure = targets | {'scores': torch.tensor([0.0, 1.0, 1.0]).view(1, 1, 1, 3)}
    assert all(loss.isfinite() for loss in point_distillation_losses(sure, sure, cells))


@pytest.mark.parametrize(
    ('pupil', 'network', 'expected'),
    [
        ('superpoint_lite', SuperPoint(SuperPointConfig((8, 8, 8, 8), 8, descriptor_size=0)), 'SuperPoint'),
        ('superpoint_lite', UnSuperPoint(UnSuperPointConfig((8, 8, 8, 8), 8)), 'SuperPoint'),
        ('unsuperpoint_lite', SuperPoint(SuperPointConfig((8, 8, 8, 8), 8)), 'UnSuperPoint'),
    ],
)
def test_a_teacher_is_of_the_students_kind(tmp_path, pupil, network, expected):
    path = tmp_path / 'other.safetensors'
    checkpoint.save(path, network)
    with pytest.raises(ValueError, match=rf'other\.safetensors: expected {expected} with descriptors, got '):
        TRAININGS[pupil](STUDENTS[pupil], PhotometricConfig(), DescriptorLossConfig(), path)
