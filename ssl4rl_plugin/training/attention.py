"""Which attention a run trains with, and whether the machine has it.

verl's default, flash_attention_2, fails without the package flash-attn: transformers raises ImportError in the worker.
verl also packs the rows of a micro-batch without padding (`use_remove_padding`) with flash-attn's own function
(verl/models/transformers/qwen2_vl.py), so that packing without the package is a NameError in the first step.
"""

from __future__ import annotations

from importlib import metadata, util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl4rl_plugin.training.machine import Finding

FLASH = "flash_attention_2"
SDPA = "sdpa"
CHOICES = ("auto", FLASH, SDPA)
"""Values of `ssl4rl.attention`."""
KERNEL_KEY = "actor_rollout_ref.model.override_config.attn_implementation"
PACKING_KEY = "actor_rollout_ref.model.use_remove_padding"


def flash_attention_installed() -> bool:
    """True if flash-attn 2 is installed. Whether it fits the installed torch is another question (`machine`)."""
    try:
        version = metadata.version("flash-attn")
    except metadata.PackageNotFoundError:
        return False
    return version.startswith("2.") and util.find_spec("flash_attn") is not None


def attention_kernel(choice: str) -> str:
    """The attention implementation for `ssl4rl.attention`: `auto` takes flash-attn where it is installed.

    Raises:
        ValueError: `choice` is not one of `CHOICES`.
    """
    if choice not in CHOICES:
        raise ValueError(f"ssl4rl.attention is {choice!r}: choose one of {', '.join(CHOICES)}")
    if choice == "auto":
        return FLASH if flash_attention_installed() else SDPA
    return choice


def packs_rows(choice: str) -> bool:
    """Whether micro-batches pack rows without padding, for `ssl4rl.attention`."""
    return attention_kernel(choice) == FLASH


def attention_findings(config: Any, here: bool) -> list[Finding]:
    """What is wrong with the attention of a run on GPUs, and a note where it trains without flash-attn.

    Args:
        config: verl's config, composed.
        here: the run uses this machine. Other machines may have other packages.
    """
    from ssl4rl_plugin.training.machine import Finding

    model = config.actor_rollout_ref.model
    kernel = model.override_config.get("attn_implementation", FLASH)
    if kernel == FLASH and here and not flash_attention_installed():
        message = f"{KERNEL_KEY} is {FLASH}, and flash-attn is not installed"
        remedy = f"set ssl4rl.attention=auto (without {KERNEL_KEY}), or install it (docs/installation.md)"
        return [Finding("attention", message, remedy)]
    if kernel == FLASH:
        return []
    if model.use_remove_padding:
        message = f"{PACKING_KEY} is true, and packed rows need {FLASH}, not {kernel}"
        return [Finding("attention", message, f"set {PACKING_KEY}=false, or ssl4rl.attention=auto for both")]
    if not here:
        return []
    why = "is not installed" if not flash_attention_installed() else "is not used"
    message = f"{kernel}, with padded rows: flash-attn {why}. The run is right, and its steps are slower"
    return [Finding("attention", message, "docs/installation.md tells how to install it", fatal=False)]
