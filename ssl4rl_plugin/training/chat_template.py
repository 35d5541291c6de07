"""What a model's chat template says about its responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def opens_thought(renderer: Any, template: Mapping[str, Any]) -> bool:
    """Whether a model's chat template ends the generation prompt inside a thought, as those of thinking models do.

    Args:
        renderer: the processor or the tokenizer.
        template: verl's `data.apply_chat_template_kwargs`, e.g. `enable_thinking`.
    """
    mark = "?"
    content = [{"type": "text", "text": mark}] if hasattr(renderer, "image_processor") else mark
    chat = [{"role": "user", "content": content}]
    text = renderer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False, **template)
    return bool(text.rpartition(mark)[2].rstrip().endswith("<think>"))
