"""What is written for VLMEvalKit keeps the contract of its custom sets, and unwrapped answers are what its matcher reads.

Nothing of VLMEvalKit is imported. Its documented contract: a TSV that pandas reads, a unique integer `index`, `image` as
base64 or a list of them (with a name for each in `image_path`), `question`, options in A, B, C, ... without a gap, and the
right letter in `answer`. Its matcher takes an answer with exactly one option's letter as a word of its own.
"""

from __future__ import annotations

import ast
import base64
import io
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from ssl4rl_plugin.analysis.evaluation.model import Model, resolve
from ssl4rl_plugin.analysis.export.config import CLASSES, ExportError, data_section, model_section
from ssl4rl_plugin.analysis.export.mcq import READ_AS_EMPTY, WORD, row_of, set_name, unfit, without_marks, write_set
from ssl4rl_plugin.analysis.export.vlmevalkit import grader_from_json, grader_to_json, model_class, options_in, unwrap
from ssl4rl_plugin.cli import app
from ssl4rl_plugin.cli.sources_for import source_for
from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.grading import Angle, Choice, Counts, Permutation
from ssl4rl_plugin.grading.formats import FORMATS
from ssl4rl_plugin.tasks import registry
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.settings import Settings, parse_arms

THINK = FORMATS["think_answer"]


@pytest.fixture(scope="module")
def stream_of(photo_folder: Path):
    def make(task: str, count: int = 5, seed: int = 0) -> SampleStream:
        (arm,) = parse_arms([task])
        images = photo_folder if arm.task.kind == "image" else None
        settings = Settings(
            seed=seed, arms=(arm,), source=source_for(arm.task.kind, images, None, 4, 0.3), answer_format=THINK, epochs=1,
            val_samples=count, system_prompt=None,
        )  # fmt: skip
        return SampleStream(settings, load_manifest(settings), "val")

    return make


@pytest.mark.parametrize("task", ["rotation", "matching", "counting:one_kind", "flip", "position:3x3", "same_subgraph"])
def test_a_set_keeps_the_contract_of_custom_sets(stream_of, tmp_path: Path, task: str) -> None:
    stream = stream_of(task)
    done: list[int] = []
    path = write_set(stream, 5, tmp_path, lambda: done.append(1))
    (arm,) = stream.settings.arms
    grader = arm.task.grader(arm.level)
    table = pd.read_csv(path, sep="\t")
    assert re.fullmatch(re.escape(set_name(arm, "")) + r"[0-9a-f]{8}\.tsv", path.name) and len(table) == len(done) == 5
    assert pd.api.types.is_integer_dtype(table["index"]) and table["index"].is_unique
    letters = [column for column in table.columns if re.fullmatch("[A-Z]", column)]
    assert (
        letters == [chr(ord("A") + k) for k in range(len(letters))] and len(letters) == len(list(grader.values())) >= 2
    )
    assert not table[[*letters, "question", "answer", "category", "l2-category", "split"]].isna().any().any()
    assert ("image" in table) == ("image_path" in table) == (arm.task.kind == "image")
    for number, row in table.iterrows():
        made = stream[int(number)]
        right = grader.parse(str(row[row["answer"]]).removeprefix(f"{WORD} "))
        assert row["answer"] in letters and right is not None and grader.equal(right, made.sample.truth)
        texts = [str(row[letter]).lower() for letter in letters]
        if texts[0].startswith(WORD):  # VLMEvalKit looks for each option's text in the answer
            assert not any(one in other for one, other in itertools.permutations(texts, 2))
        assert "<image>" not in row["question"] and made.gold not in ("", None)
        if "image" in table:
            listed = row["image"].startswith("[")
            pictures = ast.literal_eval(row["image"]) if listed else [row["image"]]
            names = ast.literal_eval(row["image_path"]) if listed else [row["image_path"]]
            assert len(set(names)) == len(pictures) == len(names) == len(made.sample.images)
            assert listed == (len(pictures) > 1)  # one picture stands alone
            for text, image in zip(pictures, made.sample.images, strict=True):
                shown = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
                assert len(text) > 64  # shorter texts are references to other rows
                assert shown.mode == "RGB" and shown.tobytes() == image.tobytes()
    again = write_set(stream_of(task), 5, tmp_path / "again", lambda: None)
    assert again.name == path.name and again.read_bytes() == path.read_bytes()
    fewer = write_set(stream_of(task), 4, tmp_path / "again", lambda: None)
    assert fewer.name != path.name, "VLMEvalKit would take the answers to the other set"


def test_pictures_of_another_seed_have_other_names(stream_of, tmp_path: Path) -> None:
    """VLMEvalKit never writes a picture again whose file is there."""

    def names(seed: int) -> set[str]:
        table = pd.read_csv(write_set(stream_of("rotation", seed=seed), 4, tmp_path, lambda: None), sep="\t")
        return {name for text in table["image_path"] for name in ast.literal_eval(text)}

    assert not names(0) & names(1) and names(0) == names(0)


def test_a_set_asks_for_an_answer_once(stream_of) -> None:
    assert row_of(stream_of("rotation")[0], 0)["question"].endswith("By how many degrees was it rotated?")
    # The meaning of the labels stays.
    assert "left-right (" in row_of(stream_of("flip")[0], 0)["question"]


def test_every_level_is_a_set_or_says_why_not() -> None:
    arms = parse_arms([f"{name}:*" for name in registry.names()])
    reasons = {arm.key: unfit(arm) for arm in arms}
    assert set(reasons.values()) == {None, "video", "not_a_choice"}
    assert (
        reasons["jigsaw:2x2"] == reasons["position_box:large"] == "not_a_choice" and reasons["rotation:pair_30"] is None
    )
    assert reasons["jigsaw:2x1"] is reasons["neighbour_prediction:1_of_4"] is None  # one of two orders, one of four
    names = [set_name(arm, "0123456789") for arm in arms]
    assert len(set(names)) == len(names)
    # VLMEvalKit treats sets with these in their names as others than custom multiple choice.
    for name in names:
        assert re.fullmatch(r"[\w-]+", name)
        assert not any(
            part in name.lower() for part in ("mmbench", "ccbench", "mmmu", "ocrvqa", "openended", "mmt", "mcq_")
        )


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("<image><image>\nIs it?", "Is it?"),
        ("<image>\nSee. A: <image> B: <image>\nWhich?", "See. A: picture 2 B: picture 3\nWhich?"),
        ("A: <image> B: <image>\nWhich?", "A: picture 1 B: picture 2\nWhich?"),
        ("No picture.", "No picture."),
    ],
)
def test_pictures_that_stand_in_the_text(question: str, expected: str) -> None:
    assert without_marks(question) == expected


def test_no_option_reads_as_an_empty_cell(tmp_path: Path) -> None:
    from pandas._libs.parsers import STR_NA_VALUES

    assert set(STR_NA_VALUES) <= READ_AS_EMPTY


# ------------------------------------------------------------------------------------------------------- answers


OPTIONS = ("0", "90", "180", "270")


@pytest.mark.parametrize(
    ("response", "options", "expected"),
    [
        ("<think>A or B? A.</think><answer>B</answer>", OPTIONS, "B"),
        ("<think>x</think><answer>(b)</answer>", OPTIONS, "B"),
        ("<think>x</think><answer> 90 </answer>", OPTIONS, "B"),
        ("<think>x</think><answer>90°</answer>", OPTIONS, "B"),
        ("<think>x</think><answer>-90 degrees</answer>", OPTIONS, "D"),
        ("<think>x</think><answer>B</answer><answer>90</answer>", OPTIONS, "B"),  # two that agree
        ("<think>x</think><answer>A</answer><answer>B</answer>", OPTIONS, "Z"),
        ("<think>x</think><answer>90 degrees clockwise</answer>", OPTIONS, "D"),
        ("<think>x</think><answer>45</answer>", OPTIONS, "Z"),
        ("<think>x</think><answer>The answer is bottom-left.</answer>", ("top-left", "bottom-left"), "Z"),
        ("<think>B</think>So it is C.", OPTIONS, "Z"),  # their matcher would read a letter out of it
        ("Top Left", ("top-left", "left"), "Z"),
        ("<think>x</think><answer>Top left.</answer>", ("top-left", "left"), "A"),
        ("<think>x</think><answer> a red bus </answer>", (), "a red bus"),
        ("<think>never ends <answer>B</answer>", OPTIONS, "Z"),
        ("", OPTIONS, "Z"),
    ],
)
def test_unwrapping(response: str, options: tuple[str, ...], expected: str) -> None:
    grader = Angle(90) if options == OPTIONS else None
    assert unwrap(response, options, THINK, grader) == expected


@pytest.mark.parametrize(
    "grader", [Angle(45), Choice(("left", "right"), {"port": "left"}), Counts(1, 1, 9), Permutation(2, 1)]
)
def test_graders_survive_the_config(grader: Grader[Any]) -> None:
    assert grader_from_json(json.loads(json.dumps(grader_to_json(grader)))) == grader


@given(st.text(alphabet="AB90 <>/\\answerthinkboxd{}°.\n", max_size=200), st.sampled_from(list(FORMATS)))
def test_unwrapping_any_text(text: str, name: str) -> None:
    assert isinstance(unwrap(text, OPTIONS, FORMATS[name]), str)


@pytest.mark.parametrize("task", ["rotation", "matching", "counting:one_kind", "flip", "contrastive"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_right_answer_becomes_the_right_letter_and_a_wrong_one_another(stream_of, task: str, name: str) -> None:
    """Whatever the format, and whether the model writes the letter or what the task asked for: what the reward calls right
    reaches the matcher as exactly the letter of `answer`, and no tags with it."""
    stream = stream_of(task)
    form = FORMATS[name]
    for index in range(5):
        made = stream[index]
        row = row_of(made, index)
        options = tuple(str(row[column]) for column in row if re.fullmatch("[A-Z]", column))
        letters = [chr(ord("A") + k) for k in range(len(options))]
        grader = made.arm.task.grader(made.arm.level)
        assert unwrap(form.render(made.gold), options, form, grader) == row["answer"]
        assert unwrap(form.render(row["answer"]), options, form, grader) == row["answer"]
        for letter, value in zip(letters, grader.values(), strict=True):
            for text in grader.forms(value).values():
                told = unwrap(form.render(text), options, form, grader)
                right = compute_score("x", form.render(text), made.truth_json, answer_format=name)["acc"]
                assert told == letter and (told == row["answer"]) == bool(right)


def test_options_are_found_in_prompts() -> None:
    assert options_in("Hint: x\nQuestion: a. b\nOptions:\nA. 0\nB. 90\nPlease select.") == ("0", "90")
    assert options_in("Which?\n(A) left\n(B) right\n(C) up") == ("left", "right", "up")
    assert options_in("A. one\nB. two\nOptions:\nA. three\nB. four\nC. five") == ("three", "four", "five")
    assert options_in("A. only") == options_in("How many?") == ()


class Answering:
    """The interface of VLMEvalKit's models, with a fixed response; keeps what it was asked."""

    def __init__(self, model_path: str, response: str) -> None:
        self.model_path, self.response = model_path, response

    def use_custom_prompt(self, dataset: str) -> bool:
        return True

    def generate(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
        self.asked = message
        return self.response


def test_the_class_asks_for_the_format_and_unwraps() -> None:
    model = model_class(Answering)(
        "m", response="<think>A</think><answer>90</answer>", answer_format_name="think_answer"
    )
    message = [{"type": "image", "value": "a.png"}, {"type": "text", "value": "Turned?\nOptions:\nA. 0\nB. 90"}]
    assert model.generate(message, dataset="X") == "B"
    assert model.asked[:2] == message and model.asked[2]["value"] == THINK.instructions[0] and len(message) == 2
    assert not model.use_custom_prompt("X") and isinstance(model, Answering)


def test_the_launcher_runs_their_script_with_our_class_in_place(tmp_path: Path) -> None:
    """A run.py in VLMEvalKit's place, with a package of its name beside it, in a process without this package's
    dependencies on verl."""
    package = tmp_path / "kit" / "vlmeval"
    (package / "vlm").mkdir(parents=True)
    (package / "api").mkdir()
    (package / "__init__.py").write_text("")
    (package / "api" / "__init__.py").write_text("")
    (package / "vlm" / "__init__.py").write_text(
        "class Echo:\n"
        "    def __init__(self, model_path): self.model_path = model_path\n"
        "    def generate(self, message, dataset=None): return f'<think>x</think><answer>{self.model_path}</answer>'\n"
    )
    script = tmp_path / "kit" / "run.py"
    script.write_text(
        "import json, sys, vlmeval.vlm\n"
        "config = json.load(open(sys.argv[2]))['model']['m']\n"
        "model = getattr(vlmeval.vlm, config.pop('class'))(**config)\n"
        "print(model.generate([dict(type='text', value='A. 0\\nB. 90')]), sys.argv[1:], __name__)\n"
        "assert not {'torch', 'verl', 'transformers', 'hydra'} & set(sys.modules)\n"
    )
    config = tmp_path / "config.json"
    section = {"class": "SSL4RLChat", "base": "Echo", "answer_format": "think_answer", "model_path": "90"}
    config.write_text(json.dumps({"model": {"m": section}}))
    command = [sys.executable, "-m", "ssl4rl_plugin.analysis.export.vlmevalkit"]
    done = subprocess.run([*command, str(script), "--config", str(config)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["B", "['--config',", f"'{config}']", "__main__"]
    missing = subprocess.run([*command, str(tmp_path / "no.py")], capture_output=True, text=True, timeout=60)
    absent = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert missing.returncode == absent.returncode == 2
    assert "there is no" in missing.stderr and "VLMEvalKit cannot be imported" in absent.stderr


# -------------------------------------------------------------------------------------------------------- config


def _model(folder: Path, kind: str) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    (folder / "model.safetensors").touch()
    return str(folder)


def _section(model: str, out: Path, base: str | None = None) -> dict[str, dict[str, Any]]:
    return model_section(resolve(model, out, lambda _: None), out, base, "boxed", 512)


def test_the_config_names_model_and_sets(tmp_path: Path) -> None:
    section = _section(_model(tmp_path / "step_10", "qwen2_5_vl"), tmp_path)
    (name,) = section
    place = Path(section[name]["model_path"])
    assert place.resolve() == tmp_path / "step_10" and "2.5" in str(place)  # their class tells the model by its path
    assert section[name] | {"model_path": ""} == {
        "class": "SSL4RLChat", "base": "Qwen2VLChat", "answer_format": "boxed", "model_path": "", "max_new_tokens": 512,
    }  # fmt: skip
    assert _section(str(tmp_path / "step_10"), tmp_path) == section  # again
    for kind, base in CLASSES.items():
        made = _section(_model(tmp_path / f"m_2.5_{kind}", kind), tmp_path)
        assert next(iter(made.values()))["base"] == base
    hub = _section("Qwen/Qwen3-VL-4B-Instruct", tmp_path)["Qwen3-VL-4B-Instruct"]
    assert hub["base"] == "Qwen3VLChat" and hub["model_path"] == "Qwen/Qwen3-VL-4B-Instruct"
    assert data_section({"a": True, "b": False}, ["mmbench", "AI2D_TEST"]) == {
        "a": {"class": "CustomMCQDataset", "dataset": "a"},
        "b": {"class": "CustomTextMCQDataset", "dataset": "b"},
        "MMBench_DEV_EN": {"class": "ImageMCQDataset", "dataset": "MMBench_DEV_EN"},
        "AI2D_TEST": {"class": "ImageMCQDataset", "dataset": "AI2D_TEST"},
    }


def test_models_that_cannot_be_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for model, message in (
        (str(tmp_path / "none"), "there is no model folder"),
        (str(tmp_path / "empty"), "is no model"),
        (_model(tmp_path / "llava", "llava"), "is of type llava: name the class of VLMEvalKit"),
        ("some/model", "is of type unknown: name the class of VLMEvalKit"),
    ):
        with pytest.raises(ValueError, match=message):
            _section(model, tmp_path)
    bad = Path(_model(tmp_path / "bad", "qwen3_vl"))
    (bad / "config.json").write_text("{")
    with pytest.raises(ExportError, match="cannot be read"):
        _section(str(bad), tmp_path)
    assert _section("some/model", tmp_path, "LLaVA")["model"]["base"] == "LLaVA"
    with pytest.raises(ExportError, match="load no adapters"):
        model_section(Model("run/actor", str(bad), str(bad / "lora_adapter"), ""), tmp_path, None, "boxed", 512)


def test_the_command(tmp_path: Path, photo_folder: Path) -> None:
    model, out = _model(tmp_path / "model", "qwen2_5_vl"), tmp_path / "out"
    run = CliRunner().invoke
    common = ["export", "vlmevalkit", model, "--out", str(out)]
    images = ["--path", str(photo_folder), "--val-fraction", "0.3", "-n", "2"]
    done = run(
        app, [*common, "-t", "rotation", "-t", "jigsaw", "-t", "inserted_frame", "--bench", "mmstar", *images, "--json"]
    )
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["left_out"] == {"jigsaw:2x2": "not_a_choice", "inserted_frame:8_frames": "video"}
    (name,) = summary["sets"]
    assert name.startswith("SSL4RL_rotation_pair_90_") and "--judge exact_matching" in summary["command"]
    config = json.loads((out / "config.json").read_text())
    assert list(config["data"]) == [name, "MMStar"]
    assert next(iter(config["model"].values()))["graders"] == {
        name: {"grader": "Angle", "step": 90, "clockwise": False}
    }
    assert len(pd.read_csv(out / "LMUData" / f"{name}.tsv", sep="\t")) == 2
    for arguments, message in (
        ([], "nothing to export"),
        (["-t", "jigsaw"], r"none of these tasks is a multiple-choice set: jigsaw:2x2 \(not_a_choice\)"),
        (["-t", "rotation", "--path", str(tmp_path / "no")], "rotation:pair_90: .*does not exist"),
        (["-t", "nope"], "nope"),
        (["-t", "rotation", "--answer-format", "x"], "unknown answer format"),
    ):
        failed = run(app, [*common, *arguments])
        assert failed.exit_code == 2 and re.search(message, failed.stderr, re.DOTALL), failed.stderr
