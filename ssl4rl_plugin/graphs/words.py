"""Describe a piece of a graph in text: nodes numbered at random, edges in random order, texts cut to a number of tokens.

edges       1-4, 2-4                                       1-cites->4
sentences   Node 1 is linked to nodes 4 and 6.             1 cites 4.
json        {"edges": [[1, 4], [2, 4]]}                    {"edges": [[1, "cites", 4]]}
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core import AnyLevel
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.graph import TextGraph
from ssl4rl_plugin.core.hub import ask_hub

NOTATIONS = ("edges", "sentences", "json")
NO_TEXT = "(no text)"
"""What prompts show for an empty text."""
BYTES_PER_TOKEN = 16
"""Bytes of a text that are read for each token that may be shown."""

_WORD = re.compile(r"\S+")
_MARKS = re.compile(r"<(?:image|video)>|<\||\|>|</?(?:answer|think)>")
"""Parts of a node's text that must not get into a prompt: image marks, special tokens, answer tags."""


@dataclass(frozen=True)
class GraphLevel(AnyLevel):
    """Base of the levels of all graph tasks. A task's own level adds fields."""

    nodes: int = 10
    """Number of nodes shown, or the largest number; it depends on the task."""
    notation: str = "any"
    """How edges are written: `edges`, `sentences`, `json`, or `any` of them, drawn for each sample."""
    tokens: int = 24
    """Most tokens of a node's text; 0 shows no texts."""
    budget: int = 640
    """Most tokens of all texts in a prompt, divided equally between them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.nodes <= 60:
            raise ValueError(f"nodes must be in 2..60, got {self.nodes}")
        if self.notation not in (*NOTATIONS, "any"):
            raise ValueError(f"notation must be one of {', '.join(NOTATIONS)} or any, got {self.notation!r}")
        if not (0 <= self.tokens <= self.budget <= 8192):
            raise ValueError(f"expected 0 <= tokens <= budget <= 8192, got {self.tokens} and {self.budget}")

    def share(self, texts: int) -> int:
        """Most tokens of each text if a prompt has `texts` of them."""
        return min(self.tokens, self.budget // max(1, texts))


def tokens_in(word: str) -> int:
    """Estimated tokens of a word if no tokenizer is given: one for each four bytes, rounded up.

    This overestimates for English, where tokens of large models are longer. Letters of other scripts count by their bytes.
    """
    return (len(word.encode()) + 3) // 4


def plain(text: str) -> str:
    """A text on one line, without image marks, special tokens and answer tags."""
    return " ".join(_MARKS.sub(" ", text).split())


def cut(graph: TextGraph, node: int, tokens: int) -> str:
    """A node's text, cut after the last word that fits into `tokens`; `...` marks a cut. Does not read the whole text."""
    limit = tokens * BYTES_PER_TOKEN
    text = plain(graph.texts.start(node, limit))
    whole = int(graph.texts.offsets[node + 1] - graph.texts.offsets[node]) <= limit
    if graph.tokenizer is not None:
        ends = _token_ends(graph.tokenizer, text)
        kept = text if len(ends) <= tokens else text[: ends[tokens - 1]] if tokens else ""
        if len(kept) < len(text) and not text[len(kept) :].startswith(" "):
            kept = kept.rpartition(" ")[0] or kept
    else:
        spent, end = 0, 0
        for word in _WORD.finditer(text):
            spent += tokens_in(word[0])
            if spent > tokens:
                if not end:  # the first word alone has more than `tokens`
                    end = len(word[0].encode()[: 4 * tokens].decode("utf-8", "ignore"))
                break
            end = word.end()
        kept = text[:end]
    if not kept:
        return NO_TEXT
    return kept if whole and len(kept) == len(text) else f"{kept} ..."


def _token_ends(tokenizer: str, text: str) -> list[int]:
    """The end of each token of a text, in characters."""
    offsets = load_tokenizer(tokenizer)(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [end for _, end in offsets]


@lru_cache(maxsize=4)
def load_tokenizer(name: str) -> Any:
    """The fast tokenizer of a model, by hub name or folder. Raises UserError if it cannot be had, or is no fast one."""
    from transformers import AutoTokenizer

    folder = Path(name).expanduser()
    try:
        found = AutoTokenizer.from_pretrained(folder if folder.is_dir() else name, local_files_only=True)
    except (OSError, ValueError) as error:
        found = None if folder.is_dir() else _from_hub(name)
        if found is None:
            raise UserError(f"no tokenizer in {name}: {str(error).splitlines()[0]}") from error
    if not found.is_fast:
        raise UserError(f"tokenizer {name!r} has no fast version, which is needed for the positions of tokens")
    return found


def _from_hub(name: str) -> Any:
    """A tokenizer that is not on this machine. Raises UserError after one question if the hub does not answer."""
    from transformers import AutoTokenizer

    answer = ask_hub(name)
    if answer.offline or answer.error:
        why = "HF_HUB_OFFLINE forbids the download" if answer.offline else f"the hub cannot be reached ({answer.error})"
        raise UserError(
            f"the tokenizer of {name} is not on this machine, and {why}: download it on a machine with a network "
            f"(hf download {name}), or give a local folder"
        )
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"the tokenizer of {name} cannot be loaded: {str(error).splitlines()[0]}") from error


def numbered(count: int, rng: random.Random) -> list[int]:
    """A random permutation of 1 to `count`, the numbers of the nodes in a prompt: a number carries no information."""
    return rng.sample(range(1, count + 1), count)


def notation(level: GraphLevel, rng: random.Random) -> str:
    """The level's notation; a random one for `any`."""
    drawn = rng.choice(NOTATIONS)
    return drawn if level.notation == "any" else level.notation


def graph_text(
    edges: Sequence[tuple[int, int, int]],
    names: Sequence[int | str],
    how: str,
    rng: random.Random,
    graph: TextGraph | None = None,
    texts: Sequence[str] = (),
) -> str:
    """Describe a piece of a graph.

    Args:
        edges: (start, end, relation) of each edge; the ends are positions in `names`.
        names: name of each node.
        how: one of `NOTATIONS`.
        rng: shuffles the edges, and the ends of undirected edges.
        graph: tells whether edges are directed, and names the relations; None for undirected edges without relations.
        texts: text of each node; empty to leave texts out.
    """
    directed, relations = (graph.directed, graph.relation_names) if graph else (False, ())
    links = []
    for a, b, kind in rng.sample(edges, len(edges)):
        ends = (names[a], names[b])
        if not directed and rng.random() < 0.5:
            ends = ends[::-1]
        links.append((*ends, plain(relations[kind]) if relations else ""))
    order = sorted(range(len(names)), key=lambda place: names[place])
    if how == "json":
        named = {"nodes": {str(names[place]): texts[place] for place in order}} if texts else {}
        return json.dumps({**named, "edges": [[a, r, b] if r else [a, b] for a, b, r in links]}, ensure_ascii=False)
    lines = [f"{names[place]}: {texts[place]}" for place in order] if texts else []
    if how == "sentences":
        told = [f"{a} {r} {b}." for a, b, r in links] if relations else _sentences(links, [*names], directed, rng)
        return "\n".join([*lines, " ".join(told) or "There are no edges."])
    arrow = "->" if directed else "-"
    return "\n".join(
        [*lines, "Edges: " + (", ".join(f"{a}-{r}->{b}" if r else f"{a}{arrow}{b}" for a, b, r in links) or "none")]
    )


def _sentences(
    links: Sequence[tuple[int | str, int | str, str]], names: list[int | str], directed: bool, rng: random.Random
) -> list[str]:
    """One sentence for each node, which lists the nodes that it is linked to or points to."""
    ends: dict[int | str, list[str]] = {name: [] for name in names}
    for a, b, _ in links:
        ends[a].append(str(b))
        if not directed:
            ends[b].append(str(a))
    told = []
    for name in rng.sample(names, len(names)):
        *more, last = ends[name] or [""]
        others = f"nodes {', '.join(more)} and {last}" if more else f"node {last}" if last else "no node"
        if last or not directed:
            told.append(f"Node {name} {'points to' if directed else 'is linked to'} {others}.")
    return told


def opening(graph: TextGraph, count: int) -> str:
    """First sentence of a prompt about a graph of `count` nodes."""
    return f"A {'directed graph' if graph.directed else 'graph'} has {count} nodes, numbered 1 to {count}."
