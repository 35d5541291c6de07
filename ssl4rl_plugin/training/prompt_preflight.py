"""The part of the check before a run that is about prompts: how long they are, and how many pictures they show."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.training.prompt_limits import LIMIT_KEY, prompt_limits

if TYPE_CHECKING:
    from ssl4rl_plugin.data.rows import OnlineRows
    from ssl4rl_plugin.training.prompt_lengths import PromptLength
    from ssl4rl_plugin.training.settings import Settings
    from ssl4rl_plugin.training.stored_rows import StoredRows

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
"""A model's folder has one of them."""


class PreflightError(UserError):
    """A run that cannot work; the message says what to change."""


def check_prompt_lengths(config: DictConfig, settings: Settings, train: OnlineRows | StoredRows) -> bool | None:
    """Whether clips are shown as videos; None if the model's processor is not on this machine. Prints what is left out, and
    a note where the processor enlarges pictures.

    Raises SettingsError if prompts are too long. Measured are all questions, and hundreds of samples of each arm with
    pictures of this source (`ssl4rl_plugin.training.prompt_sample`).
    """
    from verl.utils import hf_processor, hf_tokenizer

    from ssl4rl_plugin.training.left_out import said
    from ssl4rl_plugin.training.model_files import cached
    from ssl4rl_plugin.training.prompt_lengths import PixelLimits, enlarged
    from ssl4rl_plugin.training.prompt_sample import samples_of
    from ssl4rl_plugin.training.run_rows import questions
    from ssl4rl_plugin.training.verl.dataset import shows_video
    from ssl4rl_plugin.training.verl.prompt_check import PromptCheck

    path = str(config.actor_rollout_ref.model.path)
    folder = Path(os.path.expanduser(path))
    found = folder if folder.is_dir() else cached(path)
    if found is None or not any((found / name).is_file() for name in TOKENIZER_FILES):
        return None  # it is downloaded later; the dataset checks the prompts then
    processor = hf_processor(str(found), local_files_only=True)
    tokenizer = processor.tokenizer if processor is not None else hf_tokenizer(str(found), local_files_only=True)
    if (template := config.actor_rollout_ref.model.get("custom_chat_template")) is not None:
        (processor or tokenizer).chat_template = template  # as verl's HFModelConfig does
    own = train.held_out()
    as_video = shows_video(own, settings, processor)
    prompts = PromptCheck(settings, processor, tokenizer, config.data, as_video)
    parts = [train] if own is train else [train, own]
    groups = prompts.measure(parts, samples_of(train, own, planned_rows(config, train)), progress=True)
    lengths = [one.length for group in groups for one in group]
    prompts.refuse_long(lengths)
    _, left_out, asked = prompts.fitting(questions(own, settings), progress=True)
    for line in said(left_out):
        print(f"ssl4rl: {line}", file=sys.stderr)
    check_context(config, [*lengths, *asked])
    if (
        note := enlarged(lengths + asked, PixelLimits.of(processor, config.data.get("mm_processor_kwargs")))
    ) is not None:
        print(f"ssl4rl: {note}", file=sys.stderr)
    return as_video


def planned_rows(config: DictConfig, train: OnlineRows | StoredRows) -> int:
    """Training rows that the run draws: those of its steps, unless a filter of groups asks for more."""
    steps, batch = config.trainer.get("total_training_steps"), config.data.train_batch_size
    if not steps or config.algorithm.filter_groups.enable:
        return len(train)
    return min(len(train), int(steps) * int(config.data.get("gen_batch_size") or batch))


def check_context(config: DictConfig, lengths: Sequence[PromptLength]) -> None:
    """Raise PreflightError if a prompt and a response exceed the context, or if a prompt shows too many pictures."""
    context, response = config.actor_rollout_ref.rollout.max_model_len, int(config.data.max_response_length)
    longest = max(lengths, key=lambda length: length.tokens)
    if context and longest.tokens + response > context:
        raise PreflightError(
            f"a prompt of {longest.kind} has {longest.tokens} tokens, and a response up to {response}, and "
            f"actor_rollout_ref.rollout.max_model_len is {context}: set it to data.max_prompt_length + "
            f"data.max_response_length = {int(config.data.max_prompt_length) + response}"
        )
    most = max(lengths, key=lambda length: len(length.pictures))
    limit = prompt_limits(config.actor_rollout_ref.rollout).get("image")
    if limit is not None and len(most.pictures) > limit:
        raise too_many(most.kind, len(most.pictures), "image", limit)


def too_many(kind: str, shown: int, modality: str, limit: int) -> PreflightError:
    """The error for a prompt with more pictures or videos than the rollout accepts."""
    return PreflightError(
        f"a prompt of {kind} shows {shown} {modality}s, and the rollout accepts {limit}: set {LIMIT_KEY}.{modality}={shown}"
    )


def check_shown(
    config: DictConfig, settings: Settings, train: OnlineRows | StoredRows, as_video: bool | None = None
) -> None:
    """Raise PreflightError if a prompt shows more pictures or videos than the rollout accepts.

    Args:
        config: verl's config.
        settings: its `ssl4rl` section.
        train: the training rows.
        as_video: clips are shown as videos; None to go by `ssl4rl.videos_as`.
    """
    limits = prompt_limits(config.actor_rollout_ref.rollout)
    as_images = settings.videos_as == "images" if as_video is None else not as_video
    for row in train.held_out().probes():
        pictures = len(row.images) + sum(len(clip.frames) for clip in row.videos if as_images)
        for modality, shown in (("image", pictures), ("video", 0 if as_images else len(row.videos))):
            if shown > limits.get(modality, shown):
                raise too_many(row.kind, shown, modality, limits[modality])
