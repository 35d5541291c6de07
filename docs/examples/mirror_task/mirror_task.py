"""Mirror: was the picture flipped, and along which axis? Exact; a blind guesser gets 1/4. Refuses `symmetric` pictures."""

import itertools
from dataclasses import dataclass

from PIL.ImageOps import flip, mirror

from ssl4rl_plugin.core import Level, Rejection, Sample, Task
from ssl4rl_plugin.data.images import difference
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.image.views import fitted

LABELS = ("none", "horizontal", "vertical", "both")


@dataclass(frozen=True)
class MirrorLevel(Level):
    pair: bool = True
    """Show the original beside the flipped picture."""


class Mirror(Task[MirrorLevel]):
    name = "mirror"
    summary = "whether the picture was flipped, and along which axis"
    reference = "an example of the documentation"
    levels = {"pair": MirrorLevel(), "single": MirrorLevel(pair=False)}
    default_level = "pair"

    def grader(self, level):
        return Choice(LABELS)

    def generate(self, item, level, rng):
        before = fitted(item.image, level.side)
        views = [before, mirror(before), flip(before), flip(mirror(before))]
        if min(difference(a, b) for a, b in itertools.combinations(views, 2)) < 0.03:
            return Rejection("symmetric")
        answer = rng.randrange(4)
        pictures = (before, views[answer]) if level.pair else (views[answer],)
        shown = "The second picture is the first, perhaps flipped." if level.pair else "This photo was perhaps flipped."
        question = (
            f"{'<image>' * len(pictures)}\n{shown} Answer none if it was not; horizontal if left and right were swapped; "
            "vertical if top and bottom were swapped; both if both were."
        )
        return Sample(question, pictures, LABELS[answer])
