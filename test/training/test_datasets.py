import itertools
import zipfile

import cv2
import numpy as np
import pytest
import torch

from superpoint_ros.training.adaptation import label_path
from superpoint_ros.training.datasets import (
    TRAINING,
    VALIDATION,
    PhotosData,
    ShapesData,
    collate,
    endless_batches,
    find_files,
    mirrored,
)
from superpoint_ros.training.homography import HomographyConfig
from superpoint_ros.training.views import ViewConfig

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


def photos(photographs):
    return PhotosData(*photographs, ViewConfig((0.8, 1.5)), 64, 48).dataset(TRAINING)


def shapes(width, height, warped):
    return ShapesData(HomographyConfig(), width, height, warped=warped).dataset(TRAINING)


def test_labels_move_with_the_photograph_into_both_views(photographs):
    dataset, errors = photos(photographs), []
    for sample in map(dataset.__getitem__, range(80)):
        for image, points in ((sample['image'], sample['points']), (sample['image1'], sample['points1'])):
            count, _, _, centers = cv2.connectedComponentsWithStats((image > 100).astype(np.uint8))
            for point in points[((points > 6) & (points < [57, 41])).all(axis=1)]:
                assert count > 1
                errors.append(min(centers[1:] - point, key=np.linalg.norm))
    assert len(errors) > 60
    assert np.abs(errors).max() < 1
    assert np.abs(np.mean(errors, axis=0)).max() < 0.15


def test_labels_in_black_borders_are_dropped(photographs):
    dataset = PhotosData(*photographs, ViewConfig((0.8, 1.5), borders=1.0), 64, 48).dataset(TRAINING)
    bordered = 0
    for sample in map(dataset.__getitem__, range(40)):
        for visible, points in ((sample['visible'], sample['points']), (sample['visible1'], sample['points1'])):
            assert visible.shape == (1, 48, 64)
            x, y = points.round().astype(int).T
            assert visible[0, y, x].all()
            bordered += not visible.all()
    assert bordered > 60


def test_views_for_validation_have_no_borders(photographs):
    data = PhotosData(*photographs, ViewConfig((0.8, 1.5), borders=1.0), 64, 48)
    samples = [data.dataset(VALIDATION)[i] for i in range(20)]
    assert all(sample['visible'].all() and sample['visible1'].all() for sample in samples)


def test_labels_are_mirrored_where_the_photograph_is():
    picture = np.zeros((30, 40), np.uint8)
    picture[12, 7] = 255
    y, x = np.nonzero(cv2.copyMakeBorder(picture, 30, 30, 40, 40, cv2.BORDER_REFLECT))
    found = mirrored(np.array([[7, 12]], np.float32), (40, 30))
    assert {(u - 40, v - 30) for u, v in zip(x.tolist(), y.tolist(), strict=True)} == set(map(tuple, found.tolist()))


def test_a_sample_depends_on_its_number_alone(photographs):
    for dataset in (photos(photographs), shapes(64, 48, 0.5)):
        forwards = [dataset[i] for i in range(4)]
        backwards = [dataset[i] for i in reversed(range(4))][::-1]
        for one, other in zip(forwards, backwards, strict=True):
            assert all(np.array_equal(one[key], other[key]) for key in one)
        assert len({sample['image'].tobytes() for sample in forwards}) == 4


def test_photographs_for_validation_are_not_trained_on(photographs):
    training, validation = ({path for path, _ in find_files(*photographs, stream)} for stream in (TRAINING, VALIDATION))
    assert len(training | validation) == 40  # not the one without labels
    assert len(validation) == 2
    assert not training & validation


def test_photographs_without_labels_are_an_error_that_says_what_to_do(photographs, tmp_path):
    with pytest.raises(FileNotFoundError, match='superpoint label'):
        photos((photographs[0], tmp_path / 'none'))


def test_an_unreadable_photograph_is_named(photographs):
    dataset = photos(photographs)
    for path, _ in find_files(*photographs, TRAINING):
        path.write_text('no image')
    with pytest.raises(ValueError, match=r'\d\d\.png: not an image'):
        dataset[0]


def write_array(path):
    np.save(path.with_suffix('.npy'), np.zeros((2, 2)))
    path.with_suffix('.npy').rename(path)


def write_objects(path):
    np.savez(path, keypoints=np.array([{}, {}], object))


def write_huge_shape(path):
    header = {'descr': '<f4', 'fortran_order': False, 'shape': (10**15, 2)}
    with zipfile.ZipFile(path, 'w') as file, file.open('keypoints.npy', 'w') as entry:
        np.lib.format.write_array_header_1_0(entry, header)


@pytest.mark.parametrize(
    'write',
    [
        lambda path: path.write_bytes(b''),
        lambda path: path.write_text('no zip'),
        lambda path: np.savez(path, corners=np.zeros((2, 2))),
        lambda path: np.savez(path, keypoints=np.zeros((2, 3))),
        lambda path: np.savez(path, keypoints=np.full((2, 2), 170.0)),  # of a photograph larger than 160×120
        lambda path: np.savez(path, keypoints=np.array(['a', 'b'])),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        write_array,
        write_objects,
        write_huge_shape,
    ],
)
def test_a_broken_file_of_labels_is_named(photographs, write):
    dataset = photos(photographs)
    for _, path in find_files(*photographs, TRAINING):
        write(path)
    with pytest.raises(ValueError, match=r'\d\d\.png\.npz: expected an \.npz file with keypoints'):
        dataset[0]


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_processes_share_out_the_samples_of_one(processes):
    shares = [endless_batches(24, 8 // processes, rank, processes) for rank in range(processes)]
    batches = zip(*[itertools.islice(share, 3) for share in shares], strict=True)
    assert [sorted(itertools.chain(*batch)) for batch in batches] == [list(range(s, s + 8)) for s in (24, 32, 40)]


def test_a_batch_pads_its_points_with_nan():
    dataset = shapes(64, 48, 0.5)
    samples = [dataset[i] for i in range(12)]
    batch = collate(samples)
    assert batch['image'].shape == (12, 1, 48, 64)
    assert batch['valid'].shape == batch['image'].shape
    assert batch['valid'].dtype == torch.bool
    present = torch.isfinite(batch['points']).all(dim=-1).sum(dim=1)
    assert present.tolist() == [len(sample['points']) for sample in samples]


def test_the_labels_of_warped_shapes_are_corners_of_the_warped_image():
    dataset = shapes(160, 120, 1)
    plain = shapes(160, 120, 0)
    strengths, masks = [], []
    for sample, unwarped in ((dataset[i], plain[i]) for i in range(40)):
        masks.append(sample['valid'].all())
        assert unwarped['valid'].all()
        corners = cv2.dilate(cv2.cornerMinEigenVal(sample['image'], 5), np.ones((5, 5)))
        rank = corners.argsort(axis=None).argsort().reshape(corners.shape) / corners.size
        for x, y in sample['points'][((sample['points'] > 3) & (sample['points'] < [156, 116])).all(axis=1)]:
            if sample['valid'][0, round(y), round(x)]:
                strengths.append(rank[round(y), round(x)])
    assert len(strengths) > 100
    assert 0 < np.mean(masks) < 1
    assert np.median(strengths) > 0.95
