"""Find the model that the user named: a Hugging Face name or folder, or a checkpoint of verl, which is merged first."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.files import making_folder
from ssl4rl_plugin.core.safe_path import environment, run_module

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
ADAPTER = "lora_adapter"
"""Folder in which verl's merger puts an adapter, beside the base weights."""
_STEP = re.compile(r"global_step_(\d+)")


class ModelError(UserError):
    """There is no model, or it cannot be merged; the message says what was expected."""


@dataclass(frozen=True)
class Model:
    """A model that can be loaded."""

    given: str
    """As the user named it."""
    path: str
    """A folder in Hugging Face's layout, or a name on the hub."""
    adapter: str | None
    """Folder of its LoRA adapter; None if it has none."""
    fingerprint: str
    """Changes when the model's files change; for a name on the hub, the name."""


def resolve(given: str, work: Path, say: Callable[[str], None]) -> Model:
    """Find a model, and merge a checkpoint.

    Args:
        given: a name on the Hugging Face Hub; a folder in Hugging Face's layout; verl's `global_step_N` or the `actor`
            folder in it. A checkpoint is merged, unless it holds a Hugging Face copy (`hf_model` in verl's
            `checkpoint.save_contents`), which is more exact: the merger rounds weights to bfloat16.
        work: folder for a merged model, under `merged/`.
        say: called with a sentence about each step.

    Raises:
        ModelError: there is no model.
    """
    folder = Path(given).expanduser()
    if not folder.is_dir():
        if folder.exists() or given.startswith((".", "/", "~")) or given.count("/") > 1:
            raise ModelError(f"there is no model folder {given}")
        return Model(given, given, None, given)
    folder = folder.resolve()
    if (folder / "config.json").is_file():
        if not _weights(folder):
            raise ModelError(f"{given} has a config.json, but no weights ({' or '.join(WEIGHTS)})")
        return Model(given, str(folder), None, _fingerprint(folder))
    actor = folder / "actor" if (folder / "actor").is_dir() else folder
    adapted = (actor / "lora_train_meta.json").is_file()
    copy = actor / "huggingface"
    if _weights(copy) and not adapted:
        say(f"{given}: taking the Hugging Face copy in the checkpoint")
        return Model(given, str(copy), None, _fingerprint(copy))
    backend = "fsdp" if (actor / "fsdp_config.json").is_file() else "megatron"
    if backend == "megatron" and not (actor / "model" / "huggingface").is_dir():
        raise ModelError(f"{given} is no model: {_what_is_there(folder)}")
    merged = _merge(actor, backend, work, say)
    adapter = merged / ADAPTER
    return Model(given, str(merged), str(adapter) if adapter.is_dir() else None, _fingerprint(actor))


def _what_is_there(folder: Path) -> str:
    """For a message: what a folder that is no model holds, or what a model needs."""
    steps = sorted(int(m[1]) for path in folder.glob("**/global_step_*") if (m := _STEP.fullmatch(path.name)))
    if steps:
        last = next(folder.glob(f"**/global_step_{steps[-1]}"))
        return f"it holds checkpoints; name one of them, say {last}"
    return (
        "a model has a config.json with weights beside it, and a checkpoint of verl has `actor` with fsdp_config.json "
        "(FSDP) or model/huggingface (Megatron)"
    )


def _weights(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) is not None for pattern in WEIGHTS)


def _fingerprint(folder: Path) -> str:
    """Hash of the names, sizes and modification times of a folder's files. Contents are not read: they can be gigabytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stamps = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(stamps).encode()).hexdigest()[:16]


def _merge(actor: Path, backend: str, work: Path, say: Callable[[str], None]) -> Path:
    """Run verl's model merger if this checkpoint is not merged yet. Returns the merged folder."""
    merged = work / "merged" / _fingerprint(actor)
    if merged.is_dir():
        say(f"already merged: {merged}")
        return merged
    say(f"merging {actor} with verl's model merger into {merged} (weights become bfloat16)")
    log = merged.with_suffix(".log")
    with making_folder(merged) as unfinished:
        command = run_module(
            "verl.model_merger", "merge", "--backend", backend, "--local_dir", str(actor), "--target_dir", str(unfinished),
        )  # fmt: skip
        with log.open("w") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment())
        if done.returncode or not _weights(unfinished):
            tail = "".join(deque(log.open(errors="replace"), maxlen=8))
            raise ModelError(f"verl's model merger failed on {actor}; the end of {log}:\n{tail}")
    return merged
