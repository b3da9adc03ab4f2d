"""The command `superpoint`: each subcommand is a function of the same name in superpoint_ros/commands."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from superpoint_ros import blas
from superpoint_ros.arguments import parse


class Command(NamedTuple):
    """A subcommand."""

    summary: str
    extra: str
    """The extra that installs what the subcommand needs."""


COMMANDS = {
    'demo': Command('run camera, detector and matcher as ROS nodes, and show the result', 'ros,cpu,demo'),
    'detect': Command('extract the features of image files', 'cpu'),
    'match': Command('match two image files, and draw the matches', 'cpu'),
    'bag': Command('extract the features of the images in ROS 1 and ROS 2 bags', 'cpu'),
    'map': Command('make a COLMAP database and reconstruction of images or a bag', 'cpu,map'),
    'label': Command('label photographs by homographic adaptation', 'train'),
    'train': Command('train a model or matcher from a configuration file', 'train'),
    'evaluate': Command('compare models and classical methods', 'train'),
    'export': Command('export a model as an .onnx graph or TensorRT engine', 'train'),
    'quantize': Command('make an INT8 graph for CPUs', 'train'),
    'convert': Command('convert a checkpoint of another project', 'train'),
    'benchmark': Command('time every stage and the node, with SIFT and ORB for comparison', 'cpu,demo'),
}


LIBRARIES = {'h5py': 'hdf5', 'pycolmap': 'map', 'rclpy': 'ros'}
"""The extras of libraries that only some options or steps of a command need."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        0 on success, 1 if something failed, 2 if the command line is wrong, 130 after Ctrl-C.
    """
    blas.use_one_thread()
    words = list(sys.argv[1:] if words is None else words)
    if not words or words[0] not in COMMANDS:
        return _help('superpoint', {name: command.summary for name, command in COMMANDS.items()}, words)
    handler = RichHandler(console=Console(stderr=True), show_time=False, show_path=False)
    logging.basicConfig(level=logging.INFO, format='%(message)s', handlers=[handler])
    name = words[0]
    try:
        result = run(load(name), words[1:], f'superpoint {name}')
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith('superpoint_ros'):
            raise
        needed = error.name.partition('.')[0]
        extras = dict.fromkeys([*COMMANDS[name].extra.split(','), *filter(None, [LIBRARIES.get(needed)])])
        print(f'superpoint {name} needs {needed}; pip install superpoint_ros[{",".join(extras)}]', file=sys.stderr)
        return 1
    except (ArithmeticError, ImportError, MemoryError, OSError, RuntimeError, ValueError) as error:
        print(f'superpoint {name}: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if isinstance(result, str):
        print(result.encode(errors='backslashreplace').decode())  # names of files need not be UTF-8
    return int(result is False)


def load(name: str) -> Any:
    """The function of a subcommand, or a dictionary of functions if it has several steps."""
    return getattr(importlib.import_module(f'superpoint_ros.commands.{name}'), name)


def run(target: Callable[..., Any] | dict[str, Callable[..., Any]], words: Sequence[str], program: str) -> Any:
    """Call a function, or one of several by name, with arguments from the command line.

    A function that takes `*words` gets them as they are.
    """
    if not callable(target):
        if words and words[0] in target:
            return run(target[words[0]], words[1:], f'{program} {words[0]}')
        summaries = {name: (inspect.getdoc(function) or '').partition('\n')[0] for name, function in target.items()}
        raise SystemExit(_help(program, summaries, words))
    parameters = inspect.signature(target).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return target(*words)
    return target(**parse(target, words, program))


def _help(program: str, summaries: Mapping[str, str], words: Sequence[str]) -> int:
    wrong = bool(words) and words[0] not in ('-h', '--help')
    console = Console(stderr=wrong, highlight=False)
    if wrong:
        similar = difflib.get_close_matches(words[0], summaries, 1)
        hint = f'; did you mean {similar[0]}?' if similar else ''
        console.print(f'{program}: unknown command {words[0]}{hint}\n', markup=False)
    console.print(f'Usage: {program} COMMAND …        {program} COMMAND --help lists the options\n')
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, summary in summaries.items():
        table.add_row(f'[bold]{name}[/bold]', summary)
    console.print(table)
    return 2 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
