"""Read the settings of verl's own examples into docs/verl_examples.yaml: `python docs/verl_examples.py VERL`.

VERL is a checkout of verl's repository, or its git directory. Each script runs with a `python3` that prints its arguments,
so the settings are those that bash makes of the script.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parent / "verl_examples.yaml"
LEFT_OUT = (
    "data.train_files", "data.val_files", "data.image_key", "trainer.logger", "trainer.project_name",
    "trainer.experiment_name", "ray_kwargs.ray_init.runtime_env.py_executable",
)  # fmt: skip
"""Names, files and loggers."""


def script_text(verl: Path, name: str) -> str:
    """A file of verl's repository, as it is checked out or at HEAD."""
    if (verl / name).is_file():
        return (verl / name).read_text(encoding="utf-8")
    done = subprocess.run(
        ["git", "-C", str(verl), "show", f"HEAD:{name}"], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def settings(script: str) -> dict[str, Any]:
    """The overrides that a script gives to main_ppo, without `LEFT_OUT`."""
    with tempfile.TemporaryDirectory() as folder:
        fake = Path(folder) / "python3"
        fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        fake.chmod(0o755)
        path = Path(folder) / "script.sh"
        path.write_text(script)
        environment = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": folder, "DEVICE": "gpu", "VERL_USE_UV": "0"}
        done = subprocess.run(
            ["bash", str(path)], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
    pairs = (line.lstrip("+").partition("=") for line in done.stdout.splitlines() if "=" in line)
    return {key: _value(value) for key, _, value in pairs if key not in LEFT_OUT}


def _value(text: str) -> Any:
    try:
        return float(text) if "e" in text else yaml.safe_load(text)  # YAML takes 1e-6 for text
    except ValueError:
        return yaml.safe_load(text)


def refresh(verl: Path) -> dict[str, Any]:
    """The content of `FILE` with the settings of the scripts in `verl`."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    for example in found["examples"]:
        example["settings"] = settings(script_text(verl, example["script"]))
    return found


if __name__ == "__main__":
    content = refresh(Path(sys.argv[1]))
    comments = "".join(line for line in FILE.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
    FILE.write_text(comments + yaml.safe_dump(content, sort_keys=False, width=120), encoding="utf-8")
