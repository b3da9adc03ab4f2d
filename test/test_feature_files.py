import io

import numpy as np
import pytest

from superpoint_ros.feature_files import read_npz, write_npz


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def with_broken_data(data):
    """An .npz file whose first array cannot be decompressed."""
    return data[:60] + bytes(255 - byte for byte in data[60:75]) + data[75:]


def test_features_survive_a_file(random_features, tmp_path):
    written = random_features(20, checksum='ab12')
    write_npz(tmp_path / 'a.npz', written)
    read = read_npz(tmp_path / 'a.npz')
    for name, value in vars(written).items():
        np.testing.assert_array_equal(getattr(read, name), value)


@pytest.mark.parametrize(
    'change',
    [
        lambda arrays: npz(**arrays)[:200],
        lambda arrays: with_broken_data(npz(**arrays)),
        lambda arrays: npz(**{name: array for name, array in arrays.items() if name != 'scores'}),
        lambda arrays: npz(**arrays | {'image_size': 640}),
        lambda arrays: npz(**arrays | {'keypoints': np.float32(1)}),
        lambda arrays: npz(**arrays | {'scores': np.zeros(3, np.float32)}),
    ],
)
def test_a_file_that_is_not_of_features_is_named(random_features, tmp_path, change):
    path = tmp_path / 'a.npz'
    path.write_bytes(change(vars(random_features(20))))
    with pytest.raises(ValueError, match=r'a\.npz: not an \.npz file of features'):
        read_npz(path)


def test_other_and_missing_files_are_named(tmp_path):
    np.save(tmp_path / 'one.npy', np.zeros(3))
    (tmp_path / 'text.npz').write_text('no archive')
    (tmp_path / 'empty.npz').touch()
    for name in ('one.npy', 'text.npz', 'empty.npz', 'missing.npz'):
        with pytest.raises(ValueError, match=f'{name}: not an .npz file of features'):
            read_npz(tmp_path / name)
