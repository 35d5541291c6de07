"""Prompts as verl makes them: chat messages, the processor's inputs, and their length in tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from verl.utils.tokenizer import build_multimodal_processor_inputs

from ssl4rl_plugin.data.arms import StreamSettings
from ssl4rl_plugin.data.rows import Row, Rows
from ssl4rl_plugin.training.prompt_forms import chat_of
from ssl4rl_plugin.training.prompt_lengths import PixelLimits, PromptLength, picture_runs, too_long
from ssl4rl_plugin.training.settings import Settings, SettingsError


def messages(row: Row, settings: StreamSettings, as_video: bool) -> list[dict[str, Any]]:
    """The chat messages of a row, with PIL images in place of the `<image>` marks.

    A clip is one video part, in verl's form for frames in memory, or one picture part for each frame.
    """
    try:
        pieces = row.pieces()
    except ValueError as error:
        raise SettingsError(f"task {row.kind}: {error}") from error
    return chat_of(pieces, settings.system_prompt, as_video)


def media_of(
    messages: list[dict[str, Any]],
) -> tuple[list[Image.Image] | None, list[tuple[torch.Tensor, dict[str, Any]]] | None]:
    """The pictures and the videos of chat messages, in order; None if there are none.

    A video is a uint8 tensor of shape (frames, 3, height, width), with metadata that keeps processors from sampling its
    frames again.
    """
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    images = [part["image"] for part in parts if part["type"] == "image"]
    videos = []
    for part in parts:
        if part["type"] == "video":
            frames = np.stack([np.asarray(frame) for frame in part["video"]])
            count = len(frames)
            metadata = {"fps": part["fps"], "frames_indices": list(range(count)), "total_num_frames": count}
            videos.append((torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(), metadata))
    return images or None, videos or None


def processor_inputs(processor: Any, texts: list[str], chats: list[list[dict[str, Any]]], **options: Any) -> Any:
    """The outputs of the model's processor for templated texts and the pictures and clips of their chats."""
    images, videos = media_of([message for chat in chats for message in chat])
    return build_multimodal_processor_inputs(
        processor, text=texts, images=images, videos=videos, mm_processor_kwargs=options
    )


def check_prompts(
    rows: Rows, settings: Settings, processor: Any, tokenizer: Any, config: DictConfig, as_video: bool
) -> list[PromptLength]:
    """Raise SettingsError if prompts would be lost: no processor, or over `data.max_prompt_length` tokens.

    verl only warns in the first case, and counts a failed prompt in the second. Checks some rows of each kind, and returns
    their lengths.
    """
    lengths = []
    for row in rows.probes():
        if (row.images or row.videos) and processor is None:
            raise SettingsError(
                "verl found no processor for this model, so pictures would be lost: use a model family that it knows "
                "(Qwen2-VL, Qwen2.5-VL, Qwen3-VL, GLM-4V, Mllama, Gemma), and check that torchvision imports "
                "(`ssl4rl doctor`)"
            )
        lengths.append(prompt_length(row, settings, processor, tokenizer, as_video, config))
    options = config.get("mm_processor_kwargs")
    if (message := too_long(lengths, config.max_prompt_length, PixelLimits.of(processor, options))) is not None:
        raise SettingsError(message)
    return lengths


def prompt_length(
    row: Row,
    settings: Settings,
    processor: Any,
    tokenizer: Any,
    as_video: bool,
    config: Mapping[str, Any] | None = None,
) -> PromptLength:
    """The tokens of a row's prompt, as verl makes them.

    Args:
        row: the row.
        settings: for the system prompt and the tasks' levels.
        processor: the model's, from `verl.utils.hf_processor`; None for a text model.
        tokenizer: used if there is no processor.
        as_video: clips are shown as videos.
        config: verl's `data` section, of which `apply_chat_template_kwargs` and `mm_processor_kwargs` count.
    """
    config = config or {}
    template, options = config.get("apply_chat_template_kwargs") or {}, config.get("mm_processor_kwargs") or {}
    chat = messages(row, settings, as_video)
    text = (processor or tokenizer).apply_chat_template(chat, add_generation_prompt=True, tokenize=False, **template)
    if not (row.images or row.videos):
        return PromptLength(row.kind, len(tokenizer(text)["input_ids"]))
    ids = [int(token) for token in processor_inputs(processor, [text], [chat], **options)["input_ids"][0]]
    sizes = [image.size for image in (*row.images, *(frame for clip in row.videos for frame in clip.frames))]
    return PromptLength(
        row.kind,
        len(ids),
        pictures=picture_runs(ids, getattr(processor, "image_token_id", -1)),
        video=ids.count(getattr(processor, "video_token_id", -1)),
        pixels=max(width * height for width, height in sizes),
        side=next(
            (arm.level.side for arm in settings.arms if arm.key == row.kind and hasattr(arm.level, "side")), None
        ),
    )
