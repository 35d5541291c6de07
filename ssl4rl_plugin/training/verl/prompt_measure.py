"""Counting the tokens of thousands of prompts: texts by the tokenizer in batches, pictures and clips by their sizes.

No picture is decoded or processed for it. `PromptMeasure.differing` compares the count with what the model's processor makes
of whole prompts; where they differ, the whole prompts count.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from ssl4rl_plugin.data.rows import Row
from ssl4rl_plugin.training.prompt_forms import ClipSize, PictureSize, PromptForm, blank, chat_of, form_of
from ssl4rl_plugin.training.prompt_lengths import PromptLength
from ssl4rl_plugin.training.verl.prompts import processor_inputs

BATCH = 256
"""Texts that the tokenizer gets at once."""


class PromptMeasure:
    """Counts prompts for one model.

    Args:
        processor: the model's, from `verl.utils.hf_processor`; None for a text model.
        tokenizer: the model's.
        template: `data.apply_chat_template_kwargs`.
        options: `data.mm_processor_kwargs`.
        system_prompt: of the run.
        as_video: clips are shown as videos.
        sides: `side` of the level of each kind of row that has one.
    """

    def __init__(
        self,
        processor: Any,
        tokenizer: Any,
        template: dict[str, Any],
        options: dict[str, Any],
        system_prompt: str | None,
        as_video: bool,
        sides: dict[str, int],
    ) -> None:
        self.processor = processor
        self.tokenizer = tokenizer
        self.template = template
        self.options = options
        self.system_prompt = system_prompt
        self.as_video = as_video
        self.sides = sides
        self._picture_tokens = functools.cache(self._count_picture)
        self._clip_tokens = functools.cache(self._count_clip)

    def lengths(
        self, forms: Iterable[PromptForm], done: Callable[[int], object] = lambda count: None
    ) -> list[PromptLength]:
        """The tokens of each prompt, by the sizes of its pictures.

        `done` is told the number of prompts behind each batch.
        """
        found: list[PromptLength] = []
        left = iter(forms)
        while batch := list(itertools.islice(left, BATCH)):
            texts = [self._text(form.pieces) for form in batch]
            counts = self._counts(texts)
            found += [self._length(form, count) for form, count in zip(batch, counts, strict=True)]
            done(len(batch))
        return found

    def differing(
        self, rows: Iterable[Row], whole: Callable[[Row], PromptLength]
    ) -> list[tuple[PromptLength, PromptLength]]:
        """The rows of which this count is not that of the whole prompt, as (count, whole).

        Args:
            rows: some of each kind.
            whole: counts a row by the model's processor.
        """
        pairs = [(self.lengths([form_of(row)])[0], whole(row)) for row in rows]
        return [(count, made) for count, made in pairs if count.tokens != made.tokens]

    def _counts(self, texts: list[str]) -> list[int]:
        """Tokens of each text."""
        if isinstance(self.tokenizer, PreTrainedTokenizerBase):
            return [len(ids) for ids in self.tokenizer(texts)["input_ids"]]
        return [len(self.tokenizer(text)["input_ids"]) for text in texts]  # others need not take several at once

    def _text(self, parts: Sequence[str | PictureSize | ClipSize]) -> str:
        chat = chat_of(parts, self.system_prompt, self.as_video)
        text = (self.processor or self.tokenizer).apply_chat_template(
            chat, add_generation_prompt=True, tokenize=False, **self.template
        )
        return str(text)

    def _length(self, form: PromptForm, text: int) -> PromptLength:
        """The length of a prompt whose text has `text` tokens, one for the mark of each picture and clip included."""
        clips = [piece for piece in form.pieces if isinstance(piece, ClipSize)]
        shown = [size for piece in form.pieces for size in _pictures(piece, self.as_video)]
        pictures = [self._picture_tokens(size) for size in shown]
        videos = [self._clip_tokens(clip) for clip in clips] if self.as_video else []
        sizes = [*shown, *(frame for clip in clips for frame in clip.frames)]
        return PromptLength(
            form.kind,
            text + sum(added for added, _ in (*pictures, *videos)),
            pictures=tuple(visual for _, visual in pictures),
            video=sum(visual for _, visual in videos),
            pixels=max((size.width * size.height for size in sizes), default=0),
            side=self.sides.get(form.kind) if sizes else None,
        )

    def _count_picture(self, size: PictureSize) -> tuple[int, int]:
        """How many tokens a picture adds to its mark, and its visual tokens."""
        pictures = getattr(self.processor, "image_processor", None)
        count, merge = getattr(pictures, "get_number_of_image_patches", None), getattr(pictures, "merge_size", None)
        if count is None or not isinstance(merge, int):
            return self._added(size, blank(size), "image_token_id")
        # Not through the processor's _get_num_multimodal_tokens, which writes options into the defaults of its class. As in
        # transformers, min_pixels and max_pixels count only together.
        both = {key: self.options[key] for key in ("min_pixels", "max_pixels") if self.options.get(key) is not None}
        visual = int(count(size.height, size.width, both if len(both) == 2 else {})) // merge**2
        return visual - 1, visual

    def _count_clip(self, clip: ClipSize) -> tuple[int, int]:
        """The same for a clip that is shown as a video."""
        from ssl4rl_plugin.core import Clip

        return self._added(clip, Clip(tuple(map(blank, clip.frames)), 1.0), "video_token_id")

    def _added(self, size: PictureSize | ClipSize, gray: Any, mark: str) -> tuple[int, int]:
        """The same by the processor's own count for gray pixels."""
        text = self._text([size])
        chat = chat_of([gray], self.system_prompt, self.as_video)
        ids = [int(token) for token in processor_inputs(self.processor, [text], [chat], **self.options)["input_ids"][0]]
        visual = ids.count(getattr(self.processor, mark, -1))
        return len(ids) - len(self.tokenizer(text)["input_ids"]), visual


def _pictures(piece: str | PictureSize | ClipSize, as_video: bool) -> Sequence[PictureSize]:
    if isinstance(piece, PictureSize):
        return (piece,)
    return piece.frames if isinstance(piece, ClipSize) and not as_video else ()
