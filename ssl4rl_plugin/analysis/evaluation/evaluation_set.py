"""Exams: what a finished run validated on, or benchmarks and pretext tasks that the user names."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ssl4rl_plugin.analysis.evaluation.protocol import EngineSettings, EvaluationSet, Protocol, Sampling
from ssl4rl_plugin.analysis.runlog import RunError, RunLog
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.cpu.platform import torch_has_accelerator
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.rows import JoinedRows, OnlineRows, Rows
from ssl4rl_plugin.grading.formats import answer_format
from ssl4rl_plugin.training.questions import QuestionRows
from ssl4rl_plugin.training.run_rows import benchmark_rows, own_rows, questions
from ssl4rl_plugin.training.settings import Settings, SettingsError, parse_arms, parse_benchmarks
from ssl4rl_plugin.training.stored_rows import StoredRows

MAX_PROMPT_TOKENS = 4096
MAX_RESPONSE_TOKENS = 2048
_ENGINE_KEYS = (
    "max_model_len", "max_num_batched_tokens", "max_num_seqs", "enable_chunked_prefill", "enable_prefix_caching",
    "enforce_eager",
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationRequest:
    """What the user says beside the model; None leaves a thing to the run, or to its default."""

    benchmarks: Sequence[tuple[str, str]] = ()
    """Name and path of each."""
    tasks: Sequence[str] = ()
    """`task`, `task:level` or `task:*`."""
    limit: int | None = None
    """Questions of each benchmark."""
    circular: bool = False
    """Ask benchmarks' questions in every order of their options."""
    samples: int | None = None
    """Samples of each task and level."""
    answer_format: str | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    max_prompt_tokens: int | None = None
    max_response_tokens: int | None = None
    dtype: str | None = None
    tensor_parallel: int | None = None
    engines: int | None = None

    def benchmark_entries(self) -> list[dict[str, Any]]:
        """As in `ssl4rl.benchmarks`."""
        return [
            {"name": name, "path": path, "limit": self.limit, "circular": self.circular}
            for name, path in self.benchmarks
        ]


def exam_from(
    wishes: EvaluationRequest, sections: Callable[[Sequence[str]], Sequence[Mapping[str, Any]]]
) -> EvaluationSet:
    """The exam that a user describes.

    Args:
        wishes: at least one benchmark or task.
        sections: for tasks the `ssl4rl` sections that a run on them would have, one for each source that they need; for
            no tasks one section.

    Raises:
        SettingsError, SourceError, SampleError, RegistryError: with what to do.
    """
    if not wishes.benchmarks and not wishes.tasks:
        raise SettingsError("nothing to ask: name a benchmark (--bench NAME=PATH), a task (--task), or a run (--run)")
    every = [Settings.from_config({**section, **_given(wishes)}) for section in sections(wishes.tasks)]
    parts: list[Rows] = [own_rows(settings, "val") for settings in every if wishes.tasks]
    parts += benchmark_rows(every[0])
    reward = {"format_weight": 0.1, "partial_credit": 0.5}  # as in the base recipe
    # vLLM's CPU build compiles for minutes, and would start a process more.
    options = {} if torch_has_accelerator() else {"enforce_eager": True, "distributed_executor_backend": "uni"}
    engine = EngineSettings(options=options)
    return _exam(parts, every[0], wishes, Sampling(), MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS, reward, engine)


def _given(wishes: EvaluationRequest) -> dict[str, Any]:
    """The keys of the `ssl4rl` section that a user set."""
    found = {"answer_format": wishes.answer_format, "seed": wishes.seed, "val_samples": wishes.samples}
    given = {key: value for key, value in found.items() if value is not None}
    return {**given, "benchmarks": wishes.benchmark_entries()}


def exam_of_run(run: Path, wishes: EvaluationRequest) -> EvaluationSet:
    """What a run validates on, asked as it asks; what the user says besides goes before.

    Named benchmarks or tasks take the place of all of the run's.

    Raises:
        RunError: there is no run, or no config in its folder.
        SettingsError, SourceError, SampleError: with what to do.
    """
    log = RunLog(run)
    settings = log.settings
    rollout, lengths = log.setting("actor_rollout_ref.rollout"), log.setting("data")
    if not isinstance(rollout, dict) or not isinstance(lengths, dict):
        raise RunError(
            f"{log.config_file} has no actor_rollout_ref.rollout and data: it is no config of verl's trainer"
        )
    changed: dict[str, Any] = {}
    if wishes.answer_format is not None:
        changed["answer_format"] = _format(wishes.answer_format)
    if wishes.seed is not None:
        changed["seed"] = wishes.seed
    if wishes.samples is not None:
        changed["val_samples"] = wishes.samples
    if wishes.tasks:
        changed |= {"arms": parse_arms(list(wishes.tasks)), "data": None}
    if wishes.benchmarks:
        changed["benchmarks"] = parse_benchmarks(wishes.benchmark_entries(), asdict(settings.source))
    else:
        changed["benchmarks"] = tuple(
            replace(one, limit=wishes.limit or one.limit, circular=wishes.circular or one.circular)
            for one in settings.benchmarks
        )
    settings = replace(settings, **changed)
    everything = not wishes.tasks and not wishes.benchmarks
    parts: list[Rows] = []
    if everything:
        own = own_rows(settings, "val")
        parts = [own, *questions(own, settings)]
    else:
        parts = [own_rows(settings, "val")] if wishes.tasks else []
        parts += benchmark_rows(settings) if wishes.benchmarks else []
    val = rollout["val_kwargs"]
    engine = EngineSettings(
        dtype=rollout["dtype"],
        tensor_parallel=rollout["tensor_model_parallel_size"],
        limit_images=rollout.get("limit_images") or EngineSettings.limit_images,
        options={key: rollout[key] for key in _ENGINE_KEYS if rollout.get(key) is not None}
        | {k: v for k, v in ((rollout.get("engine_kwargs") or {}).get("vllm") or {}).items() if v is not None},
    )
    sampling = Sampling(val["temperature"], val["top_p"], val["top_k"], val["n"], settings.seed)
    reward = log.setting("reward.custom_reward_function.reward_kwargs") or {}
    exam = _exam(
        parts, settings, wishes, sampling, lengths["max_prompt_length"], lengths["max_response_length"], reward, engine,
        lengths.get("apply_chat_template_kwargs") or {},
    )  # fmt: skip
    return replace(exam, run=str(log.folder))


def _format(name: str) -> Any:
    try:
        return answer_format(name)
    except UserError as error:
        raise SettingsError(f"--answer-format: {error}") from error


def _exam(
    parts: Sequence[Rows],
    settings: Settings,
    wishes: EvaluationRequest,
    sampling: Sampling,
    max_prompt_tokens: int,
    max_response_tokens: int,
    reward: Mapping[str, Any],
    engine: EngineSettings,
    chat_template: Mapping[str, Any] | None = None,
) -> EvaluationSet:
    """The exam, with the user's wishes in place of defaults."""
    drawn = {name: getattr(wishes, name) for name in ("temperature", "top_p", "n", "seed")}
    run_as = {name: getattr(wishes, name) for name in ("dtype", "tensor_parallel", "engines")}
    protocol = Protocol(
        settings=settings,
        sampling=replace(sampling, **{name: value for name, value in drawn.items() if value is not None}),
        max_prompt_tokens=wishes.max_prompt_tokens or max_prompt_tokens,
        max_response_tokens=wishes.max_response_tokens or max_response_tokens,
        reward={**reward, "answer_format": settings.answer_format.name},
        chat_template=dict(chat_template or {}),
    )
    chances: dict[str, float] = {}
    for part in parts:
        if isinstance(part, OnlineRows | StoredRows):
            arms = (part.settings if isinstance(part, StoredRows) else part.stream.settings).arms
            chances |= {arm.key: arm.task.chance(arm.level) for arm in arms}
    rows = JoinedRows(parts)
    if not len(rows):
        raise SettingsError("nothing to ask: there are no validation samples and no questions")
    return EvaluationSet(
        rows=rows,
        protocol=protocol,
        engine=replace(engine, **{name: value for name, value in run_as.items() if value is not None}),
        chances=chances,
    )


def pictures_alike(exam: EvaluationSet, refs: Container[str]) -> dict[str, dict[str, str]]:
    """Kind of row -> reference of a picture -> its group in the manifest, where copies and near-copies share one.

    Args:
        exam: what was asked; rows that were built beforehand have no manifest at hand, and are left out.
        refs: the pictures that matter.
    """
    found: dict[str, dict[str, str]] = {}
    for part in exam.rows.parts:
        if isinstance(part, QuestionRows):
            manifest, kinds = part.manifest, [part.manifest.source.name]
        elif isinstance(part, OnlineRows) and isinstance(part.stream.manifest, Manifest):
            manifest, kinds = part.stream.manifest, [arm.key for arm in part.stream.settings.arms]
        else:
            continue
        columns = (manifest.table[name].to_pylist() for name in ("ref", "group"))
        groups = {ref: group for ref, group in zip(*columns, strict=True) if group is not None and ref in refs}
        found |= dict.fromkeys(kinds, groups)
    return found
