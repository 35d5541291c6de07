"""The sizes of a model that decide its memory, counted exactly from its config.

The model is built on PyTorch's meta device, which takes no memory. Configs of the recipes' models are known here, for
machines without a download.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core.errors import UserError

DEFAULT_POSITIONS = 32768


class UnknownModel(UserError):
    """The model's config is neither on this machine nor among the known ones."""


_VISION_2_5 = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
_VISION_3 = {
    "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [5, 11, 17],
}  # fmt: skip


def _text(hidden: int, layers: int, heads: int, kv_heads: int, inner: int, vocabulary: int = 151936) -> dict[str, int]:
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocabulary,
        "max_position_embeddings": 32768,
    }  # fmt: skip


def _vl(kind: str, text: dict[str, int], vision: dict[str, Any], tied: bool) -> tuple[str, dict[str, Any]]:
    vision = {**vision, "out_hidden_size": text["hidden_size"]}
    own: dict[str, Any] = {**text, "max_position_embeddings": 128000}
    if kind == "qwen3_vl":
        own |= {"head_dim": 128, "max_position_embeddings": 262144}
    return kind, {
        "text_config": {**own, "tie_word_embeddings": tied},
        "vision_config": vision,
        "tie_word_embeddings": tied,
    }


KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": _vl("qwen2_5_vl", _text(2048, 36, 16, 2, 11008), _VISION_2_5, tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _vl("qwen2_5_vl", _text(3584, 28, 28, 4, 18944, 152064), _VISION_2_5, tied=False),
    "Qwen/Qwen3-VL-2B-Instruct": _vl("qwen3_vl", _text(2048, 28, 16, 8, 6144), _VISION_3, tied=True),
    "Qwen/Qwen3-VL-4B-Instruct": _vl("qwen3_vl", _text(2560, 36, 32, 8, 9728), _VISION_3, tied=True),
    "Qwen/Qwen3-VL-8B-Instruct": _vl(
        "qwen3_vl",
        _text(4096, 36, 32, 8, 12288),
        _VISION_3
        | {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack_visual_indexes": [8, 16, 24]},
        tied=False,
    ),
    "Qwen/Qwen2.5-3B-Instruct": ("qwen2", {**_text(2048, 36, 16, 2, 11008), "tie_word_embeddings": True}),
}
"""Configs of the recipes' models, for machines without a download; only what decides sizes."""


@dataclass(frozen=True)
class ModelSize:
    """The sizes of a model that decide its memory."""

    name: str
    """The model's class."""
    parameters: int
    vision_parameters: int
    linear: dict[str, tuple[int, int]]
    """Inputs and outputs of every linear layer that can have an adapter, by name."""
    layer_parameters: int
    """Parameters of the text model's largest layer."""
    layers: int
    hidden: int
    inner: int
    """Inner size of the gated MLP."""
    kv_heads: int
    head_size: int
    vocabulary: int
    positions: int = DEFAULT_POSITIONS
    """Tokens of the longest context (`max_position_embeddings`)."""
    vision_layers: int = 0
    vision_hidden: int = 0
    vision_inner: int = 0
    vision_gated: bool = False
    """The vision tower's MLP has a gate."""
    patch: int = 0
    """Pixels along a patch."""
    merge: int = 0
    """Patches along a visual token."""
    image_tokens: int = 0
    """Visual tokens of the largest picture that the processor lets through."""
    video_tokens: int | None = None
    """The same for a video; None if the context decides."""

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache for one token in half precision."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_size

    @property
    def patches_per_token(self) -> int:
        """Patches that become one visual token."""
        return self.merge**2

    @property
    def token_pixels(self) -> int:
        """Pixels of a visual token."""
        return (self.patch * self.merge) ** 2

    @property
    def vision_bytes(self) -> int:
        """Bytes per patch at the peak of a forward pass of the vision tower in half precision: input, states, MLP."""
        inner = (3 if self.vision_gated else 2) * self.vision_inner
        return 2 * (2 * self.vision_hidden + inner + 2 * 3 * self.patch**2)

    @property
    def layer_bytes(self) -> int:
        """Bytes per token that a layer of the text model keeps for the backward pass in half precision."""
        return 24 * self.hidden + 8 * self.inner

    def adapters(self, rank: int, exclude: str | None) -> int:
        """Parameters of LoRA adapters on all linear layers whose name `exclude` does not match (arXiv 2106.09685)."""
        kept = (sizes for name, sizes in self.linear.items() if exclude is None or not re.fullmatch(exclude, name))
        return sum(rank * (inputs + outputs) for inputs, outputs in kept)


def model_size(path: str) -> ModelSize:
    """The size of a model: a local folder, a download in Hugging Face's cache, or a name in `KNOWN`.

    Raises:
        UnknownModel: `path` is none of these.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    folder = Path(path).expanduser()
    try:
        config = AutoConfig.from_pretrained(folder if folder.is_dir() else path, local_files_only=True)
    except (OSError, ValueError) as error:
        if path not in KNOWN:
            raise UnknownModel(f"{path}: no config.json on this machine, and not among {', '.join(KNOWN)}") from error
        kind, content = KNOWN[path]
        config = AutoConfig.for_model(kind, **content)
    text = config.get_text_config()
    vision = getattr(config, "vision_config", None)
    kind_of_model: Any = AutoModelForCausalLM if vision is None else AutoModelForImageTextToText
    with torch.device("meta"):
        model = kind_of_model.from_config(config)
    # A weight that two modules share counts once.
    counts = {name: weight.numel() for name, weight in model.named_parameters()}
    layers: dict[str, int] = {}
    for name, count in counts.items():
        if (found := re.match(r"(.*layers\.\d+)\.", name)) and "visual" not in name:
            layers[found[1]] = layers.get(found[1], 0) + count
    head = model.get_output_embeddings()
    return ModelSize(
        name=type(model).__name__,
        parameters=sum(counts.values()),
        vision_parameters=sum(count for name, count in counts.items() if "visual" in name),
        linear={
            name: (module.in_features, module.out_features)
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        },
        layer_parameters=max(layers.values(), default=0),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=text.intermediate_size,
        kv_heads=text.num_key_value_heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        vocabulary=text.vocab_size,
        positions=text.max_position_embeddings,
        **_vision_sizes(config.model_type, vision),
    )


LARGEST_PICTURE = {"qwen2_vl": 12845056, "qwen2_5_vl": 12845056, "qwen3_vl": 16777216}
"""Pixels of the largest picture that a family's processor lets through (`max_pixels`, `size.longest_edge`)."""
LARGEST_VIDEO = {"qwen3_vl": 25165824}
"""The same for all frames of a video together, where the processor has such a limit."""


def _vision_sizes(family: str, vision: Any) -> dict[str, Any]:
    """The fields of `ModelSize` for the vision tower; none for a text model."""
    if vision is None:
        return {}
    patch, merge = vision.patch_size, getattr(vision, "spatial_merge_size", 2)
    pixels, frames = LARGEST_PICTURE.get(family, max(LARGEST_PICTURE.values())), LARGEST_VIDEO.get(family)
    return {
        "vision_layers": vision.depth,
        "vision_hidden": vision.hidden_size,
        "vision_inner": vision.intermediate_size,
        "vision_gated": family == "qwen2_5_vl",
        "patch": patch,
        "merge": merge,
        "image_tokens": pixels // (patch * merge) ** 2,
        "video_tokens": frames and frames // (2 * (patch * merge) ** 2),
    }
