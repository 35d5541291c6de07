"""What a rehearsal changes in a recipe, and why: what the CPU forces, and what makes two steps small.

Everything else is the recipe's own. Values that the CPU forces are read from `recipes/ssl4rl/hardware/cpu.yaml`, so that
both stay the same. `differences` compares the two composed configs, so a change that follows from another one is listed too.
"""

from __future__ import annotations

import base64
import importlib.resources
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.demo.model import FAMILIES, Shape

STEPS = 2
"""Training steps before the checkpoint; the resumed run adds one."""
PROMPTS = 4
"""Prompts of a training batch."""
VAL_SAMPLES = 2
"""Held-out samples of each task and level."""
VAL_BATCH = 16
"""Rows of a validation batch, so that a validation takes several, as in the real run."""
QUESTIONS = 24
"""Most questions of a benchmark."""
RESPONSE = 256
"""Longest response, in tokens."""
LOGITS = 2**31
"""Bytes that the logits of a micro-batch may take."""

_ONE_DEVICE = "the CPU path has one device"
_ONE_WORKER = "memory: every worker is a process with its own torch"
_SLOTS = "Ray counts slots for verl's actors; a machine without a GPU has none"
CPU: Mapping[str, str] = {
    "actor_rollout_ref.model.external_lib": "registers engine and rollout for the CPU with verl",
    "actor_rollout_ref.model.override_config.attn_implementation": "flash-attention needs a GPU",
    "actor_rollout_ref.actor.strategy": "FSDP1 needs a GPU",
    "actor_rollout_ref.actor.fsdp_config.strategy": "FSDP1 needs a GPU",
    "actor_rollout_ref.actor.use_torch_compile": "compiles for minutes on a CPU",
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile": "compiles for minutes on a CPU",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype": "the CPU computes in float32",
    "actor_rollout_ref.rollout.dtype": "the CPU computes in float32",
    "actor_rollout_ref.rollout.enforce_eager": "CUDA graphs need a GPU",
    "actor_rollout_ref.rollout.free_cache_engine": "vLLM's sleep mode needs a GPU",
    "actor_rollout_ref.rollout.enable_sleep_mode": "vLLM's sleep mode needs a GPU",
    "actor_rollout_ref.rollout.calculate_log_probs": "the rehearsal compares them with the trainer's",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": _ONE_DEVICE,
    "actor_rollout_ref.rollout.agent.num_workers": _ONE_WORKER,
    "actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend": _ONE_WORKER,
    "reward.num_workers": _ONE_WORKER,
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": _ONE_WORKER,
    "trainer.device": "no GPU",
    "trainer.n_gpus_per_node": _ONE_DEVICE,
    "trainer.nnodes": _ONE_DEVICE,
    "ray_kwargs.ray_init.num_cpus": _SLOTS,
    "ray_kwargs.ray_init.num_gpus": _SLOTS,
    "ray_kwargs.ray_init.include_dashboard": "starts sooner",
    "ray_kwargs.ray_init.object_store_memory": "memory: the machine may be small",
    "ray_kwargs.ray_init.runtime_env.env_vars": "more processes than cores: idle threads sleep",
}
"""Keys that take the value of `ssl4rl/hardware=cpu`, with the reason."""
OUTPUT = (
    "actor_rollout_ref.model.path", "trainer.default_local_dir", "trainer.rollout_data_dir", "trainer.validation_data_dir",
)  # fmt: skip
"""Keys that name the rehearsal's own folder; `ssl4rl_plugin.demo.run.command` sets them."""


@dataclass(frozen=True)
class Change:
    """A setting that the rehearsal does not take from the recipe."""

    key: str
    recipe: Any
    """The recipe's value; None where it has none."""
    rehearsal: Any
    why: str


@dataclass(frozen=True)
class Plan:
    """How a recipe is rehearsed."""

    overrides: tuple[str, ...]
    """Hydra overrides, behind the user's own."""
    reasons: Mapping[str, str]
    """Why, by key."""
    shape: Shape
    real: Path | None
    """Folder with the real tokenizer and processor; None if they are not on this machine."""


def plan(config: DictConfig, folder: Path, packs: bool | None = None) -> Plan:
    """How to rehearse a recipe.

    Args:
        config: the recipe, composed.
        folder: for generated data.
        packs: whether rows are packed without padding; None to do what the family's model can do on a CPU.

    Raises:
        UserError: the recipe's model is of a family that has no tiny twin, or trains a value model.
    """
    shape, real = shape_of(config)
    wanted: dict[str, tuple[Any, str]] = {}
    dropped: list[str] = []
    cpu = OmegaConf.create(
        (importlib.resources.files("ssl4rl_plugin.recipes") / "ssl4rl/hardware/cpu.yaml").read_text()
    )
    for key, why in CPU.items():
        wanted[key] = (
            OmegaConf.to_container(found) if isinstance(found := OmegaConf.select(cpu, key), DictConfig) else found,
            why,
        )
    wanted |= _devices(config, shape, packs)
    wanted |= _sizes(config)
    wanted |= _micro_batches(config, wanted, 151_936 if real else 4096)
    for key, value, why in _data(config, folder, real, dropped):
        wanted[key] = (value, why)
    for key, value, why in (
        ("trainer.total_training_steps", STEPS, "two steps, then a resumed third"),
        ("trainer.save_freq", STEPS, "a checkpoint after the second step"),
        ("trainer.test_freq", STEPS, "a validation after the second step"),
        ("trainer.resume_mode", "auto", "the rehearsal resumes from its checkpoint"),
        ("trainer.logger", ["console", "file"], "the rehearsal reads the file, and writes nowhere else"),
    ):
        wanted[key] = (value, why)
    overrides = [f"~{key}" for key in dropped]
    overrides += [f"++{key}={hydra_text(value)}" for key, (value, _) in wanted.items()]
    return Plan(tuple(overrides), {key: why for key, (_, why) in wanted.items()}, shape, real)


def shape_of(config: DictConfig) -> tuple[Shape, Path | None]:
    """The tiny twin of the recipe's model, and the folder of its tokenizer if that is on this machine.

    Raises UserError for a model whose family is unknown.
    """
    from dataclasses import replace

    from transformers import AutoConfig

    from ssl4rl_plugin.training.model_size import KNOWN

    if OmegaConf.is_missing(config.actor_rollout_ref.model, "path"):
        raise UserError("the recipe names no model: set actor_rollout_ref.model.path=...")
    if config.algorithm.adv_estimator == "gae":
        raise UserError("a rehearsal has no value model: algorithm.adv_estimator=gae cannot be rehearsed")
    path = str(config.actor_rollout_ref.model.path)
    real = tokenizer_folder(path)
    try:
        content = AutoConfig.from_pretrained(real or Path(path).expanduser(), local_files_only=True).to_dict()
        kind = content["model_type"]
    except (OSError, ValueError) as error:
        if path not in KNOWN:
            raise UserError(
                f"{path}: there is no config.json on this machine, so its family is unknown; download the model, or give "
                "its folder"
            ) from error
        kind, content = KNOWN[path]
    if kind not in FAMILIES:
        raise UserError(f"{path} is a {kind}; a rehearsal has tiny twins of {', '.join(FAMILIES)}")
    text = content.get("text_config") or content
    tied = bool(content.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    positions = text.get("max_position_embeddings") or FAMILIES[kind].positions
    return replace(FAMILIES[kind], tied=tied, positions=positions), real


def tokenizer_folder(path: str) -> Path | None:
    """The folder of a model's tokenizer and config: a local folder, or the Hugging Face cache; None if it is in neither."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    folder = Path(path).expanduser()
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(path, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            return None
    complete = all((folder / name).is_file() for name in ("config.json", "tokenizer.json", "tokenizer_config.json"))
    return folder if complete else None


def _devices(config: DictConfig, shape: Shape, packs: bool | None) -> dict[str, tuple[Any, str]]:
    """What device and dtype force beside the values of cpu.yaml."""
    found: dict[str, tuple[Any, str]] = {}
    if "attention" in config.ssl4rl:
        found["ssl4rl.attention"] = ("sdpa", "flash-attention needs a GPU")
    if packs is None:
        packs = shape.family != "qwen2_5_vl" and bool(config.actor_rollout_ref.model.use_remove_padding)
    packing = "verl packs the rows of a Qwen2.5-VL with flash-attention's own function, which needs a GPU"
    found["actor_rollout_ref.model.use_remove_padding"] = (packs, packing)
    cpu_dtype = "the CPU computes in float32"
    for role in ("actor", "ref"):
        engine = f"actor_rollout_ref.{role}.fsdp_config"
        found[f"{engine}.model_dtype"] = ("fp32", cpu_dtype)
        found[f"{engine}.param_offload"] = (False, "there is no GPU to offload from")
        found[f"{engine}.optimizer_offload"] = (False, "there is no GPU to offload from")
    ref = "actor_rollout_ref.ref"
    found[f"{ref}.strategy"] = ("fsdp2", "FSDP1 needs a GPU")
    found[f"{ref}.fsdp_config.strategy"] = ("fsdp2", "FSDP1 needs a GPU")
    found[f"{ref}.fsdp_config.mixed_precision.param_dtype"] = ("fp32", cpu_dtype)
    found[f"{ref}.use_torch_compile"] = (False, "compiles for minutes on a CPU")
    found[f"{ref}.fsdp_config.use_torch_compile"] = (False, "compiles for minutes on a CPU")
    found["actor_rollout_ref.actor.ulysses_sequence_parallel_size"] = (1, _ONE_DEVICE)
    found["actor_rollout_ref.actor.fsdp_config.fsdp_size"] = (-1, _ONE_DEVICE)
    found["actor_rollout_ref.rollout.data_parallel_size"] = (1, _ONE_DEVICE)
    if config.actor_rollout_ref.model.lora_rank:
        found["actor_rollout_ref.model.lora.merge"] = (
            True, "vLLM's CPU build loads no adapters: verl sends weights with the adapters added",
        )  # fmt: skip
    return found


def _sizes(config: DictConfig) -> dict[str, tuple[Any, str]]:
    """Smaller batches and responses. Prompts keep their lengths."""
    data, rollout = config.data, config.actor_rollout_ref.rollout
    small = "time: two steps on a few cores"
    batch, mini = int(data.train_batch_size), int(config.actor_rollout_ref.actor.ppo_mini_batch_size)
    prompts = min(batch, PROMPTS)
    # Several updates a step stay several updates a step.
    part = prompts if mini >= batch else max(1, prompts // min(batch // mini, 2))
    found: dict[str, tuple[Any, str]] = {
        "data.train_batch_size": (prompts, small),
        "actor_rollout_ref.actor.ppo_mini_batch_size": (part, small),
        "data.max_response_length": (min(int(data.max_response_length), RESPONSE), small),
        "data.dataloader_num_workers": (min(int(data.dataloader_num_workers), 1), _ONE_WORKER),
        "ssl4rl.val_samples": (min(int(config.ssl4rl.val_samples), VAL_SAMPLES), small),
    }
    if data.get("gen_batch_size"):
        found["data.gen_batch_size"] = (min(int(data.gen_batch_size), PROMPTS), small)
    if data.get("val_batch_size"):
        found["data.val_batch_size"] = (min(int(data.val_batch_size), VAL_BATCH), "a validation takes several batches")
    if not rollout.get("max_model_len"):
        longest = int(data.max_prompt_length) + int(data.max_response_length)
        found["actor_rollout_ref.rollout.max_model_len"] = (
            longest,
            "memory: the model's whole context needs gigabytes",
        )
    overlong = OmegaConf.select(config, "reward.reward_kwargs.overlong_buffer_cfg.len")
    if overlong:
        share = found["data.max_response_length"][0] / int(data.max_response_length)
        key = "reward.reward_kwargs.overlong_buffer_cfg.len"
        found[key] = (max(1, round(int(overlong) * share)), "in proportion to the longest response")
    return found


def _micro_batches(
    config: DictConfig, wanted: Mapping[str, tuple[Any, str]], vocabulary: int
) -> dict[str, tuple[Any, str]]:
    """Micro-batches that divide the smaller batches, and whose logits fit into memory."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    n = int(rollout.n)
    length = int(config.data.max_prompt_length) + wanted["data.max_response_length"][0]
    held = max(1, LOGITS // (length * vocabulary * 4))
    found: dict[str, tuple[Any, str]] = {}
    rows = {
        "actor.ppo_micro_batch_size_per_gpu": wanted["actor_rollout_ref.actor.ppo_mini_batch_size"][0] * n,
        "rollout.log_prob_micro_batch_size_per_gpu": wanted["data.train_batch_size"][0] * n,
        "ref.log_prob_micro_batch_size_per_gpu": wanted["data.train_batch_size"][0] * n,
    }
    for key, count in rows.items():
        given = OmegaConf.select(config.actor_rollout_ref, key)
        if given:
            fits = max(size for size in range(1, count + 1) if count % size == 0 and size <= min(int(given), held))
            found[f"actor_rollout_ref.{key}"] = (fits, "divides the smaller batch, and its logits fit into memory")
    tokens = max(length, LOGITS // (vocabulary * 4))
    if int(actor.ppo_max_token_len_per_gpu) > tokens:
        key = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu"
        found[key] = (tokens, "memory: logits of the real vocabulary")
    return found


def _data(config: DictConfig, folder: Path, real: Path | None, dropped: list[str]) -> Iterable[tuple[str, Any, str]]:
    """The recipe's own data where the user named them, else sample data of the same kind.

    Adds the keys to delete to `dropped`.
    """
    from ssl4rl_plugin.training.settings import parse_arms

    section = config.ssl4rl
    source = section.source
    unnamed = OmegaConf.is_missing(source, "path") or source.path is None
    named = section.data is not None or bool(section.get("sources")) or not unnamed
    built_in = not OmegaConf.is_missing(source, "path") and source.path is None
    generated: Path | None = None
    missing = "no ssl4rl.source.path was given"
    if not named and not built_in:
        tasks: Any = OmegaConf.to_object(section.tasks)
        kinds = {arm.task.kind: arm.task.name for arm in parse_arms(list(tasks))}
        name = str(source.name)
        dropped += [f"ssl4rl.source.options.{key}" for key in source.options]
        if name in BENCHMARKS:
            generated = write_benchmark(folder / f"{name}.tsv", held_out=False)
            yield "ssl4rl.source.path", str(generated), f"{missing}: generated questions on sample photographs"
        else:
            graph = "families" if "kg_completion" in kinds.values() else "communities"
            sample = next(
                (
                    found
                    for kind, found in (("graph", graph), ("rgbd", "sample_depth"), ("video", "sample_videos"))
                    if kind in kinds
                ),
                "sample_photos",
            )
            yield "ssl4rl.source.name", sample, f"{missing}: sample data"
            yield "ssl4rl.source.path", None, f"{missing}: sample data"
            if graph == sample:
                yield "ssl4rl.source.options.questions", QUESTIONS, "time: two steps on a few cores"
                yield "ssl4rl.transductive", True, f"{missing}: sample data"
        yield "ssl4rl.source.train_size", None, f"{missing}: there are few sample data"
        yield "ssl4rl.source.val_fraction", 0.3, f"{missing}: there are few sample data"
    elif "tokenizer" in source.options:
        yield (
            "ssl4rl.source.options.tokenizer", str(real) if real else None,
            "the tiny model's tokenizer does not count as the real one",
        )  # fmt: skip
    if section.data is not None:
        return
    raw = OmegaConf.to_container(section.benchmarks)
    entries = [_benchmark(section, number, folder, generated) for number in range(len(section.benchmarks))]
    if entries and entries != raw:
        yield "ssl4rl.benchmarks", entries, "time: few questions; generated ones where no path was given"


def _benchmark(section: DictConfig, number: int, folder: Path, generated: Path | None) -> dict[str, Any]:
    """An entry of `ssl4rl.benchmarks` with few questions, and a path."""
    entry = section.benchmarks[number]
    found: dict[str, Any] = {
        key: OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
        for key in entry
        if key != "path" and (value := entry[key]) is not None
    }
    try:
        path = None if OmegaConf.is_missing(entry, "path") else entry.path
    except OmegaConfBaseException:  # it refers to the path of the images, which is missing
        path = None
    if path is None:
        # The questions' photographs are not those of the training images, unless the recipe trains on them.
        path = generated or write_benchmark(
            folder / f"{found['name']}-questions.tsv", held_out=not section.transductive
        )
    else:
        found["limit"] = min(int(found.get("limit") or QUESTIONS), QUESTIONS)
    found["path"] = str(path)
    return found


BENCHMARKS = ("blink", "mmbench", "mme_realworld_lite", "mmstar", "realworldqa", "seedbench", "vstar", "caparena")
"""Benchmarks that can be read from the table that `write_benchmark` writes."""
CATEGORIES = {
    "perception": ("brightness", "colour", "contrast", "hue", "texture", "size"),
    "reasoning": ("relation", "function", "nature", "scene", "future", "style"),
}
"""l2-category -> categories of the generated questions."""
TILES = 3
"""Tiles along each side of a photograph. Each is a picture."""
SIDES = ((1024, 1024), (1024, 768), (640, 480), (512, 384))
"""Sizes of the pictures: benchmarks have pictures of about a megapixel, which make the longest prompts."""


def write_benchmark(path: Path, held_out: bool) -> Path:
    """Write a TSV in VLMEvalKit's layout, which all benchmarks are published in: questions of many categories.

    Its pictures are tiles of the sample photographs, its questions and answers nonsense: a rehearsal asks whether the
    path works, not what the model knows.

    Args:
        path: the file; its folder is created.
        held_out: only tiles of photographs that `sample_photos` holds out, so that no training image shares one.

    Returns:
        `path`.
    """
    from PIL import Image

    from ssl4rl_plugin.data_builders.sources.sample_photos import PHOTOS, SamplePhotosSource

    source = SamplePhotosSource()
    names = sorted(name for name, split in PHOTOS.items() if split == "val" or not held_out)
    rng = rng_for("rehearsal", path.name)
    tiles = [(name, column, row) for name in names for column in range(TILES) for row in range(TILES)]
    tiles = rng.sample(tiles, len(tiles))
    categories = [(parent, category) for parent, children in CATEGORIES.items() for category in children]
    lines = ["index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\tl2-category\tsplit\timage"]
    for number, (name, column, row) in enumerate(tiles):
        with Image.open(source.folder / name) as photo:
            width, height = photo.size
            box = (
                column * width // TILES,
                row * height // TILES,
                (column + 1) * width // TILES,
                (row + 1) * height // TILES,
            )
            tile = photo.convert("RGB").crop(box).resize(SIDES[number % len(SIDES)])
        file = io.BytesIO()
        tile.save(file, "JPEG", quality=85)
        parent, category = categories[number % len(categories)]
        answer = rng.choice("ABCD") if number < QUESTIONS else ""  # as in a split whose answers are withheld
        options = rng.sample(("red", "green", "blue", "yellow", "black", "white"), 4)
        question = f"Which word fits the {category} of the picture best? Case {number}."
        image = base64.b64encode(file.getvalue()).decode()
        lines.append("\t".join([str(number), question, "", *options, answer, category, parent, "dev", image]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def differences(recipe: DictConfig, rehearsal: DictConfig, reasons: Mapping[str, str]) -> list[Change]:
    """Every key whose value differs between two composed configs, in the order of the rehearsal's.

    Args:
        recipe: the recipe, composed.
        rehearsal: the same with the overrides of a plan.
        reasons: by key; a key below one of them has its reason. Other keys follow from another change.
    """
    ours, theirs = _leaves(rehearsal), _leaves(recipe)
    found = []
    for key in dict.fromkeys([*ours, *theirs]):
        was, now = theirs.get(key), ours.get(key)
        if was == now or key.startswith(_REPEATED) or key in OUTPUT:
            continue
        why = next((reasons[name] for name in _above(key) if name in reasons), "follows from another change")
        found.append(Change(key, was, now, why))
    return found


_REPEATED = ("hydra.", "data.ssl4rl.", "trainer.v1.sampler.sampler_kwargs.", "critic.", "distillation.")
"""Sections that repeat keys of others, or that no recipe uses."""


def _above(key: str) -> Iterable[str]:
    """A dotted key, and those above it."""
    while key:
        yield key
        key = key.rpartition(".")[0]


def _leaves(config: DictConfig, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; lists count as values. A value that cannot be resolved is `???`."""
    found: dict[str, Any] = {}
    for key in config:
        name = prefix + str(key)
        try:
            value = "???" if OmegaConf.is_missing(config, key) else config[key]
            if isinstance(value, DictConfig) and value:
                found |= _leaves(value, f"{name}.")
                continue
            found[name] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except OmegaConfBaseException:
            found[name] = "???"
    return found


def hydra_text(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(hydra_text, value)) + "]"
    if isinstance(value, str):
        # A backslash is special only before a quote.
        return "'" + re.sub(r"(\\*)('|$)", lambda at: at[1] * 2 + ("\\'" if at[2] else ""), value) + "'"
    return json.dumps(value)
