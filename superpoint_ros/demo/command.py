"""The command `superpoint demo`."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
from rich.console import Console
from rich.live import Live

from superpoint_ros import models
from superpoint_ros.demo.processes import Process, started
from superpoint_ros.demo.scene import Scene, photographs
from superpoint_ros.demo.sources import PHOTOGRAPHS
from superpoint_ros.files import written_whole

if TYPE_CHECKING:
    from superpoint_ros.demo.monitor import MonitorNode

PATIENCE = {'images': 30.0, 'features': 600.0, 'matches': 630.0, 'tracks': 630.0}
"""Seconds after the start by which the first of each must have arrived; some back ends prepare for minutes."""


def demo(
    source: str = PHOTOGRAPHS,
    seconds: float = 20.0,
    output: Path = Path('demo'),
    model: str = models.DEFAULT,
    backend: str = 'auto',
    rate: float = 30.0,
) -> None:
    """Run camera, detector and matcher as ROS nodes, show live what they do, leave a picture and a summary.

    Args:
        source: 'photographs' (a scene with known motion, which tells how many matches are right), the number of a
            webcam, a video file, a folder of images, or an image topic that already exists (/camera/image_raw).
        seconds: how long, from the first tracks on.
        output: folder for demo.png, summary.json and what the nodes print.
        model: name of a shipped model, or path of a .safetensors or .onnx file.
        backend: library that runs the network, as the detector's parameter `backend`.
        rate: images a second, unless they come from a topic.

    Raises:
        ImportError: ROS 2 or another package that this needs is not installed.
        FileNotFoundError: no such model or source.
        RuntimeError: a node failed, or nothing arrived; the message has the reason.
    """
    models.resolve(model)
    try:
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        from superpoint_ros.demo import monitor, picture, summary
    except ImportError as error:
        raise ImportError(f'the demo needs ROS 2 ({error}): source one, or pip install superpoint_ros[ros]') from error
    scene = Scene(photographs()) if source == PHOTOGRAPHS else None
    namespace = f'/superpoint_demo_{os.getpid()}'
    topic = source if _is_topic(source) else f'{namespace}/image'
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        'matcher': ('superpoint_ros.ros.matcher_node', {}),
        'detector': ('superpoint_ros.ros.detector_node', {'model': model, 'backend': backend}),
    }
    if topic != source:
        nodes['camera'] = ('superpoint_ros.demo.camera', {'source': source, 'rate': rate})
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'  # nobody else's graph need see this one
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        processes = []
        for name, (module, parameters) in nodes.items():
            arguments = ros_arguments(namespace, parameters, {'image': topic, '/diagnostics': 'diagnostics'})
            processes.append(stack.enter_context(started(name, module, arguments, output / f'{name}.log')))
        # SIGINT does not end the context: it ends the watching, and what was seen until then counts.
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        node = monitor.MonitorNode(namespace, topic, scene)
        stack.callback(node.destroy_node)
        watch(node, processes, seconds)
    frames = [frame for _, frame in sorted(node.frames.items())]
    result = summary.summarize(node.counts, node.facts, frames)
    with written_whole(output / 'summary.json') as path:
        path.write_text(json.dumps({'source': source, **result}, indent=2) + '\n')
    with written_whole(output / 'demo.png') as path:
        cv2.imwrite(str(path), picture.compose(frames, summary.caption(result)))
    print(f'{summary.text(result)}\nSee {output / "demo.png"} and {output / "summary.json"}.')


def ros_arguments(namespace: str, parameters: Mapping[str, Any], remappings: Mapping[str, str]) -> list[str]:
    """What goes behind --ros-args for a node with these parameters and remappings."""
    # JSON is YAML, and keeps the string "0" from becoming a number.
    given = [f'{name}:={json.dumps(value)}' for name, value in parameters.items()]
    remapped = [f'{name}:={to}' for name, to in {'__ns': namespace, **remappings}.items()]
    return [*(word for p in given for word in ('-p', p)), *(word for r in remapped for word in ('-r', r))]


def watch(node: MonitorNode, processes: Sequence[Process], seconds: float) -> None:
    """Let a graph run for some seconds, from its first tracks on, and show its figures; Ctrl-C ends it early.

    Raises:
        RuntimeError: a process ended, a node says that it cannot work, or nothing arrived.
        KeyboardInterrupt: Ctrl-C came before there was anything to show.
    """
    from rclpy.executors import SingleThreadedExecutor

    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    start, until, shown = time.monotonic(), float('inf'), 0.0
    with Live(console=Console(highlight=False), auto_refresh=False, transient=True) as live, interrupts() as interrupt:
        try:
            while (now := time.monotonic()) < until and not interrupt.is_set():
                executor.spin_once(timeout_sec=0.1)
                _check(node, processes, now - start)
                missing = node.missing()
                if not missing and until == float('inf'):
                    until = now + seconds
                if now > shown + 0.25:
                    shown = now
                    live.update(f'waiting for {missing} …' if missing else node.counts.line(), refresh=True)
        finally:
            executor.shutdown()
    if interrupt.is_set() and node.missing():
        raise KeyboardInterrupt


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Meanwhile Ctrl-C sets the event: a KeyboardInterrupt within rclpy's compiled code comes out as another error."""
    interrupt = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: interrupt.set())
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def _check(node: MonitorNode, processes: Sequence[Process], waited: float) -> None:
    for process in processes:
        if (code := process.popen.poll()) is not None:
            raise RuntimeError(f'the {process.name} ended with exit code {code}:\n{process.last_words()}')
    missing = node.missing()
    if missing and node.failure:
        raise RuntimeError(node.failure)
    if missing and waited > PATIENCE[missing]:
        logs = ', '.join(str(process.log) for process in processes)
        raise RuntimeError(f'no {missing} arrived for {waited:.0f} s; what the nodes say is in {logs}')


def _is_topic(source: str) -> bool:
    return source.startswith('/') and not Path(source).exists()
