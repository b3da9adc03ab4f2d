"""What an attack is, and the random changes of byte strings that most attacks are made of."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

NUMBERS = [0, 1, 255, 4096, 2**16, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]
HINTS = [b'', b'op=', b'size=', b'index_pos=', b'chunk_count=', b'\x05', b'\x06', b'zstd', b'_msgs', b': ']
"""What often precedes a length or an index in a file."""

Attack = Callable[[bytes], tuple[bool, float]]
"""Tries an attack; returns whether it was processed (True) or refused (False), and the memory in MB that this took.
Anything else is a FaultError."""


class FaultError(Exception):
    """An attack did what bad input must not do."""


class Target(NamedTuple):
    """What is attacked, and how."""

    attacks: st.SearchStrategy[bytes]
    """Messages, files or other inputs as bytes, so that each can be saved and replayed."""
    start: Callable[[Path], AbstractContextManager[Attack]]
    """Starts the target with a folder for its files, and gives the function that tries an attack."""


def mutated(originals: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Strategy of byte strings with up to four changes."""

    def change(data: bytes, seed: int, changes: int) -> bytes:
        rng = random.Random(seed)
        for _ in range(changes):
            data = mutate(data, rng)
        return data

    return st.builds(change, st.sampled_from(originals), st.integers(0, 2**32), st.integers(0, 4))


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change a byte string at one place: other numbers, or bytes that are cut, inserted, repeated or replaced."""
    at, other = _position(data, rng), _position(data, rng)
    length = rng.choice([1, 4, 8, 64, 1000, len(data)])
    piece = data[at : at + length]
    number = struct.pack('<Q', rng.choice(NUMBERS))[: rng.choice([1, 2, 4, 8])]
    flipped = bytes(byte ^ 1 << rng.randrange(8) for byte in piece[:1])
    if rng.random() < 0.4:
        new = rng.choice([number, number, number, flipped])
        return data[:at] + new + data[at + len(new) :]
    random_bytes = rng.randbytes(min(length, 1000))
    new = rng.choice([b'', number, bytes(length), random_bytes, piece * 2, piece[:1000] * 100, data[other:][:length]])
    return data[:at] + new + data[at + rng.choice([0, length]) :]


def _position(data: bytes, rng: random.Random) -> int:
    """A position anywhere, near the start or the end, or behind one of the hints."""
    hint = rng.choice(HINTS)
    found = [match.end() for match in re.finditer(re.escape(hint), data)] if hint else []
    if found:
        position = rng.choice(found) + rng.randrange(12)
    else:
        position = rng.choice([rng.randint(0, len(data)), len(data) - rng.randrange(400), rng.randrange(200)])
    return min(max(position, 0), len(data))
