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
from importlib.metadata import version
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from verl.utils.dataset.rl_dataset import RLHFDataset

from ssl4rl_plugin.data.arms import StreamSettings
from ssl4rl_plugin.data.rows import JoinedRows, Row, Rows
from ssl4rl_plugin.training.chat_template import opens_thought
from ssl4rl_plugin.training.curriculum_rows import steered
from ssl4rl_plugin.training.left_out import publish, said
from ssl4rl_plugin.training.run_rows import own_rows, questions
from ssl4rl_plugin.training.settings import Settings, SettingsError
from ssl4rl_plugin.training.verl.prompt_check import PromptCheck
from ssl4rl_plugin.training.verl.prompts import check_prompts, media_of, messages, processor_inputs

logger = logging.getLogger(__name__)

PREFIX = "ssl4rl:"


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
        # Both splits decide by the validation rows, so that training and validation agree.
        self.as_video = shows_video(own.held_out(), self.settings, processor)
        if split == "val":
            prompts = PromptCheck(self.settings, processor, tokenizer, config, self.as_video)
            kept, left_out, _ = prompts.fitting(questions(own, self.settings))
            publish(left_out)
            for line in said(left_out):
                logger.warning(line)
            self.rows = JoinedRows([own, *kept])
        elif self.settings.curriculum is not None:
            self.rows = steered(own, self.settings.curriculum, self.settings.seed)
        self.length = min(len(self.rows), max_samples) if max_samples > 0 else len(self.rows)
        self.tokenizer = tokenizer
        self.processor = processor
        self.config = config
        check_prompts(own if split == "val" else self.rows, self.settings, processor, tokenizer, config, self.as_video)
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
