"""Files of models with changed bytes, cut off, and of other contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from superpoint_ros import models
from test.bags.conftest import picture
from test.fuzz.processes import Isolated
from test.fuzz.runner import FaultError, draw, mutated

SECONDS, MEGABYTES = 120, 1500
SUFFIXES = {b'o': '.onnx', b's': '.safetensors'}


def attacks(seed: int) -> Iterator[bytes]:
    """A letter for the format, and the file."""
    model = models.resolve('unsuperpoint_lite')
    files = {b'o': model.file('graph').read_bytes(), b's': model.file('weights').read_bytes()}
    contents = {letter: mutated([data]) | st.binary() for letter, data in files.items()}
    return draw(st.sampled_from([*SUFFIXES]).flatmap(lambda k: contents[k].map(lambda data: k + data)), seed)


@contextmanager
def target(folder: Path) -> Iterator[Callable[[bytes], tuple[bool, float]]]:
    """A process that makes an Extractor of each file and extracts features."""
    with Isolated(extract, folder, SECONDS, MEGABYTES) as attack:
        yield attack


def extract(data: bytes, folder: Path) -> bool:
    """Extract features with the model in a file."""
    from superpoint_ros.extractor import Extractor

    path = folder / f'model{SUFFIXES[data[:1]]}'
    path.write_bytes(data[1:])
    try:
        backend = 'openvino' if path.suffix == '.onnx' else 'torch'
        Extractor(str(path), backend=backend, threads=1)(picture(0))
    except (ValueError, OSError) as error:
        if str(path) not in str(error) or len(str(error)) > 1000:
            raise FaultError(f'the reason is not one sentence that names the file: {error}') from None
        return False
    return True
