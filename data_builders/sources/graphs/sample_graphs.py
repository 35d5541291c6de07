"""Graphs that need no download: one from networkx, and two generated ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ssl4rl_plugin.core.graph import RawGraph, Texts
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.graphs import GraphSource, SharedOptions
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.graph_file import raw_graph
from ssl4rl_plugin.data_builders.sources.graphs.networkx_files import from_networkx

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _GraphWithoutFiles(GraphSource):
    """A graph that needs no files."""

    schema: ClassVar[str] = "no files of yours"

    def __init__(self, path: str | Path | None = None, **options: Any) -> None:
        if path is not None:
            raise SourceError(f"source {self.name!r} takes no path, got {path}; for a graph of your own use 'graph'")
        super().__init__(None, **options)

    def files(self) -> Sequence[Path]:
        return ()


class LesMiserablesSource(_GraphWithoutFiles):
    """Characters of Victor Hugo's novel, linked if they appear together (D. E. Knuth, The Stanford GraphBase, 1993)."""

    name: ClassVar[str] = "les_miserables"
    summary: ClassVar[str] = "characters of Les Misérables who appear together: 77 nodes, 254 edges, from networkx"
    licence: ClassVar[str] = "networkx, BSD"
    where: ClassVar[str] = "pip install networkx"

    def graph(self) -> RawGraph:
        try:
            import networkx
        except ImportError as error:
            raise SourceError("source 'les_miserables' needs networkx: pip install 'ssl4rl-plugin[graph]'") from error
        return raw_graph(self.name, *from_networkx(networkx.les_miserables_graph(), self.name))


class FamiliesSource(_GraphWithoutFiles):
    """A generated knowledge graph: families over three generations, with places of residence and professions.

    Args:
        path: None.
        families: number of families, 2 to 500.
        seed: changes the people.
        shared: options of every graph source; see `GraphSource`.
    """

    name: ClassVar[str] = "families"
    summary: ClassVar[str] = "a generated knowledge graph of families: children, marriages, residence, professions"
    licence: ClassVar[str] = "made by this package"
    where: ClassVar[str] = "built in"

    def __init__(
        self,
        path: str | Path | None = None,
        families: int = 40,
        seed: int = 0,
        **shared: Unpack[SharedOptions],
    ) -> None:
        if isinstance(families, bool) or not isinstance(families, int) or not 2 <= families <= 500:
            raise SourceError(f"source 'families': families must be from 2 to 500, got {families!r}")
        super().__init__(path, families=families, seed=seed, **shared)

    def graph(self) -> RawGraph:
        rng = rng_for(self.options["seed"], "families")
        people: list[str] = []
        facts: list[tuple[int, int, int]] = []
        home: list[int] = []

        def born(surname: str, town: int) -> int:
            people.append(f"{_GIVEN[len(people) % len(_GIVEN)]} {surname}")
            home.append(town)
            return len(people) - 1

        youngest: list[list[int]] = []
        for number in range(self.options["families"]):
            town = rng.randrange(len(_TOWNS))
            couple = born(_surname(rng), town), born(_surname(rng), town)
            facts.append((*couple, 1))
            children = [born(people[couple[0]].split()[1], town) for _ in range(rng.randint(2, 4))]
            facts += [(child, parent, 0) for child in children for parent in couple]
            if number:  # one child marries into the previous family
                other = rng.choice(youngest[-1])
                grown = children[0]
                facts.append((grown, other, 1))
                home[grown] = home[other]
                grandchildren = [born(people[other].split()[1], home[other]) for _ in range(rng.randint(1, 3))]
                facts += [(child, parent, 0) for child in grandchildren for parent in (grown, other)]
            youngest.append(children[1:])
        count = len(people)
        facts += [(person, count + town, 2) for person, town in enumerate(home)]
        jobs = count + len(_TOWNS)
        facts += [(person, jobs + rng.randrange(len(_JOBS)), 3) for person in range(count)]
        edges = np.array(facts, np.int64)
        kinds = np.repeat(np.arange(3, dtype=np.int32), [count, len(_TOWNS), len(_JOBS)])
        return RawGraph(
            self.name, edges[:, 0], edges[:, 1], Texts.of([*people, *_TOWNS, *_JOBS]), directed=True,
            relations=edges[:, 2].astype(np.int32), relation_names=_RELATIONS,
            labels=kinds, label_names=("person", "town", "profession"),
        )  # fmt: skip


class CommunitiesSource(_GraphWithoutFiles):
    """A generated graph of groups. Most edges stay inside a group, and a node's text is made of its group's words.

    Args:
        path: None.
        nodes: number of nodes, 40 to 1,000,000.
        groups: number of groups, 2 to 12.
        links: edges that start at each node, 1 to 100.
        inside: share of the edges that stay inside a group, in [0, 1].
        words: words in each text, 1 to 50.
        vocabulary: words of each group, 1 to 12.
        seed: changes the graph.
        shared: options of every graph source; see `GraphSource`.
    """

    name: ClassVar[str] = "communities"
    summary: ClassVar[str] = "a generated graph of groups, each with its own words; most edges stay inside a group"
    licence: ClassVar[str] = "made by this package"
    where: ClassVar[str] = "built in"

    def __init__(
        self,
        path: str | Path | None = None,
        nodes: int = 600,
        groups: int = 4,
        links: int = 5,
        inside: float = 0.95,
        words: int = 3,
        vocabulary: int = 6,
        seed: int = 0,
        **shared: Unpack[SharedOptions],
    ) -> None:
        for name, value, low, high in (
            ("nodes", nodes, 40, 10**6), ("groups", groups, 2, len(_GROUPS)), ("links", links, 1, 100),
            ("inside", inside, 0, 1), ("words", words, 1, 50), ("vocabulary", vocabulary, 1, 12),
        ):  # fmt: skip
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise SourceError(f"source 'communities': {name} must be from {low} to {high}, got {value!r}")
        super().__init__(
            path, nodes=nodes, groups=groups, links=links, inside=inside, words=words, vocabulary=vocabulary, seed=seed,
            **shared,
        )  # fmt: skip

    def graph(self) -> RawGraph:
        nodes, groups, links = (self.options[key] for key in ("nodes", "groups", "links"))
        rng = rng_for(self.options["seed"], "communities")
        of = [rng.randrange(groups) for _ in range(nodes)]
        members: list[list[int]] = [[node for node in range(nodes) if of[node] == group] for group in range(groups)]
        ends = [
            (node, rng.choice(members[of[node]]) if rng.random() < self.options["inside"] else rng.randrange(nodes))
            for node in range(nodes)
            for _ in range(links)
        ]
        words = [_GROUPS[group][: self.options["vocabulary"]] for group in range(groups)]
        texts = [" ".join(rng.choice(words[group]) for _ in range(self.options["words"])) for group in of]
        edges = np.array(ends, np.int64)
        return RawGraph(
            self.name, edges[:, 0], edges[:, 1], Texts.of(texts), labels=np.array(of, np.int32),
            label_names=tuple(_NAMES[:groups]),
        )  # fmt: skip


def _surname(rng: random.Random) -> str:
    return (rng.choice(_HEADS) + rng.choice(_TAILS)).capitalize()


_RELATIONS = ("is a child of", "is married to", "lives in", "works as")
_GIVEN = (
    "Ada", "Bruno", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Klara", "Leo", "Mina", "Noah",
    "Olga", "Paul", "Rosa", "Simon", "Thea", "Viktor", "Wanda", "Xaver", "Yara", "Zeno", "Alma", "Boris", "Cleo",
)  # fmt: skip
_HEADS = ("berg", "feld", "stein", "wald", "lind", "rosen", "gold", "silber", "sommer", "winter", "ober", "nieder")
_TAILS = ("mann", "hof", "bach", "thal", "heim", "au", "dorf", "er", "ling", "horst", "brunn", "kamp")
_TOWNS = (
    "Ashford", "Brookvale", "Castlebar", "Dunmore", "Eastwick", "Fairhaven", "Glenrock", "Highfield", "Ironbridge",
    "Kingsport", "Lakewood", "Millbrook",
)  # fmt: skip
_JOBS = (
    "baker",
    "carpenter",
    "doctor",
    "engineer",
    "farmer",
    "gardener",
    "lawyer",
    "nurse",
    "painter",
    "sailor",
    "teacher",
)
_NAMES = (
    "animals", "music", "food", "weather", "ships", "numbers", "tools", "plants", "colours", "clothes", "games", "stones",
)  # fmt: skip
_GROUPS = (
    ("cat", "dog", "horse", "sheep", "goat", "wolf", "bear", "fox", "hare", "deer", "mole", "otter"),
    ("violin", "piano", "drum", "flute", "harp", "trumpet", "cello", "oboe", "organ", "lute", "horn", "viola"),
    ("bread", "cheese", "soup", "rice", "apple", "honey", "butter", "onion", "pepper", "salt", "egg", "bean"),
    ("rain", "snow", "wind", "storm", "cloud", "frost", "fog", "hail", "thunder", "sunshine", "breeze", "mist"),
    ("sail", "anchor", "mast", "rudder", "deck", "keel", "oar", "harbour", "cabin", "rope", "bow", "stern"),
    ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    ("hammer", "saw", "drill", "chisel", "wrench", "nail", "screw", "plane", "file", "clamp", "axe", "spade"),
    ("oak", "birch", "fern", "moss", "rose", "tulip", "ivy", "pine", "elm", "daisy", "clover", "reed"),
    ("red", "green", "blue", "yellow", "black", "white", "brown", "purple", "orange", "pink", "gray", "violet"),
    ("coat", "hat", "shoe", "glove", "scarf", "shirt", "belt", "sock", "skirt", "boot", "cap", "vest"),
    ("chess", "cards", "dice", "tennis", "golf", "hockey", "draughts", "bowls", "darts", "rugby", "polo", "squash"),
    ("granite", "marble", "slate", "chalk", "flint", "basalt", "quartz", "opal", "ruby", "jade", "amber", "topaz"),
)  # fmt: skip
