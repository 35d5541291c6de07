"""Make an evaluation set: of a run's validation, or of benchmarks and pretext tasks that the user names."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssl4rl_plugin.analysis.evaluation.protocol import (
    EngineSettings,
    EvaluationProtocol,
    EvaluationSet,
    SamplingSettings,
)
from ssl4rl_plugin.analysis.runlog import RunError, RunLog
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.cpu.platform import torch_has_accelerator
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.mixture import parts_of
from ssl4rl_plugin.data.rows import JoinedRows, OnlineRows, Rows
from ssl4rl_plugin.grading.formats import answer_format
from ssl4rl_plugin.training.prompt_limits import prompt_limits
from ssl4rl_plugin.training.questions import QuestionRows
from ssl4rl_plugin.training.run_rows import benchmark_rows, own_rows, questions
from ssl4rl_plugin.training.settings import Settings, SettingsError, parse_arms, parse_benchmarks
from ssl4rl_plugin.training.stored_rows import StoredRows

MAX_PROMPT_TOKENS = 4096
"""Default limit of a prompt."""
MAX_RESPONSE_TOKENS = 2048
"""Default limit of a response."""
_ENGINE_KEYS = (
    "max_model_len", "max_num_batched_tokens", "max_num_seqs", "enable_chunked_prefill", "enable_prefix_caching",
    "enforce_eager",
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationRequest:
    """The user's options. None takes the value of the run, or the default."""

    benchmarks: Sequence[tuple[str, str]] = ()
    """(name, path) of each benchmark."""
    tasks: Sequence[str] = ()
    """`task`, `task:level` or `task:*`."""
    limit: int | None = None
    """Maximum number of questions of each benchmark."""
    circular: bool = False
    """Ask benchmarks' questions in every order of their options."""
    samples: int | None = None
    """Number of samples of each task and level."""
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
        """The benchmarks in the form of `ssl4rl.benchmarks`."""
        return [
            {"name": name, "path": path, "limit": self.limit, "circular": self.circular}
            for name, path in self.benchmarks
        ]


def requested_set(
    request: EvaluationRequest, sections: Callable[[Sequence[str]], Sequence[Mapping[str, Any]]]
) -> EvaluationSet:
    """The evaluation set that the user's options describe.

    Args:
        request: at least one benchmark or task.
        sections: gives the `ssl4rl` sections of a run on some tasks, one for each source that they need; without tasks,
            one section.

    Raises:
        SettingsError, SourceError, SampleError, RegistryError: the message says what to do.
    """
    if not request.benchmarks and not request.tasks:
        raise SettingsError("nothing to ask: name a benchmark (--bench NAME=PATH), a task (--task), or a run (--run)")
    every = [Settings.from_config({**section, **_given(request)}) for section in sections(request.tasks)]
    parts: list[Rows] = [own_rows(settings, "val") for settings in every if request.tasks]
    parts += benchmark_rows(every[0])
    reward = {"format_weight": 0.1, "partial_credit": 0.5}  # as in the base recipe
    # On a CPU, vLLM would compile for minutes and start another process.
    options = {} if torch_has_accelerator() else {"enforce_eager": True, "distributed_executor_backend": "uni"}
    engine = EngineSettings(options=options)
    return _build_set(
        parts, every[0], request, SamplingSettings(), MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS, reward, engine
    )


def _given(request: EvaluationRequest) -> dict[str, Any]:
    """The keys of the `ssl4rl` section that the user set."""
    found = {"answer_format": request.answer_format, "seed": request.seed, "val_samples": request.samples}
    given = {key: value for key, value in found.items() if value is not None}
    return {**given, "benchmarks": request.benchmark_entries()}


def set_of_run(run: Path, request: EvaluationRequest) -> EvaluationSet:
    """The validation of a run, asked in the same way. The user's options override the run's.

    If the user names benchmarks or tasks, they replace all of the run's.

    Raises:
        RunError: there is no run, or no config in its folder.
        SettingsError, SourceError, SampleError: the message says what to do.
    """
    log = RunLog(run)
    settings = log.settings
    rollout, lengths = log.setting("actor_rollout_ref.rollout"), log.setting("data")
    if not isinstance(rollout, dict) or not isinstance(lengths, dict):
        raise RunError(
            f"{log.config_file} has no actor_rollout_ref.rollout and data: it is not a config of verl's trainer"
        )
    changed: dict[str, Any] = {}
    if request.answer_format is not None:
        changed["answer_format"] = _format(request.answer_format)
    if request.seed is not None:
        changed["seed"] = request.seed
    if request.samples is not None:
        changed["val_samples"] = request.samples
    if request.tasks:
        changed |= {"arms": parse_arms(list(request.tasks)), "data": None}
    if request.benchmarks:
        changed["benchmarks"] = parse_benchmarks(request.benchmark_entries(), settings.benchmark_max_pixels)
    else:
        changed["benchmarks"] = tuple(
            replace(one, limit=request.limit or one.limit, circular=request.circular or one.circular)
            for one in settings.benchmarks
        )
    settings = replace(settings, **changed)
    everything = not request.tasks and not request.benchmarks
    parts: list[Rows] = []
    if everything:
        own = own_rows(settings, "val")
        parts = [own, *questions(own, settings)]
    else:
        parts = [own_rows(settings, "val")] if request.tasks else []
        parts += benchmark_rows(settings) if request.benchmarks else []
    val = rollout["val_kwargs"]
    own_options = (rollout.get("engine_kwargs") or {}).get("vllm") or {}
    engine = EngineSettings(
        dtype=rollout["dtype"],
        tensor_parallel=rollout["tensor_model_parallel_size"],
        limit_images=prompt_limits(rollout).get("image") or EngineSettings.limit_images,
        options={key: rollout[key] for key in _ENGINE_KEYS if rollout.get(key) is not None}
        | {key: value for key, value in own_options.items() if value is not None and key != "limit_mm_per_prompt"},
    )
    sampling = SamplingSettings(val["temperature"], val["top_p"], val["top_k"], val["n"], settings.seed)
    reward = log.setting("reward.custom_reward_function.reward_kwargs") or {}
    evaluation_set = _build_set(
        parts, settings, request, sampling, lengths["max_prompt_length"], lengths["max_response_length"], reward, engine,
        lengths.get("apply_chat_template_kwargs") or {},
    )  # fmt: skip
    return replace(evaluation_set, run=str(log.folder))


def _format(name: str) -> Any:
    try:
        return answer_format(name)
    except UserError as error:
        raise SettingsError(f"--answer-format: {error}") from error


def _build_set(
    parts: Sequence[Rows],
    settings: Settings,
    request: EvaluationRequest,
    sampling: SamplingSettings,
    max_prompt_tokens: int,
    max_response_tokens: int,
    reward: Mapping[str, Any],
    engine: EngineSettings,
    chat_template: Mapping[str, Any] | None = None,
) -> EvaluationSet:
    """The evaluation set, with the user's options in place of defaults."""
    drawn = {name: getattr(request, name) for name in ("temperature", "top_p", "n", "seed")}
    run_as = {name: getattr(request, name) for name in ("dtype", "tensor_parallel", "engines")}
    protocol = EvaluationProtocol(
        settings=settings,
        sampling=replace(sampling, **{name: value for name, value in drawn.items() if value is not None}),
        max_prompt_tokens=request.max_prompt_tokens or max_prompt_tokens,
        max_response_tokens=request.max_response_tokens or max_response_tokens,
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


def picture_groups(evaluation_set: EvaluationSet, refs: Container[str]) -> dict[str, dict[str, str]]:
    """Kind of row -> reference of a picture -> its group in the manifest, which near-duplicates share.

    Args:
        evaluation_set: its built rows have no manifest here, and are left out.
        refs: references of the pictures to look up.
    """
    found: dict[str, dict[str, str]] = {}
    for part in evaluation_set.rows.parts:
        if isinstance(part, QuestionRows):
            kinds, sources = [part.manifest.source.name], parts_of(part.manifest)
        elif isinstance(part, OnlineRows):
            kinds, sources = [arm.key for arm in part.stream.settings.arms], parts_of(part.stream.manifest)
        else:
            continue
        groups: dict[str, str] = {}
        pictures = [(label, manifest) for label, manifest in sources if isinstance(manifest, Manifest)]
        for label, manifest in pictures:
            columns = (manifest.table[name].to_pylist() for name in ("ref", "group"))
            named = ((f"{label}:{ref}" if label else ref, group) for ref, group in zip(*columns, strict=True))
            groups |= {ref: group for ref, group in named if group is not None and ref in refs}
        if pictures:
            found |= dict.fromkeys(kinds, groups)
    return found
