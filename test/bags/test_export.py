import h5py
import numpy as np
import pytest

from superpoint_ros.extractor import Extractor

from .conftest import DELAY, PERIOD, START, picture


@pytest.fixture
def expected(tiny_model):
    return Extractor(str(tiny_model), backend='openvino', threads=1)(picture(3))


def test_hdf5_has_the_layout_of_hloc(record, run, expected, tmp_path):
    assert run(record.ros1('drive', 5), to='hdf5')
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['drive.h5']
    with h5py.File(tmp_path / 'out/drive.h5') as file:
        group = file[f'camera/image/{START + 3 * PERIOD}']
        assert set(group) == {'keypoints', 'descriptors', 'scores', 'image_size'}
        np.testing.assert_array_equal(group['keypoints'], expected.keypoints)
        np.testing.assert_array_equal(group['descriptors'], expected.descriptors.T)
        np.testing.assert_array_equal(group['scores'], expected.scores)
        assert group['image_size'][:].tolist() == [96, 64]
        assert group['keypoints'].attrs['uncertainty'] > 0
        names = []
        file.visititems(lambda name, _: names.append(name) if 'keypoints' in name else None)
        assert len(names) == 5


def test_npz(record, run, expected, tmp_path):
    assert run(record.ros1('drive', 5), to='npz')
    with np.load(tmp_path / f'out/drive/camera/image/{START + 3 * PERIOD}.npz', allow_pickle=False) as arrays:
        for name in ('keypoints', 'scores', 'descriptors'):
            np.testing.assert_array_equal(arrays[name], getattr(expected, name))
        assert arrays['image_size'].tolist() == [96, 64]
    assert len(list((tmp_path / 'out/drive/camera/image').iterdir())) == 5


def test_the_log_time_replaces_a_missing_stamp_and_equal_stamps_are_numbered(record, run, tmp_path):
    def stamp(number, message, types):
        message.header.stamp.sec = message.header.stamp.nanosec = 0 if number < 2 else 7
        return message

    assert run(record.ros1('drive', 5, change=stamp), to='npz')
    names = sorted(path.stem for path in (tmp_path / 'out/drive/camera/image').iterdir())
    same = 7 * 10**9 + 7
    assert names == sorted([str(START + DELAY), str(START + PERIOD + DELAY), f'{same}', f'{same}-1', f'{same}-2'])
