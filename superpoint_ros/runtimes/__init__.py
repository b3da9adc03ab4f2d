"""Back ends: each runs networks on a device.

Their libraries are imported when a back end is chosen; there is no silent fallback to another one.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from superpoint_ros.config import check, option
from superpoint_ros.decode import Heads
from superpoint_ros.models import Model
from superpoint_ros.networks.lightglue_config import LightGlueConfig

logger = logging.getLogger(__name__)

ON_JETSON = 'on a Jetson it comes with JetPack, see docs/jetson.md'


class Backend(NamedTuple):
    """Where the code of a back end is, and what it needs.

    Args:
        module: module with the functions `load` and `load_matcher` of this package.
        libraries: modules that must be installed.
        extra: extra of this package that installs them.
        note: more about their installation.
    """

    module: str
    libraries: tuple[str, ...]
    extra: str
    note: str = ''


TABLE = {
    'openvino': Backend('superpoint_ros.runtimes.openvino', ('openvino',), 'cpu'),
    'torch': Backend('superpoint_ros.runtimes.pytorch', ('torch',), 'train'),
    'tensorrt': Backend('superpoint_ros.runtimes.tensorrt', ('tensorrt', 'cuda.bindings', 'onnx'), 'gpu', ON_JETSON),
}

OLDEST = {'tensorrt': (10, 0)}
"""Oldest supported versions. JetPack 6.1 has TensorRT 10.3."""

PRECISIONS = ('auto', 'fp32', 'tf32', 'bf16', 'fp16', 'int8')


@dataclass(frozen=True)
class RuntimeConfig:
    """The back end that runs the network, and its options."""

    backend: str = option(
        'auto',
        'Library that runs the network; auto is torch if it finds a CUDA GPU, else OpenVINO.',
        choices=('auto', *TABLE),
    )
    device: str = option('', 'Device, as the back end names it (cuda:0, cpu, GPU); empty for its default.')
    precision: str = option(
        'auto', 'Precision of the convolutions; auto is what the device computes fastest.', choices=PRECISIONS
    )
    threads: int = option(0, "CPU threads of the network; 0 for the back end's default.", minimum=0, maximum=1024)
    pinning: bool = option(True, 'Bind the threads to cores (OpenVINO); false if other programs need the same cores.')
    performance: str = option(
        'latency',
        'Use of the threads (OpenVINO): latency, all on one image; throughput, several images of a batch at once.',
        choices=('latency', 'throughput'),
    )
    engine_sizes: tuple[str, ...] = option(
        (),
        'Image sizes WIDTHxHEIGHT at the network for which TensorRT engines are built at startup; smaller images are '
        'padded. Empty to build an engine for each size when its first image arrives.',
    )
    engine_batch: int = option(
        1, 'Batch size of TensorRT engines, such as the number of cameras.', minimum=1, maximum=256
    )

    def __post_init__(self) -> None:
        check(self)
        for size in self.engine_sizes:
            if not re.fullmatch(r'[1-9]\d{1,3}x[1-9]\d{1,3}', size):
                raise ValueError(f'engine_sizes: expected WIDTHxHEIGHT as 640x480, got {size!r}')


@dataclass(frozen=True)
class Watch:
    """Reports the progress of building a TensorRT engine, which takes minutes, and can cancel it."""

    report: Callable[[str, float], None] = lambda what, fraction: None  # noqa: ARG005
    """Called from any thread with what is being done and the finished fraction (0 to 1)."""
    cancel: threading.Event = field(default_factory=threading.Event)
    """Set it to cancel the build."""


Arrays = Mapping[str, npt.NDArray[Any]]
"""Inputs or outputs of a network, by name."""

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of inputs, by name, without a batch axis."""


class Network(Protocol):
    """A network on a device: named arrays in, named arrays out. Not thread-safe: one call at a time."""

    device: str
    """Name of the hardware, such as 'AMD EPYC' or 'NVIDIA H200'."""
    precision: str
    """Precision in use: fp32, tf32, bf16, fp16 or int8."""

    def keep(self, shapes: int) -> None:
        """Keep the networks of at least this many different shapes in memory; call it before the first use."""
        ...

    def __call__(self, items: Sequence[Arrays]) -> Iterator[Arrays]:
        """Run the network on each of some items, whose inputs have the same shapes and no batch axis.

        Networks are compiled for the shapes of their inputs; callers should use few different ones.

        Yields:
            The outputs of each item, in order, without a batch axis. They are valid until the next are requested.
        """
        ...


@dataclass(frozen=True)
class Runtime:
    """An image network on a back end: gray images in, heads out. Not thread-safe: one call at a time."""

    name: str
    network: Network
    """Takes `image` (1, H, W) uint8 and returns the heads that superpoint_ros.decode takes."""
    descriptor_size: int
    """Length D of a descriptor; 0 if the network has none."""
    checksum: str
    """SHA-256 of the model's .safetensors file, also if a graph made from it is run."""
    sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) of the images that the network takes, if it does not take all; others are padded to the next
    larger one."""

    @property
    def device(self) -> str:
        """Name of the hardware."""
        return self.network.device

    @property
    def precision(self) -> str:
        """Precision in use: fp32, tf32, bf16, fp16 or int8."""
        return self.network.precision

    def __call__(self, images: Sequence[npt.NDArray[np.uint8]]) -> Iterator[Heads]:
        """Run the network on gray images (H, W), all of one size, H and W multiples of 8.

        Yields:
            The heads of each image, in order, possibly for an image that is padded at the right and at the bottom. They
            are valid until the next are requested.

        Raises:
            ValueError: the images are larger than the network takes.
        """
        if self.sizes:
            images = self._padded(images)
        return self.network([{'image': image[None]} for image in images])

    def _padded(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
        """Pad images to the smallest of the sizes that is large enough."""
        height, width = images[0].shape
        fitting = [size for size in self.sizes if size[0] >= width and size[1] >= height]
        if not fitting:
            available = ', '.join(f'{w}x{h}' for w, h in self.sizes)
            raise ValueError(
                f'images reach the network at {width}x{height}, larger than engine_sizes ({available}); add a larger '
                'size, or lower resize'
            )
        columns, rows = min(fitting, key=math.prod)
        return [np.pad(image, ((0, rows - height), (0, columns - width)), mode='edge') for image in images]


@dataclass(frozen=True)
class MatcherRuntime:
    """A matcher network on a back end. Not thread-safe: one call at a time."""

    name: str
    network: Network
    """Takes the arrays of superpoint_ros.learned_matching.pair_inputs, returns `log_assignment` (N, N)."""
    config: LightGlueConfig
    """Of the network; without `scores` in it, there is no such input."""


def load(model: Model, config: RuntimeConfig, watch: Watch | None = None) -> Runtime:
    """Load a model on the back end that the configuration names; a watch follows long preparations.

    Raises:
        ImportError: the back end's library is not installed or does not load; the message says how to install it.
        FileNotFoundError: the model has no file for this back end.
        ValueError: the model's file is broken or not of a known network, or an option is not supported.
    """
    runtime: Runtime = _module(config).load(model, config, watch or Watch())
    return runtime


def load_matcher(model: Model, config: RuntimeConfig, watch: Watch | None = None) -> MatcherRuntime:
    """Load a matcher on the back end that the configuration names; otherwise as `load`."""
    if config.precision == 'int8':
        raise ValueError('precision int8: not supported for matchers; use auto')
    runtime: MatcherRuntime = _module(config).load_matcher(model, config, watch or Watch())
    return runtime


def _module(config: RuntimeConfig) -> Any:
    backend = config.backend
    if backend == 'auto':
        backend, why = _choose()
        logger.info('back end: %s (%s)', backend, why)
    require(backend)
    return importlib.import_module(TABLE[backend].module)


def require(backend: str) -> None:
    """Check that the libraries of a back end are installed and new enough.

    Raises:
        ImportError: one is not installed, too old, or does not load; the message says how to install it.
    """
    _, libraries, extra, note = TABLE[backend]
    for library in libraries:
        try:
            version = getattr(importlib.import_module(library), '__version__', '')
        except (ImportError, OSError) as error:  # OSError: a shared library is missing or broken
            advice = '; '.join(filter(None, (f'pip install superpoint_ros[{extra}]', note)))
            raise ImportError(f'back end {backend} needs {library}, which does not load ({error}); {advice}') from error
        oldest = OLDEST.get(library, ())
        if tuple(int(part) for part in re.findall(r'\d+', version)[:2]) < oldest:
            wanted = '.'.join(map(str, oldest))
            raise ImportError(f'back end {backend} needs {library} {wanted} or newer, found {version}')


def _choose() -> tuple[str, str]:
    if importlib.util.find_spec('torch') is None:
        return 'openvino', 'torch is not installed'
    try:
        import torch
    except (ImportError, OSError) as error:
        return 'openvino', f'torch does not load: {error}'
    if torch.cuda.is_available():
        note = '; tensorrt is also installed' if importlib.util.find_spec('tensorrt') else ''
        return 'torch', f'torch finds {torch.cuda.get_device_name()}{note}'
    return 'openvino', 'torch finds no CUDA GPU'
