"""Runs the graph of the demo, and watches it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rich.console import Console
from rich.live import Live

from superpoint_ros import drawing
from superpoint_ros.demo import picture, summary, window
from superpoint_ros.demo.monitor import MonitorNode
from superpoint_ros.demo.processes import Process, started
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
    """
    if view:
        window.open_window()
    scene = Scene(photographs()) if source == PHOTOGRAPHS else None
    namespace = f'/superpoint_demo_{os.getpid()}'
    topic = source if source.startswith('/') and not Path(source).exists() else f'{namespace}/image'
    nodes: dict[str, tuple[str, Mapping[str, Any]]] = {
        name: (f'superpoint_ros.ros.{name}_node', parameters[name]) for name in ('matcher', 'detector')
    }
    if topic != source:
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
    frames = [summary.verified(frame) for _, frame in sorted(node.frames.items())]
    result = summary.summarize(node.counts, node.facts, frames)
    with written_whole(output / 'summary.json') as path:
        path.write_text(json.dumps({'source': source, **result}, indent=2) + '\n')
    drawing.write(output / 'demo.png', picture.compose(picture.best(frames), summary.caption(result)))
    return f'{summary.text(result)}\nSee {output / "demo.png"} and {output / "summary.json"}.'


def ros_arguments(namespace: str, parameters: Mapping[str, Any], remappings: Mapping[str, str]) -> list[str]:
    """The words behind --ros-args for a node with these parameters and remappings."""
    # JSON is YAML, and keeps the string "0" from becoming a number.
    given = [f'{name}:={json.dumps(value)}' for name, value in parameters.items()]
    remapped = [f'{name}:={to}' for name, to in {'__ns': namespace, **remappings}.items()]
    return [*(word for p in given for word in ('-p', p)), *(word for r in remapped for word in ('-r', r))]


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
    frames = [frame for _, frame in sorted(node.frames.items())]
    while not frames[-1].complete:
        frames.pop()
    return picture.compose([*frames[:-1], summary.verified(frames[-1])], node.counts.line())


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Let Ctrl-C set an event: a KeyboardInterrupt inside rclpy's compiled code comes out as another error."""
    interrupt = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: interrupt.set())
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


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
