"""The command `superpoint`: each sub-command is a plain function of some module, imported when it is called."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import logging
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import docstring_parser
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from superpoint_ros.config import options


class Command(NamedTuple):
    """Where a sub-command is."""

    summary: str
    module: str
    function: str
    """A function with typed arguments, a dictionary of them by name, or one that takes the words behind the command."""
    takes_words: bool = False


COMMANDS = {
    'demo': Command('watch it work: camera, detector and matcher as ROS nodes', 'demo.command', 'demo'),
    'detect': Command('features of image files', 'detect', 'detect'),
    'match': Command('matches of two image files, as a picture', 'detect', 'match'),
    'bag': Command('features of the images in ROS 1 and ROS 2 bags', 'bags.command', 'process_bags'),
    'train': Command('one stage of training, from a configuration file', 'training.train', 'main', True),
    'label': Command('label photographs by homographic adaptation', 'training.adaptation', 'main', True),
    'evaluate': Command('compare models and classical methods', 'evaluation.commands', 'COMMANDS'),
    'export': Command('make the .onnx graph, or a TensorRT engine, of a model', 'runtimes.command', 'export'),
    'benchmark': Command('time every stage, beside SIFT and ORB; and the node', 'benchmark.command', 'benchmark'),
    'quantize': Command('a graph with 8-bit convolutions, for CPUs', 'evaluation.quantized', 'quantize'),
    'convert': Command("make another project's checkpoint one of ours", 'runtimes.command', 'convert'),
}

ALONE = {'cluster': 'local'}
"""Options that may stand without a value, and what they then mean."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a sub-command; the exit code is 0 if all went well, 1 if something failed, 2 if the command line is wrong."""
    words = list(sys.argv[1:] if words is None else words)
    if not words or words[0] in ('-h', '--help') or words[0] not in COMMANDS:
        summaries = {name: command.summary for name, command in COMMANDS.items()}
        return _help('superpoint', summaries, words[0] if words else '')
    logging.basicConfig(
        level=logging.INFO, format='%(message)s', handlers=[RichHandler(show_time=False, show_path=False)]
    )
    name, command = words[0], COMMANDS[words[0]]
    try:
        target = getattr(importlib.import_module(f'superpoint_ros.{command.module}'), command.function)
        result = target(words[1:]) if command.takes_words else run(target, words[1:], f'superpoint {name}')
    except (ArithmeticError, ImportError, OSError, RuntimeError, ValueError) as error:
        print(f'superpoint {name}: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if isinstance(result, str):
        print(result)
    return result if type(result) is int else int(result is False)


def run(target: Callable[..., Any] | dict[str, Callable[..., Any]], words: list[str], program: str) -> Any:
    """Call a function, or one of several by name, with arguments from the command line."""
    if callable(target):
        parser = parser_of(target, program)
        return target(**_namespace(parser, words))
    if not words or words[0] not in target:
        summaries = {name: (inspect.getdoc(function) or '').partition('\n')[0] for name, function in target.items()}
        return _help(program, summaries, words[0] if words else '')
    return run(target[words[0]], words[1:], f'{program} {words[0]}')


def parser_of(function: Callable[..., Any], program: str) -> ArgumentParser:
    """A parser with an argument for each parameter of a function.

    Lists take several words, `output` is always an option, and what is off by default is switched on by its name alone.
    """
    documentation = docstring_parser.parse(inspect.getdoc(function) or '')
    told = {parameter.arg_name: parameter.description for parameter in documentation.params}
    parser = ArgumentParser(prog=program, description=documentation.short_description)
    parser.add_argument('--config', action='config', help='YAML file with any of these options')
    hints = typing.get_type_hints(function)
    skip: set[str | int] = set()
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is parameter.empty
        if hints[name] == Sequence[Path] and required:
            parser.add_argument(name, nargs='+', type=Path, help=told.get(name))
        elif name == 'output' and required:
            parser.add_argument('--output', type=Path, required=True, help=told.get(name))
        elif hints[name] is bool and parameter.default is False:
            parser.add_argument(f'--{name}', action='store_true', help=told.get(name))
        elif name in ALONE:
            parser.add_argument(f'--{name}', nargs='?', const=ALONE[name], help=told.get(name))
        else:
            continue
        skip.add(name)
    parser.add_function_arguments(function, skip=skip, as_positional=True)
    for action in parser._actions:
        group, _, field = action.dest.partition('.')
        if field and dataclasses.is_dataclass(hints.get(group)):
            what = options(hints[group]).get(field)
            if what is not None:
                action.help = what.description + (f' [{what.unit}]' if what.unit else '')
    return parser


def _namespace(parser: ArgumentParser, words: list[str]) -> dict[str, Any]:
    return _options(parser.instantiate(parser.parse_args(_lists(parser, words))))


def _lists(parser: ArgumentParser, words: list[str]) -> list[str]:
    """The words with `--models a b` as `--models '["a", "b"]'`, which is how jsonargparse takes an option of many."""
    lists = {
        name for action in parser._actions if getattr(action, '_typehint', None) == Sequence[str]
        for name in action.option_strings
    }  # fmt: skip
    joined: list[str] = []
    items: list[str] | None = None
    for word in words:
        if items is None or word.startswith('-'):
            joined.append(word)
            items = [] if word in lists else None
            if items is not None:
                joined.append('[]')
        else:
            items.append(word)
            joined[-1] = word if word.startswith('[') else json.dumps(items)
    return joined


def _options(namespace: Any) -> dict[str, Any]:
    """What goes to the function: all but what jsonargparse keeps for itself."""
    return {name: value for name, value in vars(namespace).items() if name not in ('config', '__path__')}


def _help(program: str, summaries: Mapping[str, str], asked: str) -> int:
    wrong = bool(asked) and asked not in ('-h', '--help')
    console = Console(stderr=wrong, highlight=False)
    if wrong:
        console.print(f'{program}: there is no command {asked!r}\n')
    console.print(f'Usage: {program} COMMAND …        {program} COMMAND --help says more\n')
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, summary in summaries.items():
        table.add_row(f'[bold]{name}[/bold]', summary)
    console.print(table)
    return 2 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
