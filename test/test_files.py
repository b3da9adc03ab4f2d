"""Files appear whole or not at all."""

import pytest

from superpoint_ros.files import written_whole


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'result.txt'
    with written_whole(path) as partial:
        assert partial.suffix == '.txt'
        partial.write_text('done')
        assert not path.exists()
    assert path.read_text() == 'done'
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / 'result.txt'
    path.write_text('old')

    def fail():
        with written_whole(path) as partial:
            partial.write_text('half')
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]
