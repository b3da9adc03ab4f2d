"""Turns the parameters of a function into a command line."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import typing
from argparse import SUPPRESS, Action
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import docstring_parser
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from superpoint_ros.config import options

IMPLIED = {'cluster': 'local'}
"""Options whose value may be left out, and the value that they take then."""

PATHS = (Path, Path | None)


def parse(function: Callable[..., Any], words: Sequence[str], program: str) -> dict[str, Any]:
    """Parse the arguments of a function from the words of a command line.

    Positional parameters are arguments, keyword-only parameters and those with a default are options. The fields of a
    parameter that is a configuration dataclass become options of their own. Sequences take any number of words.

    Args:
        function: has type hints and a Google-style docstring, which gives the help. A configuration need not be
            described there: its own docstring is then the help.
        words: the command line after the name of the command.
        program: the name of the command.

    Raises:
        SystemExit: with 0 after --help, with 2 if the command line is wrong.
    """
    parser = parser_of(function, program)
    _refuse_unknown_options(parser, words)
    values = vars(parser.parse_args(list(words)))
    hints = typing.get_type_hints(function)
    try:
        return {name: _value(hints[name], name, values) for name in inspect.signature(function).parameters}
    except ValueError as error:
        parser.exit(2, f'{program}: {error}\n')


def parser_of(function: Callable[..., Any], program: str) -> ArgumentParser:
    """The parser of a function's arguments, see `parse`."""
    documentation = docstring_parser.parse(inspect.getdoc(function) or '')
    described = {parameter.arg_name: parameter.description or '' for parameter in documentation.params}
    parser = _Parser(
        prog=program,
        description=documentation.short_description,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        print_config=None,
    )
    parser.add_argument('--config', action='config', help='YAML file with any of these options.')
    hints = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        hint, description = hints[name], described.get(name, '')
        if _is_configuration(hint):
            description = description or (inspect.getdoc(hint) or '').partition('\n')[0]
            group = parser.add_argument_group(name, f'{description.rstrip(".")}.')
            field_hints = typing.get_type_hints(hint)
            for field, option in options(hint).items():
                help_ = option.description + (f' [{option.unit}]' if option.unit else '')
                _add(group, f'--{field}', field_hints[field], getattr(parameter.default, field), help_, option.choices)
        elif parameter.default is not parameter.empty:
            _add(parser, f'--{name}', hint, parameter.default, description)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            parser.add_argument(f'--{name}', type=_type(hint), required=True, help=description)
        elif typing.get_origin(hint) is Sequence:
            parser.add_argument(name, nargs='+', type=_type(typing.get_args(hint)[0]), help=description)
        else:
            parser.add_argument(name, type=_type(hint), help=description)
    required = [action for action in parser._actions if action.required]
    usage = (_usage(action) for action in sorted(required, key=lambda action: bool(action.option_strings)))
    parser.usage = ' '.join(['%(prog)s', *usage, '[OPTION …]'])
    return parser


def _usage(action: Action) -> str:
    name = action.dest.upper()
    return ' '.join([*action.option_strings, name, *([f'[{name} …]'] if action.nargs == '+' else [])])


class _HelpFormatter(DefaultHelpFormatter):
    """Shows an argument's default, but not its type."""

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ''
        text = text[:1].upper() + text[1:]
        if not action.option_strings or action.default is False or action.default in (None, '', [], SUPPRESS):
            return text
        shown = ' '.join(action.default) if isinstance(action.default, list) else action.default
        return f'{text} (default: {str(shown).lower() if shown is True else shown})'.replace('%', '%%')


class _Parser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> typing.NoReturn:  # noqa: ARG002 (as it is called)
        self.exit(2, f'{self.prog}: {message}\n`{self.prog} --help` lists the options\n')


def _add(
    parser: Any, option: str, hint: Any, default: Any, description: str, choices: tuple[str, ...] | None = None
) -> None:
    details: dict[str, Any] = {'default': str(default) if isinstance(default, Path) else default, 'help': description}
    if hint is bool and default is False:
        details['action'] = 'store_true'
    elif typing.get_origin(hint) in (Sequence, tuple):
        details |= {'nargs': '*', 'type': _type(typing.get_args(hint)[0]), 'default': list(default)}
    elif choices or typing.get_origin(hint) is Literal:
        details |= {'choices': list(choices or typing.get_args(hint))}
    elif (implied := IMPLIED.get(option[2:])) is not None:
        details |= {'nargs': '?', 'const': implied}
    else:
        details['type'] = _type(hint)
    parser.add_argument(option, **details)


def _type(hint: Any) -> Any:
    # jsonargparse would parse a word for the class Path as YAML, which a name that is not UTF-8 is not.
    return str if hint in PATHS else hint


def _value(hint: Any, name: str, values: dict[str, Any]) -> Any:
    if hint in PATHS:
        return None if values[name] is None else Path(values[name])
    if hint == Sequence[Path]:
        return [Path(word) for word in values[name]]
    if not _is_configuration(hint):
        return values[name]
    given = {field: values[field] for field in options(hint)}
    return hint(**{field: tuple(value) if isinstance(value, list) else value for field, value in given.items()})


def _is_configuration(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint)


def _refuse_unknown_options(parser: ArgumentParser, words: Sequence[str]) -> None:
    known = [name for action in parser._actions for name in action.option_strings]
    for word in words:
        if word == '--':
            return
        asked = word.partition('=')[0]
        if asked.startswith('--') and asked not in known:
            # Without a group's name in front, and with the hyphens that other programs take.
            bare = f'--{asked.lstrip("-").rpartition(".")[2].replace("-", "_")}'
            similar = [bare] if bare in known else difflib.get_close_matches(bare, known, 1)
            parser.error(f'unknown option {asked}' + (f'; did you mean {similar[0]}?' if similar else ''))
