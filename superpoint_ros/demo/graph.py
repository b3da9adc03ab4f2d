"""Runs the graph of the demo, and watches it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rclpy
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.validate_topic_name import validate_topic_name
from rich.console import Console
from rich.live import Live

from superpoint_ros import drawing
from superpoint_ros.demo import picture, summary, window
from superpoint_ros.demo.monitor import MonitorNode
from superpoint_ros.demo.processes import Process, interrupts, ros_arguments, started
from superpoint_ros.demo.scene import Scene, photographs
from superpoint_ros.demo.sources import PHOTOGRAPHS
from superpoint_ros.files import written_whole

PATIENCE = {'images': 30.0, 'features': 600.0, 'matches': 630.0, 'tracks': 630.0}
"""Seconds after the start within which the first of each must arrive; some back ends prepare for minutes."""


def run(
    source: str, seconds: float, output: Path, parameters: Mapping[str, Mapping[str, Any]], rate: float, view: bool
) -> str:
    """Run camera, detector and matcher, and write demo.png, summary.json and the logs of the nodes.

    Arguments as in commands.demo, but for the parameters of detector and matcher, by name. Returns the figures as text.

    Raises:
        FileNotFoundError: no such source.
        RuntimeError: a node failed, nothing arrived, or no window can be opened; the message has the reason.
        ValueError: seconds is not positive.
    """
    if not seconds > 0:
        raise ValueError(f'seconds: expected more than 0, got {seconds}')
    if is_topic := source.startswith('/') and not Path(source).exists():
        try:
            validate_topic_name(source)
        except InvalidTopicNameException:
            raise FileNotFoundError(f'source {source}: no such file or folder, and not the name of a topic') from None
    if view:
        window.open_window()
    scene = Scene(photographs()) if source == PHOTOGRAPHS else None
    namespace = f'/superpoint_demo_{os.getpid()}'
    topic = source if is_topic else f'{namespace}/image'
    nodes: dict[str, tuple[str, Mapping[str, Any]]] = {
        name: (f'superpoint_ros.ros.{name}_node', parameters[name]) for name in ('matcher', 'detector')
    }
    if not is_topic:
        nodes['camera'] = ('superpoint_ros.demo.camera', {'source': source, 'rate': rate})
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'  # keeps this graph off the network
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        processes = []
        for name, (module, own) in nodes.items():
            arguments = ros_arguments(namespace, own, {'image': topic, '/diagnostics': 'diagnostics'})
            processes.append(stack.enter_context(started(name, module, arguments, output / f'{name}.log')))
        # SIGINT ends the watching, not the context: the figures until then count.
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        node = MonitorNode(namespace, topic, scene)
        stack.callback(node.destroy_node)
        watch(node, processes, seconds, view)
    frames = [summary.verified(frame) for frame in node.frames.values()]
    result = summary.summarize(node.counts, node.facts, frames)
    with written_whole(output / 'summary.json') as path:
        path.write_text(json.dumps({'source': source, **result}, indent=2) + '\n')
    drawing.write(output / 'demo.png', picture.compose(picture.best(frames), summary.caption(result)))
    return f'{summary.text(result)}\nSee {output / "demo.png"} and {output / "summary.json"}.'


def watch(node: MonitorNode, processes: Sequence[Process], seconds: float, view: bool = False) -> None:
    """Spin for some seconds from the first tracks, and show the figures; Ctrl-C or closing the window ends it early.

    Raises:
        RuntimeError: a process ended, a node reports a failure, or nothing arrived.
        KeyboardInterrupt: Ctrl-C came before the first tracks.
    """
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    start, until, shown = time.monotonic(), float('inf'), 0.0
    console = Console(stderr=True, highlight=False)
    with Live(console=console, auto_refresh=False, transient=True) as live, interrupts() as interrupt:
        try:
            while (now := time.monotonic()) < until and not interrupt.is_set():
                executor.spin_once(timeout_sec=0.1)
                _check(node, processes, now - start)
                missing = node.missing()
                if not missing and until == float('inf'):
                    until = now + seconds
                if now > shown + 0.1:
                    live.update(f'waiting for {missing} …' if missing else node.counts.line(), refresh=True)
                    if view and not missing and not window.show(_newest(node)):
                        break
                    shown = time.monotonic()
        finally:
            executor.shutdown()
    if interrupt.is_set() and node.missing():
        raise KeyboardInterrupt


def _newest(node: MonitorNode) -> drawing.Canvas:
    frames = list(node.frames.values())
    while not frames[-1].complete:
        frames.pop()
    return picture.compose([*frames[:-1], summary.verified(frames[-1])], node.counts.line())


def _check(node: MonitorNode, processes: Sequence[Process], waited: float) -> None:
    for process in processes:
        if (code := process.popen.poll()) is not None:
            end = '\n'.join(process.log.read_text(errors='replace').splitlines()[-8:])
            raise RuntimeError(f'the {process.name} ended with exit code {code}:\n{end}')
    if (missing := node.missing()) and node.failure:
        raise RuntimeError(node.failure)
    if missing and waited > PATIENCE[missing]:
        logs = ', '.join(str(process.log) for process in processes)
        raise RuntimeError(f'no {missing} arrived in {waited:.0f} s; the logs of the nodes are {logs}')
