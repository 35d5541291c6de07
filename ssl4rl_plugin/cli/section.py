"""The `ssl4rl` section of a recipe, for commands that work like a run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ssl4rl_plugin.training.settings import SettingsError


def section_for(
    source: str, path: Path | None, tasks: Sequence[str], options: dict[str, Any], changes: dict[str, Any]
) -> dict[str, Any]:
    """The `ssl4rl` section of the base recipe, with the user's choices; one epoch by default.

    Raises SettingsError for an unknown key.
    """
    text = (resources.files("ssl4rl_plugin.recipes") / "ssl4rl" / "base.yaml").read_text(encoding="utf-8")
    section: dict[str, Any] = yaml.safe_load(text)["ssl4rl"]
    section["epochs"] = 1
    section["tasks"] = list(tasks)
    section["source"] |= {"name": source, "path": None if path is None else str(path), "options": options}
    for key, value in changes.items():
        place = section
        *outer, last = key.split(".")
        for part in outer:
            place = place.get(part) or {} if isinstance(place, dict) else {}
        if not isinstance(place, dict) or (last not in place and outer != ["options"]):
            raise SettingsError(f"--set {key}: there is no key ssl4rl.{key}")
        place[last] = value
    return section
