"""Paths with any characters get through Hydra's grammar, and a hint says how to type them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import verl  # noqa: F401  -- loads the plugin
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.training.override_hints import for_shell, hints, quoted

ON = "+plugin=ssl4rl"
TABLE = re.findall(
    r"^\| [^|]+ \| `(/[^`]+)` \| `([^`]+)` \|$",
    (Path(__file__).parent.parent / "docs" / "recipes.md").read_text("utf-8").split("## Paths with unusual")[1],
    re.MULTILINE,
)


def read(word: str) -> object:
    """The value of an override, as Hydra and OmegaConf read it."""
    override = OverridesParser.create().parse_override(word)
    assert not override.is_sweep_override()
    return OmegaConf.create({"value": override.value()}).value


def test_each_row_of_the_docs_gives_its_path() -> None:
    assert len(TABLE) == 11
    words = [word for _, typed in TABLE for word in shlex.split(typed)]
    assert len(words) == len(TABLE)
    with initialize_config_module("verl.trainer.config", version_base=None):
        for (path, _), word in zip(TABLE, words, strict=True):
            found = compose("ppo_trainer", overrides=[ON, "recipe=images", word])
            assert found.ssl4rl.source.path == path and found.data.ssl4rl.source.path == path
            assert hints([ON, word]) == []


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=20))
def test_any_quoted_text_is_read_back(text: str) -> None:
    assert read(f"key={quoted(text)}") == text
    assert shlex.split(for_shell(f"key={quoted(text)}")) == [f"key={quoted(text)}"]


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab/.=,'\"[]{}() \\~#$é"), max_size=8))
def test_a_path_is_read_as_it_is_or_the_hint_gives_it(text: str) -> None:
    """No path is misread without a hint, and what the hint says to type is read as the path."""
    path = "/" + text
    found = hints([ON, f"ssl4rl.source.path={path}"])
    if not found:
        assert "${" in path or read(f"ssl4rl.source.path={path}") == path
        return
    (word,) = shlex.split(found[0].split(" type ", 1)[1])
    assert read(word) == path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=images"], "add +plugin=ssl4rl"),
        (["ssl4rl.source.path=/data"], "add +plugin=ssl4rl"),
        ([ON, "ssl4rl.source.path=/my", "photos"], '"ssl4rl.source.path=/my photos"'),
        (
            [ON, "ssl4rl.benchmarks=[{name: tsv, path: /a=b/(1).tsv, limit: 5}]"],
            "\"ssl4rl.benchmarks=[{name: tsv, path: '/a=b/(1).tsv', limit: 5}]\"",
        ),
    ],
)
def test_hints_say_what_to_type(words: list[str], message: str) -> None:
    (hint,) = hints(words)
    assert message in hint


@pytest.mark.parametrize(
    "word",
    ["recipe=images", "ssl4rl.data=null", "ssl4rl.tasks=[rotation,'jigsaw:4x4']", "~trainer.logger", "ssl4rl.tasks=[a",
     "ssl4rl.source.path='/a=b'", "ssl4rl.benchmarks=[{name: tsv, path: /a/b.tsv}]", "a=1,2"],
)  # fmt: skip
def test_what_hydra_reads_and_what_cannot_be_guessed_has_no_hint(word: str) -> None:
    assert hints([ON, word]) == []


def test_doctor_says_how_to_quote() -> None:
    done = CliRunner().invoke(app, ["doctor", "--recipe", "images", "ssl4rl.source.path=/data/year=2024"])
    assert "type \"ssl4rl.source.path='/data/year=2024'\"" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=images"], "ssl4rl: add +plugin=ssl4rl"),
        ([ON, "recipe=images", "ssl4rl.source.path=/a=b"], "type \"ssl4rl.source.path='/a=b'\""),
    ],
)
def test_main_ppo_gives_the_hint_before_hydras_message(words: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count(message) == 1
    assert done.stderr.index(message) < done.stderr.index("HYDRA_FULL_ERROR")


@pytest.mark.slow
def test_without_the_plugin_the_doctor_names_the_plugin(tmp_path: Path) -> None:
    """Before, it was Hydra's advice to write +recipe=images, which helps nobody."""
    command = [sys.executable, "-c", "from ssl4rl_plugin.cli import app; app()", "doctor", "--recipe", "images"]
    environment = {**os.environ, "VERL_USE_EXTERNAL_PLUGINS": "none"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path, env=environment)
    assert done.returncode == 2 and "+plugin=ssl4rl" in done.stderr and "+recipe" not in done.stderr
    assert "VERL_USE_EXTERNAL_PLUGINS" in done.stderr
