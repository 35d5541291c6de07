"""The command line: what it prints, its exit codes, and that a mistake gets a message and not a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import namedtuple
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app, catalogue, checks
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.tasks import registry

Usage = namedtuple("Usage", "total used free")
GIB = 2**30


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(4):
        colours = bytes((37 * number + 101 * i * i + 13 * i) % 256 for i in range(75))
        picture = Image.frombytes("RGB", (5, 5), colours).resize((200, 150), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.png")
    return folder


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """The message of a command that must end with exit code 2 and no traceback."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit) and "Traceback" not in result.output
    return " ".join(result.stderr.split())


def test_help_imports_nothing_heavy():
    code = """
import sys
from typer.testing import CliRunner
from ssl4rl_plugin.cli import app
result = CliRunner().invoke(app, ["--help"])
assert result.exit_code == 0 and "preview" in result.output, result.output
heavy = {"torch", "verl", "PIL", "numpy", "matplotlib", "pyarrow", "omegaconf", "jinja2"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_usage_errors_end_with_2():
    assert "No such command" in refused("nonsense")
    assert "Missing argument" in refused("preview")
    assert "'images' is not for the demo; choose one of: cpu_demo" in refused("demo", "--recipe", "images")


# errors


def test_a_user_error_is_one_line(monkeypatch):
    def fail(as_json):
        raise UserError("the file is wrong: correct [it]")

    monkeypatch.setattr(catalogue, "show_tasks", fail)
    assert refused("tasks") == "ssl4rl: the file is wrong: correct [it]"


def test_an_error_about_a_file_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(catalogue, "show_tasks", lambda as_json: (tmp_path / "none").read_text())
    assert refused("tasks") == f"ssl4rl: {tmp_path / 'none'}: No such file or directory"


@pytest.mark.parametrize(
    ("bug", "kind"),
    [
        (lambda as_json: np.zeros(6).reshape(4, 2), ValueError),
        (lambda as_json: Image.new("L", (2, 2)).resize((1, 1), 99), ValueError),
        (lambda as_json: int("x"), ValueError),
        (lambda as_json: os.kill(2**22 + 1, 0), ProcessLookupError),  # an OSError that names no file
    ],
)
def test_a_bug_is_not_taken_for_bad_input(monkeypatch, bug, kind):
    monkeypatch.setattr(catalogue, "show_tasks", bug)
    result = run("tasks")
    assert result.exit_code == 1 and isinstance(result.exception, kind) and "ssl4rl:" not in result.output


def test_a_bug_keeps_its_traceback():
    code = """
import numpy
from ssl4rl_plugin.cli import app, catalogue
catalogue.show_tasks = lambda as_json: numpy.zeros(6).reshape(4, 2)
app(["tasks"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stdout == ""
    assert "Traceback" in done.stderr and "ValueError: cannot reshape array of size 6" in done.stderr


@pytest.mark.parametrize("command", ["preview.html", "preview.png", "index", "report", "export", "build"])
def test_an_output_that_cannot_be_written_is_one_line(command, pictures, tmp_path):
    """The folder of the output is a file: this fails for every user, root too."""
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "out"
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "data": {"critic/score/mean": 0.5}}\n')
    message = refused(*{
        "preview.html": ["preview", "rotation", "-n", 1, "--path", pictures, "--out", f"{out}.html"],
        "preview.png": ["preview", "rotation", "-n", 1, "--path", pictures, "--out", f"{out}.png"],
        "index": ["index", pictures, "--out", f"{out}.parquet"],
        "report": ["report", tmp_path, "--out", f"{out}.html"],
        "export": ["export", "vlmevalkit", "someone/Qwen2.5-VL", "--bench", "mmbench", "--out", out],
        "build": ["build", pictures, "-t", "rotation", "--out", out],
    }[command])  # fmt: skip
    assert "cannot be written" in message and str(tmp_path / "file") in message


def test_a_page_does_not_replace_a_folder(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "data": {"critic/score/mean": 0.5}}\n')
    assert f"{tmp_path} is not a file" in refused("report", tmp_path, "--out", tmp_path)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.train_batch_size=${oc.env:NO_SUCH_VARIABLE}", "'NO_SUCH_VARIABLE' not found"),
        ("ssl4rl=5", "must be a string or a list"),
        ("ssl4rl.gpu_memory=much", "ssl4rl.gpu_memory must be a number of GiB, got 'much'"),
    ],
)
def test_a_wrong_override_of_a_recipe_is_one_line(override, words):
    assert words in refused("doctor", "--recipe", "mmbench_rotation", override)


# tasks, recipes, sources


def test_tasks_lists_every_level_with_its_chance():
    entries = {entry["name"]: entry for entry in json.loads(run("tasks", "--json").stdout)}
    assert {"rotation", "jigsaw", "position", "contrastive", "altered_patch"} <= set(entries)
    rotation = entries["rotation"]
    assert rotation["default_level"] == "pair_90" and rotation["error"] == ""
    assert {level["name"]: level["chance"] for level in rotation["levels"]}["pair_45"] == 0.125
    assert "1803.07728" in rotation["reference"]
    listing = run("tasks")
    assert listing.exit_code == 0 and "pair_90 (default)" in listing.stdout and "0.125" in listing.stdout


def test_a_broken_task_of_another_package_is_named_and_the_others_are_listed(monkeypatch):
    broken = EntryPoint("mirror", "nowhere_to_be_found.mirror:Mirror", "ssl4rl.tasks")
    monkeypatch.setattr(registry, "_found", {**registry._entries(), "mirror": [broken]})
    result = run("tasks")
    assert result.exit_code == 0
    assert "mirror" in result.stdout and "nowhere_to_be_found" in result.stdout and "pair_90" in result.stdout
    (entry,) = [entry for entry in json.loads(run("tasks", "--json").stdout) if entry["error"]]
    assert entry["name"] == "mirror"
    assert checks.check_entries("tasks", catalogue.task_entries()).status == "fail"


def test_recipes_come_from_the_installed_package():
    entries = {entry["name"]: entry for entry in json.loads(run("recipes", "--json").stdout)}
    rotation = entries["mmbench_rotation"]
    assert (rotation["tasks"], rotation["source"], rotation["model"]) == (["rotation"], "mmbench", "qwen2_5_vl_3b")
    assert (rotation["hardware"], rotation["benchmarks"], rotation["transductive"]) == ("gpu_8x80gb", ["mmbench"], True)
    assert rotation["summary"] == "Rotation on the images of MMBench." and rotation["reproduces"] == "SSL4RL: MMBench"
    assert all(entry["summary"] and "@package" not in entry["summary"] for entry in entries.values())
    assert entries["cpu_learn"]["hardware"] == "cpu"  # it is in a recipe that this one builds on
    listing = run("recipes").stdout
    assert all(name in listing for name in entries) and "reproduces" in listing


def test_sources_say_what_they_read():
    entries = {entry["name"]: entry for entry in json.loads(run("sources", "--json").stdout)}
    assert {"folder", "tsv", "sample_photos"} <= set(entries)
    assert entries["sample_photos"]["options"]["crops"] == 200
    assert "crops=200" in run("sources").stdout


# preview


def test_preview_of_clips(tmp_path):
    for name in ("clips.html", "clips.png"):
        result = run("preview", "temporal_jigsaw", "inserted_frame", "-n", 1, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    html = (tmp_path / "clips.html").read_text(encoding="utf-8")
    assert html.count("data:image/webp") == 4 + 1 and "&lt;video&gt;" not in html
    # Frames are there: a card without them would be a few lines of text.
    assert Image.open(tmp_path / "clips.png").height > 600


def test_preview_as_a_page(pictures, tmp_path):
    out = tmp_path / "sheets" / "sheet.html"
    result = run("preview", "rotation", "jigsaw:2x2", "altered_patch", "--path", pictures, "-n", 2, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    html = out.read_text(encoding="utf-8")
    assert html.count("<article") == 6 and html.count("data:image/") == 2 * (2 + 4 + 1)
    for text in ("rotation:pair_90", "chance 25.0 %", "Right answer:", "picture 2", "&#34;angle&#34;:"):
        assert text in html, text
    assert not re.search(r"<script|(src|href)=\"(?!data:)", html)


def test_preview_depends_on_the_seed_alone(pictures, tmp_path):
    pages = []
    for number, seed in enumerate((5, 5, 6)):
        out = tmp_path / f"{number}.html"
        assert run("preview", "rotation", "--path", pictures, "-n", 3, "--seed", seed, "--out", out).exit_code == 0
        pages.append(out.read_bytes())
    assert pages[0] == pages[1] != pages[2]


def test_preview_makes_more_samples_than_there_are_pictures(pictures, tmp_path):
    out = tmp_path / "sheet.html"
    assert run("preview", "rotation", "--path", pictures, "-n", 9, "--out", out).exit_code == 0
    assert out.read_text(encoding="utf-8").count("<article") == 9


def test_preview_as_a_picture(pictures, tmp_path):
    out = tmp_path / "sheet.png"
    assert run("preview", "rotation", "jigsaw:2x2", "--path", pictures, "-n", 5, "--out", out).exit_code == 0
    with Image.open(out) as sheet:
        assert sheet.format == "PNG" and sheet.width == 4 * (380 + 16) + 16 and sheet.height > 1000


def test_preview_of_the_sample_photos(tmp_path):
    pytest.importorskip("skimage")
    out = tmp_path / "sheet.html"
    result = run("preview", "altered_patch", "-n", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert "scikit-image" in out.read_text(encoding="utf-8")


def test_preview_says_what_is_wrong(pictures, tmp_path):
    assert "did you mean 'rotation'" in refused("preview", "rotatoin", "--path", pictures)
    assert "its levels are: pair_90" in refused("preview", "rotation:pair_7", "--path", pictures)
    assert "does not exist" in refused("preview", "rotation", "--path", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused("preview", "rotation", "--path", tmp_path / "empty")
    assert ".html or .png" in refused("preview", "rotation", "--path", pictures, "--out", tmp_path / "x.pdf")
    (tmp_path / "file").write_text("")
    refused("preview", "rotation", "--path", pictures, "--out", tmp_path / "file" / "x.html")


def test_preview_of_a_named_source(pictures, tmp_path):
    out = tmp_path / "sheet.html"
    result = run("preview", "rotation", "--source", "folder", "--path", pictures, "-n", 1, "--out", out)
    assert result.exit_code == 0 and out.exists(), result.output
    assert "unknown source" in refused("preview", "rotation", "--source", "nonsense", "--out", out)
    assert "items of kind 'rgbd'" in refused(
        "preview", "depth_order", "--source", "folder", "--path", pictures, "--out", out
    )


def test_a_task_that_refuses_every_picture_counts_the_reasons(tmp_path):
    for number in range(3):  # a flat picture with a line across: not blank as a file, symmetric under every rotation
        image = Image.new("RGB", (100, 100), "white")
        image.putpixel((number, 0), (0, 0, 0))
        image.save(tmp_path / f"{number}.png")
    message = refused("preview", "rotation", "--path", tmp_path, "--out", tmp_path / "x.html")
    assert "blank" in message or "symmetric" in message


# doctor, check by check; its probes import verl and vLLM, which takes longer than all the other tests


CUDA = {"torch": "2.13.0", "cuda": "13.0"}
GOOD = {"torch": "2.13.0", "cuda": "13.0", "machine": {**CUDA, "gpus": 1, "present": 1},
        "torchvision": "0.28.0", "devices": [["H200", 139 * GIB]], "verl": "0.9.1",
        "warnings": [], "platform": "CudaPlatform", "recipes": "think_answer"}  # fmt: skip


def test_versions_are_held_against_what_is_asked_for():
    needs = Requirement("verl>=0.9.1,<0.10")
    assert checks.check_version("verl", "0.9.1", needs).status == "ok"
    old = checks.check_version("verl", "0.8.0", needs)
    assert old.status == "fail" and "verl<0.10,>=0.9.1" in old.remedy
    assert checks.check_version("verl", None, needs).status == "fail"
    assert [check.name for check in checks.check_distributions()] == ["verl", "transformers", "ray", "TransferQueue"]
    assert checks.check_python((3, 11)).status == "ok" and checks.check_python((3, 13)).status == "fail"


@pytest.mark.parametrize(
    ("check", "found", "status", "words"),
    [
        (checks.check_torchvision, GOOD, "ok", "0.28.0"),
        (checks.check_torchvision, {"torchvision_error": "operator torchvision::nms does not exist"}, "fail", "nms"),
        (checks.check_plugin, GOOD, "ok", "recipes found"),
        (checks.check_plugin, GOOD | {"warnings": ["ssl4rl-plugin could not register"]}, "fail", "could not register"),
        (checks.check_plugin, {"verl": "0.9.1", "recipes_error": "no ssl4rl"}, "fail", "do not compose: no ssl4rl"),
        (checks.check_plugin, {"error": "no answer within 180 s"}, "fail", "180 s"),
        (checks.check_device, GOOD, "ok", "1 x H200, 139 GiB"),
        (checks.check_device, GOOD | {"devices": [["T4", 15 * GIB]]}, "warn", "15 GiB"),
        (checks.check_device, GOOD | {"devices": [], "machine": CUDA}, "warn", "built for CUDA 13.0"),
        (
            checks.check_device,
            {"devices": [], "machine": {"torch": "2.13.0+cpu"}, "platform": "CpuPlatform"},
            "warn",
            "CpuPlatform",
        ),
        (checks.check_device, {"machine": {"torch": "2.13.0+cpu", "present": 2}}, "fail", "2 NVIDIA GPU(s)"),
        (checks.check_device, {"error": "no answer within 180 s"}, "warn", "180 s"),
        (checks.check_vllm, {"version": "0.27", "platform": "cuda"}, "ok", "on cuda"),
        (checks.check_vllm, {"version": "0.27", "platform": "none"}, "fail", "no platform"),
        (checks.check_vllm, {"error": "ImportError"}, "fail", "ImportError"),
        (checks.check_vllm, None, "fail", "not installed"),
    ],
)
def test_what_the_probes_find_is_judged(check, found, status, words, monkeypatch):
    monkeypatch.delenv("VERL_USE_EXTERNAL_PLUGINS", raising=False)
    judged = check(found)
    assert judged.status == status and words in judged.detail
    assert bool(judged.remedy) == (status != "ok")


def test_a_plugin_that_is_turned_off_is_a_failure(monkeypatch):
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    assert "disables it" in checks.check_plugin(GOOD).detail
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "other, ssl4rl")
    assert checks.check_plugin(GOOD).status == "ok"


def test_processor_of_a_model(tmp_path):
    assert checks.check_processor("/model", {"processor": "Qwen2_5_VLProcessor"}).status == "ok"
    assert checks.check_processor("/model", {"processor": ""}).status == "fail"
    assert checks.check_processor(str(tmp_path / "gone"), None).status == "fail"
    assert checks.check_processor("Qwen/Qwen2.5-VL-3B-Instruct", None).status == "warn"


@pytest.mark.parametrize(("size", "status"), [(0.0625, "fail"), (1, "warn"), (16, "ok")])
def test_shared_memory_and_disk(size, status, tmp_path):
    def usage(_):
        return Usage(size * GIB, 0, size * GIB)

    assert checks.check_shared_memory(Path("/dev/shm"), usage).status == status
    assert checks.check_disk(tmp_path, "disk", 10, usage).status == status
    assert checks.check_cores(2).status == "warn" and checks.check_cores(64).status == "ok"


def test_a_probe_survives_crashes_and_chatter():
    assert checks.probe("print('noise'); print('{\"a\": 1}')") == {"a": 1}
    assert "ValueError: bad" in checks.probe("raise ValueError('bad')")["error"]
    assert "-11" in checks.probe("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")["error"]


def test_doctor_fails_with_1_where_a_check_fails(monkeypatch):
    found = [checks.Check("a", "ok", "fine"), checks.Check("b", "fail", "[red]broken", "mend it")]
    monkeypatch.setattr(checks, "run_checks", lambda model: found)
    result = run("doctor")
    assert result.exit_code == 1 and "[red]broken" in result.stdout and "mend it" in result.stdout
    monkeypatch.setattr(checks, "run_checks", lambda model: found[:1])
    result = run("doctor", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)[0]["status"] == "ok"
