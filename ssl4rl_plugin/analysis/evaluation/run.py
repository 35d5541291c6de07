"""A whole evaluation, in a folder from which it can resume.

evaluation.json    questions, protocol and model; a resumed evaluation must have the same
predictions.jsonl  every response, one per line
results.json       the figures
engine-N.log       output of the engines
merged/            a merged checkpoint
base/              the same for the base model
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssl4rl_plugin.analysis.evaluation import predictions
from ssl4rl_plugin.analysis.evaluation.engines import answers, environments
from ssl4rl_plugin.analysis.evaluation.evaluation_set import picture_groups
from ssl4rl_plugin.analysis.evaluation.model import Model, ModelError, resolve
from ssl4rl_plugin.analysis.evaluation.predictions import Prediction
from ssl4rl_plugin.analysis.evaluation.protocol import EvaluationSet
from ssl4rl_plugin.analysis.evaluation.results import GroupResult, ResultsError, as_value, groups_of
from ssl4rl_plugin.analysis.evaluation.worker import EngineJob
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.files import claimed, write_text
from ssl4rl_plugin.training.verl.dataset import shows_video

IDENTITY = "evaluation.json"
RESULTS = "results.json"
_LOCK = ".lock"

Advance = Callable[[int, str], None]
"""Called with the number of rows just finished, and the current step in words."""


class EvaluationError(UserError):
    """An evaluation cannot start or resume in this folder; the message says what to do."""


def evaluate(
    given: str, evaluation_set: EvaluationSet, out: Path, say: Callable[[str], None], advance: Advance
) -> list[Prediction]:
    """Ask a model every row of an evaluation set, and write the answers. Rows with answers in the folder are skipped.

    Args:
        given: the model, as `model.resolve` takes it.
        evaluation_set: the rows and the protocol.
        out: folder to write.
        say: called with a sentence about each step.
        advance: called for progress.

    Returns:
        All predictions, sorted.

    Raises:
        ModelError, EngineError, EvaluationError, SettingsError, SourceError, WriteError: the message says what to do.
        OSError: the folder cannot be made.
    """
    out.mkdir(parents=True, exist_ok=True)
    busy = EvaluationError(f"another evaluation is running in {out}: wait for it, or choose another --out")
    with claimed(out / _LOCK, busy):
        return _evaluate(given, evaluation_set, out, say, advance)


def _evaluate(
    given: str, evaluation_set: EvaluationSet, out: Path, say: Callable[[str], None], advance: Advance
) -> list[Prediction]:
    model = resolve(given, out, say)
    file = out / predictions.FILE
    draws = evaluation_set.protocol.sampling.n
    _agree(out, {"model": model.fingerprint, **evaluation_set.identity()}, {"model": given, "path": model.path})
    done = predictions.complete(predictions.read(file), draws)
    numbers = tuple(sorted({*range(len(evaluation_set.rows))} - {line["row"] for line in done}))
    advance(len(evaluation_set.rows) - len(numbers), "starting the engine")
    if numbers:
        if done:
            say(
                f"{len(evaluation_set.rows) - len(numbers)} of {len(evaluation_set.rows)} questions were answered before"
            )
        extra = environments(evaluation_set.engine.tensor_parallel, evaluation_set.engine.engines)
        predictions.write(file, done)  # without incomplete lines
        with file.open("ab") as output:
            for lines in answers(_job(model, evaluation_set, numbers), out, extra):
                if lines is None:
                    advance(0, "answering")
                    continue
                output.write(b"".join(predictions.encoded(line) for line in lines))
                output.flush()
                done += lines
                advance(1, "answering")
        done = predictions.complete(done, draws)
        predictions.write(file, done)
    return done


def _job(model: Model, evaluation_set: EvaluationSet, numbers: tuple[int, ...]) -> EngineJob:
    """The input of the engines. Raises ModelError if the model cannot be loaded, or takes no pictures and rows have some."""
    from transformers import AutoConfig
    from verl.utils import hf_processor

    try:
        AutoConfig.from_pretrained(model.path)
    except (OSError, ValueError) as error:
        raise ModelError(f"the model {model.given} cannot be loaded: {error}") from error
    processor = hf_processor(model.path)
    shown = next((row for row in evaluation_set.rows.probes() if row.images or row.videos), None)
    if processor is None and shown is not None:
        raise ModelError(
            f"{model.given} has no processor that verl knows, so it would not see the pictures of {shown.kind}: use a model "
            "family that it knows (Qwen2-VL, Qwen2.5-VL, Qwen3-VL, GLM-4V, Mllama, Gemma), with preprocessor_config.json "
            "in its folder, and check that torchvision imports (`ssl4rl doctor`)"
        )
    settings = evaluation_set.protocol.settings
    return EngineJob(
        rows=evaluation_set.rows,
        protocol=evaluation_set.protocol,
        engine=evaluation_set.engine,
        model=model.path,
        adapter=model.adapter,
        as_video=shows_video(evaluation_set.rows, settings, processor),
        numbers=numbers,
    )


def _agree(out: Path, identity: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write the identity of this evaluation, or check that the folder's is the same. Raises EvaluationError."""
    found = _identity(out)
    identity = json.loads(json.dumps(identity))  # as it is read back: tuples become lists
    if found is None:
        if (out / predictions.FILE).exists():
            raise EvaluationError(f"{out} has predictions, but no readable {IDENTITY}: choose another --out")
        value = {"about": {**about, "ssl4rl-plugin": version("ssl4rl-plugin")}, "identity": identity}
        write_text(out / IDENTITY, json.dumps(value, indent=1))
    elif changed := _changed(found, identity):
        raise EvaluationError(
            f"{out} holds an evaluation with other {' and '.join(changed)}: choose another --out, or repeat its command"
        )


def _identity(folder: Path) -> dict[str, Any] | None:
    """The identity of the evaluation in a folder; None if there is none."""
    try:
        value = json.loads((folder / IDENTITY).read_text())["identity"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]


def base_lines(
    given: str, evaluation_set: EvaluationSet, out: Path, say: Callable[[str], None], advance: Advance
) -> list[Prediction]:
    """The base model's predictions: from the folder of its evaluation, or made now in `out`/base.

    Raises what `evaluate` raises; ResultsError if the folder holds a different or unfinished evaluation.
    """
    folder = Path(given).expanduser()
    found = _identity(folder)
    if found is None:
        return evaluate(given, evaluation_set, out / "base", say, advance)
    wanted = json.loads(json.dumps(evaluation_set.identity()))
    if changed := [key for key in _changed(found, wanted) if key != "model"]:
        raise ResultsError(
            f"the evaluation in {given} has other {' and '.join(changed)} and cannot be compared: give the base model itself"
        )
    lines = predictions.complete(predictions.read(folder / predictions.FILE), evaluation_set.protocol.sampling.n)
    if len({line["row"] for line in lines}) < len(evaluation_set.rows):
        raise ResultsError(f"the evaluation in {given} is not finished: repeat its command first")
    return lines


def results(
    given: str,
    evaluation_set: EvaluationSet,
    out: Path,
    lines: list[Prediction],
    base: str | None,
    theirs: list[Prediction] | None,
) -> tuple[list[GroupResult], dict[str, Any]]:
    """The table, and the value written to results.json."""
    alike = picture_groups(evaluation_set, {ref for line in lines for ref in line["images"]})
    groups = groups_of(lines, theirs, evaluation_set.chances, evaluation_set.protocol.sampling.n, alike)
    value = {
        "model": given,
        "base": base,
        "run": evaluation_set.run,
        "protocol": {**evaluation_set.protocol.identity(), "dtype": evaluation_set.engine.dtype},
        "predictions": str(out / predictions.FILE),
        "groups": [as_value(group) for group in groups],
    }
    write_text(out / RESULTS, json.dumps(value, indent=1))
    return groups, value
