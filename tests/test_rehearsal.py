"""The rehearsal without its trainings: what it changes and why, its tiny models, its data, and its report.

tests/e2e/test_rehearsal.py rehearses recipes.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.source import registry as sources
from ssl4rl_plugin.demo import rehearsal
from ssl4rl_plugin.demo.model import FAMILIES, build_model, save, train_tokenizer
from ssl4rl_plugin.demo.rehearsal_settings import CATEGORIES, CPU, Change, differences, hydra_text, write_benchmark
from ssl4rl_plugin.demo.run import compose

TEXTS = ["user assistant system", "Which quadrant of the picture is masked?"]


def changes(recipe: str, *overrides: str, folder: Path) -> tuple[dict[str, Change], OmegaConf, OmegaConf]:
    config, rehearsed, planned = rehearsal.composed(recipe, overrides, folder)
    found = {change.key: change for change in differences(config, rehearsed, planned.reasons)}
    return found, config, rehearsed


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Change], OmegaConf, OmegaConf]:
    return changes("images", folder=tmp_path_factory.mktemp("images"))


def test_every_difference_is_listed_and_nothing_else_changes(images) -> None:
    """The list against the two configs, read in another way."""
    found, config, rehearsed = images
    for key in ("algorithm.adv_estimator", "actor_rollout_ref.actor.kl_loss_coef", "actor_rollout_ref.rollout.n",
                "data.max_prompt_length", "actor_rollout_ref.actor.optim.lr", "ssl4rl.tasks", "ssl4rl.answer_format",
                "actor_rollout_ref.actor.use_kl_loss", "actor_rollout_ref.model.use_fused_kernels",
                "actor_rollout_ref.model.enable_gradient_checkpointing",
                "actor_rollout_ref.rollout.max_num_batched_tokens", "trainer.v1.sampler.custom_sampler.path"):  # fmt: skip
        assert key not in found
        assert OmegaConf.select(config, key) == OmegaConf.select(rehearsed, key), key
    for change in found.values():
        assert OmegaConf.select(rehearsed, change.key) == change.rehearsal, change
        assert change.why
    assert found["trainer.device"].recipe == "cuda" and found["trainer.device"].rehearsal == "cpu"
    assert found["data.train_batch_size"].recipe == 512
    assert found["ssl4rl.source.path"].recipe == "???"


def test_the_cpu_values_are_those_of_the_cpu_hardware(images) -> None:
    _, _, rehearsed = images
    cpu = compose("images", ["ssl4rl/hardware=cpu", "ssl4rl.source.path=x"])
    for key in CPU:
        assert OmegaConf.select(cpu, key) is not None or key.endswith("num_cpus"), key
        assert OmegaConf.select(rehearsed, key) == OmegaConf.select(cpu, key), key


def test_without_flash_attn_here_the_list_still_says_what_gpus_have(images) -> None:
    found, _, _ = images
    packs = found["actor_rollout_ref.model.use_remove_padding"]
    assert packs.recipe is True and packs.rehearsal is False and "flash-attention" in packs.why
    kernel = found["actor_rollout_ref.model.override_config.attn_implementation"]
    assert (kernel.recipe, kernel.rehearsal) == ("flash_attention_2", "sdpa")
    assert found["actor_rollout_ref.actor.use_dynamic_bsz"].recipe is True


@pytest.mark.parametrize(
    "recipe", ["images", "images_qwen3_vl_2b", "videos", "graph_mixture", "mmbench_jigsaw_4x4", "rgbd", "graph_cora"]
)
def test_a_rehearsed_recipe_passes_verls_validation_and_the_preflight(recipe: str, tmp_path: Path) -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    from ssl4rl_plugin.training import preflight

    _, _, rehearsed = changes(recipe, folder=tmp_path)
    validate_config(rehearsed, use_reference_policy=need_reference_policy(rehearsed), use_critic=need_critic(rehearsed))
    preflight.check_data_keys(rehearsed)
    preflight.check_batches(rehearsed)
    actor, rollout = rehearsed.actor_rollout_ref.actor, rehearsed.actor_rollout_ref.rollout
    assert rehearsed.data.train_batch_size == 2 * actor.ppo_mini_batch_size, "several updates a step, as in the recipe"
    assert rehearsed.data.train_batch_size * rollout.n % rollout.log_prob_micro_batch_size_per_gpu == 0


@pytest.mark.slow
def test_text_models_and_qwen3_keep_their_rows_packed(tmp_path: Path) -> None:
    for recipe in ("graph_mixture", "images_qwen3_vl_2b"):
        found, _, rehearsed = changes(recipe, folder=tmp_path)
        assert "actor_rollout_ref.model.use_remove_padding" not in found
        assert rehearsed.actor_rollout_ref.model.use_remove_padding is True


def test_lora_is_sent_merged_and_says_so(tmp_path: Path) -> None:
    found, _, rehearsed = changes("images", "ssl4rl/hardware=gpu_1x24gb", folder=tmp_path)
    assert rehearsed.actor_rollout_ref.model.lora_rank == 64
    assert "adapters" in found["actor_rollout_ref.model.lora.merge"].why


def test_the_users_own_images_stay(photo_folder: Path, tmp_path: Path) -> None:
    found, _, rehearsed = changes("images", f"ssl4rl.source.path={photo_folder}", folder=tmp_path)
    assert not [key for key in found if key.startswith("ssl4rl.source")]
    assert rehearsed.ssl4rl.source.name == "folder"


@pytest.mark.slow
def test_a_benchmark_recipe_gets_a_benchmark_with_categories(tmp_path: Path) -> None:
    _, _, rehearsed = changes("mmbench_rotation", folder=tmp_path)
    section = rehearsed.ssl4rl
    assert Path(section.source.path).is_file() and section.source.name == "mmbench"
    assert [(one.name, one.path) for one in section.benchmarks] == [("mmbench", section.source.path)]
    twin = changes("mmbench_rotation_inductive", "ssl4rl.source.path=null", folder=tmp_path / "twin")[2].ssl4rl
    assert twin.transductive is False and Path(twin.benchmarks[0].path).is_file()


@pytest.mark.parametrize("name", ["mmbench", "seedbench", "realworldqa", "vstar"])
def test_each_benchmark_reads_the_generated_file(name: str, tmp_path: Path) -> None:
    source = sources.get(name)(write_benchmark(tmp_path / f"{name}.tsv", held_out=True))
    questions = list(source.questions())
    assert len(questions) == 18 and all(len(question.options) == 4 for question in questions)
    assert {question.category for question in questions} == {one for some in CATEGORIES.values() for one in some}
    sizes = {Image.open(io.BytesIO(source.read(record.ref))).size for record in source.records()}
    assert (1024, 1024) in sizes, "as large as the pictures of benchmarks"


def test_held_out_questions_share_no_picture_with_the_training_crops(tmp_path: Path) -> None:
    from ssl4rl_plugin.data.source import Source

    name: type[Source] = sources.get("sample_photos")
    train = {record.ref.partition("@")[0] for record in name().records() if record.split == "train"}
    assert train and not train & {"chelsea.png", "motorcycle_left.png"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_each_family_has_a_tiny_twin_with_the_published_patches(family: str, tied: bool, tmp_path: Path) -> None:
    shape = replace(FAMILIES[family], tied=tied)
    tokenizer = train_tokenizer(TEXTS)
    model = build_model(tokenizer, 0, shape=shape)
    again = build_model(tokenizer, 0, shape=shape)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert sum(weight.numel() for weight in model.parameters()) < 1e6
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    save(model, tokenizer, tmp_path, shape)
    if not shape.vision:
        return
    from verl.utils import hf_processor

    processor = hf_processor(str(tmp_path))
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    for side, visual in {"qwen2_5_vl": ((448, 256), (28, 4)), "qwen3_vl": ((448, 196), (28, 64))}[family]:
        inputs = processor(text=[text], images=[Image.new("RGB", (side, side))], return_tensors="pt")
        assert (inputs["input_ids"] == processor.image_token_id).sum() == visual
        assert torch.isfinite(model(**inputs).logits).all()


def test_vllm_gives_the_tiny_qwen3_vl_the_rotary_positions_of_transformers(tmp_path: Path) -> None:
    """vLLM interleaves them only where the config says so; transformers always does."""
    from vllm.model_executor.layers.rotary_embedding.mrope import apply_interleaved_rope

    shape = FAMILIES["qwen3_vl"]
    model = build_model(train_tokenizer(TEXTS), 0, shape=shape)
    rope = model.config.get_text_config().rope_parameters
    assert rope["mrope_interleaved"] is True
    half = model.config.get_text_config().head_dim // 2
    frequencies = torch.arange(3 * half).reshape(3, 1, 1, half).float()
    ours = model.model.language_model.rotary_emb.apply_interleaved_mrope(frequencies.clone(), rope["mrope_section"])
    theirs = apply_interleaved_rope(frequencies[:, :, 0].clone(), rope["mrope_section"])
    assert torch.equal(ours[:, 0], theirs)


def test_a_local_models_own_tokenizer_is_taken(tmp_path: Path) -> None:
    """A folder in Hugging Face's layout stands for a download: its tokenizer, processor and ties, not its size."""
    shape = replace(FAMILIES["qwen2_5_vl"], tied=True)
    tokenizer = train_tokenizer([*TEXTS, "a word of its own: zyzzyva zyzzyva"])
    folder = tmp_path / "real"
    save(build_model(tokenizer, 0, shape=shape), tokenizer, folder, shape)
    _, rehearsed, planned = rehearsal.composed("images", [f"actor_rollout_ref.model.path={folder}"], tmp_path / "out")
    assert planned.real == folder and planned.shape.tied
    small = OmegaConf.merge(rehearsed, {"ssl4rl": {"tasks": ["rotation"]}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "WARM_UP", ((1, 1, True),))
        detail, asked = rehearsal._prepare(small, planned, tmp_path / "tiny")
    assert f"the tokenizer of {folder}" in detail and asked == {"ssl4rl/rotation"}
    assert (tmp_path / "tiny" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert json.loads((tmp_path / "tiny" / "config.json").read_text())["text_config"]["vocab_size"] == len(tokenizer)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("actor_rollout_ref.model.path=someone/unknown-model", "its family is unknown"),
        ("algorithm.adv_estimator=gae", "no value model"),
        ("data.nonsense=1", "nonsense"),
    ],
)
def test_what_cannot_be_rehearsed_is_said_at_once(override: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        rehearsal.composed("images", [override], tmp_path)


def test_values_in_hydras_grammar_come_back(tmp_path: Path) -> None:
    value = {
        "path": "/a b/c'd=e,{x}\\y\\'.tsv\\",
        "limit": 3,
        "circular": True,
        "options": {"none": None, "list": [1.5, "s"]},
    }
    config = compose("images", [f"++ssl4rl.benchmarks={hydra_text([value])}"])
    assert OmegaConf.to_container(config.ssl4rl.benchmarks) == [value]


def test_the_command_reports_and_writes_its_phases(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app, ["doctor", "--recipe", "images", "--rehearse", "--until", "compose", "--out", str(out), "--json"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found == json.loads((out / "rehearsal.json").read_text())
    assert [phase["status"] for phase in found["phases"]] == ["pass"] + ["not run"] * (len(rehearsal.PHASES) - 1)
    assert {"torch", "vllm", "transformers", "verl"} <= set(found["versions"])
    again = CliRunner().invoke(app, ["doctor", "--recipe", "images", "--rehearse", "--out", str(out)])
    assert again.exit_code == 2 and "not empty" in again.stderr
    assert CliRunner().invoke(app, ["doctor", "--rehearse"]).exit_code == 2


def test_a_failed_phase_has_the_cause_and_the_end_of_the_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A trainer that ends at once: a real process, in place of verl's."""
    program = "print('\\n'.join(map(str, range(40)))); raise ValueError('the reason')"
    monkeypatch.setattr(rehearsal.demo, "command", lambda *_: [sys.executable, "-c", program])
    monkeypatch.setattr(rehearsal, "_prepare", lambda *_: ("a model", set()))
    found = rehearsal.rehearse("images", [], tmp_path / "out")
    failed = next(phase for phase in found.phases if phase.status == "fail")
    assert failed.name == "start" and "exit code 1" in failed.detail and "ValueError: the reason" in failed.detail
    assert failed.log[-1] == "ValueError: the reason" and len(failed.log) == rehearsal.TAIL
    assert not found.passed
    assert [phase.status for phase in found.phases[3:]] == ["not run"] * 6


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for its parent a while longer."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    program = "sleep 77 & echo $!; wait"
    started = time.monotonic()
    with pytest.raises(rehearsal._Failed, match="no end after 2 s"):
        rehearsal._command(["sh", "-c", program], tmp_path / "log", 2)
    assert time.monotonic() - started < 30
    child = int((tmp_path / "log").read_text().splitlines()[0])
    deadline = time.monotonic() + 10
    while runs(child) and time.monotonic() < deadline:  # SIGKILL takes effect a moment later
        time.sleep(0.1)
    assert not runs(child)


@pytest.mark.slow
def test_the_resolvers_exist_where_hydra_is_not_imported() -> None:
    """As in the Ray worker in which verl resolves the config: a rehearsal found that they did not."""
    program = (
        "import sys, verl; from omegaconf import OmegaConf; assert 'hydra' not in sys.modules;"
        "print(OmegaConf.create({'a': '${ssl4rl.sum:1,2}'}).a)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["3"], done.stderr[-2000:]
