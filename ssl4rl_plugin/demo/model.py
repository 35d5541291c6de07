"""A Qwen2.5-VL with under a million random parameters, its tokenizer and its processor. Tasks on graphs use a Qwen2.5 of
the same size, without a vision tower.

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
from collections.abc import Iterable
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


def train_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer (`PreTrainedTokenizerFast`), trained on `texts`; it can encode any text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
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


def build_model(tokenizer: Any, seed: int, vision: bool = True) -> Any:
    """A `Qwen2_5_VLForConditionalGeneration`, or without vision a `Qwen2ForCausalLM`, in float32.

    The weights are random and depend only on `seed`.
    """
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Config, Qwen2ForCausalLM

    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    ends = {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    text_config = {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HIDDEN // HEAD_DIM,
        "num_key_value_heads": HIDDEN // HEAD_DIM // 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {**rope, "mrope_section": [4, 6, 6]} if vision else rope,
        "tie_word_embeddings": False,
        **ends,
    }
    model: Any
    if vision:
        config = Qwen2_5_VLConfig(
            text_config=text_config,
            vision_config={
                "depth": VISION_LAYERS,
                "hidden_size": VISION_HIDDEN,
                "num_heads": VISION_HIDDEN // HEAD_DIM,
                "intermediate_size": 2 * VISION_HIDDEN,
                "out_hidden_size": HIDDEN,
                "patch_size": PATCH,
                "spatial_merge_size": MERGE,
                "temporal_patch_size": 2,
                "window_size": 8 * PATCH,
                "fullatt_block_indexes": [VISION_LAYERS - 1],
                "in_channels": 3,
            },
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
            tie_word_embeddings=False,
            **ends,
        )
        config._attn_implementation = "sdpa"
        model = Qwen2_5_VLForConditionalGeneration(config).float()
    else:
        text_only = Qwen2Config(**text_config)
        text_only._attn_implementation = "sdpa"
        model = Qwen2ForCausalLM(text_only).float()
    model.generation_config.eos_token_id = ends["eos_token_id"]
    model.generation_config.pad_token_id = ends["pad_token_id"]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() < 2:
                continue  # norms and biases keep transformers' ones and zeros
            if "embed_tokens" in name:
                std = 0.5
            elif "lm_head" in name:
                std = 0.02  # all answers are nearly equally likely at the start
            else:
                std = weight[0].numel() ** -0.5
            weight.normal_(0.0, std, generator=generator)
    return model


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model, tokenizer and processor (if it has vision) so that AutoProcessor, verl and vLLM load them offline."""
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
    unit = PATCH * MERGE
    common = {
        "min_pixels": unit**2,
        "max_pixels": (2 * unit) ** 2,
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": MERGE,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    for file, kind in (
        ("preprocessor_config.json", {"image_processor_type": "Qwen2VLImageProcessor"}),
        ("video_preprocessor_config.json", {"video_processor_type": "Qwen2VLVideoProcessor"}),
    ):
        settings = {**kind, "processor_class": "Qwen2_5_VLProcessor", **common}
        (folder / file).write_text(json.dumps(settings, indent=1))
