"""Whether the model of a run can be loaded: its files on this machine, the hub, and a processor that verl knows.

A model is a local folder, or a name on the Hugging Face hub, whose files are in the hub's cache or must be downloaded.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core.hub import HUB_SECONDS as HUB_SECONDS
from ssl4rl_plugin.core.hub import ask_hub
from ssl4rl_plugin.training.machine import Finding

PROCESSORS = (
    "Qwen2VLProcessor", "Qwen2_5_VLProcessor", "Qwen3VLProcessor", "Glm4vProcessor", "Glm46VProcessor",
    "MllamaProcessor", "Gemma4Processor",
)  # fmt: skip
"""The processors that verl.utils.hf_processor takes. With another one, verl drops the pictures with only a warning."""
FAMILIES = "Qwen2-VL, Qwen2.5-VL, Qwen3-VL, GLM-4V, GLM-4.6V, Mllama and Gemma 4"
"""The models of these processors."""
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
NAME = "model"
_KEY = "actor_rollout_ref.model.path"


@dataclass(frozen=True)
class Model:
    """What is known about a model before it is loaded."""

    config: dict[str, Any] | None
    """Its config.json; None if it is neither here nor on the hub nor among memory.KNOWN."""
    processor: str | None
    """Class of its processor; None if it is not known."""
    findings: tuple[Finding, ...] = ()

    @property
    def sees(self) -> bool:
        """True if the model takes pictures."""
        return self.processor is not None or any("vision" in key or key == "visual" for key in self.config or {})

    @property
    def heads(self) -> int | None:
        """Attention heads of the text model."""
        config = self.config or {}
        text = config.get("text_config") or config
        found = text.get("num_attention_heads")
        return int(found) if found else None


def inspect(path: str, download: bool = True) -> Model:
    """Look for a model's files, and ask the hub for its config if they are not here. Takes at most `HUB_SECONDS`.

    Args:
        path: `actor_rollout_ref.model.path`.
        download: False if the run takes the model from another machine's cache, so that only local folders count.
    """
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        return _in_folder(folder, tuple(_folder_findings(folder)))
    if path.startswith((".", "/", "~")):
        return Model(None, None, (Finding(NAME, f"there is no folder {path}", f"correct {_KEY}"),))
    if "://" in path or os.environ.get("VERL_USE_MODELSCOPE", "").lower() == "true":
        return Model(None, None)  # verl copies it from there
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) is None:
        message = f"{path!r} is neither a folder nor the name of a model on the hub"
        return Model(None, None, (Finding(NAME, message, f"correct {_KEY}"),))
    snapshot = cached(path)
    if snapshot is not None and not (download and missing_files(snapshot)):
        return _in_folder(snapshot, ())
    if not download:
        return _known(path)
    return _from_hub(path, snapshot)


def cached(name: str) -> Path | None:
    """The folder of a hub model's main revision in the cache; None if no part of it was downloaded."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repo = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    try:
        revision = (repo / "refs" / "main").read_text().strip()
    except OSError:
        return None
    snapshot = repo / "snapshots" / revision
    return snapshot if snapshot.is_dir() else None


def missing_files(folder: Path) -> list[str]:
    """The files of a model that are missing or cut off, each with the reason; empty if it is complete."""
    missing = [] if (folder / "config.json").is_file() else ["config.json is missing"]
    broken = [f"{file.name} is a link to a file that is not there" for file in folder.iterdir() if _dangling(file)]
    named = {name for index in INDEXES for name in _shards(folder / index)}
    absent = [f"{name} is missing" for name in sorted(named) if not os.path.lexists(folder / name)]
    weights = [file for pattern in WEIGHTS for file in sorted(folder.glob(pattern)) if file.is_file()]
    if not named and not weights and not broken:
        missing.append("no weights (*.safetensors)")
    cut = [f"{file.name} is cut off or no safetensors file" for file in weights if not whole(file)]
    return [*missing, *broken, *absent, *cut]


def whole(file: Path) -> bool:
    """False if a safetensors file is shorter than its header says, as after a broken copy. True for other files."""
    if file.suffix != ".safetensors":
        return file.stat().st_size > 0
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        size = file.stat().st_size
        if not 2 <= length <= size - 8:
            return False
        try:
            header = json.loads(content.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
    return bool(size >= 8 + length + end)


def _dangling(file: Path) -> bool:
    return file.is_symlink() and not file.exists()


def _shards(index: Path) -> set[str]:
    """The files that a model's index names."""
    found = _json(index).get("weight_map")
    return set(found.values()) if isinstance(found, dict) else set()


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _folder_findings(folder: Path) -> list[Finding]:
    if not (folder / "config.json").is_file():
        message = f"{folder} has no config.json, so it is not a model folder"
        return [Finding(NAME, message, f"correct {_KEY}")]
    if missing := missing_files(folder):
        remedy = "copy or download the model again, e.g. with `hf download NAME --local-dir FOLDER`"
        return [Finding(NAME, f"{folder} is not complete ({_some(missing)})", remedy)]
    return []


def _some(texts: list[str]) -> str:
    return "; ".join(texts[:3]) + (f"; and {len(texts) - 3} more" if len(texts) > 3 else "")


def _in_folder(folder: Path, findings: tuple[Finding, ...]) -> Model:
    config = _json(folder / "config.json") or None
    given = (
        _json(folder / name).get("processor_class")
        for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
    )
    processor = next((found for found in given if found), None) or _processor_of(config)
    return Model(config, processor, findings)


def _processor_of(config: dict[str, Any] | None) -> str | None:
    """The class of the processor that transformers has for a model type."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    found = PROCESSOR_MAPPING_NAMES.get((config or {}).get("model_type", ""))
    return found if isinstance(found, str) else None


def _known(path: str, *findings: Finding) -> Model:
    """What this package knows of the recipes' own models."""
    from ssl4rl_plugin.training.model_size import KNOWN

    if path not in KNOWN:
        return Model(None, None, findings)
    kind, content = KNOWN[path]
    config = {"model_type": kind, **content}
    return Model(config, _processor_of(config), findings)


def _from_hub(name: str, snapshot: Path | None) -> Model:
    """A model that must be downloaded, all or in part."""
    state = "is not in the cache"
    if snapshot is not None:
        partial = [*(snapshot.parent.parent / "blobs").glob("*.incomplete")]
        broken_off = f"; {len(partial)} files are half downloaded" if partial else ""
        state = f"is only in part in the cache ({_some(missing_files(snapshot))}{broken_off})"
    download = f"download it on a machine with a network (hf download {name}), or give a local folder as {_KEY}"
    answer = ask_hub(name)
    if answer.offline or answer.error:
        why = "HF_HUB_OFFLINE forbids the download" if answer.offline else f"the hub cannot be reached ({answer.error})"
        return _known(name, Finding(NAME, f"{name} {state}, and {why}", download))
    if answer.status in (401, 403, 404):
        remedy = f"correct {_KEY}; for a gated or private model, accept its terms and log in (hf auth login)"
        return _known(name, Finding(NAME, f"{answer.place} has no {name} for you (HTTP {answer.status})", remedy))
    note = Finding(
        NAME, f"{name} {state}: the run downloads it first", f"hf download {name} shows progress", fatal=False
    )
    if answer.config is None:
        return _known(name, note)
    return Model(answer.config, _processor_of(answer.config), (note,))


def processor_findings(path: str, model: Model) -> list[Finding]:
    """Whether verl takes the processor of a model with pictures."""
    if not model.sees or model.processor is None or model.processor in PROCESSORS:
        return []
    kind = (model.config or {}).get("model_type", "unknown")
    message = f"verl has no processor for {path} (model type {kind}, {model.processor}), so pictures would be lost"
    return [Finding("processor", message, f"choose a model that it knows: {FAMILIES}")]
