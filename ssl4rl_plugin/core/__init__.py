"""The types that everything else uses: a Task turns an Item into a Sample, and scores the answers to it.

    Item    one raw, unlabelled thing from a source (an image, a video, a node of a graph)
    Task    generate(item, level, rng) -> Sample or Rejection;  score(answer, truth, level) -> Score
    Sample  what the model sees (question, images) and what it does not (truth, params)
    Score   how good an answer is

`core` imports nothing else of this package.

    items, graph, grader, task   the types
    errors                       the base class of all errors that a user can correct
    registry                     objects by name, from entry points
    seeding                      random generators, seeded by hashes
    files, processes             atomic writing; worker processes
    safe_path                    processes that import nothing from the current folder
    plain_yaml                   YAML that is checked before it is expanded
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
