"""Where every random choice comes from.

The generator of a sample is seeded with a cryptographic hash of everything that identifies it. Neighbouring seeds,
splits or items therefore share nothing (`Random(seed + index)` would make seeds 0 and 1 share all samples but one),
and a sample does not depend on how many workers there are, or on which machine it is made.
"""

from __future__ import annotations

import hashlib
import json
import random


def digest(*key: str | int) -> bytes:
    """32 bytes that depend on every part of `key`, in order; `("a", "bc")` and `("ab", "c")` differ, as do 1 and "1"."""
    return hashlib.blake2b(json.dumps(key, ensure_ascii=True).encode(), digest_size=32).digest()


def rng_for(*key: str | int) -> random.Random:
    """A generator of its own for `key`, e.g. (seed, split, task, level, item id, draw number).

    Python's Mersenne Twister: its stream of `random()` is promised never to change, and what is built on it (shuffle,
    choices, ...) has not changed between the Python versions that the package supports.
    """
    return random.Random(int.from_bytes(digest(*key), "big"))


def unit_for(*key: str | int) -> float:
    """A number in [0, 1) that depends on `key` alone; for splits that stay put when items are added."""
    return int.from_bytes(digest(*key)[:7], "big") / 2**56
