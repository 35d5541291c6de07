"""The rules for vLLM's memory against vLLM's own code, and the bytes of rows and checkpoints against real ones."""

from __future__ import annotations

import copy
import functools
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import photo
from transformers import AutoConfig

from ssl4rl_plugin.demo.model import chat_template, train_tokenizer
from ssl4rl_plugin.demo.run import compose
from ssl4rl_plugin.training.memory import GIB, PIXEL_BYTES, estimate
from ssl4rl_plugin.training.model_size import KNOWN, LARGEST_PICTURE, model_size
from ssl4rl_plugin.training.vllm_memory import BLOCK, profile_tokens

CLASSES = {
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor"),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", "Qwen3VLProcessor"),
    "qwen2": ("Qwen2ForCausalLM", ""),
}
MACHINES = ("gpu_8x80gb", "gpu_2x8x80gb", "gpu_1x80gb", "gpu_1x24gb")
MODELS = {
    "qwen2_5_vl_3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen2_5_vl_7b": "Qwen/Qwen2.5-VL-7B-Instruct",
    "qwen3_vl_2b": "Qwen/Qwen3-VL-2B-Instruct",
    "qwen3_vl_4b": "Qwen/Qwen3-VL-4B-Instruct",
    "qwen3_vl_8b": "Qwen/Qwen3-VL-8B-Instruct",
    "qwen2_5_3b": "Qwen/Qwen2.5-3B-Instruct",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each known model without weights: config, a small tokenizer, and the processor's published limits."""
    tokenizer = train_tokenizer(["one two three"])
    found = {}
    for name, (kind, content) in KNOWN.items():
        folder = found[name] = tmp_path_factory.mktemp("model")
        tokenizer.save_pretrained(folder)
        path = folder / "tokenizer_config.json"
        kept = {key: value for key, value in json.loads(path.read_text()).items() if key != "added_tokens_decoder"}
        path.write_text(json.dumps(kept | {"tokenizer_class": "Qwen2Tokenizer"}))
        (folder / "chat_template.jinja").write_text(chat_template())
        config = AutoConfig.for_model(kind, **content)
        config.architectures = [CLASSES[kind][0]]
        if kind == "qwen2":
            config.save_pretrained(folder)
            continue
        for token in ("image", "video"):
            setattr(config, f"{token}_token_id", tokenizer.convert_tokens_to_ids(f"<|{token}_pad|>"))
        config.vision_start_token_id = tokenizer.convert_tokens_to_ids("<|vision_start|>")
        config.vision_end_token_id = tokenizer.convert_tokens_to_ids("<|vision_end|>")
        config.save_pretrained(folder)
        older = kind == "qwen2_5_vl"
        common = {"patch_size": 14 if older else 16, "temporal_patch_size": 2, "merge_size": 2}
        size = {"shortest_edge": 3136 if older else 65536, "longest_edge": LARGEST_PICTURE[kind]}
        images = common | {"image_processor_type": "Qwen2VLImageProcessor", "size": size}
        videos = common | {"video_processor_type": "Qwen2VLVideoProcessor" if older else "Qwen3VLVideoProcessor"}
        videos["size"] = size if older else {"shortest_edge": 4096, "longest_edge": 25165824}
        for file, settings in (("preprocessor_config.json", images), ("video_preprocessor_config.json", videos)):
            (folder / file).write_text(json.dumps(settings | {"processor_class": CLASSES[kind][1]}))
    return found


def vllm_config(folder: Path, rollout: Any) -> Any:
    """vLLM's own config for what verl asks of it."""
    from vllm.engine.arg_utils import EngineArgs

    options = dict(rollout.engine_kwargs.vllm)
    limits = {"image": rollout.limit_images} if rollout.limit_images else options.get("limit_mm_per_prompt")
    return EngineArgs(
        model=str(folder),
        dtype="bfloat16",
        max_model_len=rollout.max_model_len,
        max_num_batched_tokens=rollout.max_num_batched_tokens,
        max_num_seqs=rollout.max_num_seqs,
        enable_chunked_prefill=rollout.enable_chunked_prefill,
        limit_mm_per_prompt=dict(limits or {}),
    ).create_engine_config()


def cache_check(config: Any, size: Any, gib: float) -> None:
    """vLLM's check of its KV cache, with `gib` GiB for it. Raises ValueError as vLLM does at its start."""
    from vllm.v1.core.kv_cache_utils import check_enough_kv_cache_memory
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    layer = FullAttentionSpec(
        block_size=BLOCK, num_kv_heads=size.kv_heads, head_size=size.head_size, dtype=torch.bfloat16
    )
    layers = {f"layer.{number}": layer for number in range(size.layers)}
    check_enough_kv_cache_memory(config, layers, int(gib * GIB))


def run(*overrides: str) -> Any:
    return copy.deepcopy(_composed(overrides))


@functools.cache
def _composed(overrides: tuple[str, ...]) -> Any:
    return compose("images", list(overrides))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("model", MODELS)
def test_the_cache_of_a_recipe_passes_vllms_check_where_the_doctor_says_so(
    folders: dict[str, Path], machine: str, model: str
) -> None:
    config = run(f"ssl4rl/hardware={machine}", f"ssl4rl/model={model}")
    size = model_size(MODELS[model])
    found = estimate(config, size)
    assert found.kv_cache is not None and found.kv_sequences is not None
    own = vllm_config(folders[MODELS[model]], config.actor_rollout_ref.rollout)
    assert own.model_config.max_model_len == found.engine.context
    assert own.scheduler_config.max_num_batched_tokens == found.engine.batched
    cache_check(own, size, found.engine.per_sequence * 1.001)
    with pytest.raises(ValueError, match="KV cache is needed"):
        cache_check(own, size, found.engine.per_sequence * 0.999)
    if found.kv_sequences >= 1:
        cache_check(own, size, found.kv_cache)
    else:
        with pytest.raises(ValueError):
            cache_check(own, size, found.kv_cache)


def test_without_a_bound_on_the_context_vllm_would_not_start(folders: dict[str, Path]) -> None:
    """The README's example, Qwen3-VL-2B on 24 GB, with verl's default."""
    name = "Qwen/Qwen3-VL-2B-Instruct"
    key = "actor_rollout_ref.rollout.max_model_len"
    config = run("ssl4rl/hardware=gpu_1x24gb", "ssl4rl/model=qwen3_vl_2b", f"{key}=null")
    size = model_size(name)
    found = estimate(config, size)
    assert found.engine.per_sequence == pytest.approx(28)
    assert found.kv_sequences is not None and found.kv_cache is not None and found.kv_sequences < 1
    # What verl makes of null, and of a batch that does not hold it.
    config.actor_rollout_ref.rollout.max_model_len = size.positions
    config.actor_rollout_ref.rollout.max_num_batched_tokens = size.positions
    own = vllm_config(folders[name], config.actor_rollout_ref.rollout)
    with pytest.raises(ValueError, match=r"No available memory|KV cache is needed"):
        cache_check(own, size, found.kv_cache)
    with pytest.raises(ValueError, match=r"28\.0 GiB KV cache is needed"):
        cache_check(own, size, 12)  # all that the recipe gives to vLLM


@pytest.mark.parametrize("model", [model for model in MODELS if "vl" in model])
@pytest.mark.parametrize("limits", [{"image": 16, "video": 0}, {"image": 64, "video": 8}, {"image": 16}, {"video": 2}])
@pytest.mark.parametrize("context", [3072, 40_000, None])
def test_the_profile_run_reads_what_vllms_own_budget_says(
    folders: dict[str, Path], model: str, limits: dict[str, int], context: int | None
) -> None:
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.multimodal.encoder_budget import MultiModalBudget

    size = model_size(MODELS[model])
    rollout = run(f"ssl4rl/model={model}").actor_rollout_ref.rollout
    rollout.engine_kwargs.vllm = {"limit_mm_per_prompt": limits}
    rollout.max_model_len = context or size.positions
    rollout.enable_chunked_prefill = True
    config = vllm_config(folders[MODELS[model]], rollout)
    budget = MultiModalBudget(config, MULTIMODAL_REGISTRY, enable_cache=False)
    modality = budget.get_modality_with_max_tokens()
    read = budget.mm_max_items_per_batch[modality] * budget.mm_max_toks_per_item[modality]
    batched = config.scheduler_config.max_num_batched_tokens
    assert profile_tokens(size, limits, rollout.max_model_len, batched) == read


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-2B-Instruct"])
def test_the_vision_towers_peak_is_about_what_pytorch_holds(name: str) -> None:
    """The MLP of a real block, the largest tensors at once, on a few patches: input, states before and after, inner."""
    from torch.utils._python_dispatch import TorchDispatchMode

    kind, content = KNOWN[name]
    own = AutoConfig.for_model(kind, **content).vision_config
    own.depth, own.deepstack_visual_indexes, own.fullatt_block_indexes = 1, [0], [0]
    own._attn_implementation = "sdpa"
    if kind == "qwen2_5_vl":
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionBlock as Block
    else:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionBlock as Block
    block = Block(own).to(torch.bfloat16)
    size = model_size(name)
    patches = 512
    weights = {weight.untyped_storage().data_ptr() for weight in block.parameters()}
    live: dict[int, int] = {}
    peak = 0

    class Watch(TorchDispatchMode):
        """Adds up the storages that operations make, until they are freed."""

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal peak
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    key = storage.data_ptr()
                    if key not in live and key not in weights:
                        live[key] = storage.nbytes()
                        weakref.finalize(storage, live.pop, key, None)
            peak = max(peak, sum(live.values()))
            return out

    states = torch.randn(patches, size.vision_hidden, dtype=torch.bfloat16)
    pixels = 2 * 2 * 3 * size.patch**2 * patches
    with torch.no_grad(), Watch():
        block.mlp(block.norm2(states))
    expected = size.vision_bytes * patches
    assert expected == pytest.approx(peak + states.nbytes + pixels, rel=0.25)


@pytest.mark.parametrize("family", ["qwen2_5_vl_3b", "qwen3_vl_2b"])
def test_a_row_holds_as_many_bytes_as_the_processor_makes(folders: dict[str, Path], family: str) -> None:
    from verl.utils import hf_processor

    name = MODELS[family]
    size = model_size(name)
    side = 16 * size.patch * size.merge
    picture = photo(0, side, side)
    processor = hf_processor(str(folders[name]))
    made = processor.image_processor(images=[picture], return_tensors="pt")
    tokens = int(made["image_grid_thw"].prod()) // size.patches_per_token
    held = made["pixel_values"].nbytes + len(picture.tobytes())
    assert tokens == 16 * 16 and held == tokens * size.token_pixels * PIXEL_BYTES


def test_a_checkpoint_has_the_bytes_of_weights_and_moments(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    config = AutoConfig.for_model(
        "qwen2", hidden_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=512, vocab_size=4000, tie_word_embeddings=False,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    written = sum(file.stat().st_size for file in tmp_path.glob("*.pt"))
    assert estimate(run(), model_size(str(tmp_path))).checkpoint * GIB == pytest.approx(written, rel=0.02)
