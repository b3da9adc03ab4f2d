import pytest

from superpoint_ros.mapping import pairs

NAMES = ['left/1.png', 'left/2.png', 'left/3.png', 'right/1.png', 'right/2.png']


def test_sequential_pairs_stay_in_a_folder():
    assert pairs.sequential(NAMES, 1) == [
        ('left/1.png', 'left/2.png'), ('left/2.png', 'left/3.png'), ('right/1.png', 'right/2.png')
    ]  # fmt: skip
    assert ('left/1.png', 'left/3.png') in pairs.sequential(NAMES, 2)
    assert len(pairs.sequential(NAMES, 100)) == 4


def test_exhaustive_pairs_are_all():
    assert len(pairs.exhaustive(NAMES)) == 10
    assert pairs.exhaustive(NAMES[:1]) == []


def test_a_file_lists_pairs_once_and_may_have_more_fields(tmp_path):
    path = tmp_path / 'pairs.txt'
    path.write_text('# from retrieval\nleft/1.png right/1.png 0.93\n\nright/1.png left/1.png\nleft/2.png right/2.png\n')
    expected = [('left/1.png', 'right/1.png'), ('left/2.png', 'right/2.png')]
    assert pairs.from_file(path, NAMES) == expected
    choose = pairs.chooser(str(path), NAMES, overlap=1)
    assert choose(NAMES) == expected
    assert choose([name for name in NAMES if name != 'left/2.png']) == expected[:1]


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('left/1.png left/9.png\n', 'line 1: there is no image left/9.png'),
        ('left/1.png\n', 'line 1: expected the names of two images'),
        ('left/1.png left/2.png\nleft/1.png left/1.png\n', 'line 2: expected the names of two images'),
        ('# nothing\n', 'no pairs'),
        (b'\xff\xfe', 'cannot be read as a list of pairs'),
        (None, 'cannot be read as a list of pairs'),
    ],
)
def test_a_bad_file_gets_one_sentence(tmp_path, text, said):
    path = tmp_path / 'pairs.txt'
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=said) as caught:
        pairs.chooser(str(path), NAMES, overlap=1)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_sequential_pairs_follow_the_numbers_in_the_names():
    names = ['9900000000.png', '10000000000.png', '10100000000.png', 'a/2.png', 'a/10.png']
    assert pairs.sequential(names, 1) == [(names[0], names[1]), (names[1], names[2]), ('a/2.png', 'a/10.png')]
