"""What a stranger made does no harm: folders full of Python files, broken packages, rewards' arguments, files of runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from pictures import photo
from traps import set_traps, sprung

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.core.safe_path import environment, run_code, run_module

PROGRAM = str(Path(sys.executable).with_name("ssl4rl"))
COMMANDS = {
    "tasks": [],
    "recipes": [],
    "sources": [],
    "index": ["."],
    "preview": ["rotation", "--path", "."],
    "audit": ["rotation", "--path", ".", "-n", "80", "--workers", "2"],
    "score": ["rotation", "--truth", "90", "90"],
    "build": [".", "-t", "rotation", "--set", "val_samples=4", "--out", "../built", "--workers", "2"],
    "overlap": [".", "../others"],
    "report": ["metrics.jsonl"],
    "attention": ["../model", "0.png", "Which quadrant?", "--answer", "<answer>left</answer>"],
    "doctor": [],
    "doctor --recipe": ["cpu_demo", "ssl4rl.source.name=folder", "ssl4rl.source.path=."],
    "export vlmevalkit": ["../model", "-t", "rotation", "--path", ".", "--out", "../exported", "-n", "4"],
}
"""Command -> arguments with which it does its work, in a folder of pictures."""
STARTED_BY_E2E = {"demo", "evaluate"}
"""These take minutes: tests/e2e/conftest.py and test_evaluation.py start them in such a folder."""


def all_commands(command: object, name: str = "") -> set[str]:
    inner = getattr(command, "commands", None)
    return (
        {name.strip()}
        if inner is None
        else set().union(*(all_commands(of, f"{name} {key}") for key, of in inner.items()))
    )


def test_every_command_is_started_in_a_folder_of_traps() -> None:
    known = all_commands(typer.main.get_command(app))
    assert known == {name.split(" --")[0] for name in COMMANDS} | STARTED_BY_E2E


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of pictures and traps, and the folder of their marks; a tiny model and more pictures beside it."""
    from ssl4rl_plugin.demo.model import build_model, save, train_tokenizer

    root = tmp_path_factory.mktemp("trapped")
    folder, marks = set_traps(root / "data", root / "marks"), root / "marks"
    (root / "others").mkdir()
    for number in range(60):
        photo(number, 120, 96).save(folder / f"{number}.png")
    photo(99, 96, 120).save(root / "others" / "99.png")
    lines = [{"step": step, "data": {"timing_s/step": 1.0, "critic/score/mean": 0.1 * step}} for step in range(1, 4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokenizer = train_tokenizer(["Which quadrant? <answer>left</answer>"])
    save(build_model(tokenizer, 0), tokenizer, root / "model")
    return folder, marks


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_runs_nothing_of_the_folder_that_it_is_started_in(trapped: tuple[Path, Path], name: str) -> None:
    folder, marks = trapped
    arguments = [PROGRAM, *name.split(), *COMMANDS[name]]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300)
    assert sprung(marks) == []
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stdout + done.stderr


def test_traps_spring(tmp_path: Path) -> None:
    """The tests above could not fail otherwise."""
    folder = set_traps(tmp_path / "data", tmp_path / "marks")
    subprocess.run([sys.executable, "-c", "import pickle"], cwd=folder, capture_output=True)
    subprocess.run([sys.executable, "-m", "json.tool", "--help"], cwd=folder, capture_output=True)
    assert {"pickle.py", "json.py"} <= set(sprung(tmp_path / "marks"))


@pytest.mark.parametrize("safe", ["", "1"])
def test_python_programs_import_nothing_from_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safe: str
) -> None:
    """Also without the help of PYTHONSAFEPATH, which Python 3.10 does not have."""
    folder = set_traps(tmp_path / "data", tmp_path / "marks")
    monkeypatch.setenv("PYTHONSAFEPATH", safe)
    code = "import json, pickle, sys; print(json.dumps(sys.argv[1:]))"
    done = subprocess.run(run_code(code, "a b", "-c"), cwd=folder, capture_output=True, text=True)
    assert json.loads(done.stdout) == ["a b", "-c"], done.stderr
    done = subprocess.run(run_module("json.tool", "--help"), cwd=folder, capture_output=True, text=True)
    assert "usage" in done.stdout and done.returncode == 0, done.stderr
    child = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import pickle']))"
    assert subprocess.run(run_code(child), cwd=folder, env=environment(), capture_output=True).returncode == 0 or (
        sys.version_info < (3, 11)
    )
    assert sprung(tmp_path / "marks") == []
