"""The dataset: verl asks for row i, and the dataset makes the sample on the fly, or reads it from a build's folder.

    data.custom_cls.path = pkg://ssl4rl_plugin.training.verl.dataset
    data.custom_cls.name = SSLDataset
    data.train_files = ssl4rl:train
    data.val_files = ssl4rl:val

By default every epoch sees new corruptions (`ssl4rl_plugin.data.samples`). Validation adds the questions of the run's
benchmarks (`ssl4rl_plugin.training.questions`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.tokenizer import build_multimodal_processor_inputs

from ssl4rl_plugin.core import Clip
from ssl4rl_plugin.data.arms import StreamSettings
from ssl4rl_plugin.data.rows import JoinedRows, Row, Rows
from ssl4rl_plugin.training.chat_template import opens_thought
from ssl4rl_plugin.training.curriculum_rows import steered
from ssl4rl_plugin.training.prompt_lengths import PixelLimits, PromptLength, picture_runs, too_long
from ssl4rl_plugin.training.run_rows import own_rows, questions
from ssl4rl_plugin.training.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

PREFIX = "ssl4rl:"
SHOWN_FPS = 2.0
"""Frames per second in the metadata of every clip. The true rate would give away which clip is played faster. For
Qwen2.5-VL, verl 0.9.1 computes positions as if the rate were 2 (two frames are one temporal patch and one second), so with
another rate the trainer's positions would differ from vLLM's."""


class SSLDataset(RLHFDataset):
    """Rows for verl's trainer.

    `data_files` in the config, `ssl4rl:train` or `ssl4rl:val`, tells the dataset its split. `RLHFDataset.__init__` is
    not called, because it reads parquet files.

    Raises:
        SettingsError: wrong settings, or a processor or prompt length that would lose samples.
        SourceError, SampleError, StoredRowsError: no usable images or rows.
    """

    def __init__(
        self,
        data_files: Any,
        tokenizer: Any,
        config: DictConfig,
        processor: Any = None,
        max_samples: int = -1,
    ):
        split = split_of(data_files)
        self.settings = Settings.from_config(config.ssl4rl)
        own = own_rows(self.settings, split)
        self.rows: Rows = own
        if split == "val":
            self.rows = JoinedRows([own, *questions(own, self.settings)])
        elif self.settings.curriculum is not None:
            self.rows = steered(own, self.settings.curriculum, self.settings.seed)
        self.length = min(len(self.rows), max_samples) if max_samples > 0 else len(self.rows)
        self.tokenizer = tokenizer
        self.processor = processor
        self.config = config
        # Both splits decide by the validation rows, so that training and validation agree.
        self.as_video = shows_video(own.held_out(), self.settings, processor)
        check_prompts(self.rows, self.settings, processor, tokenizer, config, self.as_video)
        self.thinking = opens_thought(processor or tokenizer, config.get("apply_chat_template_kwargs") or {})
        if self.thinking:
            logger.info(
                "the chat template opens the thought: responses begin inside it, and `<think>` is not asked for"
            )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {
            "raw_prompt": messages(row, self.settings, self.as_video),
            "data_source": row.data_source,
            "ability": "ssl",
            "reward_model": {"style": "rule", "ground_truth": row.ground_truth},
            "extra_info": {**row.info, "thinking": self.thinking},
            "index": index,
            "tools_kwargs": {},
            "interaction_kwargs": {},
            # verl's collate function wants at least one tensor in a row.
            "dummy_tensor": torch.tensor([0], dtype=torch.uint8),
        }

    def state_dict(self) -> dict[str, Any]:
        """What the samples depend on; verl saves it in its checkpoints."""
        return self.rows.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that the samples are those of the checkpoint's run. Raises SettingsError."""
        now = self.state_dict()
        changed = [key for key in {**now, **state} if state.get(key) != now.get(key)]
        if changed:
            raise SettingsError(
                f"the checkpoint was made with other {' and '.join(changed)} than this run has, so it would not see the "
                "samples that come next: restore them, or start again with trainer.resume_mode=disable"
            )

    # RLHFDataset drops its rows here and reads its files again; this dataset is small and pickles whole.
    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()

    @classmethod
    async def process_multi_modal_info(
        cls, messages: list[dict[str, Any]], image_patch_size: int, config: DictConfig
    ) -> tuple[list[Image.Image] | None, list[tuple[torch.Tensor, dict[str, Any]]] | None, None]:
        """The pictures, clips and audio (always None) of a prompt, for verl's agent loop.

        Pictures have their final size, so none is decoded or resized again for each of the n rollouts.
        """
        return *media_of(messages), None


def split_of(data_files: Any) -> str:
    """`train` or `val`, from verl's `data.train_files` or `data.val_files`."""
    files = [data_files] if isinstance(data_files, str) else list(data_files)
    if len(files) != 1 or files[0] not in (f"{PREFIX}train", f"{PREFIX}val"):
        raise SettingsError(
            f"data files {files} are not for the online dataset: leave data.train_files={PREFIX}train and "
            f"data.val_files={PREFIX}val, and name your images with ssl4rl.source.path"
        )
    return str(files[0]).removeprefix(PREFIX)


def shows_video(rows: Rows, settings: StreamSettings, processor: Any) -> bool:
    """Whether clips go to the model as videos or as one picture per frame, by `ssl4rl.videos_as`.

    `auto` means videos, if the processor takes videos and trainer and rollout compute the same positions
    (`positions_agree`) for a few of `rows`. Raises SettingsError for `video` with a processor that takes no videos.
    """
    takes_video = getattr(processor, "video_processor", None) is not None
    if settings.videos_as == "video" and processor is not None and not takes_video:
        raise SettingsError("ssl4rl.videos_as=video: this model's processor takes no videos; use auto or images")
    if settings.videos_as != "auto":
        return settings.videos_as == "video"
    if not takes_video:
        return False
    shown = [row for row in rows.probes() if row.videos]
    for row in shown:
        if not positions_agree(row, settings, processor):
            logger.warning(
                "clips are shown as one picture per frame: for %s the installed transformers %s gives the text behind a "
                "clip other positions than vLLM, so that the trainer's log-probabilities would differ from the rollout's; "
                "ssl4rl.videos_as=video uses videos all the same",
                row.kind,
                version("transformers"),
            )
            return False
    return bool(shown)


def positions_agree(row: Row, settings: StreamSettings, processor: Any) -> bool:
    """Whether the text behind each clip of a row has larger positions than all of the clip's tokens.

    Qwen's models number tokens in time, height and width. vLLM, like the models' training, continues behind the largest
    number of the clip. transformers 5.10, which verl's trainer uses, continues behind the largest of height and width:
    too early if a clip has more temporal patches than spatial ones along a side.
    """
    if not hasattr(processor, "get_rope_index"):
        return True
    chat = messages(row, settings, as_video=True)
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    inputs = processor_inputs(processor, [text], [chat])
    ids = inputs["input_ids"]
    kinds = torch.zeros_like(ids)
    kinds[ids == processor.image_token_id] = 1
    kinds[ids == processor.video_token_id] = 2
    positions, _ = processor.get_rope_index(
        input_ids=ids,
        attention_mask=inputs["attention_mask"],
        image_grid_thw=inputs.get("image_grid_thw"),
        video_grid_thw=inputs.get("video_grid_thw"),
        mm_token_type_ids=kinds,
    )
    first, before = positions[0, 0, 1:], positions[:, 0].amax(dim=0).cummax(dim=0).values[:-1]
    behind = (kinds[0, 1:] == 0) & (kinds[0, :-1] != 0)
    return bool((first > before)[behind].all())


def messages(row: Row, settings: StreamSettings, as_video: bool) -> list[dict[str, Any]]:
    """The chat messages of a row, with PIL images in place of the `<image>` marks.

    A clip is one video part, in verl's form for frames in memory, or one picture part for each frame.
    """
    content: list[dict[str, Any]] = []
    try:
        pieces = row.pieces()
    except ValueError as error:
        raise SettingsError(f"task {row.kind}: {error}") from error
    for piece in pieces:
        if isinstance(piece, Image.Image):
            content.append({"type": "image", "image": piece})
        elif isinstance(piece, Clip) and as_video:
            content.append({"type": "video", "video": list(piece.frames), "fps": SHOWN_FPS})
        elif isinstance(piece, Clip):
            content += [{"type": "image", "image": frame} for frame in piece.frames]
        elif content and content[-1]["type"] == "text":
            content[-1]["text"] += piece
        else:
            content.append({"type": "text", "text": piece})
    system = [{"role": "system", "content": settings.system_prompt}] if settings.system_prompt else []
    if all(part["type"] == "text" for part in content):  # a text model's chat template takes no list
        return [*system, {"role": "user", "content": "".join(part["text"] for part in content)}]
    return [*system, {"role": "user", "content": content}]


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
