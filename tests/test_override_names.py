"""Overrides with a misspelt key, group or option name what was meant, before Hydra says that it is not in struct."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ssl4rl_plugin.cli.recipe_check import compose_recipe
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.training.verl.override_names import hints, is_training
from ssl4rl_plugin.training.verl.search_path import known_configs

DOCS = Path(__file__).parent.parent / "docs"

WRONG = {
    "ssl4rl.source.pth=/x": "no key ssl4rl.source.pth: did you mean ssl4rl.source.path?",
    "+ssl4rl.source.pth=/x": "did you mean ssl4rl.source.path?",
    "++ssl4rl.sorce.path=/x": "did you mean ssl4rl.source.path?",
    "ssl4rl.epoch=3": "did you mean ssl4rl.epochs?",
    "ssl4rl.tasks.0.lvl=x": "no key ssl4rl.tasks.0.lvl: did you mean ssl4rl.tasks.0.level?",
    "ssl4rl.zzz=1": "no key ssl4rl.zzz; known keys: seed, tasks",
    "ssl4r.seed=3": "did you mean ssl4rl.seed?",
    "ssl4rl.task=rotation": "ssl4rl/task is a group: ssl4rl/task=rotation; ssl4rl.tasks=[rotation] lists the tasks",
    "ssl4rl.model=qwen2_5_vl_3b": "ssl4rl/model is a group: ssl4rl/model=qwen2_5_vl_3b",
    "ssl4rl.benchmark=mmbench": "ssl4rl/benchmark=mmbench; ssl4rl.benchmarks=... sets the key",
    "ssl4rl.source=mmbench": "is a mapping: write ssl4rl/source=mmbench, or ssl4rl.source.name=mmbench",
    "ssl4rl.source=/data/x": "is a mapping: write ssl4rl.source.path=/data/x",
    "ssl4rl/tasks=rotation": "did you mean ssl4rl/task=rotation, or the key ssl4rl.tasks=rotation?",
    "ssl4rl/hardwear=cpu": "no group ssl4rl/hardwear: did you mean ssl4rl/hardware=cpu?",
    "ssl4rl/task=rotatoin": "did you mean rotation?",
    "ssl4rl/model=qwen": "known: qwen2_5_3b, qwen2_5_vl_3b",
    "recipe=imags": "no recipe 'imags': did you mean images?",
    "recipe=mmbench_rotatoin": "did you mean mmbench_rotation?",
}
OPTIONS = [
    (["ssl4rl.source.options.root=/x"], "write +ssl4rl.source.options.root=/x"),
    (
        ["ssl4rl.source.name=zip", "+ssl4rl.source.options.use_split=true"],
        "did you mean ssl4rl.source.options.use_splits=true?",
    ),
    (["ssl4rl/source=rgbd", "+ssl4rl.source.options.qqq=1"], "has no option qqq; known: depth_scale, max_depth, root"),
    (["ssl4rl.source.options.questions=20"], None),  # some recipes have this key
    (["ssl4rl.source.name=gone", "+ssl4rl.source.options.x=1"], None),  # the source itself is refused later
    (["ssl4rl.source.name=rgbd", "+ssl4rl.source.options.depth_scale=5000"], None),
]
RIGHT = [
    "ssl4rl.source.path=/x", "+ssl4rl.source.options.root=/x", "ssl4rl.tasks=[rotation]", "ssl4rl/task=jigsaw",
    "recipe=mmbench_rotation", "ssl4rl/source=mmbench", "ssl4rl/benchmark=mmbench", "ssl4rl.source=null", "plugin=ssl4rl",
    "~ssl4rl.gone", "--cfg", "job", "trainer.total_epochs=1", "ssl4rl.curriculum.policy=fixed",
    "ssl4rl.source={name: folder}",
    "ssl4rl.tasks.0.level=pair_45", "ssl4rl.options.side=336", "actor_rollout_ref.model.path=/m", "hydra.run.dir=x",
]  # fmt: skip


@pytest.mark.parametrize("override", WRONG)
def test_what_was_meant_is_named(override: str) -> None:
    (hint,) = hints([override], known_configs())
    assert hint.startswith(f"{override}: ") and WRONG[override] in hint


@pytest.mark.parametrize(("arguments", "expected"), OPTIONS)
def test_options_of_sources(arguments: list[str], expected: str | None) -> None:
    found = hints(arguments, known_configs())
    assert (expected in found[0] and len(found) == 1) if expected else not found, found


def test_right_overrides_are_left_alone() -> None:
    assert hints(RIGHT, known_configs()) == []
    # A folder of one's own may hold further recipes and options, but no further keys.
    assert hints(["--config-dir=/mine", "recipe=imags", "ssl4rl/task=rotatoin"], known_configs()) == []
    assert len(hints(["--config-dir=/mine", "ssl4rl.epoch=3"], known_configs())) == 1


def test_no_command_of_the_docs_is_doubted() -> None:
    found = 0
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        for block in re.findall(r"```(?:bash|console).*?\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if "verl.trainer.main_ppo" in line:
                    found += 1
                    words = shlex.split(line.partition("main_ppo")[2], comments=True)
                    assert hints(words, known_configs()) == [], (page.name, line)
    assert found > 10


def test_only_a_training_with_the_plugin_is_looked_at() -> None:
    command = ["python", "-m", "verl.trainer.main_ppo", "+plugin=ssl4rl", "ssl4rl.epoch=3"]
    assert is_training(command, command[3:])
    assert not is_training(command, ["ssl4rl.epoch=3"]) and not is_training(["python", "x.py"], command[3:])


def test_doctor_names_what_was_meant() -> None:
    with pytest.raises(UserError, match=r"did you mean ssl4rl\.source\.path"):
        compose_recipe("images", ["ssl4rl.source.pth=/x"])
    with pytest.raises(UserError, match="no recipe 'imags': did you mean images"):
        compose_recipe("imags", [])


@pytest.mark.slow
def test_a_training_ends_with_the_hint_alone() -> None:
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "+plugin=ssl4rl", "recipe=images"]
    run = subprocess.run([*command, "ssl4rl.source.pth=/x"], capture_output=True, text=True, timeout=300)
    assert run.returncode == 1, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last == "ssl4rl: ssl4rl.source.pth=/x: there is no key ssl4rl.source.pth: did you mean ssl4rl.source.path?"
    assert "not in struct" not in run.stderr and "Traceback" not in run.stderr
