"""Command lines: options and values in any combination, and arguments that are not what they are taken for.

Commands that work for long are only parsed.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
from hypothesis import strategies as st

from superpoint_ros import cli
from superpoint_ros.arguments import parse, parser_of
from superpoint_ros.learned_matching import LEARNED, resolve_matcher
from test.bags.conftest import Recorder, picture
from test.fuzz.attacks import NUMBERS, FaultError, Target
from test.fuzz.processes import isolated

RUN = 'detect', 'match', 'bag', 'map', 'convert'
PARSED = 'label', 'evaluate', 'export', 'quantize', 'benchmark', 'demo'
LEFT_OUT = {'--help', '--config', '--cluster', '--workers'}
FILES = [
    'a.png',
    'b.png',
    'broken.png',
    'empty.jpg',
    'dir.png',
    'link.png',
    'pipe.png',
    'large.png',
    'bag',
    'missing',
    'broken.onnx',
]
WORDS = (
    st.sampled_from([*FILES, '.', '', '-', '--', '-1', '0', 'nan', '1e999', 'out', 'm.png', 'm.xyz', 'true', 'null'])
    | st.sampled_from(
        [*map(str, NUMBERS), '[]', '{}', '[1', '640x480', '0x0', 'auto', 'cpu', 'a.png', 'b.png', LEARNED]
    )
    | st.text(st.characters(exclude_categories=['Cs'], exclude_characters='/\0'), max_size=8)
)


@cache
def functions() -> dict[str, Callable[..., Any]]:
    """The function of each command."""
    loaded = {name: cli.load(name) for name in (*RUN, *PARSED)}
    steps = {f'{name} {step}': f for name, d in loaded.items() if isinstance(d, dict) for step, f in d.items()}
    return {name: function for name, function in loaded.items() if callable(function)} | steps


@cache
def option_names(name: str) -> list[str]:
    """The options of a command."""
    known = {option for action in parser_of(functions()[name], name)._actions for option in action.option_strings}
    return sorted(known - LEFT_OUT)


@st.composite
def command_lines(draw: st.DrawFn) -> bytes:
    """Strategy of words as JSON: a command, arguments, and options with values."""
    name = draw(st.sampled_from(sorted(functions())) | st.sampled_from(RUN))
    names = st.sampled_from(option_names(name)) | st.text('-abc=.', max_size=5).map('--{}'.format)
    words = draw(st.lists(WORDS, max_size=3))
    for option in draw(st.lists(names, max_size=3)):
        words += [option, *draw(st.lists(WORDS, max_size=2))]
    if name in ('bag', 'map', 'convert') and draw(st.booleans()):
        words += ['--output', 'out']
    return json.dumps([name, *words]).encode()


def _make_files(folder: Path) -> None:
    """Make good and bad files."""
    for number, name in enumerate(('a.png', 'b.png')):
        cv2.imwrite(str(folder / name), picture(number))
    content = (folder / 'a.png').read_bytes()
    (folder / 'broken.png').write_bytes(content[:100] + content[120:])
    (folder / 'large.png').write_bytes(content[:16] + b'\0\0\xea\x60' * 2 + content[24:])
    (folder / 'empty.jpg').touch()
    (folder / 'dir.png').mkdir()
    (folder / 'link.png').symlink_to('nowhere')
    os.mkfifo(folder / 'pipe.png')
    graph = resolve_matcher(LEARNED).file('graph').read_bytes()
    (folder / 'x.onnx').write_bytes(graph[: len(graph) // 2])
    Recorder(folder).ros2('bag', 3)


def execute(data: bytes, folder: Path) -> bool:
    """Run a command line in a folder of files; returns whether its exit code is 0."""
    work = folder / 'work'
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    os.chdir(work)
    _make_files(work)
    name, *words = json.loads(data)
    output, errors = io.StringIO(), io.StringIO()
    code: object = 0
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            if name in RUN:
                code = cli.main([name, *words])
            else:
                parse(functions()[name], words, f'superpoint {name}')
        except SystemExit as end:
            code = end.code or 0
    text = errors.getvalue()
    if code not in (0, 1, 2) or 'Traceback' in text or (code and not text) or len(text) > 10_000:
        raise FaultError(f'exit code {code}: {text[-1500:]}')
    return code == 0


TARGETS = {'command_lines': Target(command_lines(), partial(isolated, execute, max_megabytes=2500))}
