"""Decks: which of several sources each sample is drawn from.

A deck holds one card for each item of its sources together. Without weights, a source has as many cards as items, so an
epoch uses every item once, as if all were in one folder. With a weight for at least one source, a source's cards are in
proportion to its weight (1 if it has none), independent of its size. The cards are shuffled anew for each pass through the
deck. The k-th card of a source stands for the k-th item in the source's own order: no item of a source comes twice before
all others have come once.

The card at a position is a pure function of the seed and the position.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ssl4rl_plugin.core.seeding import rng_for


class Deck:
    """The cards of some sources.

    Args:
        sizes: number of items of each source, at least 1.
        weights: weight of each source; None for none.
        key: seed of the shuffles.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float | None], key: tuple[str | int, ...]) -> None:
        self.cards = cards_of(sizes, weights)
        """Number of cards of each source."""
        self._key = key

    def __len__(self) -> int:
        return sum(self.cards)

    def draw(self, position: int) -> tuple[int, int]:
        """The source at a position, and the number of cards of the same source before it."""
        if len(self.cards) == 1:
            return 0, position
        turn, place = divmod(position, len(self))
        sources, ranks = self._shuffled(turn)
        source = int(sources[place])
        return source, turn * self.cards[source] + int(ranks[place])

    @functools.lru_cache(maxsize=2)  # noqa: B019 -- the deck lives as long as its run
    def _shuffled(self, turn: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
        """For each place, its source and the number of earlier places with the same source."""
        order = np.repeat(np.arange(len(self.cards), dtype=np.uint16), self.cards).tolist()
        rng_for(*self._key, turn).shuffle(order)
        sources = np.array(order, dtype=np.uint16)
        ranks = np.empty(len(sources), dtype=np.int64)
        for source, cards in enumerate(self.cards):
            ranks[sources == source] = np.arange(cards)
        return sources, ranks


def cards_of(sizes: Sequence[int], weights: Sequence[float | None]) -> list[int]:
    """Number of cards of each source: its size, or its share of all cards by weight, rounded, and at least 1."""
    if all(weight is None for weight in weights):
        return list(sizes)
    shares = np.array([1.0 if weight is None else weight for weight in weights])
    wanted = shares / shares.sum() * sum(sizes)
    found = np.maximum(1, np.floor(wanted)).astype(np.int64)
    # The cards that rounding down left over go to the largest remainders, the first ones first.
    left = max(0, sum(sizes) - int(found.sum()))
    found[np.argsort(found - wanted, kind="stable")[:left]] += 1
    return [int(cards) for cards in found]
