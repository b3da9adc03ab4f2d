import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from superpoint_ros import arguments, cli
from superpoint_ros.decode import DecodeConfig

BARE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {missing!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Missing())
from superpoint_ros.cli import main
{program}
"""
EXTRAS = (
    'h5py', 'kornia', 'lightning', 'matplotlib', 'nncf', 'onnx', 'onnxruntime', 'openvino', 'ray', 'rclpy', 'skimage',
    'sensor_msgs', 'std_msgs', 'tensorboard', 'tensorrt', 'torch',
)  # fmt: skip
STEPS = [(name,) for name in cli.COMMANDS if callable(cli.load(name))]
STEPS += [(name, step) for name in cli.COMMANDS if not callable(cli.load(name)) for step in cli.load(name)]


def superpoint(
    *words: str, missing: Sequence[str] = (), program: str = 'sys.exit(main(sys.argv[1:]))'
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-c', BARE.format(missing=tuple(missing), program=program), *words]
    env = {**os.environ, 'COLUMNS': '200'}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)


def test_every_file_of_commands_is_a_command():
    folder = Path(cli.__file__).parent / 'commands'
    assert {path.stem for path in folder.glob('*.py')} - {'__init__'} <= set(cli.COMMANDS)


def test_help_lists_every_command():
    done = superpoint('--help', missing=EXTRAS)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_every_help_answers_without_any_extra():
    program = f"""
for words in {STEPS}:
    try:
        code = main([*words, '--help'])
    except SystemExit as exit_:
        code = exit_.code
    print(*words, code)
"""
    done = superpoint(program=program, missing=EXTRAS)
    assert '<function' not in done.stdout
    assert done.stderr == ''
    for words in STEPS:
        assert f'superpoint {" ".join(words)}' in done.stdout
        assert f'\n{" ".join(words)} 0\n' in done.stdout


def test_every_argument_and_group_is_described():
    for words in set(STEPS) - {('train',)}:
        function = cli.load(words[0])
        parser = arguments.parser_of(function if callable(function) else function[words[1]], 'test')
        assert all(action.help for action in parser._actions), words
        assert all(group.description != '.' for group in parser._action_groups), words


def test_options_have_one_spelling():
    for words in STEPS:
        function = cli.load(words[0])
        function = function if callable(function) else function[words[1]]
        if words != ('train',):
            parser = arguments.parser_of(function, 'test')
            options = {option for action in parser._actions for option in action.option_strings}
            assert not {option for option in options if '.' in option or option == '--keypoints'}, words


@pytest.mark.parametrize(
    ('words', 'missing', 'message'),
    [
        ('label superpoint photos labels', 'torch', 'label needs torch; pip install superpoint_ros[train]'),
        ('train --run x', 'lightning', 'train needs lightning; pip install superpoint_ros[train]'),
        ('quantize superpoint photos pairs', 'onnx', 'quantize needs onnx; pip install superpoint_ros[train]'),
        ('evaluate shapes', 'matplotlib', 'evaluate needs matplotlib; pip install superpoint_ros[train]'),
        ('convert x.pth --output y.safetensors', 'torch', 'convert needs torch; pip install superpoint_ros[train]'),
        ('export superpoint', 'torch', 'export needs torch; pip install superpoint_ros[train]'),
        ('evaluate reconstruction pairs.txt x', 'pycolmap', 'needs pycolmap; pip install superpoint_ros[train,map]'),
        ('demo', 'rclpy', 'pip install superpoint_ros[ros'),
    ],
)
def test_a_missing_library_names_the_extra_to_install(words, missing, message):
    done = superpoint(*words.split(), missing=[missing])
    assert done.returncode == 1
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


def test_no_command_shows_the_help(capsys):
    assert cli.main([]) == 0
    assert 'Usage: superpoint COMMAND' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('detekt', 'superpoint: unknown command detekt; did you mean detect?'),
        ('evaluate pair', 'superpoint evaluate: unknown command pair; did you mean pairs?'),
        ('frobnicate', 'superpoint: unknown command frobnicate\n'),
    ],
)
def test_an_unknown_command_is_named_with_a_similar_one(words, message):
    done = superpoint(*words.split())
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stdout == ''


def run(
    files: Sequence[Path],
    *,
    output: Path,
    how: Literal['fast', 'well'] = 'well',
    quiet: bool = False,
    pictures: bool = True,
    cluster: str | None = None,
    models: Sequence[str] = ('superpoint',),
    decode: DecodeConfig = DecodeConfig(),
) -> tuple:
    """Do something.

    Args:
        files: what to do it with.
        output: where to.
        how: to do it.
        quiet: say nothing.
        pictures: draw.
        cluster: of machines.
        models: to run.
        decode: which keypoints.
    """
    return [str(file) for file in files], str(output), how, quiet, pictures, cluster, list(models), decode


DEFAULT = DecodeConfig()


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        ('a b --output c', (['a', 'b'], 'c', 'well', False, True, None, ['superpoint'], DEFAULT)),
        (
            'a --output=c --how fast --quiet --pictures false --cluster --border 7',
            (['a'], 'c', 'fast', True, False, 'local', ['superpoint'], DecodeConfig(border=7)),
        ),
        (
            'a --models b /c/d.onnx --output c --cluster host:1',
            (['a'], 'c', 'well', False, True, 'host:1', ['b', '/c/d.onnx'], DEFAULT),
        ),
        ('a --output c --models', (['a'], 'c', 'well', False, True, None, [], DEFAULT)),
    ],
)
def test_arguments_of_a_function_come_from_the_command_line(words, expected):
    assert cli.run(run, words.split(), 'test') == expected
    assert cli.run({'one': run}, ['one', *words.split()], 'test') == expected


def test_arguments_come_from_a_file_too(tmp_path):
    path = tmp_path / 'options.yaml'
    path.write_text('models: [b, c]\nborder: 7\noutput: d\n')
    *_, models, decode = cli.run(run, ['a', '--config', str(path), '--max_keypoints', '5'], 'test')
    assert models == ['b', 'c']
    assert decode == DecodeConfig(border=7, max_keypoints=5)


def test_help_describes_the_fields_of_configurations():
    text = ' '.join(arguments.parser_of(run, 'test').format_help().split())
    assert 'Do something.' in text
    assert 'Say nothing' in text
    assert 'Width of the border of the image, which has no keypoints.' in text


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('a', 'the following arguments are required: output'),
        ('--output c', 'the following arguments are required: files'),
        ('a --output c --how badly', "invalid choice: 'badly'"),
        ('a --output c --border many', 'border'),
        ('a --output c --border=-3', 'border: -3 is out of range, expected 0 to 1000 px'),
        ('a --output c --max_keypoint 1', 'test: unknown option --max_keypoint; did you mean --max_keypoints?'),
        ('a --output c --max-keypoints=1', 'test: unknown option --max-keypoints; did you mean --max_keypoints?'),
        ('a --output c --decode.border 1', 'test: unknown option --decode.border; did you mean --border?'),
        ('a --output c --xyzzy', 'test: unknown option --xyzzy\n'),
        ('a --output c --print_config', 'test: unknown option --print_config'),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_one_message(words, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.run(run, words.split(), 'test')
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert 'usage' not in printed.err
    assert printed.out == ''


def test_missing_input_is_one_sentence(tmp_path):
    done = superpoint('evaluate', 'sequence', str(tmp_path / 'none'))
    assert done.returncode == 1
    assert done.stderr.strip() == f'superpoint evaluate: {tmp_path / "none"}: no such folder'
