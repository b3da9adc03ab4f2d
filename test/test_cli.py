import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from superpoint_ros import cli
from superpoint_ros.decode import DecodeConfig


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'superpoint_ros.cli', *words], capture_output=True, text=True, timeout=120
    )


def test_help_names_every_command_and_loads_no_heavy_library():
    blocked = 'import sys; sys.modules.update(dict.fromkeys(("torch", "rclpy", "openvino", "lightning")));'
    done = subprocess.run(
        [sys.executable, '-c', f'{blocked} from superpoint_ros.cli import main; sys.exit(main(["--help"]))'],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_no_command_shows_the_help(capsys):
    assert cli.main([]) == 0
    assert 'Usage: superpoint COMMAND' in capsys.readouterr().out


def test_an_unknown_command_is_wrong(capsys):
    assert cli.main(['detekt']) == 2
    assert "no command 'detekt'" in capsys.readouterr().err


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_every_command_has_help(name, capsys):
    try:
        code = cli.main([name, '--help'])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 0
    assert f'superpoint {name}' in capsys.readouterr().out


def run(
    files: Sequence[Path],
    output: Path,
    how: Literal['fast', 'well'] = 'well',
    quiet: bool = False,
    cluster: str | None = None,
    decode: DecodeConfig = DecodeConfig(),
) -> tuple:
    """Do something.

    Args:
        files: what to do it with.
        output: where to.
        how: to do it.
        quiet: say nothing.
        cluster: of machines.
        decode: which keypoints.
    """
    return [str(file) for file in files], str(output), how, quiet, cluster, decode


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        ('a b --output c', (['a', 'b'], 'c', 'well', False, None, DecodeConfig())),
        (
            'a --output c --how fast --quiet --cluster --decode.border 7',
            (['a'], 'c', 'fast', True, 'local', DecodeConfig(border=7)),
        ),
        ('a --output c --cluster host:1', (['a'], 'c', 'well', False, 'host:1', DecodeConfig())),
    ],
)
def test_arguments_of_a_function_come_from_the_command_line(words, expected):
    assert cli.run(run, words.split(), 'test') == expected


def several(folder: Path, models: Sequence[str] = ('superpoint',), count: int = 0) -> tuple:
    """Take a list as an option."""
    return str(folder), list(models), count


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        ('x', ('x', ['superpoint'], 0)),
        ('x --models a', ('x', ['a'], 0)),
        ('x --models a /left/b.onnx --count 3', ('x', ['a', '/left/b.onnx'], 3)),
        ('x --models --count 3', ('x', [], 3)),
        ('--models=[a,b] x', ('x', ['a', 'b'], 0)),
        ('x --models [a,b]', ('x', ['a', 'b'], 0)),
    ],
)
def test_an_option_that_is_a_list_takes_several_words(words, expected):
    assert cli.run(several, words.split(), 'test') == expected
    assert cli.run({'one': several}, ['one', *words.split()], 'test') == expected


def test_the_help_of_an_option_is_that_of_its_field():
    text = cli.parser_of(run, 'test').format_help()
    assert 'Do something.' in text
    assert 'say nothing.' in text
    assert 'No keypoints nearer than this to the edge' in ' '.join(text.split())


@pytest.mark.parametrize('words', ['a', '--output c', 'a --output c --how badly', 'a --output c --unknown 1'])
def test_a_wrong_command_line_ends_with_2(words):
    with pytest.raises(SystemExit) as exit_:
        cli.run(run, words.split(), 'test')
    assert exit_.value.code == 2


def test_a_value_out_of_range_is_one_sentence(tmp_path):
    done = command('detect', str(tmp_path), '--decode.border=-3')
    assert done.returncode != 0
    assert 'border: -3 is out of range, expected 0 to 1000 px' in done.stderr
    assert 'Traceback' not in done.stderr


def test_what_is_missing_is_one_sentence(tmp_path):
    done = command('evaluate', 'sequence', str(tmp_path / 'none'))
    assert done.returncode == 1
    assert done.stderr.strip().endswith(f'superpoint evaluate: {tmp_path / "none"}: no such folder')


def test_one_of_several_functions_gets_its_own_arguments_alone():
    assert cli.run({'one': run, 'other': lambda: None}, ['other'], 'test') is None
