"""The pages name the parameters and options that exist."""

import dataclasses
import re
from pathlib import Path

import pytest

from superpoint_ros import cli
from superpoint_ros.arguments import parser_of
from superpoint_ros.config import options

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs/topics-and-parameters.md'


def described(configurations):
    """A Markdown table of all parameters."""
    lines = ['| parameter | default | allowed | live | what |', '| --- | --- | --- | --- | --- |']
    for cls in configurations:
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        for name, what in options(cls).items():
            default = defaults[name]
            shown = '[]' if default == () else str(default).lower() if isinstance(default, bool) else str(default)
            bounds = [str(bound) for bound in (what.minimum, what.maximum) if bound is not None]
            span = ' to '.join(bounds) if len(bounds) == 2 else f'from {bounds[0]}' if bounds else ''
            allowed = ', '.join(what.choices) or f'{span} {what.unit}'.strip()
            text = what.description.replace('|', '\\|').replace('<', '\\<')
            lines.append(f'| `{name}` | `{shown or chr(34) * 2}` | {allowed} | {"yes" if what.live else ""} | {text} |')
    return '\n'.join(lines)


@pytest.mark.parametrize('node', ['detector', 'matcher'])
def test_the_table_matches_the_declared_parameters(node):
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    from superpoint_ros.ros import detector_config, matcher_config

    configurations = {'detector': detector_config, 'matcher': matcher_config}[node].CONFIGURATIONS
    page = PAGE.read_text(encoding='utf-8')
    heading = f'### Parameters of superpoint_{node}'
    table = re.search(rf'{heading}\n.*?(^\|.*?)\n\n', page, re.M | re.S)
    assert table, heading
    assert table[1] == described(configurations), f'the table should be:\n{described(configurations)}'


@pytest.mark.parametrize('page', [ROOT / 'README.md', *sorted(ROOT.glob('docs/*.md')), ROOT / 'models/MODEL_CARD.md'])
def test_every_option_in_a_command_exists(page):
    text = page.read_text(encoding='utf-8')
    lines = re.findall(r'^ {4}superpoint ((?:[^\n\\]|\\\n)*)', text, re.M) + re.findall(r'`superpoint ([^`]*)`', text)
    for line in lines:
        words = line.split()
        command = cli.load(words.pop(0)) if words and words[0] in cli.COMMANDS else None
        if isinstance(command, dict):
            command = command.get(words.pop(0)) if words else None
        if command is None or command.__name__ == 'train':  # Lightning has a parser of its own
            continue
        known = {name for action in parser_of(command, '')._actions for name in action.option_strings}
        asked = {word.partition('=')[0].rstrip(',.)') for word in words if word.startswith('--')}
        assert asked <= known, f'{line}: {asked - known}'
