"""Names of topics, for both nodes."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.exceptions import InvalidNamespaceException
from rclpy.node import Node
from rclpy.validate_namespace import validate_namespace


def check_cameras(parameter: str, names: Sequence[str]) -> None:
    """Check names of cameras, which are namespaces of topics and services; `parameter` is where they come from.

    Raises:
        ValueError: a name is not a relative namespace, or two are equal.
    """
    for name in names:
        try:
            validate_namespace(f'/{name}')
        except InvalidNamespaceException as error:
            raise ValueError(
                f'{parameter}: expected relative namespaces such as left or robot/left (letters, digits, _ and /), '
                f'got {name!r}'
            ) from error
    if len(set(names)) != len(names):
        raise ValueError(f'{parameter}: expected different names, got {", ".join(names)}')


def follow(node: Node, topic: str, suffix: str) -> str:
    """The name of <topic>/<suffix> so that it follows a remapping of <topic>, unless it is remapped itself."""
    name = f'{topic}/{suffix}'
    if node.resolve_topic_name(name) != node.resolve_topic_name(name, only_expand=True):
        return name
    return f'{node.resolve_topic_name(topic)}/{suffix}'
