"""The sampler: verl's replay buffer, which also measures every arm in each step and runs the curriculum.

    trainer.v1.sampler.custom_sampler = {path: pkg://ssl4rl_plugin.training.verl.sampler, name: build_sampler}

verl asks it for every training batch. verl's own code chooses the batch. The sampler then reads the rewards and adds
metrics of each arm and task to the step's log. With `ssl4rl.curriculum`, it also asks the director for the next
probabilities and announces them to the dataset. It counts the groups that DAPO's filter drops, too: they show which arms
are too easy or too hard. verl passes a custom sampler neither the filter's settings nor the batch sizes, so
`sampler_kwargs` carries them.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.arms import arm_key
from ssl4rl_plugin.data.build_plan import read_plan
from ssl4rl_plugin.training import left_out
from ssl4rl_plugin.training.curriculum import journal, schedule
from ssl4rl_plugin.training.curriculum.balance import Balance
from ssl4rl_plugin.training.curriculum.director import Director
from ssl4rl_plugin.training.curriculum.evidence import Evidence, ScoredRollout
from ssl4rl_plugin.training.curriculum.step_metrics import figures, source_figures
from ssl4rl_plugin.training.settings import Settings, curriculum_arms
from ssl4rl_plugin.training.stored_rows import plan_settings

if TYPE_CHECKING:
    from transfer_queue import KVBatchMeta

logger = logging.getLogger(__name__)

PREFETCHED = 2
"""Batches that each worker of the data loader prefetches (torch's default, which verl keeps)."""


class CurriculumError(UserError):
    """A run that cannot go on with its curriculum."""


class CurriculumMixin:
    """Adds metrics and the curriculum to verl's replay buffers, sync and async.

    `sampler_kwargs` (set by the base recipe from verl's own settings):

    - ssl4rl: the section of the config
    - rollouts: rollouts of a prompt
    - workers: of the data loader
    - fetched: rows that the loader fetches at a time
    - checkpoints, resume_mode, resume_from_path: where the trainer writes checkpoints, and what it resumes from
    - poll_interval: seconds between two checks for finished rollouts
    """

    sampler_kwargs: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        given = self.sampler_kwargs
        settings = Settings.from_config(given["ssl4rl"])
        drawn = settings if settings.data is None else plan_settings(read_plan(Path(settings.data)))
        self.arms = curriculum_arms(drawn.arms)
        self._sources = [source.label for source in drawn.sources]
        self._of_source: dict[tuple[str, int], list[Evidence]] = defaultdict(list)
        """Evidence by source and arm number since the last batch, in a run with several sources."""
        self._numbers = {arm.key: number for number, arm in enumerate(self.arms)}
        self._seen: dict[int, list[Evidence]] = defaultdict(list)
        """Evidence by arm number since the last batch."""
        self._prompts: set[str] = set()
        self._taken = 0
        self._lag = int(given["workers"]) * PREFETCHED * int(given["fetched"])
        self.director: Director | None = None
        self.balance: Balance | None = None
        if settings.curriculum is not None:
            self.director = Director(settings.curriculum, self.arms, int(given["rollouts"]), settings.seed)
            self.balance = Balance(self.arms) if settings.curriculum.balance else None
            self.schedule = schedule.Schedule(len(self.arms), settings.seed)
            header = {
                "curriculum": asdict(settings.curriculum),
                "seed": settings.seed,
                "arms": [f"{arm.key} x {arm.weight:g}" for arm in self.arms],
            }
            # With the types that reading the file gives back.
            header = json.loads(json.dumps(header))
            self.journal = journal.Journal(Path(given["checkpoints"]).absolute() / journal.NAME, header)
            self._restore(_resumed_from(given))
            schedule.publish(self.schedule)
            if len(self.arms) == 1:
                logger.warning(
                    "ssl4rl.curriculum has only one arm, %s, so there is nothing to choose", self.arms[0].key
                )

    def _restore(self, checkpoint: Path | None) -> None:
        """Start the journal; replay it up to `checkpoint` if the trainer resumes from one."""
        assert self.director is not None
        self.schedule.announce(0, self.director.probabilities())
        lines = []
        if checkpoint is not None:
            path = checkpoint / journal.NAME
            if not path.is_file():  # the run was killed after verl's last file and before ours
                path = self.journal.path
            if not path.is_file():
                raise CurriculumError(
                    f"{checkpoint} was made without a curriculum and holds no journal to resume from: set "
                    "ssl4rl.curriculum as it was, or start again with trainer.resume_mode=disable"
                )
            last = int(checkpoint.name.rpartition("_")[2])
            for entry, line in journal.read(path, self.journal.header, self.arms, last):
                self._decide(entry.shown, entry.start)
                self._taken = entry.taken
                lines.append(line)
        self.journal.start(lines)

    def _decide(self, shown: Mapping[int, Evidence], start: int) -> Any:
        """Update the director with a step's evidence, announce the next probabilities, and return them."""
        assert self.director is not None
        self.director.observe(shown)
        if self.balance is not None:
            self.balance.observe(shown)
        probabilities = self.director.probabilities()
        self.schedule.announce(start, probabilities)
        return probabilities

    # ---- what verl calls

    def _sync_metadata_from_transfer_queue(self) -> None:
        super()._sync_metadata_from_transfer_queue()  # type: ignore[misc]
        # A row that the trainer takes from its loader stays in this table until it is used or dropped.
        prompts = set(self.prompt_global_steps["train"])  # type: ignore[attr-defined]
        self._taken += len(prompts - self._prompts)
        self._prompts = prompts

    def _evict_terminal_groups(self, global_steps: int, partition_id: str, eviction_reasons: Any) -> Any:
        filtered = eviction_reasons[1]
        if partition_id == "train" and filtered:
            keys = [key for key in self.partitions[partition_id] if key.split("_")[0] in filtered]  # type: ignore[attr-defined]
            self._observe(keys, partition_id)
        return super()._evict_terminal_groups(global_steps, partition_id, eviction_reasons)  # type: ignore[misc]

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, Any]]:
        """verl's batch; a training batch also gets the metrics of every arm."""
        batch, metrics = super().sample(global_steps, partition_id, batch_size)  # type: ignore[misc]
        if partition_id != "train":
            return batch, metrics
        began = time.perf_counter()
        self._observe(batch.keys, partition_id)
        shown = {number: sum(parts, start=Evidence()) for number, parts in sorted(self._seen.items())}
        of_sources: dict[str, dict[int, Evidence]] = {label: {} for label in self._sources}
        for (label, number), parts in self._of_source.items():
            of_sources[label][number] = sum(parts, start=Evidence())
        self._seen.clear()
        self._of_source.clear()
        probabilities = None
        if self.director is not None:
            if self.balance is not None:
                self._scale(batch)
            entry = journal.Entry(global_steps, shown, self._taken, self._taken + self._lag)
            probabilities = self._decide(shown, entry.start)
            self.journal.append(entry.to_json(self.arms, probabilities, self.director.reasons()))
        metrics.update(figures(self.arms, shown, probabilities) | source_figures(self.arms, of_sources))
        metrics.update(left_out.metrics())
        metrics["curriculum/cost_s"] = time.perf_counter() - began
        return batch, metrics

    # ---- reading and writing rollouts

    def _observe(self, keys: list[str], partition_id: str) -> None:
        """Add the evidence of these rollouts."""
        groups: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            groups[key.split("_")[0]].append(key)
        if not groups:
            return
        firsts = [members[0] for members in groups.values()]
        truths = tq.kv_batch_get(keys=firsts, partition_id=partition_id, select_fields=["reward_model"])["reward_model"]
        extras = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=["extra_fields"])["extra_fields"]
        rewards = {key: _plain(extra).get("reward_extra_info", {}) for key, extra in zip(keys, extras, strict=True)}
        for members, truth in zip(groups.values(), truths, strict=True):
            number = self._arm_of(_plain(truth))
            if number is None:
                continue
            evidence = Evidence.of_group(_answer(rewards[key]) for key in members)
            self._seen[number].append(evidence)
            if self._sources:
                self._of_source[json.loads(_plain(truth)["ground_truth"])["source"], number].append(evidence)

    def _arm_of(self, reward_model: dict[str, Any]) -> int | None:
        """The arm that a row was drawn from; None if it is none of the run's arms."""
        try:
            truth = json.loads(reward_model["ground_truth"])
            return self._numbers.get(arm_key(truth["task"], truth["level"], truth.get("options") or {}))
        except (ValueError, KeyError, TypeError):
            return None

    def _scale(self, batch: KVBatchMeta) -> None:
        """Multiply the rewards of each rollout by its task's scale, before verl computes advantages from them."""
        import torch
        from tensordict import TensorDict

        assert self.balance is not None
        scales = self.balance.scales()
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["rm_scores", "reward_model"]
        )
        scores = []
        for reward, truth in zip(data["rm_scores"].unbind(), data["reward_model"], strict=True):
            number = self._arm_of(_plain(truth))
            scores.append(reward * (1.0 if number is None else scales[self.arms[number].task]))
        nested = torch.nested.as_nested_tensor(scores, layout=torch.jagged)
        fields = TensorDict({"rm_scores": nested}, batch_size=len(batch.keys))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)


def _plain(value: Any) -> dict[str, Any]:
    """The dictionary in a field of verl's batch, which may be wrapped in tensordict's NonTensorData."""
    value = getattr(value, "data", value)
    return value if isinstance(value, dict) else {}


def _answer(info: dict[str, Any]) -> ScoredRollout:
    """The reward function's result for a rollout."""

    def number(key: str) -> float:
        value = info.get(key)
        return float(value) if isinstance(value, int | float) else math.nan

    return ScoredRollout(number("score"), number("acc"), str(info.get("answer", "")), bool(info.get("failed")))


class SyncSampler(CurriculumMixin, ReplayBuffer):
    """For verl's synchronous trainer."""


class AsyncSampler(CurriculumMixin, ReplayBufferAsync):
    """For verl's asynchronous trainers."""


def build_sampler(trainer_mode: str, sampler_kwargs: DictConfig, **kwargs: Any) -> ReplayBuffer:
    """The sampler for a trainer; verl calls it with the arguments of `ReplayBuffer`.

    `CurriculumMixin` describes `sampler_kwargs`. They also hold what verl passes only to its own samplers:
    filter_groups, train_batch_size and sync_refill_failed_groups.
    """
    own = OmegaConf.to_container(sampler_kwargs, resolve=True)
    assert isinstance(own, dict)
    groups, refill = own["filter_groups"], bool(own["sync_refill_failed_groups"])
    # verl's trainer replaces data.gen_batch_size in the same way.
    exact = trainer_mode != "sync" or groups["enable"] or refill
    own["fetched"] = 1 if exact else own["gen_batch_size"] or own["train_batch_size"]
    kwargs |= {
        "trainer_mode": trainer_mode,
        "sampler_kwargs": own,
        "filter_groups_metric": str(groups["metric"]) if groups["enable"] else None,
        "sync_refill_failed_groups": refill,
        "poll_interval": float(own["poll_interval"]),
    }
    if trainer_mode != "sync":
        return AsyncSampler(**kwargs)
    return SyncSampler(
        **kwargs,
        train_batch_size=own["train_batch_size"],
        gen_batch_size=own["fetched"],
        max_inflight_gen_batches=(groups.get("max_inflight_gen_batches") or 1) if groups["enable"] else 1,
    )


def _resumed_from(given: Mapping[str, Any]) -> Path | None:
    """The checkpoint folder that verl's trainer will resume from; None if it starts from the beginning."""
    if given["resume_mode"] == "disable":
        return None
    if given["resume_mode"] == "resume_path":
        return Path(str(given["resume_from_path"])).absolute()
    found = find_latest_ckpt_path(str(Path(given["checkpoints"]).absolute()))
    return None if found is None else Path(found)


class SaveJournal(CheckpointCallback):
    """Copies the journal into every checkpoint (trainer.checkpoint_callback_class)."""

    def on_save(self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **_: Any) -> None:
        buffer = trainer.replay_buffer
        if isinstance(buffer, CurriculumMixin) and buffer.director is not None:
            buffer.journal.copy(Path(checkpoint_dir))
