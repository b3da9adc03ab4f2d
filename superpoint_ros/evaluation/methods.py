"""What is compared: our models and OpenCV's methods behind one interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2

from superpoint_ros.evaluation import baselines as opencv
from superpoint_ros.evaluation.baselines import Baseline, Extract, Image
from superpoint_ros.evaluation.protocols import Setting
from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Features


@dataclass(frozen=True)
class Method:
    """A detector, or a detector and descriptor.

    Args:
        name: as it stands in the tables.
        about: what exactly it is: the model's checksum and what ran it, or the library's version.
        at: gives, for a setting, the function from a gray image to its features.
        detects: whether it is compared as a detector.
        describes: whether it has descriptors.
    """

    name: str
    about: str
    at: Baseline
    detects: bool
    describes: bool


def methods(
    models: Sequence[str] = ('superpoint',),
    baselines: bool = True,
    backend: str = 'auto',
    precision: str = 'auto',
    subpixel: bool = True,
) -> list[Method]:
    """Our models first, then everything that the installed OpenCV has.

    Args:
        models: shipped models' names, or .safetensors or .onnx files; may be empty.
        baselines: compare OpenCV's methods, and chance, in the same run.
        backend: library that runs the models: auto, openvino, torch, …
        precision: arithmetic of the models: auto, fp32, bf16, …
        subpixel: refine the models' keypoints to fractions of a pixel.

    Raises:
        ValueError: there is nothing to measure, or two models have one name. Also what Extractor raises.
    """
    found = [_model(model, backend, precision, subpixel) for model in models]
    if baselines:
        version = f'OpenCV {cv2.__version__}'
        found += [Method(name, version, at, True, False) for name, at in opencv.detectors().items()]
        found += [Method(name, version, at, False, True) for name, at in opencv.descriptors().items()]
    if not found:
        raise ValueError('nothing to measure: name at least one model, or leave the baselines on')
    names = [method.name for method in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f'models: {", ".join(twice)} is the name of more than one; rename a file')
    return found


def _model(model: str, backend: str, precision: str, subpixel: bool) -> Method:
    extractor = Extractor(model, resize=0, backend=backend, precision=precision, subpixel=subpixel)
    runtime = extractor.runtime

    def at(setting: Setting) -> Extract:
        def extract(image: Image) -> Features:
            extractor.configure(
                threshold=setting.threshold,
                max_keypoints=setting.candidates,
                nms_radius=setting.nms_radius,
                border=setting.border,
            )
            return extractor(image)

        return extract

    refined = 'refined' if subpixel else 'whole-pixel'
    about = f'sha256 {runtime.checksum[:12]}…, {runtime.name} {runtime.precision}, {refined} keypoints'
    return Method(extractor.model.name, about, at, True, runtime.descriptor_size > 0)
