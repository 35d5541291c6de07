"""Properties of small graphs: distances, shortest paths, connected components, isomorphisms.

A graph is a list of the neighbours of each node (see `sampling.adjacency`), with a few dozen nodes at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Neighbours = Sequence[Sequence[int]]


def distances(graph: Neighbours, start: int) -> list[int]:
    """Distance from `start` to each node in edges; -1 if there is no path."""
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
    """The shortest paths between two nodes, sorted; at most `limit`, none if the nodes are not connected."""
    left = distances(graph, end)
    if left[start] < 0:
        return []
    paths: list[tuple[int, ...]] = [(start,)]
    for remaining in range(left[start] - 1, -1, -1):
        longer = ((*path, step) for path in paths for step in graph[path[-1]] if left[step] == remaining)
        paths = [path for path, _ in zip(longer, range(limit), strict=False)]
    return paths


def parts(graph: Neighbours) -> list[list[int]]:
    """The connected components, each sorted, in order of their first nodes."""
    found: list[list[int]] = []
    seen: set[int] = set()
    for node in range(len(graph)):
        if node not in seen:
            found.append([other for other, steps in enumerate(distances(graph, node)) if steps >= 0])
            seen.update(found[-1])
    return found


def matches(one: Neighbours, other: Neighbours, limit: int) -> list[tuple[int, ...]]:
    """The isomorphisms from one graph to another: entry a is the node of `other` that node a of `one` maps to.

    Returns at most `limit`; none if the graphs differ. The isomorphisms from a graph to itself are its automorphisms.
    """
    ours, theirs = (_colours(graph) for graph in (one, other))
    if sorted(ours) != sorted(theirs):
        return []
    near = [set(ends) for ends in other]
    # Start with the rarest colours: they leave the fewest choices.
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
    """For each node, the number of nodes at each distance, and its neighbours' degrees. Isomorphisms preserve both."""
    found = []
    for node in range(len(graph)):
        steps = distances(graph, node)
        far = tuple(steps.count(k) for k in range(-1, len(graph)))
        found.append((far, tuple(sorted(len(graph[end]) for end in graph[node]))))
    return found
