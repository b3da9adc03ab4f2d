"""The methods that are compared: our models and OpenCV's, behind one interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2

from superpoint_ros.config import option
from superpoint_ros.evaluation import baselines as opencv
from superpoint_ros.evaluation.baselines import Baseline, Extract
from superpoint_ros.evaluation.protocols import Setting
from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Features, Image
from superpoint_ros.learned_matching import LEARNED, MIN_PROBABILITY, NEAREST, make_matcher, resolve_matcher
from superpoint_ros.matching import MatchConfig, Matcher, match
from superpoint_ros.models import DEFAULT, check_distinct
from superpoint_ros.runtimes import RuntimeConfig

ALL_NEAREST: Matcher = partial(match, config=MatchConfig(min_similarity=-1.0))
"""All mutual nearest neighbors, however similar."""


@dataclass(frozen=True)
class Method:
    """A detector, or a detector and descriptor."""

    name: str
    about: str
    """Checksum and back end of the model, or version of the library."""
    at: Baseline
    """Makes, for a setting, the function from a gray image to its features."""
    detects: bool
    """It is compared as a detector."""
    describes: bool
    """It has descriptors."""


@dataclass(frozen=True)
class ModelsConfig:
    """Models to compare, and how they run."""

    models: tuple[str, ...] = option((DEFAULT,), 'Names of shipped models, or .safetensors or .onnx files.')
    backend: str = option('auto', 'Library that runs the models: auto, openvino, torch or tensorrt.')
    precision: str = option('auto', 'Precision of the convolutions: auto, fp32, tf32, bf16, fp16 or int8.')
    subpixel: bool = option(True, 'Refine the keypoints of the models to a fraction of a pixel.')
    octaves: int = option(1, 'Number of image sizes to extract from, each half the one before.', minimum=1, maximum=4)

    @property
    def options(self) -> dict[str, Any]:
        """The options of Extractor among these."""
        return {name: value for name, value in vars(self).items() if name != 'models'}


def methods(config: ModelsConfig, baselines: bool = True) -> list[Method]:
    """The methods to compare: models, and with `baselines` random keypoints and those of the installed OpenCV.

    Raises:
        ValueError: there is nothing to measure, or two models have the same name. Also what Extractor raises.
    """
    found = [_model(model, config) for model in config.models]
    if baselines:
        version = f'OpenCV {cv2.__version__}'
        found += [Method(name, version, at, True, False) for name, at in opencv.detectors().items()]
        found += [Method(name, version, at, False, True) for name, at in opencv.descriptors().items()]
    if not found:
        raise ValueError('nothing to measure: name at least one model, or leave the baselines on')
    check_distinct('models', [method.name for method in found])
    return found


def matchers(names: Sequence[str], config: ModelsConfig, min_similarity: float = MIN_PROBABILITY) -> dict[str, Matcher]:
    """Matchers by name.

    Args:
        names: 'nearest' for all mutual nearest neighbors, 'learned', or files, which get the name of their model.
        config: how they run.
        min_similarity: smallest probability of a match of learned matchers.

    Raises:
        ValueError: two files have the same name, or the probability is out of range. Also what LearnedMatcher raises.
    """
    runtime = RuntimeConfig(backend=config.backend, precision=config.precision)
    likely = MatchConfig(min_similarity=min_similarity)
    words = list(dict.fromkeys(names))
    named = [word if word in (NEAREST, LEARNED) else resolve_matcher(word).name for word in words]
    check_distinct('matcher', named)
    return {
        name: ALL_NEAREST if word == NEAREST else make_matcher(word, likely, runtime)
        for name, word in zip(named, words, strict=True)
    }


def combined(method: str, matcher: str) -> str:
    """The name of a method with a learned matcher; with nearest neighbors, its own name."""
    return method if matcher == NEAREST else f'{method}, {matcher}'


def _model(model: str, config: ModelsConfig) -> Method:
    extractor = Extractor(model, resize=0, **config.options)
    runtime = extractor.runtime

    def at(setting: Setting) -> Extract:
        decoding = {name: getattr(setting, name) for name in ('threshold', 'nms_radius', 'border')}
        config = replace(extractor.decode_config, max_keypoints=setting.candidates, **decoding)

        def extract(image: Image) -> Features:
            extractor.decode_config = config  # another setting may have been used last
            return extractor(image)

        return extract

    refined = 'refined' if config.subpixel else 'whole-pixel'
    about = f'sha256 {runtime.checksum[:12]}…, {runtime.name} {runtime.precision}, {refined} keypoints'
    return Method(extractor.model.name, about, at, True, runtime.descriptor_size > 0)
