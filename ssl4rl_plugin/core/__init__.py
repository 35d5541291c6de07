"""The ideas that everything else is built on: an Item goes into a Task, a Sample comes out, a Score judges the answer.

    Item    one raw, unlabelled thing from a source (an image, a video, a node of a graph)
    Task    generate(item, level, rng) -> Sample or Rejection;  score(answer, truth, level) -> Score
    Sample  what the model sees (question, images) and what it does not (truth, params)
    Score   what an answer is worth

The ground floor: it imports nothing else of this package.

    items, graph, grader, task   the types
    errors                       the base of all errors that a user can put right
    registry                     names to things, from entry points
    seeding                      random generators from hashes
    files, processes             writing without half-written files; work in several processes
    spans                        finding answers in running text
"""

from ssl4rl_plugin.core.grader import Grader, Score, grade
from ssl4rl_plugin.core.graph import GraphNode
from ssl4rl_plugin.core.items import KINDS, RGBD, Clip, Item
from ssl4rl_plugin.core.task import AnyLevel, Level, Rejection, Sample, Task, pieces

__all__ = [
    "KINDS", "RGBD", "AnyLevel", "Clip", "Grader", "GraphNode", "Item", "Level", "Rejection", "Sample", "Score", "Task",
    "grade", "pieces",
]  # fmt: skip
