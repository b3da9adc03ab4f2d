import itertools

import cv2
import numpy as np
import pytest
import torch

from superpoint_ros.training.adaptation import label_path
from superpoint_ros.training.datasets import (
    TRAINING,
    VALIDATION,
    EndlessBatches,
    PhotosDataset,
    ShapesDataset,
    collate,
)
from superpoint_ros.training.homography import HomographyConfig

SPOTS = np.array([[30, 40], [75, 22], [120, 90], [60, 70]], np.float32)


@pytest.fixture
def photographs(tmp_path):
    """Forty black photographs with bright spots at their labels."""
    images, labels = tmp_path / 'images', tmp_path / 'labels'
    picture = np.zeros((120, 160), np.uint8)
    for x, y in SPOTS.astype(int).tolist():
        cv2.circle(picture, (x, y), 3, 255, -1)
    for i in range(40):
        path = images / f'{i:02}.png'
        target = label_path(path, images, labels)
        path.parent.mkdir(exist_ok=True)
        target.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture)
        np.savez(target, keypoints=SPOTS, scores=np.ones(len(SPOTS), np.float32))
    (images / 'unlabeled.png').write_bytes((images / '00.png').read_bytes())
    return images, labels


def photos(photographs, stream=TRAINING, scale=(120, 240)):
    return PhotosDataset(*photographs, (64, 48), scale, 0, stream, HomographyConfig())


def test_labels_go_where_their_photograph_goes(photographs):
    dataset, errors = photos(photographs), []
    for sample in map(dataset.__getitem__, range(60)):
        count, _, _, centers = cv2.connectedComponentsWithStats((sample['image'] > 100).astype(np.uint8))
        inside = sample['points'][((sample['points'] > 6) & (sample['points'] < [57, 41])).all(axis=1)]
        for point in inside:
            assert count > 1
            errors.append(min(centers[1:] - point, key=np.linalg.norm))
    assert len(errors) > 30
    assert np.abs(errors).max() < 0.8
    assert np.abs(np.mean(errors, axis=0)).max() < 0.15


def test_a_sample_depends_on_its_number_alone(photographs):
    for dataset in (photos(photographs), ShapesDataset((64, 48), 0, TRAINING, HomographyConfig(), 0.5)):
        forwards = [dataset[i] for i in range(4)]
        backwards = [dataset[i] for i in reversed(range(4))][::-1]
        for one, other in zip(forwards, backwards, strict=True):
            assert all(np.array_equal(one[key], other[key]) for key in one)
        assert len({sample['image'].tobytes() for sample in forwards}) == 4


def test_photographs_for_validation_are_not_trained_on(photographs):
    training, validation = ({path for path, _ in photos(photographs, s).files} for s in (TRAINING, VALIDATION))
    assert len(training | validation) == 40  # not the one without labels
    assert len(validation) == 2
    assert not training & validation


def test_a_photograph_smaller_than_the_crop_is_enlarged(photographs):
    sample = photos(photographs, scale=(20, 30))[0]
    assert sample['image'].shape == (48, 64)
    assert sample['image'].max() > 100


def test_photographs_without_labels_are_an_error_that_says_what_to_do(photographs, tmp_path):
    with pytest.raises(FileNotFoundError, match='superpoint label'):
        PhotosDataset(photographs[0], tmp_path / 'none', (64, 48), (64, 80), 0, TRAINING, HomographyConfig())


def test_a_photograph_that_went_bad_is_named(photographs):
    dataset = photos(photographs)
    for path, _ in dataset.files:
        path.write_text('no image')
    with pytest.raises(ValueError, match=r'\d\d\.png: not an image'):
        dataset[0]


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_processes_share_out_the_samples_of_one(processes):
    shares = [EndlessBatches(24, 8 // processes, rank, processes) for rank in range(processes)]
    batches = zip(*[itertools.islice(share, 3) for share in shares], strict=True)
    assert [sorted(itertools.chain(*batch)) for batch in batches] == [list(range(s, s + 8)) for s in (24, 32, 40)]


def test_a_batch_fills_up_with_points_that_are_not_there():
    dataset = ShapesDataset((64, 48), 0, TRAINING, HomographyConfig(), 0.5)
    samples = [dataset[i] for i in range(12)]
    batch = collate(samples)
    assert batch['image'].shape == (12, 1, 48, 64)
    assert batch['homography'].dtype == torch.float64
    present = torch.isfinite(batch['points']).all(dim=-1).sum(dim=1)
    assert present.tolist() == [len(sample['points']) for sample in samples]
