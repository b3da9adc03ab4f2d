"""Files and folders appear whole or not at all."""

import os
from pathlib import Path

import pytest

from superpoint_ros import files
from superpoint_ros.files import folder_written_whole, move, written_whole


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


def test_a_folder_appears_when_the_block_ends(tmp_path):
    path = tmp_path / 'result'
    with folder_written_whole(path) as partial:
        (partial / 'a.txt').write_text('done')
        assert not path.exists()
    assert (path / 'a.txt').read_text() == 'done'
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_no_folder(tmp_path):
    def fail():
        with folder_written_whole(tmp_path / 'result') as partial:
            (partial / 'a.txt').write_text('half')
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_folders_stays(tmp_path):
    path = tmp_path / 'result'
    with folder_written_whole(path) as late:
        (late / 'a.txt').write_text('late')
        with folder_written_whole(path) as early:
            (early / 'a.txt').write_text('early')
    assert (path / 'a.txt').read_text() == 'early'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('many', [False, True])
def test_everything_is_on_the_disk_before_the_name_and_the_name_after_it(many, tmp_path, monkeypatch):
    """The order of calls, as no test can cut the power."""
    source, target = tmp_path / 'source', tmp_path / 'target'
    (source / 'inner').mkdir(parents=True)
    for number in range(200 if many else 2):
        (source / 'inner' / f'{number}.txt').write_text('data')
    everything = {source, *source.rglob('*')}
    calls = []
    monkeypatch.setattr(os, 'fsync', lambda number: calls.append(Path(f'/proc/self/fd/{number}').readlink()))
    monkeypatch.setattr(os, 'sync', lambda: calls.append('all'))
    rename = Path.replace
    monkeypatch.setattr(Path, 'replace', lambda path, to: (calls.append('rename'), rename(path, to)))
    move(source, target)
    before, after = calls[: calls.index('rename')], calls[calls.index('rename') + 1 :]
    assert set(before) == ({'all'} if many else everything)
    assert after == [tmp_path]
    assert files.MANY_FILES < 200
