"""Attention from the tokens of an answer to the tokens of a picture, in a model of the Qwen-VL family.

Runs one forward pass over prompt and answer with transformers' eager attention. A hook on every layer keeps only the rows of
the answer's tokens, with all columns outside of the picture summed into one. So memory does not grow with the number of
layers times the square of the length; within one layer, eager attention holds that square for each head.

The picture's tokens lie on a grid (`image_grid_thw` divided by the merge size), row by row from the top left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.grading.formats import FORMATS

Method = Literal["raw", "rollout"]
METHODS: tuple[Method, ...] = ("raw", "rollout")
"""The methods of `trace`."""


class AttentionError(UserError):
    """Attention cannot be traced or shown; the message says why and what to do."""


@dataclass(frozen=True)
class ImageBox:
    """A rectangle in pixels of the upright image, x to the right and y down; x1 and y1 are exclusive."""

    x0: float
    y0: float
    x1: float
    y1: float

    @classmethod
    def parse(cls, text: str) -> ImageBox:
        """`"10,20,110,220"` as a box. Raises AttentionError."""
        try:
            x0, y0, x1, y1 = (float(part) for part in text.split(","))
        except ValueError:
            raise AttentionError(f"box {text!r}: write it as x0,y0,x1,y1 in pixels of the image") from None
        if not (0 <= x0 < x1 < np.inf and 0 <= y0 < y1 < np.inf):
            raise AttentionError(f"box {text!r}: x0 < x1 and y0 < y1 are needed, and nothing below 0")
        return cls(x0, y0, x1, y1)

    def check_inside(self, size: tuple[int, int]) -> None:
        """Raises AttentionError unless the box lies inside an image of `size` (width, height)."""
        if self.x1 > size[0] or self.y1 > size[1]:
            raise AttentionError(
                f"box {self.x0:g},{self.y0:g},{self.x1:g},{self.y1:g} is not inside of the image, which has {size[0]} x "
                f"{size[1]} pixels"
            )


@dataclass(frozen=True)
class BoxShare:
    """The share of the attention to the picture that falls into a box."""

    attention: float
    """Share of the attention to the picture, in [0, 1]; a token cut by the box counts with its area inside."""
    area: float
    """Share of the picture's area, in (0, 1]: the value for evenly spread attention."""


@dataclass(frozen=True)
class AttentionTrace:
    """The answer of one model to a question about a picture, and the attention of the answer's tokens."""

    answer: str
    """The whole response, without its end token."""
    tokens: tuple[str, ...]
    """The answer's tokens whose attention is averaged."""
    method: Method
    grid: tuple[int, int]
    """(rows, columns) of the picture's tokens."""
    weights: np.ndarray
    """Shape (layers, heads, rows * columns + 1), float32: mean attention of the tokens to each of the picture's tokens, and
    in the last column to everything else. Sums to 1 along the last axis. `rollout` has one head, and layer i holds the
    rollout from the input up to that layer."""
    seen: Image.Image
    """The picture as the model saw it, RGB."""
    size: tuple[int, int]
    """(width, height) of the input image."""

    def heat(self, layer: int | None = None, head: int | None = None) -> np.ndarray:
        """Attention to the picture, of shape (rows, columns).

        Args:
            layer: 0-based, negative from the end; None for the mean over layers (`raw`), or the last (`rollout`).
            head: 0-based, negative from the end; None for the mean over heads.

        Raises:
            AttentionError: there is no such layer or head.
        """
        layers, heads, _ = self.weights.shape
        if head is not None and self.method == "rollout":
            raise AttentionError("rollout averages over heads, as its paper does: leave the head at `mean`")
        for name, number, count in (("layer", layer, layers), ("head", head, heads)):
            if number is not None and not -count <= number < count:
                raise AttentionError(f"{name} {number} is out of range: the model has {count} (0 to {count - 1})")
        if layer is None and self.method == "rollout":
            layer = -1
        chosen = self.weights if layer is None else self.weights[[layer]]
        chosen = chosen if head is None else chosen[:, [head]]
        return chosen[..., :-1].mean(axis=(0, 1), dtype=np.float64).reshape(self.grid)

    def box_share(self, box: ImageBox, heat: np.ndarray) -> BoxShare:
        """The share of `heat` (from `heat()`) inside of a box. Raises AttentionError if the box leaves the image."""
        box.check_inside(self.size)
        width, height = self.size
        inside_y = _covered(self.grid[0], box.y0 / height, box.y1 / height)
        inside_x = _covered(self.grid[1], box.x0 / width, box.x1 / width)
        total = float(heat.sum())
        return BoxShare(
            attention=float(inside_y @ heat @ inside_x) / total if total > 0 else 0.0,
            area=(box.x1 - box.x0) * (box.y1 - box.y0) / (width * height),
        )


def _covered(cells: int, low: float, high: float) -> np.ndarray:
    """For each of `cells` equal parts of [0, 1], the share that lies within [low, high]."""
    starts = np.arange(cells) / cells
    overlap = np.minimum(starts + 1 / cells, high) - np.maximum(starts, low)
    return np.clip(overlap * cells, 0.0, 1.0)


def load(model: str, adapter: str | None = None) -> tuple[Any, Any]:
    """A model with eager attention on the best device, and its processor.

    Args:
        model: a folder in Hugging Face's layout, or a name on the hub.
        adapter: folder of a LoRA adapter to merge into the weights; None for none.

    Raises:
        AttentionError: the model cannot be loaded, or takes no pictures.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise AttentionError(f"{model} is no model that transformers can load: {_first_line(error)}") from error
    if getattr(config, "vision_config", None) is None or getattr(config, "image_token_id", None) is None:
        raise AttentionError(f"{model} ({config.model_type}) has no vision part: give a vision-language model")
    try:
        processor = AutoProcessor.from_pretrained(model)
        loaded = AutoModelForImageTextToText.from_pretrained(model, attn_implementation="eager", dtype="auto")
        if adapter is not None:
            from peft import PeftModel

            loaded = PeftModel.from_pretrained(loaded, adapter).merge_and_unload()
    except (OSError, ValueError, ImportError) as error:
        raise AttentionError(f"{model} cannot be loaded: {_first_line(error)}") from error
    if getattr(processor, "image_processor", None) is None:
        raise AttentionError(f"{model} has no image processor (preprocessor_config.json), so it cannot take pictures")
    return loaded.to("cuda" if torch.cuda.is_available() else "cpu").eval(), processor


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@torch.inference_mode()
def trace(
    model: Any,
    processor: Any,
    image: Image.Image,
    question: str,
    *,
    answer: str | None = None,
    method: Method = "raw",
    whole_response: bool = False,
    max_tokens: int = 512,
) -> AttentionTrace:
    """Let a model answer a question about a picture, and record the attention of the answer's tokens.

    Averages the attention rows of the positions that produce the answer's tokens: token k comes from the state of the
    token before it. `raw` is the softmax of each head. `rollout` multiplies the layers, with half weight for the residual
    connection: R_0 = I, R_l = (A_l + I) / 2 R_(l-1), with A_l the mean over heads (S. Abnar and W. Zuidema, "Quantifying
    attention flow in transformers", ACL 2020, arXiv:2005.00928). Only the needed columns are computed, which is exact.

    Args:
        model: from `load`, with eager attention.
        processor: its processor.
        image: RGB.
        question: the user's turn, without the picture.
        answer: text to use as the response; None lets the model write one with greedy decoding.
        method: `raw` or `rollout`.
        whole_response: average over all tokens of the response. Otherwise over those of its last answer block
            (`<answer>`, `\\boxed{}`), or over all if it has none.
        max_tokens: maximum length of the response.

    Raises:
        AttentionError: the prompt has no picture tokens, the response is empty, or the attention cannot be read.
    """
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=[text], images=[image], return_tensors="pt").to(model.device)
    columns, grid = picture_tokens(inputs, model.config.image_token_id, processor.image_processor.merge_size)
    prompt = inputs["input_ids"]
    if answer is None:
        written = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)[0, prompt.shape[1] :]
        response = written[: _length_without_end(written.tolist(), model.generation_config.eos_token_id)]
    else:
        response = processor.tokenizer(answer, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        response = response[:max_tokens].to(prompt.device)
    if not len(response):
        raise AttentionError("the model's response is empty, so there is no attention to show: give --answer")
    ids = response.tolist()
    said = processor.tokenizer.decode(ids, skip_special_tokens=False)
    chosen = range(len(ids)) if whole_response else answer_tokens(ids, processor.tokenizer)
    rows = [prompt.shape[1] - 1 + k for k in chosen]

    full = dict(inputs) | {"input_ids": torch.cat([prompt, response[None]], dim=1)}
    for name in ("attention_mask", "mm_token_type_ids"):  # the answer is text, and attended to
        if name in inputs:
            tail = torch.full_like(response, int(name == "attention_mask"), dtype=inputs[name].dtype)[None]
            full[name] = torch.cat([inputs[name], tail], dim=1)
    reader = _AttentionHook(columns, rows, full["input_ids"].shape[1], method)
    layers = getattr(model.get_decoder(), "layers", [])
    modules = [layer.self_attn for layer in layers if hasattr(layer, "self_attn")]
    if not modules or len(modules) != len(layers):
        raise AttentionError(f"attention of {type(model).__name__} cannot be read: not every layer has a `self_attn`")
    hooks = [module.register_forward_hook(reader) for module in modules]
    try:
        model(**full, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return AttentionTrace(
        answer=said,
        tokens=tuple(processor.tokenizer.decode([ids[k]]) for k in chosen),
        method=method,
        grid=grid,
        weights=np.stack(reader.found),
        seen=picture_seen(inputs["pixel_values"], grid, processor.image_processor),
        size=image.size,
    )


def picture_tokens(inputs: Any, token: int, merge: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Positions of the picture's tokens in the prompt, and their (rows, columns).

    Args:
        inputs: the processor's output for one prompt with one picture, with `input_ids` and `image_grid_thw`.
        token: id of the picture token.
        merge: vision patches along each side of a token.

    Raises AttentionError if there are none, or their number differs from the grid's.
    """
    places = (inputs["input_ids"][0] == token).nonzero()[:, 0]
    if "image_grid_thw" not in inputs or not len(places):
        raise AttentionError(
            "the prompt has no picture tokens on a grid (image_grid_thw): models of the Qwen2-VL, Qwen2.5-VL and Qwen3-VL "
            "kind are supported, with a chat template that has a place for pictures"
        )
    frames, height, width = inputs["image_grid_thw"][0].tolist()
    grid = (height // merge, width // merge)
    if frames != 1 or len(places) != grid[0] * grid[1]:
        raise AttentionError(f"the prompt has {len(places)} picture tokens, and the picture {grid[0]} x {grid[1]}")
    return places, grid


def picture_seen(pixel_values: torch.Tensor, grid: tuple[int, int], image_processor: Any) -> Image.Image:
    """The input picture of the vision tower, put together from its patches.

    Args:
        pixel_values: of shape (patches, channels * frames * patch * patch), normalised, in the processor's order: by merged
            token, then row by row.
        grid: rows and columns of merged tokens.
        image_processor: gives the patch and merge sizes, mean and standard deviation.
    """
    patch, merge = image_processor.patch_size, image_processor.merge_size
    parts = pixel_values.float().cpu().reshape(*grid, merge, merge, 3, -1, patch, patch)[:, :, :, :, :, 0]
    pixels = parts.permute(0, 2, 5, 1, 3, 6, 4).reshape(grid[0] * merge * patch, grid[1] * merge * patch, 3)
    pixels = pixels * torch.tensor(image_processor.image_std) + torch.tensor(image_processor.image_mean)
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def answer_tokens(ids: list[int], tokenizer: Any) -> range:
    """The tokens of a response's last answer block; all tokens if it has none."""
    text = tokenizer.decode(ids)
    for fmt, opening in (("answer_only", "<answer>"), ("boxed", "\\boxed{")):
        found = FORMATS[fmt].find(text).texts
        if found and found[-1]:
            start = text.rfind(opening + found[-1]) + len(opening)
            end = start + len(found[-1])
            first, last = (_tokens_within(ids, tokenizer, length) for length in (start, end - 1))
            return range(first, min(last + 1, len(ids)))
    return range(len(ids))


def _tokens_within(ids: list[int], tokenizer: Any, length: int) -> int:
    """The largest number of leading tokens whose text has at most `length` characters."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high + 1) // 2
        if len(tokenizer.decode(ids[:middle])) <= length:
            low = middle
        else:
            high = middle - 1
    return low


def _length_without_end(ids: list[int], ends: int | list[int] | None) -> int:
    """Number of tokens before the first end token."""
    stops = {ends} if isinstance(ends, int) else set(ends or ())
    return next((place for place, token in enumerate(ids) if token in stops), len(ids))


class _AttentionHook:
    """A forward hook for attention modules, called layer by layer, that collects `AttentionTrace.weights`."""

    def __init__(self, columns: torch.Tensor, rows: list[int], length: int, method: Method) -> None:
        self.columns = columns
        self.rows = torch.tensor(rows, device=columns.device)
        self.found: list[np.ndarray] = []
        """One array of shape (heads, picture tokens + 1) for each layer so far."""
        self.rolled: torch.Tensor | None = None
        if method == "rollout":
            # Rows of R_0 = I, with all columns outside of the picture summed into the last one.
            self.rolled = torch.zeros(length, len(columns) + 1, device=columns.device)
            self.rolled[:, -1] = 1.0
            self.rolled[columns, -1] = 0.0
            self.rolled[columns, torch.arange(len(columns), device=columns.device)] = 1.0

    def __call__(self, module: Any, inputs: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if weights is None:
            raise AttentionError("the model gives no attention weights: load it with attn_implementation='eager'")
        if self.rolled is not None:
            mixed = weights[0].float().mean(dim=0)
            mixed = mixed / mixed.sum(dim=-1, keepdim=True)  # 16-bit rows do not sum to exactly 1
            self.rolled = (mixed @ self.rolled.to(mixed.device) + self.rolled.to(mixed.device)) / 2
            self.found.append(self.rolled[self.rows].mean(dim=0, keepdim=True).cpu().numpy())
            return
        rows = weights[0][:, self.rows.to(weights.device)].float()
        rows = (rows / rows.sum(dim=-1, keepdim=True)).mean(dim=1)
        picture = rows[:, self.columns.to(rows.device)]
        rest = 1.0 - picture.sum(dim=-1, keepdim=True)
        self.found.append(torch.cat([picture, rest.clamp(min=0.0)], dim=-1).cpu().numpy())
