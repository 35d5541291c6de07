"""What is asked and how: the same rows, messages and reward as in training, with the knobs of verl's validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.rows import JoinedRows
from ssl4rl_plugin.training.settings import Settings


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; the names and defaults of verl's `rollout.val_kwargs`."""

    temperature: float = 0.0
    """0 takes the likeliest token each time (greedy decoding). verl's validation reads this too, not `do_sample`."""
    top_p: float = 1.0
    top_k: int = -1
    """-1 or 0 for all tokens."""
    n: int = 1
    """Answers to each question."""
    seed: int = 0
    """Of drawn answers; each question's own seed is derived from it and does not depend on what else is asked."""

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= -1 and self.n > 0):
            raise UserError(
                f"sampling must have temperature >= 0, 0 < top_p <= 1, top_k >= -1, and n > 0; got {asdict(self)}"
            )
        if self.temperature == 0 and self.n > 1:
            raise UserError(f"{self.n} answers to each question need a temperature above 0: greedy ones are all equal")


@dataclass(frozen=True)
class Protocol:
    """How questions are put and answers scored."""

    settings: Settings
    """Its answer format, system prompt and `videos_as` count here."""
    sampling: Sampling
    max_prompt_tokens: int
    """A longer prompt with pictures is not asked and counts as wrong, as in verl; one of text alone is cut from the left."""
    max_response_tokens: int
    reward: Mapping[str, Any]
    """Keywords of `rewards.compute_score`."""
    chat_template: Mapping[str, Any] = field(default_factory=dict)
    """verl's `data.apply_chat_template_kwargs`."""

    def identity(self) -> dict[str, Any]:
        """Everything here that an answer or its score depends on, as JSON values."""
        return {
            "system_prompt": self.settings.system_prompt,
            "videos_as": self.settings.videos_as,
            "max_pixels": self.settings.source.max_pixels,
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
    """`auto` is the model's own."""
    tensor_parallel: int = 1
    """GPUs of one engine."""
    engines: int | None = None
    """Processes; None for one on each GPU, or each group of `tensor_parallel`."""
    limit_images: int = 32
    """Pictures in one prompt at most."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further keywords of vLLM's `AsyncEngineArgs`."""


@dataclass(frozen=True)
class EvaluationSet:
    """Rows with the protocol that they are asked by."""

    rows: JoinedRows
    protocol: Protocol
    engine: EngineSettings
    run: str | None = None
    """Folder of the run whose validation this repeats; None for none."""
    chances: Mapping[str, float] = field(default_factory=dict)
    """Kind of row -> accuracy of the best blind guesser, where it is known."""

    def identity(self) -> dict[str, Any]:
        """What two evaluations must share to be compared, and one to be gone on with; names to JSON values."""
        return {
            "rows": [part.state() for part in self.rows.parts],
            "number of rows": len(self.rows),
            **self.protocol.identity(),
            "dtype": self.engine.dtype,
        }
