"""Graders: how the text of an answer becomes a value, and how close that value is to the truth.

A task picks one of these and says no more about scoring:

    Choice       one of a few labels                  right or wrong
    Words        words or a number, written freely    right or wrong
    Angle        degrees                              circular distance
    Permutation  the order of jigsaw tiles            places and neighbours
    Ordering     an order along a scale               Kendall's tau
    LabelSet     k of m labels                        F1
    Counts       a few small numbers                  relative error
    Interval     first and last frame                 intersection over union
    Box          a box in a picture                   intersection over union
    Sequences    labels in order, several are right   right or wrong
    Ranking      candidates, one of them right        reciprocal rank
    OpenWord     one word, written freely             right or wrong

Every grader first decides whether the text is a possible answer at all (`parse` returns None if not: a permutation
that is no permutation is worth nothing), is forgiving about form only (case, spaces, brackets, `90°`, `Top Left`), and
knows what a guesser who sees nothing gets, so that rewards of different tasks can be put on one scale.

What chance is follows from how the truth is drawn (`Grader.draw`): uniformly from the possible answers, except where a
grader says otherwise. Tests over the whole registry draw truths and check that no constant answer does better than
`chance_accuracy` and `chance_similarity` say, on those and on the tasks' own.
"""

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.grading.counts import Counts
from ssl4rl_plugin.grading.exact import Angle, Choice, Words, question_grader
from ssl4rl_plugin.grading.orders import LabelSet, Ordering, Permutation
from ssl4rl_plugin.grading.regions import Box, Interval
from ssl4rl_plugin.grading.sequences import OpenWord, Ranking, Sequences
from ssl4rl_plugin.grading.text import MAX_ANSWER_CHARS, letters, normalise

__all__ = [
    "MAX_ANSWER_CHARS", "Angle", "Box", "Choice", "Counts", "Grader", "Interval", "LabelSet", "OpenWord", "Ordering",
    "Permutation", "Ranking", "Sequences", "Words", "letters", "normalise", "question_grader",
]  # fmt: skip
