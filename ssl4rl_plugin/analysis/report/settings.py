"""The config of a run for a report: the main settings, the whole config, and the differences between runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ssl4rl_plugin.analysis.report.page import readable
from ssl4rl_plugin.analysis.runlog import RunLog

_SHOWN = {
    "Model": "actor_rollout_ref.model.path",
    "Advantage": "algorithm.adv_estimator",
    "Learning rate": "actor_rollout_ref.actor.optim.lr",
    "Prompts per step": "data.train_batch_size",
    "Rollouts per prompt": "actor_rollout_ref.rollout.n",
    "Mini-batch": "actor_rollout_ref.actor.ppo_mini_batch_size",
    "Response length": "data.max_response_length",
    "Images": "ssl4rl.source.name",
    "Images from": "ssl4rl.source.path",
    "Answer format": "ssl4rl.answer_format",
    "Format weight": "ssl4rl.format_weight",
    "Partial credit": "ssl4rl.partial_credit",
    "Partial credit by": "ssl4rl.partial_credit_by",
    "Seed": "ssl4rl.seed",
}
_SECRET = r"[\w.-]*(?:api_?key|secret|passw(?:or)?d|token)"
_SECRET_LINE = re.compile(rf"(?im)^(\s*{_SECRET}\s*:\s*)(?!\d+$|null$|true$|false$)\S{{8,}}.*$")
HIDDEN = "(hidden)"
"""Shown in place of a secret."""


def settings(log: RunLog) -> list[tuple[str, str]]:
    """The main settings that the config has."""
    shown = [(name, log.setting(key)) for name, key in _SHOWN.items()]
    if log.setting("actor_rollout_ref.actor.use_kl_loss"):
        shown.append(("KL loss", log.setting("actor_rollout_ref.actor.kl_loss_coef")))
    if sources := log.setting("ssl4rl.sources"):
        shown = [(name, value) for name, value in shown if not name.startswith("Images")]
        shown.append(("Sources", "; ".join(_source(one) for one in sources if isinstance(one, dict))))
    if log.setting("ssl4rl.fixed_corruptions"):
        shown.append(("Fixed corruptions", "yes: every epoch repeats the same samples"))
    if log.setting("ssl4rl.transductive"):
        shown.append(("Transductive", "yes: images of an evaluated benchmark are trained on, without their labels"))
    known = ((name, value) for name, value in shown if value is not None)
    return [(name, readable(f"{value:g}" if isinstance(value, float) else str(value))) for name, value in known]


def _source(entry: Mapping[str, Any]) -> str:
    """An entry of `ssl4rl.sources` in a few words."""
    words = [str(entry[key]) for key in ("name", "source", "path") if entry.get(key)]
    return " ".join([*words, *([f"x {entry['weight']:g}"] if isinstance(entry.get("weight"), int | float) else [])])


def config(log: RunLog) -> str:
    """The whole config as YAML, without values that look like secrets."""
    return _SECRET_LINE.sub(rf"\1{HIDDEN}", readable(log.config.text, limit=None))


def differences(logs: Mapping[str, RunLog]) -> list[tuple[str, list[str]]]:
    """Dotted keys whose values differ between the runs that have a config, with each run's value; `ssl4rl` keys first.

    A missing key is empty. The copy of the `ssl4rl` section under `data` is left out.
    """
    flat = [_flat(log.config.values) for log in logs.values()]
    keys = [
        key for key in dict.fromkeys(key for values in flat for key in values) if not key.startswith("data.ssl4rl.")
    ]
    with_config = [values for values in flat if values]
    found = [key for key in keys if len({values.get(key) for values in with_config}) > 1]
    found.sort(key=lambda key: (not key.startswith("ssl4rl."), key))
    return [(readable(key, 120), [_shown(key, values.get(key, "")) for values in flat]) for key in found]


def _shown(key: str, value: str) -> str:
    secret = re.fullmatch(rf"(?i){_SECRET}", key.rsplit(".", 1)[-1]) and len(value) >= 8 and not value.isdecimal()
    return HIDDEN if secret else readable(value, 200)


def _flat(values: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys, with other values as JSON text."""
    if isinstance(values, Mapping) and (values or not prefix):
        return {key: text for name, value in values.items() for key, text in _flat(value, f"{prefix}{name}.").items()}
    return {prefix[:-1]: values if isinstance(values, str) else json.dumps(values, ensure_ascii=False, default=str)}
