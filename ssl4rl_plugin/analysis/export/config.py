"""The JSON config of an evaluation with VLMEvalKit (`run.py --config`): model and sets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl4rl_plugin.analysis.evaluation.model import Model
from ssl4rl_plugin.analysis.export.vlmevalkit import CLASS
from ssl4rl_plugin.core.errors import UserError

CLASSES = {
    "qwen2_vl": "Qwen2VLChat",
    "qwen2_5_vl": "Qwen2VLChat",
    "qwen3_vl": "Qwen3VLChat",
    "qwen3_vl_moe": "Qwen3VLChat",
}
"""`model_type` of a model's config.json -> the class of VLMEvalKit that runs it."""

BENCHMARKS = {
    "mmbench": "MMBench_DEV_EN", "seedbench": "SEEDBench_IMG", "blink": "BLINK", "mmstar": "MMStar",
    "realworldqa": "RealWorldQA",
}  # fmt: skip
"""Our names -> names of the sets that VLMEvalKit downloads itself, all of its class `ImageMCQDataset`."""
OWN_CLASSES = {
    "mme_realworld_lite": ("MME-RealWorld-Lite", "MMERealWorld"),
    "vstar": ("VStarBench", "ImageMCQDataset"),
}
"""Our names -> (name, class) of sets of another class, or not in every version of VLMEvalKit."""


class ExportError(UserError):
    """A model or task cannot be exported; the message says what to do."""


def model_section(
    model: Model,
    out: Path,
    base: str | None,
    answer_format: str,
    max_new_tokens: int,
    thinking: bool = False,
    graders: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """The `model` section: one model, run by our class on top of VLMEvalKit's.

    Args:
        model: from `evaluation.model.resolve`.
        out: folder for a link to a Qwen2.5-VL whose path does not contain its name: VLMEvalKit recognises it by the path.
        base: VLMEvalKit's class; None to infer it from the model.
        answer_format: the answer format of the model's training.
        max_new_tokens: maximum length of a response.
        thinking: the model's chat template opens the thought.
        graders: name of a set -> its grader (`vlmevalkit.grader_to_json`).

    Raises:
        ExportError: no class is known for the model, or it is a LoRA adapter.
        OSError: the link cannot be made.
    """
    if model.adapter is not None:
        raise ExportError(
            f"{model.given} is a LoRA adapter beside its base model, and VLMEvalKit's classes load no adapters: merge it "
            "into the weights first (`merge_and_unload` of peft), and export the result"
        )
    folder, place = Path(model.path), model.path
    kind = _kind(folder) if folder.is_dir() else _named(model.path)
    base = base or CLASSES.get(kind)
    if base is None:
        raise ExportError(
            f"{model.given} is of type {kind or 'unknown'}: name the class of VLMEvalKit that runs it with --class (see "
            f"vlmeval/vlm; known here: {', '.join(CLASSES)})"
        )
    given = Path(model.given).expanduser()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", (given.parent if given.name == "actor" else given).name)
    if kind == "qwen2_5_vl" and not any(part in place.lower() for part in ("2.5", "2_5", "qwen25")):
        name = f"Qwen2.5-VL-{name}"
        link = out / "models" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(place, target_is_directory=True)
        place = str(link.absolute())
    options: dict[str, Any] = {"model_path": place, "max_new_tokens": max_new_tokens}
    options |= ({"thinking": True} if thinking else {}) | ({"graders": dict(graders)} if graders else {})
    return {name: {"class": CLASS, "base": base, "answer_format": answer_format, **options}}


def _kind(folder: Path) -> str:
    """The type of a model in a folder."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ExportError(f"{folder / 'config.json'} cannot be read: {error!r}") from error


def _named(name: str) -> str:
    """The type of a model on the Hub, from its name; empty if the name has none."""
    written = re.sub(r"[^a-z0-9]+", "_", name.lower())
    return next((kind for kind in sorted(CLASSES, key=len, reverse=True) if kind in written), "")


def data_section(sets: Mapping[str, bool], benchmarks: Sequence[str]) -> dict[str, Any]:
    """The `data` section.

    Args:
        sets: names of our sets -> whether they have pictures.
        benchmarks: our names (`mmbench`), or VLMEvalKit's names of multiple-choice sets.
    """
    section = {
        name: {"class": "CustomMCQDataset" if pictures else "CustomTextMCQDataset", "dataset": name}
        for name, pictures in sets.items()
    }
    for benchmark in benchmarks:
        name, kind = OWN_CLASSES.get(benchmark, (BENCHMARKS.get(benchmark, benchmark), "ImageMCQDataset"))
        section[name] = {"class": kind, "dataset": name}
    return section
