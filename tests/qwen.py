"""The tokenizer and the processors of Qwen2.5, Qwen2.5-VL and Qwen3-VL, without a download of the models (on the path of
every test, see pyproject).

The byte-pair vocabulary is Qwen's own: dashscope, Alibaba's client on PyPI, ships it as `resources/qwen.tiktoken`. Its
ranks are the token ids of all Qwen models since the first. The special tokens that dashscope adds to it are those of the
first Qwen; the tokens from 151646 on are those of Qwen2.5 and Qwen3, by their published `tokenizer_config.json`. The pixel
limits and patches are those of the published `preprocessor_config.json`. The chat templates are ours, in the form that
Qwen documents: ChatML turns, each picture between <|vision_start|> and <|vision_end|>.
"""

from __future__ import annotations

import base64
import functools
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

VOCABULARY = 151_643
"""Byte-pair tokens; the special tokens follow."""
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
ADDED = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>",
)  # fmt: skip
ADDED_QWEN3 = ("<tool_response>", "</tool_response>", "<think>", "</think>")
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What Qwen splits text into before it merges bytes; the same in dashscope's `qwen_tokenizer.py`."""

TURNS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nSYSTEM<|im_end|>\n{% endif %}"
TEMPLATES = {
    "qwen2": SYSTEM.replace("SYSTEM", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.") + TURNS,
    "qwen2_5_vl": SYSTEM.replace("SYSTEM", "You are a helpful assistant.") + TURNS,
    "qwen3_vl": TURNS,
}
"""By transformers' `model_type`. Qwen3-VL adds no system message."""
MODELS = {
    "Qwen/Qwen2.5-3B-Instruct": "qwen2",
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2_5_vl",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl",
    "Qwen/Qwen3-VL-2B-Instruct": "qwen3_vl",
    "Qwen/Qwen3-VL-4B-Instruct": "qwen3_vl",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3_vl",
}
"""The family of each model of the recipes."""


def has_vocabulary() -> bool:
    """Whether dashscope is installed (the `dev` extra)."""
    return find_spec("dashscope") is not None


@functools.cache
def ranks() -> dict[bytes, int]:
    """The rank of each byte-pair token, which is its id."""
    spec = find_spec("dashscope")
    assert spec is not None and spec.origin is not None
    text = (Path(spec.origin).parent / "resources" / "qwen.tiktoken").read_bytes()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in text.splitlines() if line)}


@functools.cache
def _byte_letters() -> tuple[str, ...]:
    """The letter by which `tokenizers` writes each byte (GPT-2's table): printable bytes stand for themselves."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return tuple(chr(byte) if byte in plain else chr(256 + others.index(byte)) for byte in range(256))


def _written(token: bytes) -> str:
    return "".join(_byte_letters()[byte] for byte in token)


def _merge_of(token: bytes, by_rank: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that were merged last: byte-pair merging by the ranks below the token's own."""
    own, parts = by_rank[token], [token[k : k + 1] for k in range(len(token))]
    while len(parts) > 2:
        pairs = [by_rank.get(parts[k] + parts[k + 1], own) for k in range(len(parts) - 1)]
        first = min(range(len(pairs)), key=pairs.__getitem__)
        assert pairs[first] < own, token
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return parts[0], parts[1]


@functools.cache
def merges() -> tuple[tuple[str, str], ...]:
    """The merges in order, as `tokenizers` wants them."""
    by_rank = ranks()
    found = (_merge_of(token, by_rank) for token in sorted(by_rank, key=by_rank.__getitem__) if len(token) > 1)
    return tuple((_written(left), _written(right)) for left, right in found)


@functools.cache
def tokenizer(family: str) -> Any:
    """A `PreTrainedTokenizerFast` for `qwen2`, `qwen2_5_vl` or `qwen3_vl`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE({_written(token): rank for token, rank in ranks().items()}, list(merges())))
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    added = ADDED + (ADDED_QWEN3 if family == "qwen3_vl" else ())
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
        chat_template=TEMPLATES[family],
        model_max_length=131_072,
        clean_up_tokenization_spaces=False,
    )


def processor(family: str) -> Any:
    """The processor of `qwen2_5_vl` or `qwen3_vl`."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor
    from transformers.models.qwen2_vl import Qwen2VLImageProcessor

    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    made: Any
    if family == "qwen2_5_vl":
        size = {"shortest_edge": 3136, "longest_edge": 12_845_056}
        kinds: Any = (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor)
        shared: dict[str, Any] = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
        pictures, videos = {**shared, "size": dict(size)}, {**shared, "size": dict(size)}
    else:
        kinds = (Qwen3VLProcessor, Qwen3VLVideoProcessor)
        shared = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, **half}
        pictures = {**shared, "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}}
        videos = {**shared, "size": {"shortest_edge": 4096, "longest_edge": 25_165_824}}
    made = kinds[0](
        image_processor=Qwen2VLImageProcessor(**pictures),
        tokenizer=tokenizer(family),
        video_processor=kinds[1](**videos),
        chat_template=TEMPLATES[family],
    )
    return made


def save(family: str, folder: Path) -> Path:
    """Write tokenizer, processor and a config without weights into `folder`, as the hub's folder of the model has them."""
    from transformers import AutoConfig

    (tokenizer(family) if family == "qwen2" else processor(family)).save_pretrained(folder)
    ids = {name: VOCABULARY + SPECIAL.index(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    marks = {f"{name}_token_id": number for name, number in ids.items()}
    marks |= {f"{name}_token_id": VOCABULARY + SPECIAL.index(f"<|{name}_pad|>") for name in ("image", "video")}
    config = AutoConfig.for_model(family, **({} if family == "qwen2" else marks)).to_dict()
    (folder / "config.json").write_text(json.dumps(config, default=str))
    return folder
