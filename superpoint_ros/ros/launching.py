"""Launch arguments and actions made from the configurations of the nodes."""

from __future__ import annotations

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
from superpoint_ros.config import options

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
    parameters = {executable: _parameters(configurations) for executable, configurations in nodes.items()}
    texts: dict[str, dict[str, str]] = {}
    for executable, own in parameters.items():
        for name, (_, text) in own.items():
            if name not in derived.get(executable, {}):
                texts.setdefault(name, {})[executable] = text
    described = {
        **{name: f'Topic: {what}' for name, what in topics.items()},
        **{name: f'{what} Default: {default}.' for name, (default, what) in arguments.items()},
        **{name: _shared(each) for name, each in texts.items()},
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
        for executable, own in parameters.items():
            chosen = {name: given[name] for name in own if name in given}
            chosen |= {name: text.format(**values_of) for name, text in derived.get(executable, {}).items()}
            values = {name: parse(name, text, own[name][0]) for name, text in chosen.items()}
            files = [given['params_file']] if 'params_file' in given else []
            actions.append(
                Node(
                    package='superpoint_ros',
                    executable=executable,
                    namespace=given.get('namespace', ''),
                    parameters=[*files, *([values] if values else [])],
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
            return ParameterValue([word.strip(' "\'') for word in words if word.strip()], value_type=list[str])
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


def _parameters(configurations: Sequence[type]) -> dict[str, tuple[Any, str]]:
    """Type and description of each parameter of a node."""
    found = {}
    for cls in configurations:
        hints = typing.get_type_hints(cls)
        for name, what in options(cls).items():
            value = getattr(cls, name)
            shown = str(value).lower() if isinstance(value, bool) else f'{value} {what.unit}'.strip()
            choices = f' One of {", ".join(what.choices)}.' if what.choices else ''
            default = f' Default: {shown}.' if value not in ((), '') else ''
            found[name] = hints[name], f'{what.description}{choices}{default}'
    return found


def _shared(texts: Mapping[str, str]) -> str:
    """One description of a parameter of several nodes, or one for each node if they differ."""
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return ' '.join(f'{executable}: {text}' for executable, text in texts.items())
