"""Launch arguments and actions made from the configurations of the nodes."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from launch import LaunchContext, LaunchDescription  # type: ignore[attr-defined]  # mypy takes launch/ for it
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from superpoint_ros import resources
from superpoint_ros.config import Option, options

LOG_LEVELS = 'debug', 'info', 'warn', 'error', 'fatal'

COMMON = {
    'namespace': 'Namespace of the nodes and their topics.',
    'params_file': 'YAML file of parameters; arguments take precedence.',
    'fastdds_profile': 'true for a 16 MB shared-memory segment, so that large best-effort images arrive; '
    'the publishers need it too.',
    'log_level': f'One of {", ".join(LOG_LEVELS)}.',
}


def nodes_description(
    nodes: Mapping[str, Sequence[type]],
    topics: Mapping[str, str],
    arguments: Mapping[str, tuple[str, str]] = MappingProxyType({}),
    derived: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> LaunchDescription:
    """A launch description that starts nodes of this package, with an argument for each of their parameters.

    An argument of several nodes applies to all of them. Parameters without an argument keep the defaults of the nodes.

    Args:
        nodes: for each executable the configurations whose fields are the parameters of the node.
        topics: topics that can be remapped: name in the nodes, and description.
        arguments: further arguments: default and description.
        derived: for each executable, parameters set from other arguments: a text that contains {argument}.
    """
    own = {
        executable: {
            name: (cls, what)
            for cls in configurations
            for name, what in options(cls).items()
            if name not in derived.get(executable, {})
        }
        for executable, configurations in nodes.items()
    }
    described = {
        **{name: f'Topic: {what}' for name, what in topics.items()},
        **{name: f'{what} Default: {default}.' for name, (default, what) in arguments.items()},
        **_described(own),
        **COMMON,
    }

    def start(context: LaunchContext) -> list[Any]:
        given = {name: context.launch_configurations[name] for name in described}
        given = {name: value for name, value in given.items() if value}
        _check(given)
        values_of = {name: given.get(name, default) for name, (default, _) in arguments.items()}
        actions: list[Any] = _warnings(context.launch_configurations, described)
        if parse('fastdds_profile', given.get('fastdds_profile', 'false'), bool).value:
            profile = str(resources.find('config/fastdds.xml'))
            # The second name is for Jazzy and older.
            for variable in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):
                actions.append(SetEnvironmentVariable(variable, profile))
        for executable, configurations in nodes.items():
            values = {name: given[name] for name in own[executable] if name in given}
            values |= {name: text.format(**values_of) for name, text in derived.get(executable, {}).items()}
            hints = {name: kind for cls in configurations for name, kind in typing.get_type_hints(cls).items()}
            types = {name: kind for name, kind in hints.items() if name in values}
            parameters: list[Any] = [given['params_file']] if 'params_file' in given else []
            if types:
                parameters.append({name: parse(name, values[name], kind) for name, kind in types.items()})
            actions.append(
                Node(
                    package='superpoint_ros',
                    executable=executable,
                    namespace=given.get('namespace', ''),
                    parameters=parameters,
                    remappings=[(name, given[name]) for name in topics if name in given],
                    ros_arguments=['--log-level', given['log_level']] if 'log_level' in given else [],
                    output='screen',
                )
            )
        return actions

    declared = [DeclareLaunchArgument(name, default_value='', description=text) for name, text in described.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def parse(name: str, text: str, kind: Any) -> ParameterValue:
    """The parameter value in the text of a launch argument; `kind` is the type of its configuration field.

    Raises:
        ValueError: the text is not of this type.
    """
    try:
        if kind == tuple[str, ...]:
            words = text.strip().removeprefix('[').removesuffix(']').split(',')
            return ParameterValue([word.strip(' "\'') for word in words], value_type=list[str])
        value = yaml.safe_load(text)
        if kind is bool and not isinstance(value, bool):
            raise ValueError
        return ParameterValue(text if kind is str else kind(value), value_type=kind)
    except (TypeError, ValueError, yaml.YAMLError):
        wanted = {bool: 'true or false', int: 'an integer', float: 'a number'}.get(kind, kind)
        raise ValueError(f'argument {name}: expected {wanted}, got {text!r}') from None


def _check(given: Mapping[str, str]) -> None:
    """Check the arguments that launch would pass on unchecked, or silently ignore."""
    file, level = given.get('params_file'), given.get('log_level', 'info')
    if file and not Path(file).is_file():
        raise ValueError(f'argument params_file: no such file: {file!r}')
    if level.lower() not in LOG_LEVELS:
        raise ValueError(f'argument log_level: expected one of {", ".join(LOG_LEVELS)}, got {level!r}')


def _warnings(given: Mapping[str, str], known: Collection[str]) -> list[Any]:
    """Log arguments that look like a misspelled one; others may belong to a launch file that includes this one."""
    near = {name: difflib.get_close_matches(name, known, 1, 0.85) for name in given if name not in known}
    return [LogInfo(msg=f'argument {name!r} is not known, did you mean {m[0]}?') for name, m in near.items() if m]


def _described(own: Mapping[str, Mapping[str, tuple[type, Option]]]) -> dict[str, str]:
    """A text for each parameter; one for each node where nodes share a name but not its meaning."""
    texts: dict[str, dict[str, str]] = {}
    for executable, parameters in own.items():
        for name, (cls, what) in parameters.items():
            texts.setdefault(name, {})[_describe(cls, name, what)] = executable
    return {
        name: next(iter(each))
        if len(each) == 1
        else ' '.join(f'{executable}: {text}' for text, executable in each.items())
        for name, each in texts.items()
    }


def _describe(cls: type, name: str, what: Option) -> str:
    default = next(field.default for field in dataclasses.fields(cls) if field.name == name)
    shown = str(default).lower() if isinstance(default, bool) else f'{default} {what.unit}'.strip()
    choices = f' One of {", ".join(what.choices)}.' if what.choices else ''
    return f'{what.description}{choices}{f" Default: {shown}." if default not in ((), "") else ""}'
