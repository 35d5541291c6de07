"""Random rewards in place of the plugin's, for controls: the answers are scored, and then paid by chance.

reward.custom_reward_function.path = FOLDER/random_reward.py
"""

from __future__ import annotations

import random
from typing import Any

from ssl4rl_plugin.training import rewards

_rng = random.Random(0)


def compute_score(*arguments: Any, **keywords: Any) -> dict[str, Any]:
    """What the plugin's function returns, with 0 or 1 as the score, each with probability 1/2. Accuracies stay real."""
    return {**rewards.compute_score(*arguments, **keywords), "score": float(_rng.random() < 0.5)}
