"""Detector and matcher for the Python that RTAB-Map embeds; rtabmap/ has the scripts that RTAB-Map loads.

RTAB-Map calls init for each of its detectors and matchers, and calls them from several threads. It crashes on an error
whose message, or a line of code in its traceback, is not ASCII.

Source: corelib/src/python/{PyDetector,PyMatcher,PythonInterface}.cpp of github.com/introlab/rtabmap.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from superpoint_ros.extractor import Extractor
from superpoint_ros.features import Features, Floats
from superpoint_ros.learned_matching import NEAREST, make_matcher
from superpoint_ros.matching import MatchConfig, Matcher
from superpoint_ros.runtimes import RuntimeConfig

P = ParamSpec('P')
R = TypeVar('R')

LOCK = threading.Lock()
"""Networks run one at a time, and OpenVINO hangs when two threads load their first."""


def called_by_rtabmap(method: Callable[P, R]) -> Callable[P, R]:
    """Let threads take turns, and raise errors as RTAB-Map can print them: one line, all ASCII."""

    @functools.wraps(method)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            with LOCK:
                return method(*arguments, **options)
        except Exception as error:  # noqa: BLE001 (RTAB-Map logs it and goes on)
            raise RuntimeError(ascii(error)) from None

    return call


class Detector:
    """A detector for PyDetector/Path: a script with `init` and `detect` of an instance.

    Args:
        model: name of a shipped model, or path of a .safetensors or .onnx file.
        options: any option of Extractor; `backend` is used if PyDetector/Cuda is true, else it is openvino.
    """

    def __init__(self, model: str, **options: Any) -> None:
        self._load = functools.cache(lambda backend: Extractor(model, **{**options, 'backend': backend}))
        self._backend = options.get('backend', 'auto')
        self._extractor: Extractor | None = None

    @called_by_rtabmap
    def init(self, cuda: int) -> None:
        """Load the model, once for all detectors."""
        self._extractor = self._load(self._backend if cuda else 'openvino')

    @called_by_rtabmap
    def detect(self, image: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Extract the features of a gray image.

        Args:
            image: (H, W); its memory is RTAB-Map's.

        Returns:
            (N, 3) x, y and response, and (N, D) descriptors.
        """
        assert self._extractor is not None
        features = self._extractor(image)
        keypoints = np.column_stack([features.keypoints, features.scores])
        return np.ascontiguousarray(keypoints, np.float32), np.ascontiguousarray(features.descriptors, np.float32)


class PairMatcher:
    """A matcher for PyMatcher/Path: a script with `init` and `match` of an instance.

    Args:
        backend: of learned matchers if PyMatcher/Cuda is true, else it is openvino.
    """

    def __init__(self, backend: str = 'auto') -> None:
        self._backend = backend
        self._matcher: Matcher | None = None

    @called_by_rtabmap
    def init(self, descriptor_size: int, threshold: float, iterations: int, cuda: int, model: str) -> None:  # noqa: ARG002
        """Prepare a matcher.

        `threshold` is the smallest similarity, or probability for a learned matcher, which may run on a GPU if `cuda`
        is true. `model` is a name as in make_matcher, or RTAB-Map's default, which stands for nearest neighbors.
        """
        name = NEAREST if model in ('indoor', 'outdoor') else model
        runtime = RuntimeConfig(backend=self._backend if cuda else 'openvino')
        self._matcher = make_matcher(name, MatchConfig(min_similarity=threshold), runtime)

    @called_by_rtabmap
    def match(
        self,
        keypoints0: Floats,
        keypoints1: Floats,
        scores0: Floats,
        scores1: Floats,
        descriptors0: Floats,
        descriptors1: Floats,
        width: int,
        height: int,
    ) -> npt.NDArray[np.int32]:
        """Match the features of two images of one size.

        Returns:
            (M, 2) rows in the features of the two images; int32, because RTAB-Map reads uint64 twice.
        """
        assert self._matcher is not None
        features0 = Features(keypoints0, scores0, descriptors0, (width, height))
        features1 = Features(keypoints1, scores1, descriptors1, (width, height))
        return np.ascontiguousarray(self._matcher(features0, features1).indices, np.int32)
