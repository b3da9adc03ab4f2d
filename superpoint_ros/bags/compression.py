"""Decompresses what may be broken, or claim any size."""

from __future__ import annotations

import bz2
import sys
from pathlib import Path

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD = b'\x28\xb5\x2f\xfd'
"""First bytes of a file or message that is compressed as a whole."""

MAX_RECORD = 1 << 28
"""Maximum size of a record, chunk or message in bytes, compressed or not. Recorders write chunks of a few megabytes."""


def max_decompressed(size: int) -> int:
    """Maximum number of bytes to decompress from a file of this size: 1000 times as many, but at least 1 GiB."""
    return max(1 << 30, 1000 * size)


def decompress_file(path: Path, folder: Path, damage: list[str]) -> Path:
    """Decompress a file that is compressed as a whole, as far as possible, to a file in `folder`."""
    target = folder / path.stem
    left = max_decompressed(path.stat().st_size)
    try:
        with zstd.open(path, 'rb') as compressed, target.open('wb') as file:
            while piece := compressed.read(min(left, 1 << 20)):
                file.write(piece)
                left -= len(piece)
        if not left:
            damage.append(f'{path.name} decompresses to more than {target.stat().st_size} bytes; the rest is skipped')
    except (zstd.ZstdError, EOFError) as error:
        damage.append(f'{path.name} cannot be decompressed to its end: {error}')
    return target


def decompress(compression: str, data: bytes, size: int, step: int = 4096) -> tuple[bytes, str]:
    """Decompress as much as possible, but at most the expected `size` in bytes, and say why that is not everything.

    The compression is '', none, zstd, lz4 or bz2. `step` is the number of bytes to decompress at once: small ones lose
    less before a broken byte, large ones are faster.
    """
    if size > MAX_RECORD:
        return b'', f'claims to decompress to {size} bytes, more than {MAX_RECORD}, and is skipped'
    if compression in ('', 'none'):
        return data[:size], ''
    makers = {'zstd': zstd.ZstdDecompressor, 'lz4': lz4.frame.LZ4FrameDecompressor, 'bz2': bz2.BZ2Decompressor}
    if compression not in makers:
        return b'', f'has the unknown compression {compression!r:.100}; known: {", ".join(makers)}'
    decompressor, pieces, problem = makers[compression](), [], ''
    left = size + 1  # one more than expected, to notice that there is more
    try:
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            while left and not decompressor.eof:
                pieces.append(decompressor.decompress(piece, left))
                left -= len(pieces[-1])
                piece = b''
                if decompressor.needs_input or not pieces[-1]:
                    break
    except Exception as error:  # noqa: BLE001 - each library has its own
        problem = f'cannot be decompressed after byte {size + 1 - left} of {size}: {error}'
    if not left:
        pieces[-1], problem = pieces[-1][:-1], f'decompresses to more than {size} bytes; the rest is skipped'
    return b''.join(pieces), problem
