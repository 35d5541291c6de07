"""What is true of a small graph: distances, shortest paths, parts, and in how many ways one graph is another.

Graphs are lists of neighbours by number (see `sampling.adjacency`), with a few dozen nodes at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Neighbours = Sequence[Sequence[int]]


def distances(graph: Neighbours, start: int) -> list[int]:
    """Steps from `start` to every node; -1 where none lead there."""
    found = [-1] * len(graph)
    found[start] = 0
    frontier = [start]
    while frontier:
        reached = []
        for node in frontier:
            for end in graph[node]:
                if found[end] < 0:
                    found[end] = found[node] + 1
                    reached.append(end)
        frontier = reached
    return found


def shortest_paths(graph: Neighbours, start: int, end: int, limit: int) -> list[tuple[int, ...]]:
    """The shortest paths between two nodes, in order; `limit` of them at most, none if they are not connected."""
    left = distances(graph, end)
    if left[start] < 0:
        return []
    paths: list[tuple[int, ...]] = [(start,)]
    for remaining in range(left[start] - 1, -1, -1):
        longer = ((*path, step) for path in paths for step in graph[path[-1]] if left[step] == remaining)
        paths = [path for path, _ in zip(longer, range(limit), strict=False)]
    return paths


def parts(graph: Neighbours) -> list[list[int]]:
    """The connected components, each in order, by their first nodes."""
    found: list[list[int]] = []
    seen: set[int] = set()
    for node in range(len(graph)):
        if node not in seen:
            found.append([other for other, steps in enumerate(distances(graph, node)) if steps >= 0])
            seen.update(found[-1])
    return found


def matches(one: Neighbours, other: Neighbours, limit: int) -> list[tuple[int, ...]]:
    """In which ways one graph is the other: entry a of a match is the node of `other` that is node a of `one`.

    At most `limit` matches; none if the graphs differ. A graph's matches with itself are its automorphisms.
    """
    ours, theirs = (_colours(graph) for graph in (one, other))
    if sorted(ours) != sorted(theirs):
        return []
    near = [set(ends) for ends in other]
    # The rarest nodes first: they leave the least to try.
    order = sorted(range(len(one)), key=lambda node: (ours.count(ours[node]), node))
    found: list[tuple[int, ...]] = []

    def extend(place: dict[int, int]) -> Iterator[tuple[int, ...]]:
        if len(place) == len(one):
            yield tuple(place[node] for node in range(len(one)))
            return
        node = order[len(place)]
        linked = {place[end] for end in one[node] if end in place}
        taken = set(place.values())
        for end in range(len(other)):
            if ours[node] == theirs[end] and end not in taken and near[end] & taken == linked:
                yield from extend({**place, node: end})

    for match in extend({}):
        found.append(match)
        if len(found) == limit:
            break
    return found


def _colours(graph: Neighbours) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """For each node how many nodes lie at each distance, and the degrees next to it: equal for nodes that match."""
    found = []
    for node in range(len(graph)):
        steps = distances(graph, node)
        far = tuple(steps.count(k) for k in range(-1, len(graph)))
        found.append((far, tuple(sorted(len(graph[end]) for end in graph[node]))))
    return found
