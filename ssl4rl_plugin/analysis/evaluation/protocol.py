"""How questions are asked: the rows, messages and reward of training, with the sampling options of verl's validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.rows import JoinedRows
from ssl4rl_plugin.training.settings import Settings


@dataclass(frozen=True)
class SamplingSettings:
    """How answers are sampled, with the names and defaults of verl's `rollout.val_kwargs`."""

    temperature: float = 0.0
    """0 is greedy decoding. verl's validation too decides by this, not by `do_sample`."""
    top_p: float = 1.0
    top_k: int = -1
    """-1 or 0 for all tokens."""
    n: int = 1
    """Answers to each question."""
    seed: int = 0
    """Seed of sampled answers. Each question derives its own seed from it, independent of the other questions."""

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= -1 and self.n > 0):
            raise UserError(
                f"sampling must have temperature >= 0, 0 < top_p <= 1, top_k >= -1, and n > 0; got {asdict(self)}"
            )
        if self.temperature == 0 and self.n > 1:
            raise UserError(f"{self.n} answers to each question need a temperature above 0: greedy ones are all equal")


@dataclass(frozen=True)
class EvaluationProtocol:
    """How questions are asked and answers scored."""

    settings: Settings
    """Only its answer format, system prompt and `videos_as` matter here."""
    sampling: SamplingSettings
    max_prompt_tokens: int
    """A longer prompt with pictures is skipped and counts as wrong, as in verl. A longer text prompt is cut on the left."""
    max_response_tokens: int
    reward: Mapping[str, Any]
    """Keyword arguments of `rewards.compute_score`."""
    chat_template: Mapping[str, Any] = field(default_factory=dict)
    """verl's `data.apply_chat_template_kwargs`."""

    def identity(self) -> dict[str, Any]:
        """Everything here that an answer or its score depends on, as JSON values."""
        return {
            "system_prompt": self.settings.system_prompt,
            "videos_as": self.settings.videos_as,
            "max_pixels": [one.max_pixels for one in self.settings.sources] or self.settings.source.max_pixels,
            "benchmark_max_pixels": self.settings.benchmark_max_pixels,
            "sampling": asdict(self.sampling),
            "max_prompt_tokens": self.max_prompt_tokens,
            "max_response_tokens": self.max_response_tokens,
            "reward": dict(self.reward),
            "chat_template": dict(self.chat_template),
        }


@dataclass(frozen=True)
class EngineSettings:
    """How vLLM runs a model."""

    dtype: str = "auto"
    """`auto` is the model's own dtype."""
    tensor_parallel: int = 1
    """GPUs for each engine."""
    engines: int | None = None
    """Number of engines; None for one on each GPU, or on each group of `tensor_parallel` GPUs."""
    limit_images: int = 32
    """Maximum number of pictures in one prompt."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """More keyword arguments of vLLM's `AsyncEngineArgs`."""


@dataclass(frozen=True)
class EvaluationSet:
    """The rows of an evaluation, with its protocol and engine."""

    rows: JoinedRows
    protocol: EvaluationProtocol
    engine: EngineSettings
    run: str | None = None
    """Folder of the run whose validation this repeats; None if the user named benchmarks or tasks."""
    chances: Mapping[str, float] = field(default_factory=dict)
    """Kind of row -> accuracy of the best blind guesser. Kinds without a known one are missing."""

    def identity(self) -> dict[str, Any]:
        """What must be equal to compare two evaluations, or to resume one: names to JSON values."""
        return {
            "rows": [part.state() for part in self.rows.parts],
            "number of rows": len(self.rows),
            **self.protocol.identity(),
            "dtype": self.engine.dtype,
        }
