"""`superpoint demo`."""

from __future__ import annotations

from pathlib import Path

from superpoint_ros import models
from superpoint_ros.learned_matching import NEAREST, resolve_matcher


def demo(
    source: str = 'photographs',
    seconds: float = 20.0,
    output: Path = Path('demo'),
    model: str = models.DEFAULT,
    matcher: str = NEAREST,
    backend: str = 'auto',
    rate: float = 0.0,
    view: bool = False,
) -> str:
    """Run camera, detector and matcher as ROS nodes, show live statistics, and save a picture and a summary.

    Args:
        source: number of a webcam, video file, folder of images, image topic that exists already, such as
            /camera/image_raw, or photographs: a camera that moves over photographs, so that wrong matches are known.
        seconds: duration, from the first tracks.
        output: folder for demo.png, summary.json and the logs of the nodes.
        model: name of a shipped model, or path of a .safetensors or .onnx file.
        matcher: nearest neighbors (nearest), the learned matcher of the default model (learned), or the name
            (lightglue_superpoint) or path of another learned matcher.
        backend: library that runs the networks: auto, openvino, torch or tensorrt.
        rate: images per second, unless they come from a topic; 0 for the rate of the source.
        view: show keypoints and tracks in a window until it is closed; needs a display and an OpenCV with windows.
    """
    models.resolve(model)
    if matcher != NEAREST:
        resolve_matcher(matcher)
    try:
        from superpoint_ros.demo.graph import run
    except ImportError as error:
        raise ImportError(f'the demo needs ROS 2 ({error}): source one, or pip install superpoint_ros[ros]') from error
    parameters = {'detector': {'model': model}, 'matcher': {'matcher': matcher}}
    given = {name: {**own, 'backend': backend} for name, own in parameters.items()}
    return run(source, seconds, output, given, rate, view)
