"""What a run imports by name after minutes is imported before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import verl  # noqa: F401  -- loads the plugin
from test_preflight import config

from ssl4rl_plugin.training.start_checks import logger_findings
from ssl4rl_plugin.training.verl.import_checks import import_findings

REWARD, SAMPLER = "reward.custom_reward_function", "trainer.v1.sampler.custom_sampler"


def run(*overrides: str) -> Any:
    return config("recipe=images", *overrides)


@pytest.mark.parametrize("recipe", ["images", "cpu_demo", "graph_mixture", "dapo", "videos"])
def test_the_recipes_themselves_can_be_imported(recipe: str) -> None:
    name = "images" if recipe == "dapo" else recipe
    found = import_findings(config(f"recipe={name}", *(["ssl4rl/algorithm=dapo"] if recipe == "dapo" else [])))
    assert found == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"{REWARD}.path=/no/such.py"], [REWARD, "/no/such.py", "FileNotFoundError"]),
        ([f"{REWARD}.path=pkg://no_such_package.rewards"], ["ModuleNotFoundError", "no_such_package"]),
        ([f"{REWARD}.path=FOLDER/broken.py"], ["ZeroDivisionError"]),
        ([f"{REWARD}.path=FOLDER/leaves.py"], ["SystemExit"]),
        ([f"{REWARD}.path=FOLDER/good.py", f"{REWARD}.name=scroe"], ["scroe"]),
        (["data.custom_cls.path=pkg://ssl4rl_plugin.training.verl.datasets"], ["data.custom_cls", "ModuleNotFoundError"]),
        ([f"{SAMPLER}.path=FOLDER/good.py", f"{SAMPLER}.name=number"], ["neither a class nor a function"]),
        (["trainer.checkpoint_callback_class=no_such_package.Save"], ["trainer.checkpoint_callback_class"]),
        (["reward.reward_manager.name=niave"], ["reward.reward_manager", "niave"]),
        (["reward.reward_manager.source=importlib", "reward.reward_manager.module.path=FOLDER/absent.py"], ["absent.py"]),
        (["actor_rollout_ref.model.external_lib=no_such_package"], ["external_lib", "no_such_package"]),
        (["actor_rollout_ref.rollout.name=sglang"], ["sglang", "not installed"]),
        (["actor_rollout_ref.rollout.name=vlm"], ["vlm", "vllm"]),
        (["actor_rollout_ref.rollout.checkpoint_engine.backend=nixl"], ["nixl", "backend=naive"]),
        (["global_profiler.tool=nsys", "global_profiler.steps=[1]"], ["nsys", "PATH"]),
        (["global_profiler.tool=nsight", "global_profiler.steps=[1]"], ["nsight", "nsys"]),
        (["actor_rollout_ref.rollout.multi_turn.tool_config_path=FOLDER/tools.yaml"], ["tools.yaml", "no file"]),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_named(overrides: list[str], words: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "good.py").write_text("def compute_score(*a, **k):\n    return 0.0\n\n\nnumber = 1\n")
    composed = run(*(word.replace("FOLDER", str(tmp_path)) for word in overrides))
    (found,) = import_findings(composed)
    for word in words:
        assert word in str(found)
    assert found.fatal and not import_findings(composed, here=False)[0].fatal


def test_a_users_own_reward_passes(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("def compute_score(*a, **k):\n    return 0.0\n")
    assert import_findings(run(f"{REWARD}.path={tmp_path}/good.py")) == []


def test_a_logger_that_is_installed_and_broken_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "swanlab.py").write_text("raise ImportError('built for another Python')\n")
    (tmp_path / "clearml.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = logger_findings(run("trainer.logger=[console,swanlab]"))
    assert found.fatal and "built for another Python" in found.message
    for key in ("CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (found,) = logger_findings(run("trainer.logger=[console,clearml]"))
    assert not found.fatal and "CLEARML_API_SECRET_KEY" in found.remedy
