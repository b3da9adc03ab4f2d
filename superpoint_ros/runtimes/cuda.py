"""What TensorRT needs of CUDA, through cuda-python: a device, a stream, and memory for inputs and outputs."""

from __future__ import annotations

import ctypes
import math
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import runtime as cudart


@dataclass(frozen=True)
class Device:
    """A GPU."""

    index: int
    name: str
    capability: str
    """Compute capability, such as 8.7."""
    multiprocessors: int


def find_device(name: str) -> Device:
    """The GPU with this name: cuda, cuda:0, cuda:1, …; empty for the first.

    Raises:
        ValueError: CUDA finds no such GPU; the message says why.
    """
    match = re.fullmatch(r'(?:cuda(?::(\d+))?)?', name)
    if not match:
        raise ValueError(f'device {name!r}: expected cuda, or cuda:0, cuda:1, …')
    index = int(match[1] or 0)
    try:
        count = check(cudart.cudaGetDeviceCount())
    except RuntimeError as error:
        raise ValueError(f'device {name or "cuda"}: no NVIDIA GPU can be used ({error})') from error
    if index >= count:
        raise ValueError(f'device {name}: CUDA finds {count} GPUs')
    found = check(cudart.cudaGetDeviceProperties(index))
    return Device(index, found.name.decode(), f'{found.major}.{found.minor}', found.multiProcessorCount)


def use(device: Device) -> None:
    """Select the GPU for all calls of this thread."""
    check(cudart.cudaSetDevice(device.index))


def driver_version() -> int:
    """The CUDA version of the driver: 12060 is 12.6."""
    return int(check(cudart.cudaDriverGetVersion()))


def check(result: tuple[Any, ...]) -> Any:
    """Return the value of a CUDA call without its error code.

    Raises:
        MemoryError: the GPU is out of memory.
        RuntimeError: any other error.
    """
    error, *values = result
    if error == cudart.cudaError_t.cudaErrorMemoryAllocation:
        raise MemoryError('the GPU is out of memory')
    if error != cudart.cudaError_t.cudaSuccess:
        raise RuntimeError(f'CUDA error {error.name}')
    return values[0] if values else None


class Stream:
    """A CUDA stream; not the default one, on which TensorRT synchronizes the whole device."""

    def __init__(self) -> None:
        self.handle = check(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))
        _finally(self, cudart.cudaStreamDestroy, self.handle)

    def synchronize(self) -> None:
        """Wait until everything on the stream is done."""
        check(cudart.cudaStreamSynchronize(self.handle))


class Buffer:
    """Memory on the GPU, and pinned memory of the same size on the host."""

    device: int
    """Address on the GPU."""
    host: npt.NDArray[Any]

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self.device = check(cudart.cudaMalloc(size))
        _finally(self, cudart.cudaFree, self.device)
        address = check(cudart.cudaMallocHost(size))
        memory: Any = (ctypes.c_byte * size).from_address(address)
        _finally(memory, cudart.cudaFreeHost, address)  # views of it may outlive the buffer
        self.host = np.frombuffer(memory, dtype).reshape(shape)

    def upload(self, count: int, stream: Stream) -> None:
        """Start copying the first `count` rows from the host to the GPU."""
        rows = self.host[:count]
        copy = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        check(cudart.cudaMemcpyAsync(self.device, rows.ctypes.data, rows.nbytes, copy, stream.handle))

    def download(self, count: int, stream: Stream) -> None:
        """Start copying the first `count` rows from the GPU to the host."""
        rows = self.host[:count]
        copy = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        check(cudart.cudaMemcpyAsync(rows.ctypes.data, self.device, rows.nbytes, copy, stream.handle))


def _finally(owner: object, release: Callable[[Any], Any], resource: Any) -> None:
    """Release a resource with its owner, but not when the process exits: TensorRT may still use it then."""
    weakref.finalize(owner, release, resource).atexit = False
