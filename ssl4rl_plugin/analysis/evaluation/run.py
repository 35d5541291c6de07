"""An evaluation from end to end, in a folder that a later start goes on with.

evaluation.json    what is asked, how, and of which model: a later start must agree
predictions.jsonl  every response, a line each
results.json       the figures
engine-N.log       what the engines printed
merged/            a merged checkpoint
base/              the same of the base model
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssl4rl_plugin.analysis.evaluation import predictions
from ssl4rl_plugin.analysis.evaluation.engines import answers, environments
from ssl4rl_plugin.analysis.evaluation.evaluation_set import pictures_alike
from ssl4rl_plugin.analysis.evaluation.model import Model, ModelError, resolve
from ssl4rl_plugin.analysis.evaluation.predictions import Line
from ssl4rl_plugin.analysis.evaluation.protocol import EvaluationSet
from ssl4rl_plugin.analysis.evaluation.results import Group, ResultsError, as_value, groups_of
from ssl4rl_plugin.analysis.evaluation.worker import Job
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.files import claimed, write_file
from ssl4rl_plugin.training.verl.dataset import shows_video

IDENTITY = "evaluation.json"
RESULTS = "results.json"
_LOCK = ".lock"

Advance = Callable[[int, str], None]
"""Told of so many more rows, and what goes on."""


class EvaluationError(UserError):
    """An evaluation that cannot start or go on in this folder; the message says what to do."""


def evaluate(given: str, exam: EvaluationSet, out: Path, say: Callable[[str], None], advance: Advance) -> list[Line]:
    """Put every row of an exam to a model, and write the answers. What the folder holds already is not asked again.

    Args:
        given: the model, as `model.resolve` takes it.
        exam: what is asked.
        out: folder to write to.
        say: told in a sentence what is done.
        advance: for progress.

    Returns:
        All lines, in order.

    Raises:
        ModelError, EngineError, EvaluationError, SettingsError, SourceError: the message says what to do.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _claimed(out):
        return _evaluate(given, exam, out, say, advance)


def _evaluate(given: str, exam: EvaluationSet, out: Path, say: Callable[[str], None], advance: Advance) -> list[Line]:
    model = resolve(given, out, say)
    file = out / predictions.FILE
    draws = exam.protocol.sampling.n
    _agree(out, {"model": model.fingerprint, **exam.identity()}, {"model": given, "path": model.path})
    done = predictions.complete(predictions.read(file), draws)
    numbers = tuple(sorted({*range(len(exam.rows))} - {line["row"] for line in done}))
    advance(len(exam.rows) - len(numbers), "starting the engine")
    if numbers:
        if done:
            say(f"{len(exam.rows) - len(numbers)} of {len(exam.rows)} questions were answered before")
        extra = environments(exam.engine.tensor_parallel, exam.engine.engines)
        predictions.write(file, done)  # without what was torn
        with file.open("ab") as output:
            for lines in answers(_job(model, exam, numbers), out, extra):
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


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Hold the folder for this evaluation alone. Raises EvaluationError."""
    busy = EvaluationError(f"another evaluation is at work in {folder}: wait for it, or choose another --out")
    with claimed(folder / _LOCK, busy):
        yield


def _job(model: Model, exam: EvaluationSet, numbers: tuple[int, ...]) -> Job:
    """What the engines are started with. Raises ModelError if the model cannot see what it is asked about."""
    from transformers import AutoConfig
    from verl.utils import hf_processor

    try:
        AutoConfig.from_pretrained(model.path)
    except (OSError, ValueError) as error:
        raise ModelError(f"the model {model.given} cannot be loaded: {error}") from error
    processor = hf_processor(model.path)
    shown = next((row for row in exam.rows.probes() if row.images or row.videos), None)
    if processor is None and shown is not None:
        raise ModelError(
            f"{model.given} has no processor that verl knows, so it would not see the pictures of {shown.kind}: use a model "
            "family that it knows (Qwen2-VL, Qwen2.5-VL, Qwen3-VL, GLM-4V, Mllama, Gemma), with preprocessor_config.json "
            "in its folder, and check that torchvision imports (`ssl4rl doctor`)"
        )
    settings = exam.protocol.settings
    return Job(
        rows=exam.rows,
        protocol=exam.protocol,
        engine=exam.engine,
        model=model.path,
        adapter=model.adapter,
        as_video=shows_video(exam.rows, settings, processor),
        numbers=numbers,
    )


def _agree(out: Path, identity: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write what this evaluation is, or make sure that the folder's is the same. Raises EvaluationError."""
    found = _identity(out)
    identity = json.loads(json.dumps(identity))  # as it is read back: tuples are lists
    if found is None:
        if (out / predictions.FILE).exists():
            raise EvaluationError(f"{out} has predictions, but no {IDENTITY} that says of what: choose another --out")
        value = {"about": {**about, "ssl4rl-plugin": version("ssl4rl-plugin")}, "identity": identity}
        write_file(out / IDENTITY, lambda file: file.write(json.dumps(value, indent=1).encode()))
    elif changed := _changed(found, identity):
        raise EvaluationError(
            f"{out} holds an evaluation with other {' and '.join(changed)}: choose another --out, or repeat its command"
        )


def _identity(folder: Path) -> dict[str, Any] | None:
    """What the evaluation in a folder is of; None if there is none."""
    try:
        value = json.loads((folder / IDENTITY).read_text())["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, dict) else None


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]


def base_lines(given: str, exam: EvaluationSet, out: Path, say: Callable[[str], None], advance: Advance) -> list[Line]:
    """The base model's answers: from the folder of its evaluation, or asked now, into `out`/base.

    Raises what `evaluate` raises; ResultsError if the folder's evaluation was another one.
    """
    folder = Path(given).expanduser()
    found = _identity(folder)
    if found is None:
        return evaluate(given, exam, out / "base", say, advance)
    wanted = json.loads(json.dumps(exam.identity()))
    if changed := [key for key in _changed(found, wanted) if key != "model"]:
        raise ResultsError(
            f"the evaluation in {given} had other {' and '.join(changed)}, so there is nothing to compare: give the base "
            "model itself"
        )
    lines = predictions.complete(predictions.read(folder / predictions.FILE), exam.protocol.sampling.n)
    if len({line["row"] for line in lines}) < len(exam.rows):
        raise ResultsError(f"the evaluation in {given} is not finished: repeat its command first")
    return lines


def results(
    given: str, exam: EvaluationSet, out: Path, lines: list[Line], base: str | None, theirs: list[Line] | None
) -> tuple[list[Group], dict[str, Any]]:
    """The table, and what is written to results.json."""
    alike = pictures_alike(exam, {ref for line in lines for ref in line["images"]})
    groups = groups_of(lines, theirs, exam.chances, exam.protocol.sampling.n, alike)
    value = {
        "model": given,
        "base": base,
        "run": exam.run,
        "protocol": {**exam.protocol.identity(), "dtype": exam.engine.dtype},
        "predictions": str(out / predictions.FILE),
        "groups": [as_value(group) for group in groups],
    }
    write_file(out / RESULTS, lambda file: file.write(json.dumps(value, indent=1).encode()))
    return groups, value
