"""Files of models and of learned matchers with changed bytes, cut off, and of other contents."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from superpoint_ros import models
from superpoint_ros.features import Features
from superpoint_ros.learned_matching import LEARNED, resolve_matcher
from test.bags.conftest import picture
from test.fuzz.attacks import FaultError, Target, mutated
from test.fuzz.processes import isolated


def files() -> st.SearchStrategy[bytes]:
    """Strategy of a letter, m or M for a model's graph or weights and l or L for a matcher's, and a broken file."""
    found = {'m': models.resolve(models.DEFAULT), 'l': resolve_matcher(LEARNED)}
    paths = {name: model.file('graph') for name, model in found.items()}
    paths |= {name.upper(): model.file('weights') for name, model in found.items()}
    kinds = [(mutated([p.read_bytes()]) | st.binary()).map(name.encode().__add__) for name, p in paths.items()]
    return st.one_of(kinds)


def use(data: bytes, folder: Path) -> bool:
    """Extract features with the model, or match with the matcher, in a file."""
    from superpoint_ros.extractor import Extractor
    from superpoint_ros.learned_matching import LearnedMatcher

    kind = data[:1].decode()
    suffix, backend = ('.onnx', 'openvino') if kind.islower() else ('.safetensors', 'torch')
    path = folder / f'model{suffix}'
    path.write_bytes(data[1:])
    try:
        if kind in 'mM':
            Extractor(str(path), backend=backend, threads=1)(picture(0))
        else:
            eye = np.eye(9, 128, dtype=np.float32)
            features = Features(eye[:, :2], eye[:, 0], eye, (96, 64))
            LearnedMatcher(str(path), backend=backend, threads=1)(features, features)
    except (ValueError, OSError) as error:
        if str(path) not in str(error) or len(str(error)) > 1000:
            raise FaultError(f'the reason is not one sentence that names the file: {error}') from None
        return False
    return True


TARGETS = {'models': Target(st.deferred(files), partial(isolated, use))}
