"""Names of columns, and what the values of a column tell: which words name the ends of edges, relations, weights."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.tables import Column
from ssl4rl_plugin.data_builders.sources.graphs.text import NUMBER

STARTS = frozenset(("source", "src", "from", "head", "subject", "subj", "citing"))
"""Names of the column of starts, without words like id or node."""
ENDS = frozenset(("target", "tgt", "dst", "dest", "destination", "sink", "to", "tail", "object", "obj", "cited"))
"""Names of the column of ends."""
PAIRS = (
    ("start", "end"), ("origin", "destination"), ("sender", "receiver"), ("follower", "followee"), ("parent", "child"),
    ("left", "right"), ("row", "col"), ("row", "column"), ("u", "v"), ("i", "j"), ("a", "b"), ("x", "y"), ("h", "t"),
    ("s", "t"), ("s", "o"), ("1", "2"), ("0", "1"), ("v1", "v2"), ("n1", "n2"), ("one", "two"), ("first", "second"),
)  # fmt: skip
"""Less certain names of the two columns, in pairs."""
RELATIONS = frozenset(("relation", "rel", "relationship", "predicate", "pred", "property", "edgetype", "relationtype"))
"""Names of the column of relations."""
WEIGHTS = frozenset(
    ("weight", "weights", "w", "value", "score", "strength", "count", "rating", "similarity", "confidence")
)
"""Names of the column of weights."""
TIMES = frozenset(("time", "timestamp", "date", "ts", "unixts", "timeset", "year", "datetime"))
"""Names of the column of times."""
FILLERS = frozenset(
    ("id", "ids", "node", "nodes", "vertex", "entity", "name", "idx", "index", "key", "no", "number", "paper", "user",
     "person", "author", "item", "page", "article", "account", "protein", "gene", "interactor", "uri", "iri"),
)  # fmt: skip
"""Words that a name of a column may have beside the one that counts."""
PEOPLE = frozenset(("user", "customer", "author", "actor", "reviewer", "member", "reader", "client", "buyer", "kunde"))
"""Words for nodes that do something to `THINGS`: two kinds of nodes, whose numbers are not the same nodes."""
THINGS = frozenset(("item", "product", "movie", "film", "book", "paper", "song", "artist", "group", "venue", "produkt"))
"""See `PEOPLE`."""
DIRECTIONS = {"directed": True, "undirected": False, "mutual": False}
"""What Gephi writes into the column Type."""
ROLES = ("source", "target", "relation", "weight", "time", "-")
"""What a column may be, in the option `columns`."""
THIRDS = ("weight", "relation", "target")
"""What the third column may be, in the option `third`."""

DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d{4}/\d\d?/\d\d?|\d\d?[./]\d\d?[./]\d{4}")
"""A date, with a time or without."""
WHOLE = re.compile(r"(-?\d+)\.0+")
"""A whole number that is written like 1.0."""


def word(name: str) -> str:
    """The word of a column's name that counts: `source` for `Source_ID`, `from` for `FromNodeId`, `1` for `node1`."""
    apart = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name.strip("\"' #%:/\t"))
    parts = re.findall(r"[^\W\d_]+|\d+", apart.lower())
    return "".join([part for part in parts if part not in FILLERS] or parts)


def two_kinds(one: str, other: str) -> bool:
    """Whether the names of two columns tell of two kinds of nodes, like `user_id` and `item_id`."""
    first, second = ({*re.findall(r"[^\W\d_]+", name.lower())} for name in (one, other))
    return bool(first & PEOPLE and second & THINGS) or bool(first & THINGS and second & PEOPLE)


def ends_in(names: Sequence[str]) -> tuple[int, int] | None:
    """The columns of starts and ends by their names; None if no names fit. Raises SourceError if several pairs do."""
    words = [word(name) for name in names]
    starts = [k for k, found in enumerate(words) if found in STARTS]
    ends = [k for k, found in enumerate(words) if found in ENDS]
    if starts and ends:
        if len(starts) == len(ends) == 1:
            return starts[0], ends[0]
        exact = [[k for k in of if names[k].strip().lower() == words[k]] for of in (starts, ends)]
        if len(exact[0]) == len(exact[1]) == 1:
            return exact[0][0], exact[1][0]
        raise SourceError(
            f"columns {', '.join(names[k] for k in sorted({*starts, *ends}))} can all be ends of edges: say what each "
            "column is with the option columns, e.g. columns=[source,target,-,-]"
        )
    for one, other in PAIRS if names[0].strip() else ():  # a matrix has names like A and B after an empty one
        # Digits alone are numbers of nodes, not names of columns.
        if one in words and other in words and not names[words.index(one)].strip().isdigit():
            return words.index(one), words.index(other)
    return None


def is_header(fields: Sequence[str]) -> bool:
    """Whether fields are names of columns of edges, for certain: not a pair of letters, which can be nodes."""
    try:
        found = ends_in(fields)
    except SourceError:
        return True
    return found is not None and all(len(fields[k].strip()) > 1 for k in found)


def whole_numbers(names: list[str]) -> list[str] | None:
    """`1` for each `1.0`, if all names are written so (a column of numbers that once had gaps); else None."""
    if not names or not WHOLE.fullmatch(names[0]):
        return None
    found = [WHOLE.fullmatch(name) for name in names]
    if not all(found):
        return None
    shorter = [match[1] for match in found if match]
    return shorter if len(set(shorter)) == len(shorter) else None


def missing_words(column: Column) -> frozenset[str]:
    """Words for a missing value in a column of numbers, in lower case; in a column of text they can be names."""
    words = frozenset(("nan", "none", "null", "na", "<na>", "n/a"))
    others = [value for value in column.known if value.lower() not in words]
    return words if others and all(NUMBER.fullmatch(value) for value in others) else frozenset()
