"""Random generators, seeded by hashes.

Each sample has its own generator, seeded with a cryptographic hash of everything that identifies the sample. So
neighbouring seeds, splits or items share nothing (with `Random(seed + index)`, seeds 0 and 1 would share all samples
but one), and a sample does not depend on the number of workers or on the machine.
"""

from __future__ import annotations

import hashlib
import json
import random


def digest(*key: str | int) -> bytes:
    """A 32-byte hash of all parts of `key`, in order. `("a", "bc")` and `("ab", "c")` differ, and so do 1 and "1"."""
    return hashlib.blake2b(json.dumps(key, ensure_ascii=True).encode(), digest_size=32).digest()


def rng_for(*key: str | int) -> random.Random:
    """A random generator seeded by the hash of `key`, e.g. (seed, split, task, level, item id, draw number).

    It is Python's Mersenne Twister. Python promises never to change its stream of `random()`. The methods on top of it
    (shuffle, choices, ...) are the same in all Python versions that the package supports.
    """
    return random.Random(int.from_bytes(digest(*key), "big"))


def unit_for(*key: str | int) -> float:
    """A number in [0, 1) that depends only on `key`, for splits that do not change when items are added."""
    return int.from_bytes(digest(*key)[:7], "big") / 2**56
