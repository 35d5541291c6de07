"""What a stranger made does no harm: folders full of Python files, broken packages, rewards' arguments, files of runs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pictures import photo
from traps import set_traps, sprung

import ssl4rl_plugin
from ssl4rl_plugin.cli import app
from ssl4rl_plugin.core.processes import Process
from ssl4rl_plugin.core.safe_path import environment, run_code, run_module
from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.tasks import get_task
from ssl4rl_plugin.training.preflight import PreflightError, check_reward
from ssl4rl_plugin.training.rewards import compute_score

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
    "build --engine ray": [".", "-t", "rotation", "--set", "val_samples=4", "--out", "../on-ray"],
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
    command, *options = name.split(" --")
    arguments = [PROGRAM, *command.split(), *(word for of in options for word in f"--{of}".split()), *COMMANDS[name]]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300)
    assert sprung(marks) == []
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stdout + done.stderr


def test_traps_spring(tmp_path: Path) -> None:
    """The tests above could not fail otherwise."""
    folder = set_traps(tmp_path / "data", tmp_path / "marks")
    unsafe = {**os.environ, "PYTHONSAFEPATH": ""}  # a command that ran in this process may have set it
    subprocess.run([sys.executable, "-c", "import pickle"], cwd=folder, env=unsafe, capture_output=True)
    subprocess.run([sys.executable, "-m", "json.tool", "--help"], cwd=folder, env=unsafe, capture_output=True)
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


def test_a_package_that_is_installed_in_place_can_be_imported_from_its_own_folder(tmp_path: Path) -> None:
    """Ray workers of a command that its author starts there load it by the path that the installation's .pth names."""
    venv.create(tmp_path / "venv", symlinks=True)
    (site_packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    mine, code = (
        tmp_path / "mine",
        "from ssl4rl_plugin.core.safe_path import refuse_current_folder as f; f(); import my_task",
    )
    mine.mkdir()
    (mine / "my_task.py").write_text("")
    places = [sysconfig.get_path("purelib"), str(Path(ssl4rl_plugin.__file__).parents[1])]

    def imported() -> int:
        python = tmp_path / "venv/bin/python"
        return subprocess.run([python, "-c", code], cwd=mine, env=environment(), capture_output=True).returncode

    (site_packages / "mine.pth").write_text("\n".join(places))
    assert imported() != 0
    (site_packages / "mine.pth").write_text("\n".join([*places, str(mine)]))
    assert imported() == 0


BROKEN = {
    "exits": "import sys\nsys.exit('no licence')\n",
    "exits_with_0": "raise SystemExit\n",
    "stops": "class Stop(BaseException): pass\nraise Stop('here')\n",
    "is_not_python": "def (:\n",
    "wants_a_missing_one": "import no_such_module_anywhere\n",
    "has_none": "",
    "cannot_be_named": "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E\n",
    "raises_when_made": "def Thing(*a): ...\nfrom {base} import {kind} as Base\nclass Thing(Base):\n"
    "    def __init__(self, *a): raise SystemExit(3)\n    def generate(self, *a): ...\n    grader = generate\n",
    "raises_when_asked": "from {base} import {kind} as Base\nclass Asked(type(Base)):\n"
    "    def __getattr__(cls, name):\n        raise SystemExit(name)\n"
    "class Thing(Base, metaclass=Asked):\n    levels = property(lambda self: 1 / 0)\n"
    "    def generate(self, *a): ...\n    grader = generate\n",
    "has_no_texts": "from {base} import {kind} as Base\nclass Thing(Base):\n"
    "    kind = summary = schema = licence = where = 7\n    reference = default_level = None\n    levels = {{}}\n"
    "    def generate(self, *a): ...\n    grader = generate\n",
    "is_something_else": "class Evil(type):\n    def __repr__(cls): raise SystemExit\nclass Thing(metaclass=Evil): pass\n",
}
BASES = {"tasks": ("ssl4rl_plugin.core", "Task"), "sources": ("ssl4rl_plugin.data.source", "Source")}


def install_broken(site: Path) -> Path:
    """A package for each way to be broken, with an entry in every group, and two whose metadata are no metadata."""
    for name, code in BROKEN.items():
        info = site / f"{name}-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        groups = {group: f"{name}_{group}" for group in BASES}
        (info / "entry_points.txt").write_text(
            "".join(f"[ssl4rl.{group}]\n{name} = {module}:Thing\n" for group, module in groups.items())
            + "".join(f"[ssl4rl.{group}]\n{name} = {name}_tasks:Thing\n" for group in ("policies", "indexers"))
        )
        for group, module in groups.items():
            base, kind = BASES[group]
            (site / f"{module}.py").write_text(code.format(base=base, kind=kind) if "{base}" in code else code)
    (site / "nameless-1.0.dist-info").mkdir()
    (site / "nameless-1.0.dist-info" / "entry_points.txt").write_text("[ssl4rl.tasks]\nnameless = no such: thing:\n")
    return site


@pytest.mark.slow
def test_broken_packages_are_named_and_the_rest_works(tmp_path: Path) -> None:
    site = install_broken(tmp_path / "site")
    variables = environment(PYTHONPATH=str(site))
    for command, known in (("tasks", "rotation"), ("sources", "folder")):
        done = subprocess.run([PROGRAM, command, "--json"], env=variables, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        errors = {entry["name"]: entry["error"] for entry in json.loads(done.stdout)}
        assert errors[known] == ""
        fine = {"raises_when_made"} if command == "sources" else {"nameless"}  # listing makes no source
        assert set(BROKEN) - fine <= {name for name, error in errors.items() if error}, errors
        assert all(f"{name}" in errors[name] for name in BROKEN if errors[name])
        assert "SystemExit: no licence" in errors["exits"] and "exits 1.5" in errors["exits"]
        assert "Stop: here" in errors["stops"]
        assert subprocess.run([PROGRAM, command], env=variables, capture_output=True, timeout=120).returncode == 0
    done = subprocess.run([PROGRAM, "doctor", "--json"], env=variables, capture_output=True, text=True, timeout=300)
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["tasks"]["status"] == checks["sources"]["status"] == "fail"
    assert "no licence" in checks["tasks"]["detail"] and checks["plugin in verl"]["status"] == "ok"


def test_unreadable_entry_points_leave_only_their_package_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`importlib.metadata.entry_points` raises for all of them."""
    from ssl4rl_plugin.core.registry import Registry, RegistryError

    site = install_broken(tmp_path / "site")
    (site / "nameless-1.0.dist-info" / "entry_points.txt").write_text("[ssl4rl.tasks]\na line without a sign\n")
    monkeypatch.syspath_prepend(str(site))
    found = Registry("ssl4rl.tasks", "task")
    with pytest.warns(RuntimeWarning, match=r"nameless-1\.0.*reinstall"):
        assert {"rotation", "exits"} <= set(found.names())
    for name in ("exits", "stops", "exits_with_0", "cannot_be_named"):
        with pytest.raises(RegistryError, match=f"task '{name}' cannot be loaded from .*{name} 1.5"):
            found.get(name)


@pytest.mark.parametrize("group", ["ssl4rl.policies", "ssl4rl.indexers"])
def test_every_registry_survives_a_module_that_exits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    from ssl4rl_plugin.core.registry import RegistryError
    from ssl4rl_plugin.data.indexing import indexers
    from ssl4rl_plugin.training.curriculum.policies import policies

    monkeypatch.syspath_prepend(str(install_broken(tmp_path / "site")))
    kind = type(policies)
    registry = next(kind(one.group, one.kind, one.base) for one in (policies, indexers) if one.group == group)
    with pytest.raises(RegistryError, match="no licence"):
        registry.get("exits")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
"""Any JSON value, with NaN, infinities and lone surrogates."""
TRUTHS = [
    encode_truth(task.name, task.default_level, {}, next(task.grader(task.level()).values()), "t:0")
    for task in map(get_task, ("rotation", "jigsaw", "position_box", "counting", "neighbour_prediction"))
]
PARTS = ("truth", "level", "sample", "options", "questions")


def with_other(truth: str, key: str, value: object) -> str:
    return json.dumps(json.loads(truth) | {key: value})


@settings(max_examples=100, deadline=None)
@given(
    truth=st.sampled_from(TRUTHS) | ANYTHING | ANYTHING.map(json.dumps)
    | st.builds(with_other, st.sampled_from(TRUTHS), st.sampled_from(PARTS), ANYTHING),
    response=st.text(st.characters(), max_size=40).map(lambda text: f"<think>{text}</think><answer>{text}</answer>")
    | st.sampled_from(["<think>a</think><answer>90</answer>", "<answer>2,3,1,4</answer>"]) | ANYTHING,
    extra_info=st.none() | ANYTHING | st.dictionaries(st.just("thinking"), ANYTHING),
    weight=ANYTHING | st.floats(0, 1), partial=ANYTHING | st.floats(0, 1),
    form=st.sampled_from(["think_answer", "answer_only", "boxed"]) | ANYTHING,
    by=st.sampled_from(["similarity", "places"]) | ANYTHING, nodes=st.booleans(),
)  # fmt: skip
def test_the_reward_is_finite_for_any_arguments(truth, response, extra_info, weight, partial, form, by, nodes) -> None:
    if nodes and isinstance(extra_info, dict | list):  # as verl has them
        try:
            extra_info = OmegaConf.create(extra_info)
        except Exception:  # no key of a config
            nodes = False
    result = compute_score(
        "x", response, truth, extra_info,
        answer_format=form, format_weight=weight, partial_credit=partial, partial_credit_by=by, unknown=1,
    )  # fmt: skip
    for name, value in result.items():
        if isinstance(value, str):
            value.encode("utf-8")  # verl writes it
        elif name == "questions":
            assert value is None or 0.0 <= value < math.inf
        else:
            assert type(value) is float and 0.0 <= value <= 1.0, (name, value)
    assert result["score"] == 0.0 or not result["error"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("format_weight", "partial_credit")
        for value in ("0.1", None, math.nan, 1.5, -0.1, True)
    ],
)
def test_a_wrong_setting_of_the_reward_is_said_in_every_row(name: str, value: object) -> None:
    wrong = compute_score("x", "<think>a</think><answer>0</answer>", TRUTHS[0], {}, **{name: value})
    assert wrong["score"] == 0.0 and wrong["failed"] == 1.0 and f"{name} must be a number in [0, 1]" in wrong["error"]
    right = compute_score("x", "<think>a</think><answer>0</answer>", TRUTHS[0], {}, **{name: np.float32(0.25)})
    assert right["error"] == "" and type(right["score"]) is float


@pytest.mark.parametrize("value", ["'0.1'", "null", ".nan", ".inf", "1.0", "-0.1", "true", "[0.1]"])
@pytest.mark.parametrize("name", ["format_weight", "partial_credit"])
def test_a_wrong_setting_of_the_reward_stops_the_run_at_its_start(name: str, value: str) -> None:
    key = "reward.custom_reward_function.reward_kwargs"
    config = OmegaConf.create(f"reward: {{custom_reward_function: {{reward_kwargs: {{{name}: {value}}}}}}}")
    if name == "partial_credit" and value == "1.0":
        return check_reward(config, "think_answer")
    with pytest.raises(PreflightError, match=f"{key}.{name} must"):
        check_reward(config, "think_answer")


def test_doctor_names_the_files_that_python_m_would_run(tmp_path: Path) -> None:
    """`python -m verl.trainer.main_ppo` is the user's own command, and Python puts the current folder first."""
    from ssl4rl_plugin.cli.checks import check_folder

    (tmp_path / "photos").mkdir()
    (tmp_path / "my_tasks.py").write_text("")
    assert check_folder(tmp_path).status == "ok"
    for path in ("json.py", "torch/__init__.py", "hydra_plugins/evil.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    found = check_folder(tmp_path)
    assert (
        found.status == "warn" and "json.py, torch, hydra_plugins" in found.detail and "another folder" in found.remedy
    )
    assert check_folder(Path(__file__).parents[1]).status == "ok", "the checkout holds the package itself"


def test_a_job_that_exits_is_an_error_and_no_dead_worker() -> None:
    process: Process[int, None] = Process(sys.exit)
    try:
        for code in (0, 3):
            with pytest.raises(RuntimeError, match=f"SystemExit: {code}"):
                process(code)
    finally:
        process.end()
