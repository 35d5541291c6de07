"""A Qwen2.5-VL with under a million random parameters, its tokenizer and its processor. Tasks on graphs use a Qwen2.5 of
the same size, without a vision tower. A rehearsal takes the family, patches and pixel limits of the recipe's model.

The architecture is transformers' own, the tokenizer a byte-level BPE trained on the run's prompts, the processor Qwen's.
The model loads offline with AutoProcessor, in verl and in vLLM.

Policy gradient from random weights works with these sizes and initial values (docs/cpu.md has the curves):

- linear layers start with standard deviation 1/sqrt(fan-in), embeddings with 0.5; with transformers' 0.02 the picture
  hardly changes the answer, and learning stalls;
- the vision patches are 28 pixels wide and merged two by two, so a picture of 56 pixels is one visual token, whose four
  patches are the four quadrants.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""Qwen's special tokens; its processor and chat template expect them."""
TAGS = ("<answer>", "</answer>", "<think>", "</think>")
"""One token each, but not special: decoding must keep them for the reward function."""

PATCH = 28
"""Pixels along a vision patch."""
MERGE = 2
"""Patches along a visual token."""
VOCABULARY = 512
HIDDEN, LAYERS, HEAD_DIM = 128, 2, 32  # vLLM's attention kernels start at a head of 32
VISION_HIDDEN, VISION_LAYERS = 64, 1


@dataclass(frozen=True)
class Shape:
    """What a tiny model has in common with a real one, and the limits of its processor."""

    family: str = "qwen2_5_vl"
    """transformers' `model_type`: `qwen2_5_vl`, `qwen3_vl`, or `qwen2`, which has no vision tower."""
    patch: int = PATCH
    """Pixels along a vision patch."""
    min_pixels: int = (PATCH * MERGE) ** 2
    """The processor enlarges smaller pictures."""
    max_pixels: int = (2 * PATCH * MERGE) ** 2
    """The processor shrinks larger pictures."""
    positions: int = 4096
    """`max_position_embeddings`: vLLM's longest sequence, unless it is told another."""
    tied: bool = False
    """The input embeddings are also the weights of the output layer."""
    hidden: int = HIDDEN
    """Width of the language model; a multiple of `2 * HEAD_DIM`."""
    layers: int = LAYERS
    """Layers of the language model."""
    vision_hidden: int = VISION_HIDDEN
    """Width of the vision tower; a multiple of `HEAD_DIM`."""
    vision_layers: int = VISION_LAYERS
    """Layers of the vision tower."""
    frequencies: int = 0
    """Frequencies along each side of the filters that patches start with (see `smooth_filters`); 0 for white noise."""
    attention_gain: float = 1.0
    """Factor of the weights with which attention in the language model starts to write."""
    head: float = 0.02
    """Standard deviation of the output layer's initial weights. All answers are nearly equally likely at the start."""

    @property
    def vision(self) -> bool:
        """Whether the model takes pictures."""
        return self.family != "qwen2"


DEMO, DEMO_TEXT = Shape(), Shape("qwen2")
"""The models of the demo, for pictures and for text alone."""
FAMILIES = {
    "qwen2_5_vl": Shape("qwen2_5_vl", 14, 56 * 56, 12_845_056, 128_000),
    "qwen3_vl": Shape("qwen3_vl", 16, 256 * 256, 16_777_216, 262_144),
    "qwen2": Shape("qwen2", positions=32_768),
}
"""Patches, pixel limits and context of the published models, by transformers' `model_type`."""
_PROCESSORS = {
    "qwen2_5_vl": ("Qwen2_5_VLProcessor", "Qwen2VLImageProcessor", "Qwen2VLVideoProcessor"),
    "qwen3_vl": ("Qwen3VLProcessor", "Qwen2VLImageProcessor", "Qwen3VLVideoProcessor"),
}
"""transformers' classes for processor, pictures and videos."""


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY, phrases: Iterable[str] = ()) -> Any:
    """A byte-level BPE tokenizer (`PreTrainedTokenizerFast`), trained on `texts`; it can encode any text.

    Args:
        texts: what it is trained on.
        vocabulary: largest number of tokens, without `TAGS` and `phrases`.
        phrases: texts that are one token each, wherever they occur (see `phrases`). Not merges of the BPE: Qwen's
            tokenizer splits a text into words first.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    core.add_tokens([AddedToken(text, special=False, normalized=False) for text in (*TAGS, *phrases)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS),
        chat_template=chat_template(),
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def chat_template() -> str:
    """The chat template (Jinja): ChatML turns, pictures at their place in the content, no default system message."""
    return (files("ssl4rl_plugin.demo") / "chat_template.jinja").read_text()


def build_model(tokenizer: Any, seed: int, vision: bool = True, shape: Shape | None = None) -> Any:
    """A tiny model in float32, with random weights that depend only on `seed`.

    Args:
        tokenizer: its length is the model's vocabulary.
        seed: seed of the weights.
        vision: the demo's model for pictures, or its model for text. Ignored with `shape`.
        shape: the family and what else the model has in common with a real one.

    Returns:
        A `Qwen2_5_VLForConditionalGeneration`, a `Qwen3VLForConditionalGeneration` or a `Qwen2ForCausalLM`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    shape = shape or (DEMO if vision else DEMO_TEXT)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    ends = {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    if shape.family == "qwen3_vl":
        rope |= {"mrope_section": [6, 5, 5], "mrope_interleaved": True}  # vLLM reads the flag, transformers assumes it
    elif shape.vision:
        rope["mrope_section"] = [4, 6, 6]
    text_config = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.hidden,
        "intermediate_size": 2 * shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.hidden // HEAD_DIM,
        "num_key_value_heads": shape.hidden // HEAD_DIM // 2,
        "max_position_embeddings": shape.positions,
        "rope_parameters": rope,
        "tie_word_embeddings": shape.tied,
        **ends,
    }
    if shape.family == "qwen3_vl":
        text_config["head_dim"] = HEAD_DIM
    if shape.vision:
        config = AutoConfig.for_model(
            shape.family,
            text_config=text_config,
            vision_config=_vision_config(shape),
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
            tie_word_embeddings=shape.tied,
            **ends,
        )
    else:
        config = AutoConfig.for_model(shape.family, **text_config)
    kind: Any = AutoModelForImageTextToText if shape.vision else AutoModelForCausalLM
    model = kind.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    model.generation_config.eos_token_id = ends["eos_token_id"]
    model.generation_config.pad_token_id = ends["pad_token_id"]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() < 2:
                continue  # norms and biases keep transformers' ones and zeros
            if "embed_tokens" in name:
                std = 0.1 if shape.tied else 0.5  # tied ones also decide how sure the first answers are
            elif "lm_head" in name:
                std = shape.head
            else:
                std = weight[0].numel() ** -0.5
            if "o_proj" in name:
                std *= shape.attention_gain
            weight.normal_(0.0, std, generator=generator)
            if "patch_embed" in name and shape.frequencies:
                weight.copy_(smooth_filters(weight.shape, shape.frequencies, generator))
    return model


def smooth_filters(size: Sequence[int], frequencies: int, generator: Any) -> Any:
    """Random filters of patches, to which brightness, colours and coarse structure contribute equally.

    Most of a photograph's variance is the brightness of whole patches, so white noise sees little else. These filters are
    sums of cosines, each divided by its typical strength in photographs.

    Args:
        size: filters, channels (3), frames, height and width of a patch.
        frequencies: of the cosines of brightness, along each side; colours have two.
        generator: of the random numbers.
    """
    import torch

    filters, _, frames, side, _ = size
    places = (torch.arange(side) + 0.5) / side
    cosines = torch.cos(math.pi * torch.arange(frequencies)[:, None] * places)
    cosines /= cosines.norm(dim=1, keepdim=True)
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-0.5, 1.0, -0.5]])
    colours /= colours.norm(dim=1, keepdim=True)
    across = torch.arange(frequencies).float()
    distance = (across[:, None] ** 2 + across**2).sqrt()
    # Standard deviations in photographs with values in [-1, 1]: of the mean and of cosines, for brightness and colours.
    strength = (
        torch.where(distance == 0, 0.65, 0.25 / distance.clamp(min=1)) * torch.tensor([1, 0.28, 0.15])[:, None, None]
    )
    weights = torch.randn((filters, 3, frequencies, frequencies), generator=generator) / strength
    weights[:, 1:, 2:] = weights[:, 1:, :, 2:] = 0
    weights /= (weights[0] != 0).sum().sqrt()
    made = torch.einsum("fkuv,uy,vx,kc->fcyx", weights, cosines, cosines, colours) / (side * frames)
    return made[:, :, None].expand(*size)


def _vision_config(shape: Shape) -> dict[str, Any]:
    """The vision tower, for a family's config."""
    common = {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_hidden,
        "num_heads": shape.vision_hidden // HEAD_DIM,
        "intermediate_size": 2 * shape.vision_hidden,
        "out_hidden_size": shape.hidden,
        "patch_size": shape.patch,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "in_channels": 3,
    }
    if shape.family == "qwen3_vl":
        # Every layer of the tower also feeds a layer of the text model.
        return {
            **common,
            "num_position_embeddings": 16 * 16,
            "deepstack_visual_indexes": list(range(shape.vision_layers)),
        }
    return {**common, "window_size": 8 * shape.patch, "fullatt_block_indexes": [shape.vision_layers - 1]}


def save(model: Any, tokenizer: Any, folder: Path, shape: Shape | None = None) -> None:
    """Write model, tokenizer and processor (if it has vision) so that AutoProcessor, verl and vLLM load them offline.

    Args:
        model: of `build_model`.
        tokenizer: of `train_tokenizer`.
        folder: created if it does not exist.
        shape: as for `build_model`.
    """
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["tokenizer_class"] = "Qwen2Tokenizer"  # the only one that Qwen's processor accepts
    settings.pop("added_tokens_decoder", None)  # tokenizer.json holds them
    path.write_text(json.dumps(settings, indent=1))
    (folder / "chat_template.jinja").write_text(chat_template())
    if not hasattr(model.config, "vision_config"):
        return
    shape = shape or DEMO
    processor, images, videos = _PROCESSORS[shape.family]
    common = {
        "processor_class": processor,
        "patch_size": shape.patch,
        "temporal_patch_size": 2,
        "merge_size": MERGE,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    pixels: dict[str, Any] = {"min_pixels": shape.min_pixels, "max_pixels": shape.max_pixels}
    if shape.family == "qwen3_vl":
        pixels = {"size": {"shortest_edge": shape.min_pixels, "longest_edge": shape.max_pixels}}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**common, **pixels, "image_processor_type": images}, indent=1)
    )
    if shape.family == "qwen3_vl":  # published limits for all frames of a clip together
        pixels = {"size": {"shortest_edge": 4096, "longest_edge": 25_165_824}}
    (folder / "video_preprocessor_config.json").write_text(
        json.dumps({**common, **pixels, "video_processor_type": videos}, indent=1)
    )
