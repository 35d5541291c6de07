"""The prompts of all recipes fit, by the tokenizer and the processors of the recipes' own models (`qwen`)."""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qwen
import verl  # noqa: F401  -- loads the plugin, whose recipes Hydra finds then
from conftest import BASE_SECTION
from graphs import raw_graph
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from pictures import photo
from test_recipes import RECIPES, own_part

from ssl4rl_plugin.core import GraphNode, Item, Sample
from ssl4rl_plugin.core.graph import Texts
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.rows import OnlineRows, Row
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.graphs.divide import divide
from ssl4rl_plugin.training import preflight
from ssl4rl_plugin.training.prompt_lengths import PixelLimits, PromptLength, enlarged, prompt_tokens, too_long
from ssl4rl_plugin.training.prompt_limits import prompt_limits
from ssl4rl_plugin.training.run_rows import benchmark_rows
from ssl4rl_plugin.training.settings import Settings, SettingsError
from ssl4rl_plugin.training.verl.prompts import check_prompts, messages, prompt_length

pytestmark = [
    pytest.mark.skipif(not qwen.has_vocabulary(), reason="needs Qwen's vocabulary (pip install dashscope)"),
    pytest.mark.xdist_group("prompt lengths"),  # they share the tokenizers and what is measured
]

VISION = ("qwen2_5_vl", "qwen3_vl")
SHAPES = (
    (1024, 1024), (448, 448), (1600, 1200), (1200, 1600), (640, 480), (2200, 464), (440, 2000), (1496, 700), (704, 1904),
    (224, 224), (304, 1000), (520, 336),
)  # fmt: skip
"""Sizes of photographs: squares, which make the most tokens at a given longest side, and odd shapes, for which a
processor's smallest picture is rounded up most."""
SAMPLES = 2 * len(SHAPES)
"""Photographs; half of them are held out for the measurements."""
GPU_RECIPES = [name for name in RECIPES if "cpu" not in name]


# Is it Qwen's?


def test_the_vocabulary_is_qwens() -> None:
    made = qwen.tokenizer("qwen3_vl")
    assert made("Hello world 1234")["input_ids"] == [9707, 1879, 220, 16, 17, 18, 19]  # digits one by one
    assert made.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [151643, 151644, 151645]
    assert made.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"]) == [151652, 151653]
    assert made.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"]) == [151655, 151656]
    assert made.convert_tokens_to_ids(["<tool_call>", "<|file_sep|>", "<tool_response>"]) == [151657, 151664, 151665]
    assert made.convert_tokens_to_ids(["<think>", "</think>"]) == [151667, 151668]
    assert (len(qwen.ranks()), len(qwen.tokenizer("qwen2_5_vl")), len(made)) == (151_643, 151_665, 151_669)
    assert sorted(qwen.ranks().values()) == list(range(151_643))


def test_texts_are_split_as_by_dashscopes_own_tokenizer() -> None:
    from dashscope.tokenizers.qwen_tokenizer import QwenTokenizer

    spec = qwen.find_spec("dashscope")
    assert spec is not None and spec.origin is not None
    theirs = QwenTokenizer(str(Path(spec.origin).parent / "resources" / "qwen.tiktoken"))
    ours, docs = qwen.tokenizer("qwen2"), Path(__file__).parent.parent / "docs"
    texts = [path.read_text() for path in sorted(docs.glob("*.md"))]
    texts += ["Zoë's naïve façade, 東京 2024年, \t\n\n  Привет 👩‍🔬 e\u0301", "<|im_start|>user\nI'LL<|im_end|>"]
    seen = 0
    for text in texts:
        text = text.replace("tool_call", "tool call")  # Qwen2.5 has a token for the tag, which the first Qwen lacks
        ids = ours(text)["input_ids"]
        assert ids == theirs.encode(text)
        assert ours.decode(ids) == text.replace("e\u0301", "é")
        seen += len(ids)
    assert seen > 50_000


@pytest.mark.slow
@pytest.mark.parametrize("family", qwen.TEMPLATES)
def test_verl_loads_them_from_a_folder(family: str, tmp_path: Path) -> None:
    from verl.utils import hf_processor, hf_tokenizer

    folder = qwen.save(family, tmp_path)
    chat: list[dict[str, Any]] = [{"role": "user", "content": "Hello world"}]
    text = hf_tokenizer(str(folder)).apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text.endswith("<|im_start|>user\nHello world<|im_end|>\n<|im_start|>assistant\n")
    assert text.startswith("<|im_start|>user") == (family == "qwen3_vl")
    found = hf_processor(str(folder))
    if family == "qwen2":
        assert found is None
        return
    assert PixelLimits.of(found) == (
        PixelLimits(28, 3136, 12_845_056) if family == "qwen2_5_vl" else PixelLimits(32, 65_536, 16_777_216)
    )
    assert found.video_processor.patch_size * 2 == PixelLimits.of(found).unit


# The recipes


@functools.cache
def processor(family: str) -> Any:
    return qwen.processor(family)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large photographs of all shapes, up to and over `ssl4rl.source.max_pixels`."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(SAMPLES):
        photo(number, *SHAPES[number % len(SHAPES)]).save(folder / f"{number:02}.jpg", quality=90)
    return folder


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What the length of a recipe's prompts depends on."""

    config: DictConfig
    settings: Settings
    family: str

    @property
    def limit(self) -> int:
        return int(self.config.data.max_prompt_length)


@functools.cache
def recipe(name: str) -> Recipe:
    config = own_part(name)[0]
    section: Any = OmegaConf.to_container(config.ssl4rl)
    source = {**section["source"], "path": None, "options": {}}
    settings = Settings.from_config({**section, "benchmarks": [], "source": source})
    return Recipe(config, settings, qwen.MODELS[config.actor_rollout_ref.model.path])


def arms_of(recipes: list[str], kind: str) -> dict[str, Arm]:
    """The arms of all these recipes whose items are of this kind (`image`, `rgbd`, `video`, `graph`)."""
    arms = {arm.key: arm for name in recipes for arm in recipe(name).settings.arms}
    return {key: arm for key, arm in arms.items() if type(arm.task).__module__.split(".")[-2] == kind}


def rows_of(arms: dict[str, Arm], samples: int, **source: Any) -> Iterator[tuple[str, Row]]:
    """Held-out samples of each arm."""
    section = {**BASE_SECTION, "val_samples": samples}
    section["source"] = {**BASE_SECTION["source"], "max_pixels": 1_048_576, "val_fraction": 0.5, **source}
    settings = dataclasses.replace(Settings.from_config(section), arms=tuple(arms.values()))
    rows = OnlineRows(SampleStream(settings, load_manifest(settings), "val"))
    for number in range(len(rows)):
        yield rows[number].kind, rows[number]


def length_of(row: Row, family: str, as_video: bool) -> int:
    """Tokens of a row's prompt: those of the text, and for pictures the processor's own count for their sizes.

    Quicker than `prompt_length`, since no picture is processed.
    """
    found = processor(family)
    text = found.apply_chat_template(messages(row, Plain, as_video), add_generation_prompt=True, tokenize=False)
    if as_video and row.videos:
        return prompt_length(row, Plain, found, found.tokenizer, True).tokens
    pictures = [*row.images, *(frame for clip in row.videos for frame in clip.frames)]
    each = found._get_num_multimodal_tokens(image_sizes=[(picture.height, picture.width) for picture in pictures])
    return len(found.tokenizer(text)["input_ids"]) + sum(each["num_image_tokens"]) - len(pictures)


class Plain:
    """Settings without a system prompt, for what takes a row alone."""

    system_prompt = None
    arms: tuple[Arm, ...] = ()


@dataclasses.dataclass
class Measured:
    """The longest prompt of an arm by family and form of its clips, and the most pictures and clips in one."""

    tokens: dict[tuple[str, bool], int] = dataclasses.field(default_factory=dict)
    pictures: int = 0
    """With clips as one picture for each frame."""
    clips: int = 0


def measured(rows: Iterator[tuple[str, Row]]) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for key, row in rows:
        one = found.setdefault(key, Measured())
        frames = sum(len(clip.frames) for clip in row.videos)
        one.pictures = max(one.pictures, len(row.images) + frames)
        one.clips = max(one.clips, len(row.videos))
        for family in VISION:
            for as_video in (False, True) if row.videos else (False,):
                tokens = length_of(row, family, as_video)
                one.tokens[family, as_video] = max(one.tokens.get((family, as_video), 0), tokens)
    return found


@pytest.fixture(scope="module")
def by_arm(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """The longest prompts of all arms of the GPU recipes but those on graphs."""
    paper = arms_of([name for name in GPU_RECIPES if name not in ("images_wide", "rgbd", "videos")], "image")
    every = arms_of(GPU_RECIPES, "image")
    rest = {key: arm for key, arm in every.items() if key not in paper}
    folder = {"name": "folder", "path": str(photographs)}
    return {
        **measured(rows_of(paper, 8, **folder)),
        **measured(rows_of(rest, 3, **folder)),
        **measured(rows_of(arms_of(GPU_RECIPES, "rgbd"), 4, name="sample_depth")),
        **measured(rows_of(arms_of(GPU_RECIPES, "video"), 1, name="sample_videos", options={"width": 336, "clips": 4})),
    }


@pytest.mark.slow
def test_prompts_with_pictures_fit_in_every_recipe_and_model(by_arm: dict[str, Measured]) -> None:
    tight, checked = [], 0
    for name in GPU_RECIPES:
        found = recipe(name)
        if found.family == "qwen2":
            continue
        limits = prompt_limits(found.config.actor_rollout_ref.rollout)
        for arm in found.settings.arms:
            one = by_arm[arm.key]
            assert one.pictures <= limits["image"] and one.clips <= limits["video"], (name, arm.key)
            for (family, as_video), tokens in one.tokens.items():
                checked += 1
                if tokens > 0.95 * found.limit:  # only a sample is measured
                    tight.append(f"{name} {arm.key} {family} {as_video}: {tokens} of {found.limit}")
    assert not tight
    assert checked > 2 * len(GPU_RECIPES)
    # What docs/recipes.md says of them.
    assert 800 < by_arm["jigsaw:4x4"].tokens["qwen2_5_vl", False] < 900
    assert 1700 < by_arm["jigsaw:4x4"].tokens["qwen3_vl", False] < 1800
    assert 2450 < max(max(one.tokens.values()) for key, one in by_arm.items() if "rows" in key) < 2750
    assert max(one.tokens["qwen2_5_vl", False] for key, one in by_arm.items() if not key.startswith("jigsaw:")) < 1400


@pytest.mark.slow
def test_the_quick_count_is_the_processors(photographs: Path) -> None:
    arms = arms_of(["mmbench_jigsaw_4x4", "mmbench_rotation"], "image")
    for _, row in rows_of(arms, 2, name="folder", path=str(photographs)):
        for family in VISION:
            made = prompt_length(row, Plain, processor(family), processor(family).tokenizer, False)
            assert made.tokens == length_of(row, family, False)
            assert len(made.pictures) == len(row.images) and 30 < made.text < 800


@pytest.mark.slow
def test_prompts_on_graphs_fit(tmp_path: Path) -> None:
    """A dense graph with texts that are longer than what is shown of them, measured with the model's tokenizer."""
    model = qwen.save("qwen2", tmp_path / "model")
    raw, rng = raw_graph(0, nodes=1200, links=12, relations=0), random.Random(0)
    words = [chr(97 + k % 26) * (3 + k % 9) + "-" + str(k) for k in range(400)]
    texts = Texts.of([" ".join(rng.choice(words) for _ in range(150)) for _ in range(1200)])
    names = tuple(f"a class with a long name, number {k}, about things" for k in range(40))
    raw = dataclasses.replace(
        raw, texts=texts, labels=np.array([k % 40 for k in range(1200)], np.int32), label_names=names
    )
    graph, tokenizer = divide(raw, seed=0, tokenizer=str(model)), qwen.tokenizer("qwen2")
    names_of = [name for name in GPU_RECIPES if recipe(name).family == "qwen2"]
    arms, longest = arms_of(names_of, "graph"), {}
    for key, arm in arms.items():
        for node in range(24):
            place = GraphNode(graph, node, "train")
            made = arm.task.generate(Item(f"node {node}", place), arm.level, rng_for("graph", node))
            if not isinstance(made, Sample):
                continue
            for wanted in recipe(names_of[0]).settings.answer_format.instructions:
                chat = [{"role": "user", "content": f"{made.question} {wanted}"}]
                text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
                longest[key] = max(longest.get(key, 0), len(tokenizer(text)["input_ids"]))
    assert longest.keys() == arms.keys()
    for name in names_of:
        for arm in recipe(name).settings.arms:
            assert 100 < longest[arm.key] < 0.95 * recipe(name).limit, (name, arm.key, longest[arm.key])


# Benchmarks


def benchmark(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """Questions in MMBench's layout with a long hint, one about a picture of each size."""
    lines = ["index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\tl2-category\tsplit\timage"]
    hint = "The table below shows the boiling points of some liquids, which were measured at sea level. " * 12
    for number, size in enumerate(sizes):
        jpeg = io.BytesIO()
        photo(number, *size).save(jpeg, "JPEG", quality=80)
        image = base64.b64encode(jpeg.getvalue()).decode()
        options = ["the first of them", "the second of them", "neither of them", "both"]
        fields = [
            str(number),
            "Which of the liquids boils first?",
            hint,
            *options,
            "A",
            "physics",
            "science",
            "dev",
            image,
        ]
        lines.append("\t".join(fields))
    path.write_text("\n".join(lines) + "\n")
    return path


def with_benchmark(path: Path, photos: Path, **entry: Any) -> Settings:
    source = {**BASE_SECTION["source"], "path": str(photos)}
    return Settings.from_config(
        {**BASE_SECTION, "source": source, "benchmarks": [{"name": "mmbench", "path": str(path), **entry}]}
    )


@pytest.mark.parametrize("family", VISION)
def test_questions_with_large_pictures_fit(family: str, tmp_path: Path) -> None:
    shapes = [(320, 240)] * 12 + [(2048, 1536), (1024, 1024), (4000, 304), (304, 2400)]
    path = benchmark(tmp_path / "mmbench.tsv", shapes)
    settings, found = with_benchmark(path, tmp_path), processor(family)
    (rows,) = benchmark_rows(settings)
    limit = prompt_tokens(settings.benchmarks)
    lengths = check_prompts(
        rows, settings, found, found.tokenizer, OmegaConf.create({"max_prompt_length": limit}), False
    )
    assert limit == 2048 and 1024 < max(length.tokens for length in lengths) < limit
    # The longest is among the few that are looked at, though it is the last but two of them.
    every = [prompt_length(row, settings, found, found.tokenizer, False).tokens for row in (rows[k] for k in range(16))]
    assert max(every) == max(length.tokens for length in lengths)
    with pytest.raises(
        SettingsError, match=r"mmbench has 1\d\d\d tokens \(1 picture x 1\d\d\d = .* text \d\d\d"
    ) as error:
        check_prompts(rows, settings, found, found.tokenizer, OmegaConf.create({"max_prompt_length": 1024}), False)
    advised = re.search(r"ssl4rl.benchmark_max_pixels=(\d+)", str(error.value))
    assert advised is not None and "options.side" not in str(error.value)
    (smaller,) = benchmark_rows(with_benchmark(path, tmp_path, max_pixels=int(advised[1])))
    check_prompts(smaller, settings, found, found.tokenizer, OmegaConf.create({"max_prompt_length": 1024}), False)


def test_the_pictures_of_a_question_share_the_pixels(tmp_path: Path) -> None:
    from test_sources_benchmarks import blink_tsv

    blink_tsv(tmp_path)
    section = {**BASE_SECTION, "source": {**BASE_SECTION["source"], "path": "x"}, "benchmark_max_pixels": 4096}
    settings = Settings.from_config({**section, "benchmarks": [{"name": "blink", "path": str(tmp_path)}]})
    (rows,) = benchmark_rows(settings)
    counts = set()
    for number in range(len(rows)):
        pictures = rows[number].images
        counts.add(len(pictures))
        assert sum(picture.width * picture.height for picture in pictures) <= 4096
    assert max(counts) > 1


def test_recipes_with_benchmarks_have_room_for_them() -> None:
    for name in GPU_RECIPES:
        config = recipe(name).config
        assert config.data.max_prompt_length >= prompt_tokens(config.ssl4rl.benchmarks), name
    own: Any = own_part("images", "ssl4rl.benchmarks=[{name: mmbench, path: x.tsv}]")[0]
    assert (own.data.max_prompt_length, recipe("images").limit) == (2048, 1024)
    assert own_part("mmbench_jigsaw_5x5", "ssl4rl/model=qwen3_vl_2b")[0].data.max_prompt_length == 3072


# Advice


def lengths_at(photographs: Path, family: str, task: str, side: int) -> tuple[list[PromptLength], PixelLimits | None]:
    source = {**BASE_SECTION["source"], "path": str(photographs), "max_pixels": 4_000_000, "val_fraction": 0.5}
    section = {**BASE_SECTION, "source": source, "tasks": [task], "options": {"side": side}, "val_samples": 12}
    settings, found = Settings.from_config(section), processor(family)
    rows = OnlineRows(SampleStream(settings, load_manifest(settings), "val"))
    every = [prompt_length(rows[k], settings, found, found.tokenizer, False) for k in range(len(rows))]
    return every, PixelLimits.of(found)


@pytest.mark.parametrize("family", VISION)
def test_advice_about_large_pictures_works(family: str, photographs: Path) -> None:
    lengths, pixels = lengths_at(photographs, family, "rotation", 896)
    message = too_long(lengths, 1024, pixels)
    assert message is not None and "data.max_prompt_length is 1024" in message
    length, side = (re.search(rf"{key}=(\d+)", message) for key in ("data.max_prompt_length", "ssl4rl.options.side"))
    assert length is not None and side is not None
    assert too_long(lengths, int(length[1]), pixels) is None
    assert 400 < int(side[1]) < 896
    assert too_long(lengths_at(photographs, family, "rotation", int(side[1]))[0], 1024, pixels) is None


def test_no_advice_to_shrink_what_the_processor_enlarges(photographs: Path) -> None:
    lengths, pixels = lengths_at(photographs, "qwen3_vl", "jigsaw:4x4", 448)
    message = too_long(lengths, 1024, pixels)
    assert message is not None and re.search(r"16 pictures x \d+ = ", message) and "options.side" not in message
    length = re.search(r"set data.max_prompt_length=(\d+)", message)
    assert length is not None and too_long(lengths, int(length[1]), pixels) is None
    note = enlarged(lengths, pixels)
    assert note is not None and "65536" in note and "jigsaw:4x4" in note
    # With limits of its own, the processor leaves the tiles as they are.
    found = PixelLimits.of(processor("qwen3_vl"), {"min_pixels": 3136, "max_pixels": 12_845_056})
    assert found is not None and enlarged(lengths, found) is None


def test_advice_names_what_is_over() -> None:
    pixels = PixelLimits(28, 3136, 12_845_056)
    fits, over = (
        PromptLength("a:b", 90, (40,), pixels=900, side=30),
        PromptLength("c:d", 300, (256,), pixels=200_704, side=448),
    )
    text = PromptLength("words", 200)
    assert too_long([fits], 100, pixels) is None
    message = too_long([over], 100, pixels)
    assert message.endswith("data.max_prompt_length=384, or show smaller pictures with ssl4rl.options.side=198")
    assert "side" not in too_long([fits, over], 100, pixels)  # it would enlarge the pictures of a:b
    assert "side" not in too_long([over, text], 100, pixels) and "words 200" in too_long([over, text], 100, pixels)
    assert "side" not in too_long([over], 100, None)


@pytest.mark.slow
def test_the_check_before_a_run_measures_with_the_models_processor(photographs: Path, tmp_path: Path) -> None:
    model = qwen.save("qwen3_vl", tmp_path / "model")

    def run(*overrides: str) -> DictConfig:
        with initialize_config_module("verl.trainer.config", version_base=None):
            config = compose(
                "ppo_trainer",
                overrides=["+plugin=ssl4rl", "recipe=mmbench_jigsaw_4x4", "ssl4rl/source=folder", "ssl4rl/benchmark=none",
                           "ssl4rl/model=qwen3_vl_2b", f"ssl4rl.source.path={photographs}",
                           "ssl4rl.source.val_fraction=0.5", f"actor_rollout_ref.model.path={model}", *overrides],
            )  # fmt: skip
        return config

    def check(config: DictConfig) -> None:
        settings = Settings.from_config(config.ssl4rl)
        assert preflight.check_prompt_lengths(config, settings, preflight.check_online(settings)) is False

    check(run())
    with pytest.raises(SettingsError, match=r"jigsaw:4x4 has 1\d\d\d tokens .*set data.max_prompt_length=1792$"):
        check(run("data.max_prompt_length=1024"))
    check(run("data.max_prompt_length=1792"))
    with pytest.raises(preflight.PreflightError, match=r"max_model_len is 1800: set it to .* 4096"):
        check(run("actor_rollout_ref.rollout.max_model_len=1800"))
    settings = Settings.from_config(run().ssl4rl)
    elsewhere = run("actor_rollout_ref.model.path=some/model")
    assert preflight.check_prompt_lengths(elsewhere, settings, preflight.check_online(settings)) is None


# Trainer and rollout


@pytest.mark.slow
@pytest.mark.parametrize("family", VISION)
def test_trainer_and_vllm_size_pictures_alike(family: str, tmp_path: Path) -> None:
    """With the model's own limits, and with `data.mm_processor_kwargs`, which verl gives to both."""
    vllm = pytest.importorskip("vllm.engine.arg_utils")
    import json

    from vllm.multimodal import MULTIMODAL_REGISTRY

    folder = qwen.save(family, tmp_path)
    kind = {"qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "qwen3_vl": "Qwen3VLForConditionalGeneration"}[family]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [kind]}))
    engine = vllm.EngineArgs(model=str(folder), dtype="float32", max_model_len=8192).create_model_config()
    rollout, trainer = MULTIMODAL_REGISTRY.create_processor(engine), processor(family)
    sizes = [(100, 100), (104, 48), (448, 448), (1400, 704), (48, 200)]
    pictures = tuple(photo(number, *size) for number, size in enumerate(sizes))
    row = Row("some:level", "ssl4rl/some", "<image>" * len(pictures) + " Which?", pictures, (), "{}", {})
    chat = messages(row, Plain, False)
    text = trainer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    found = set()
    for options in ({}, {"min_pixels": 3136, "max_pixels": 200_704}):
        made = prompt_length(row, Plain, trainer, trainer.tokenizer, False, {"mm_processor_kwargs": options})
        given = rollout(
            trainer.tokenizer(text)["input_ids"],
            rollout.info.parse_mm_data({"image": list(pictures)}),
            hf_processor_mm_kwargs=dict(options),
        )
        assert len(given["prompt_token_ids"]) == made.tokens
        assert tuple(place.length for place in given["mm_placeholders"]["image"]) == made.pictures
        found.add(made.tokens)
    assert len(found) == 2
