"""Every question and hundreds of samples are measured before a run; what does not fit is left out, counted and said."""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import qwen
from conftest import BASE_SECTION
from omegaconf import OmegaConf
from pictures import photo
from test_report import write_lines

from ssl4rl_plugin.analysis.report import report_html
from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.core import Item, Rejection, Sample
from ssl4rl_plugin.core.files import cache_dir
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.rows import OnlineRows
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.tasks.image.rotation import Rotation
from ssl4rl_plugin.training import left_out
from ssl4rl_plugin.training.prompt_lengths import PromptLength, too_long
from ssl4rl_plugin.training.prompt_sample import SAMPLES, samples_of
from ssl4rl_plugin.training.run_rows import benchmark_rows
from ssl4rl_plugin.training.settings import Settings, SettingsError
from ssl4rl_plugin.training.verl.dataset import SSLDataset
from ssl4rl_plugin.training.verl.prompt_check import PromptCheck
from ssl4rl_plugin.training.verl.prompts import prompt_length

pytestmark = [
    pytest.mark.skipif(not qwen.has_vocabulary(), reason="needs Qwen's vocabulary (pip install dashscope)"),
    pytest.mark.xdist_group("prompt lengths"),
]

RARE = "\U00020000"
"""A character of four bytes that no word of the vocabulary has: by its length it looks like a quarter of a token."""
LIMIT = 1024


@functools.cache
def processor(family: str = "qwen2_5_vl") -> Any:
    return qwen.processor(family)


@functools.cache
def picture(number: int, width: int, height: int) -> str:
    jpeg = io.BytesIO()
    photo(number, width, height).save(jpeg, "JPEG", quality=80)
    return base64.b64encode(jpeg.getvalue()).decode()


def benchmark(path: Path, hints: list[str], categories: list[str], sizes: list[tuple[int, int]] | None = None) -> Path:
    """Questions in MMBench's layout."""
    lines = ["index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\tl2-category\tsplit\timage"]
    for number, (hint, category) in enumerate(zip(hints, categories, strict=True)):
        width, height = (sizes or [(64, 48), (48, 64), (56, 56)])[number % (len(sizes) if sizes else 3)]
        image = picture(number % 24, width, height)
        lines.append(
            f"{number}\tWhich number is {number}?\t{hint}\tone\ttwo\tthree\tfour\tA\t{category}\tscience\tdev\t{image}"
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def section(photos: Path, path: Path, **keys: Any) -> dict[str, Any]:
    entry = {"name": "mmbench", "path": str(path), **keys.pop("entry", {})}
    source = {**BASE_SECTION["source"], "path": str(photos)}
    return {**BASE_SECTION, "source": source, "options": {"side": 56}, "benchmarks": [entry], **keys}


def check(settings: Settings, family: str = "qwen2_5_vl", limit: int = LIMIT, **data: Any) -> PromptCheck:
    found = processor(family)
    config = OmegaConf.create({"max_prompt_length": limit, **data})
    return PromptCheck(settings, found, found.tokenizer, config, False)


def validation(given: dict[str, Any], limit: int = LIMIT) -> SSLDataset:
    found = processor()
    config = OmegaConf.create({"ssl4rl": given, "max_prompt_length": limit})
    return SSLDataset("ssl4rl:val", found.tokenizer, config, found)


@pytest.fixture
def few_long(tmp_path: Path) -> Path:
    """200 questions. One of `charts` and the only one of `poems` have more than 1,024 tokens; by the lengths of their texts
    they are not among the longest."""
    hints, categories = ["A word more. " * 60] * 20 + [""] * 180, [f"kind {k % 4}" for k in range(200)]
    for number, category in ((101, "charts"), (102, "charts"), (150, "poems")):
        categories[number] = category
    hints[101] = hints[150] = RARE * 400
    return benchmark(tmp_path / "mmbench.tsv", hints, categories)


def test_questions_that_do_not_fit_are_left_out_and_counted_everywhere(
    few_long: Path, photo_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before, four rows and the likely longest were looked at: these two questions vanished from the metrics."""
    rows = validation(section(photo_folder, few_long))
    asked = [
        row["data_source"] for row in (rows[k] for k in range(len(rows))) if row["data_source"].startswith("bench/")
    ]
    assert len(asked) == 198 and asked.count("bench/mmbench/charts") == 1 and "bench/mmbench/poems" not in asked
    truths = [json.loads(rows[k]["reward_model"]["ground_truth"]) for k in range(len(rows))]
    assert [truth["questions"] for truth in truths if truth.get("category") == "charts"] == [1]
    # In the log, and in every step's metrics:
    assert "mmbench, category 'poems': 1 of 1 questions are left out (too_long)" in caplog.text
    assert "mmbench, category 'charts': 1 of 2 questions are left out (too_long)" in caplog.text
    logged = left_out.metrics()
    assert logged == {"ssl4rl/left_out/mmbench/charts/too_long": 1.0, "ssl4rl/left_out/mmbench/poems/too_long": 1.0}
    # And in the report:
    data = {f"val-core/bench/mmbench/charts/{name}/mean@1": 1.0 for name in ("acc", "questions")}
    write_lines(tmp_path / "run" / "metrics.jsonl", [{"step": 0, "data": data}, {"step": 1, "data": logged | data}])
    html = report_html(RunLog(tmp_path / "run"))
    text = html[html.index("Questions left out") :]
    assert "<td>poems</td><td>prompt too long (data.max_prompt_length)</td>" in text
    assert '<td class="number">1</td><td class="number">none</td>' in text
    write_lines(tmp_path / "bare" / "metrics.jsonl", [{"step": 1, "data": logged}])  # without a validation
    assert '<td class="number">1</td><td class="number">not recorded</td>' in report_html(RunLog(tmp_path / "bare"))


def test_more_than_the_allowed_share_stops_the_run(few_long: Path, photo_folder: Path) -> None:
    given = section(photo_folder, few_long, allow_left_out=0.005)
    with pytest.raises(SettingsError, match=r"2 of 200 questions of mmbench do not fit") as error:
        validation(given)
    message = str(error.value)
    assert "'charts' 1 of 2" in message and "'poems' 1 of 1" in message and "ssl4rl.allow_left_out=0.01" in message
    # What it advises works.
    length = int(message.split("data.max_prompt_length=")[1].split(",")[0])
    assert len(validation(given, length)) == len(validation({**given, "allow_left_out": 0.01})) + 2
    with pytest.raises(SettingsError, match=r"allow_left_out"):
        Settings.from_config({**given, "allow_left_out": 1.5})


def test_a_question_is_asked_in_every_order_or_in_none(tmp_path: Path, photo_folder: Path) -> None:
    path = benchmark(tmp_path / "b.tsv", [""] * 99 + [RARE * 400], ["kind"] * 100)
    settings = Settings.from_config(section(photo_folder, path, entry={"circular": True}))
    (rows,), counts, _ = check(settings).fitting(benchmark_rows(settings))
    assert len(rows) == 4 * 99 and [one.count for one in counts] == [1]
    assert {json.loads(rows[k].ground_truth)["questions"] for k in range(4)} == {99, 3 * 99}


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_count_by_sizes_is_the_processors(family: str, tmp_path: Path, photo_folder: Path) -> None:
    """No picture of the benchmark is decoded for it, also where it is shrunk, enlarged, or turned upright."""
    sizes = [(64, 48), (1200, 900), (304, 2000), (44, 44), (44, 400)]
    path = benchmark(tmp_path / "b.tsv", ["", "A hint. "] * 10, ["kind"] * 20, sizes)
    settings = Settings.from_config(section(photo_folder, path, benchmark_max_pixels=400_000))
    (rows,) = benchmark_rows(settings)
    for options in ({}, {"min_pixels": 3136, "max_pixels": 100_000}, {"max_pixels": 3136}):
        found = check(settings, family, 4096, mm_processor_kwargs=options)
        whole = [
            prompt_length(rows[k], settings, found.processor, found.tokenizer, False, found.config) for k in range(10)
        ]
        _, _, lengths = found.fitting([rows])
        assert lengths[:10] == whole
    assert len({length.tokens for length in lengths}) > 3


class Wordy(Rotation):
    """A task of which one question in about fifty has a long text."""

    name = "wordy"

    def generate(self, item: Item, level: Any, rng: Any) -> Sample | Rejection:
        made = super().generate(item, level, rng)
        long = isinstance(made, Sample) and rng.random() < 0.02
        return dataclasses.replace(made, question=made.question + RARE * 400) if long else made


def own_rows(photos: Path, **keys: Any) -> tuple[Settings, OnlineRows]:
    source = {**BASE_SECTION["source"], "path": str(photos)}
    given = {**BASE_SECTION, "source": source, "options": {"side": 56}, "epochs": 30, **keys}
    settings = Settings.from_config(given)
    arms = tuple(dataclasses.replace(arm, task=Wordy()) for arm in settings.arms)
    settings = dataclasses.replace(settings, arms=arms)
    return settings, OnlineRows(SampleStream(settings, load_manifest(settings), "train"))


def test_a_rare_long_prompt_of_a_task_is_found(photo_folder: Path) -> None:
    """Before, four samples of each arm were looked at."""
    settings, train = own_rows(photo_folder)
    found, own = check(settings), train.held_out()
    groups = samples_of(train, own, planned=len(train))
    assert [len(group.rows) for group in groups] == [SAMPLES]
    measured = [one.length for group in found.measure([train, own], groups) for one in group]
    over = [length for length in measured if length.tokens > LIMIT]
    assert 1 <= len(over) <= 30
    with pytest.raises(SettingsError, match=r"wordy:.* has 1\d\d\d tokens .*set data.max_prompt_length="):
        found.refuse_long(measured)


def test_a_short_run_is_measured_as_far_as_it_goes(photo_folder: Path) -> None:
    _, train = own_rows(photo_folder)
    (group,) = samples_of(train, train.held_out(), planned=6)
    assert sorted(group.rows) == [(0, k, 0) for k in range(6)] + [(1, k, 0) for k in range(8)]


def test_a_second_start_reads_the_measurements(few_long: Path, photo_folder: Path, tmp_path: Path) -> None:
    folder = qwen.save("qwen2_5_vl", tmp_path / "model")
    from transformers import AutoProcessor

    found = AutoProcessor.from_pretrained(folder)
    settings, train = own_rows(photo_folder)
    settings = dataclasses.replace(
        settings, benchmarks=Settings.from_config(section(photo_folder, few_long)).benchmarks
    )
    config = OmegaConf.create({"max_prompt_length": LIMIT})
    kept = cache_dir() / "prompt_lengths"
    before = set(kept.glob("*")) if kept.is_dir() else set()

    def measure(**changes: Any) -> tuple[Any, set[Path]]:
        one = PromptCheck(dataclasses.replace(settings, **changes), found, found.tokenizer, config, False)
        parts, groups = [train, train.held_out()], samples_of(train, train.held_out(), 40)
        lengths = [one.measure(parts, groups), one.fitting(benchmark_rows(settings))[2]]
        return lengths, set(kept.glob("*")) - before

    first, files = measure()
    assert len(files) == 2
    stamps = {file: file.stat().st_mtime_ns for file in files}
    again, same = measure()
    assert again == first and same == files and stamps == {file: file.stat().st_mtime_ns for file in files}
    # Another model, template, system prompt or limit of the processor is measured anew, and so is a damaged file.
    longer, more = measure(system_prompt="Think. " * 20)
    assert len(more) == 4 and min(length.tokens for length in longer[1]) > min(length.tokens for length in first[1])
    found.chat_template = found.chat_template.replace("<|im_start|>assistant", "<|im_start|>assistant now")
    assert len(measure()[1]) == 6
    for file in more:
        os.truncate(file, file.stat().st_size // 2)
    found.chat_template = found.chat_template.replace("assistant now", "assistant")
    assert measure()[0] == first


def test_pictures_of_a_build_become_smaller_only_in_another_build() -> None:
    from ssl4rl_plugin.training.prompt_lengths import PixelLimits

    over = PromptLength("c:d", 300, (256,), pixels=200_704, side=448)
    message = too_long([over], 100, PixelLimits(28, 3136, 12_845_056), built=True)
    assert message is not None and message.endswith("(`ssl4rl build ... --set options.side=198`)")


def test_a_benchmark_with_its_own_limit_is_advised_to_change_that(tmp_path: Path, photo_folder: Path) -> None:
    """`ssl4rl.benchmark_max_pixels` has no effect on it."""
    path = benchmark(tmp_path / "b.tsv", [""] * 4, ["kind"] * 4, [(1200, 900)])
    given = section(photo_folder, path, entry={"max_pixels": 900_000})
    with pytest.raises(SettingsError, match=r"max_pixels: \d+ in its entry of ssl4rl.benchmarks") as error:
        check(Settings.from_config(given), limit=600).fitting(benchmark_rows(Settings.from_config(given)))
    assert "benchmark_max_pixels" not in str(error.value)
    size = int(str(error.value).split("max_pixels: ")[1].split()[0])
    smaller = Settings.from_config(section(photo_folder, path, entry={"max_pixels": size}))
    assert check(smaller, limit=600).fitting(benchmark_rows(smaller))[1] == []


def test_advice_about_the_system_prompt_and_about_graphs_works() -> None:
    found = qwen.tokenizer("qwen2")
    source = {**BASE_SECTION["source"], "name": "communities", "options": {"nodes": 200}}
    given = {**BASE_SECTION, "tasks": ["masked_attribute"], "source": source}

    def measured(limit: int, **keys: Any) -> PromptCheck:
        settings = Settings.from_config({**given, **keys})
        train = OnlineRows(SampleStream(settings, load_manifest(settings), "train"))
        one = PromptCheck(settings, None, found, OmegaConf.create({"max_prompt_length": limit}), False)
        groups = samples_of(train, train, 40)
        one.refuse_long([prompt.length for group in one.measure([train], groups) for prompt in group])
        return one

    wordy = "Answer with care, and think about every edge of the graph. " * 30
    with pytest.raises(SettingsError, match=r"or shorten ssl4rl.system_prompt, which has 3\d\d tokens"):
        measured(500, system_prompt=wordy)
    measured(500)
    with pytest.raises(
        SettingsError, match=r"set data.max_prompt_length=\d+, or show less of the graph: lower `nodes`"
    ):
        measured(220)
    measured(220, options={"nodes": 3})
