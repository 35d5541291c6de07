"""The memory estimate: parameters as published, formulas against what PyTorch holds, and what the doctor says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import verl  # noqa: F401  -- loads the plugin
from hydra import compose, initialize_config_module
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.cli.recipe_check import check_memory
from ssl4rl_plugin.training.memory import GIB, RESERVE, Estimate, estimate
from ssl4rl_plugin.training.model_size import KNOWN, UnknownModel, model_size
from ssl4rl_plugin.training.vllm_memory import OVERHEAD

PUBLISHED = {
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
}
"""Parameters as the hub states them (the weight files' bytes, halved)."""


def config(*overrides: str) -> Any:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=["+plugin=ssl4rl", "recipe=images", *overrides])


def parts(found: Estimate, phase: str) -> dict[str, float]:
    (one,) = (one for one in found.phases if one.name == phase)
    return {name: value * GIB for name, value in one.parts.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A model with real weights, in a folder: Qwen2.5-VL's text part, small."""
    folder = tmp_path_factory.mktemp("small")
    settings = AutoConfig.for_model(
        "qwen2", hidden_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=512, vocab_size=1000, tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(settings)
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_are_those_that_are_published(name: str) -> None:
    assert model_size(name).parameters == PUBLISHED[name]


def test_every_model_of_a_recipe_is_known() -> None:
    files = (Path(__file__).parent.parent / "recipes" / "ssl4rl" / "model").glob("*.yaml")
    named = {line.split(": ")[1] for file in files for line in file.read_text().splitlines() if " path: " in line}
    assert named == set(KNOWN) == set(PUBLISHED)


def test_weights_gradients_and_moments_are_what_pytorch_holds(small: tuple[Path, Any]) -> None:
    folder, model = small
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    weights = sum(weight.nbytes for weight in model.parameters())
    gradients = sum(weight.grad.nbytes for weight in model.parameters())
    moments = sum(state[key].nbytes for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq"))

    for gpus in (1, 2):
        found = parts(estimate(config(f"trainer.n_gpus_per_node={gpus}"), model_size(str(folder))), "update")
        held = [found[name] * gpus for name in ("weights", "gradients", "optimizer")]
        assert held == pytest.approx([weights, gradients, moments])


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-2B-Instruct"])
def test_activations_are_about_what_pytorch_keeps_for_a_layer(name: str) -> None:
    """A real layer in bfloat16: every tensor that autograd saves, weights left out, each storage once."""
    kind, content = KNOWN[name]
    own = AutoConfig.for_model(kind, **content)
    text = own.get_text_config()
    text.num_hidden_layers, text.vocab_size, own.vision_config.depth = 1, 64, 1
    own.vision_config.deepstack_visual_indexes = [0]
    text.rope_parameters = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [24, 20, 20]}
    model = AutoModelForImageTextToText.from_config(own, attn_implementation="sdpa", dtype=torch.bfloat16)
    inner = model.model.language_model
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    tokens, kept = 32, {}

    def keep(saved: torch.Tensor) -> torch.Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), saved)  # held, so that no other takes its place
        return saved

    states = torch.randn(1, tokens, text.hidden_size, dtype=torch.bfloat16, requires_grad=True)
    places = inner.rotary_emb(states, torch.arange(tokens).expand(3, 1, -1))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        inner.layers[0](states, position_embeddings=places, attention_mask=None)
    measured = sum(size for size, _ in kept.values())
    assert tokens * model_size(name).layer_bytes == pytest.approx(measured, rel=0.2)


def test_the_papers_run_by_hand() -> None:
    """Qwen2.5-VL-3B on 8 GPUs of 80 GB: 3,754,622,976 parameters in float32, 10 and 20 rows of 3072 tokens."""
    size = model_size("Qwen/Qwen2.5-VL-3B-Instruct")
    rows = "log_prob_micro_batch_size_per_gpu=20"
    settings = (
        "ssl4rl.attention=sdpa", "actor_rollout_ref.model.use_fused_kernels=false", f"actor_rollout_ref.rollout.{rows}",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=10", f"actor_rollout_ref.ref.{rows}",
    )  # fmt: skip
    found = estimate(config(*settings), size)
    update = parts(found, "update")
    assert update["weights"] == update["gradients"] == 1_877_311_488
    assert update["optimizer"] == 3_754_622_976
    assert update["logits"] == 18_669_895_680  # 30,720 tokens x 151,936 words x 2 bytes, twice
    assert parts(found, "log-probs")["logits"] == 2 * 18_669_895_680
    # 30,720 tokens of 36 layers x 2048, 40,960 patches of 32 layers x 1280, and one layer of 24 x 2048 + 8 x 11008.
    assert update["activations"] == pytest.approx(4_529_848_320 + 3_355_443_200 + 4_215_275_520)
    assert size.kv_bytes == 36_864  # 2 x 2 bytes x 36 layers x 2 heads x 128
    # 65,536 patches of 2 x (2 x 1280 + 3 x 3420 + 6 x 14 x 14) bytes, and 8192 tokens of 8 x 2048 + 6 x 11008.
    profile = 65_536 * 27_992 + 8192 * 82_432
    assert found.kv_cache == pytest.approx(48 - OVERHEAD - (7_509_245_952 + profile) / GIB)
    assert found.kv_sequences == pytest.approx(found.kv_cache * GIB / 36_864 / 3072)
    assert found.peak.name == "rollout" and found.peak.total == pytest.approx(48 + 6 * 938_655_744 / GIB + RESERVE)
    assert found.offloaded == pytest.approx(8 * 4 * 3_754_622_976 / 8 / GIB)  # the reference model
    assert found.checkpoint == pytest.approx(3 * 4 * 3_754_622_976 / GIB)
    # 1024 visual tokens of 28 x 28 pixels in each of 2560 rows, twice; 27 bytes a pixel.
    assert found.training_rows == pytest.approx(2 * 2560 * 1024 * 784 * 27 / GIB)
    packed = estimate(config("ssl4rl.attention=flash_attention_2"), size)
    # 512 tokens of three float32 copies, and the gradient of 151,936 x 2048 weights in float32.
    assert parts(packed, "update")["logits"] == 151_936 * (12 * 512 + 4 * 2048)
    # 24,576 tokens a micro-batch: a layer keeps 24 x 2048 + 8 x 11008 bytes of each.
    assert parts(packed, "update")["activations"] == pytest.approx(0.8 * update["activations"])


def test_lora_trains_what_peft_adds_and_keeps_the_rest_in_half_precision() -> None:
    from peft import LoraConfig, get_peft_model

    name = "Qwen/Qwen2.5-VL-3B-Instruct"
    run = config("ssl4rl/finetuning=lora")
    found = estimate(run, size := model_size(name))
    kind, content = KNOWN[name]
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, **content))
        lora = run.actor_rollout_ref.model
        settings = LoraConfig(
            r=lora.lora_rank, target_modules=lora.target_modules, exclude_modules=lora.exclude_modules
        )
        adapted = get_peft_model(model, settings)
    assert found.trained == sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert parts(found, "update")["weights"] == pytest.approx(2 * (size.parameters + found.trained) / 8)
    assert parts(found, "update")["optimizer"] == pytest.approx(2 * 2 * found.trained / 8)
    assert found.offloaded == 0  # the base model without adapters is the reference model


@pytest.mark.parametrize("hardware", ["gpu_8x80gb", "gpu_2x8x80gb", "gpu_1x80gb", "gpu_1x24gb"])
def test_every_machine_holds_the_model_that_it_is_for(hardware: str) -> None:
    names = ["qwen2_5_vl_3b", "qwen3_vl_2b"] + (["qwen2_5_vl_7b", "qwen3_vl_8b"] if "8x80" in hardware else [])
    for name in names:
        run = config(f"ssl4rl/hardware={hardware}", f"ssl4rl/model={name}")
        found = estimate(run, model_size(run.actor_rollout_ref.model.path))
        assert found.peak.total < 0.9 * run.ssl4rl.gpu_memory, name
        assert found.kv_sequences is not None and found.kv_sequences > 16
        assert found.host < 0.9 * run.ssl4rl.host_memory, name


def test_offloading_and_sleeping_change_the_phases_that_they_should() -> None:
    size = model_size("Qwen/Qwen2.5-VL-3B-Instruct")
    plain = estimate(config(), size)
    awake = estimate(config("actor_rollout_ref.rollout.free_cache_engine=false"), size)
    assert "vLLM" not in parts(plain, "update") and parts(awake, "update")["vLLM"] == pytest.approx(48 * GIB)
    rests = "actor_rollout_ref.actor.fsdp_config"
    offloaded = estimate(config(f"{rests}.param_offload=true", f"{rests}.optimizer_offload=true"), size)
    assert parts(offloaded, "rollout")["weights"] == parts(offloaded, "rollout")["optimizer"] == 0
    assert parts(offloaded, "update") == parts(plain, "update")
    assert offloaded.offloaded > plain.offloaded
    fewer = estimate(config("actor_rollout_ref.actor.use_kl_loss=false"), size)
    assert fewer.offloaded == 0
    unsaved = estimate(config("actor_rollout_ref.model.enable_gradient_checkpointing=false"), size)
    assert parts(unsaved, "update")["activations"] > 10 * parts(plain, "update")["activations"]


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        (["ssl4rl.attention=flash_attention_2"], "ppo_max_token_len_per_gpu"),
        (["ssl4rl.attention=sdpa"], "ppo_micro_batch_size_per_gpu"),
        (["actor_rollout_ref.model.use_fused_kernels=false"], "use_fused_kernels=true"),
    ],
)
def test_the_remedy_names_the_setting_that_counts(overrides: list[str], advice: str) -> None:
    """A GPU of one GiB: the largest part of the update decides the advice."""
    huge = ["data.max_response_length=30000", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=40000"]
    run = config(*huge, *overrides, "ssl4rl.gpu_memory=1", "actor_rollout_ref.rollout.free_cache_engine=true")
    _, checks = check_memory(run)
    (memory,) = [check for check in checks if check.name == "GPU memory"]
    assert memory.status == "fail" and advice in memory.remedy


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UnknownModel, match=r"nobody/nothing.*Qwen2\.5-VL-3B"):
        model_size("nobody/nothing")


# ---------------------------------------------------------------------------------------------- the command


def doctor(*arguments: str) -> Any:
    """The command, for a run on another machine: here is no GPU."""
    return CliRunner().invoke(app, ["doctor", "--elsewhere", *arguments])


def test_doctor_says_that_a_recipe_fits() -> None:
    said = doctor("--recipe", "mmbench_rotation")
    assert said.exit_code == 0, said.output
    assert "passes verl's validation" in said.stdout and "3.75 billion parameters" in said.stdout
    assert "55 of 80 GiB" in said.stdout and "weights to vLLM" in said.stdout
    assert "images      " in said.stdout and "ssl4rl.source.path=..." in said.stdout


def test_doctor_says_what_does_not_fit_and_what_to_do() -> None:
    said = doctor("--recipe", "mmbench_rotation_7b", "ssl4rl/hardware=gpu_1x80gb", "--json")
    assert said.exit_code == 1
    found = json.loads(said.stdout)
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["GPU memory"]["status"] == "fail" and "finetuning=lora" in checks["GPU memory"]["remedy"]
    assert checks["verl"]["status"] == checks["run"]["status"] == "ok"
    assert found["memory"]["parameters"] == PUBLISHED["Qwen/Qwen2.5-VL-7B-Instruct"]
    update = found["memory"]["phases"][-1]
    assert update["total_gib"] == pytest.approx(sum(update["parts_gib"].values()) + RESERVE, abs=0.001) and (
        update["total_gib"] > 80
    )


def test_doctor_checks_the_images_where_they_are_named(photo_folder: Path, small: tuple[Path, Any]) -> None:
    sizes = (
        "data.train_batch_size=8", "actor_rollout_ref.actor.ppo_mini_batch_size=8", "ssl4rl.options.side=56",
        "ssl4rl/hardware=gpu_1x80gb", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
    )  # fmt: skip
    named = ("--recipe", "images", f"ssl4rl.source.path={photo_folder}", *sizes)
    good = doctor(*named)
    assert good.exit_code == 0 and "passes the checks before a run" in good.stdout, good.output
    bad = doctor(*named, "ssl4rl.source.train_size=100")
    assert bad.exit_code == 1 and "train_size is 100" in bad.stdout
    own = doctor("--recipe", "images", "--model", str(small[0]))
    assert own.exit_code == 0 and "Qwen2ForCausalLM" in own.stdout


def test_what_verl_refuses_is_said() -> None:
    said = doctor("--recipe", "images", "trainer.n_gpus_per_node=7", "data.train_batch_size=100")
    assert said.exit_code == 1 and "must be divisible" in said.stdout and "Traceback" not in said.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "nope"), "mmbench_rotation"),
        (("--recipe", "images", "ssl4rl.epoch=1"), "ssl4rl.epoch"),
        (("--recipe", "images", "ssl4rl/algorithm=ppo"), "reinforce_plus_plus"),
        (("ssl4rl.epochs=1",), "--recipe"),
        (("--rehearse",), "--recipe"),
        (("--recipe", "images", "--out", "folder"), "--rehearse"),
        (("--recipe", "images", "--rehearse", "--elsewhere"), "without --rehearse"),
    ],
)
def test_bad_usage_ends_with_code_2(arguments: tuple[str, ...], message: str) -> None:
    said = doctor(*arguments)
    assert said.exit_code == 2 and message in said.output and "Traceback" not in said.output
