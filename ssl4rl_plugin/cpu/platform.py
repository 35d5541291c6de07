"""The platform "cpu", which verl lacks: a device "cpu" with the functions that verl calls on an accelerator.

Importing this module registers the platform where it is needed.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

logger = logging.getLogger(__name__)

ROLLOUT_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; vLLM would otherwise take a share of all memory
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # no pinning: replicas and trainer share the cores
    "OMP_NUM_THREADS": "1",  # more threads than free cores make every step slower
}
"""Settings with which vLLM shares a small machine with the trainer. Variables that are already exported win."""


class CpuIndex(str):
    """What `current_device()` returns. verl uses it in two ways, and an integer serves only the second.

    `tensor.to(index)` sees the device "cpu", and `f"{device_name}:{index}"` reads "cpu:0".
    """

    __slots__ = ()

    def __new__(cls) -> CpuIndex:
        return super().__new__(cls, "cpu")

    def __format__(self, spec: str) -> str:
        return "0"


def _peak_memory(device: Any = None) -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB on Linux


def _free_and_total_memory(device: Any = None) -> tuple[int, int]:
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    free = page * os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else total
    return free, total


class CpuDeviceModule(types.ModuleType):
    """torch.cpu, plus the torch.cuda names that verl calls on every device.

    It compares equal to torch.cpu, because verl asks `get_torch_device() == torch.cpu` in a few places.
    """

    def __eq__(self, other: object) -> bool:
        return other is self or other is torch.cpu

    __hash__ = types.ModuleType.__hash__

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    is_available = staticmethod(lambda: False)  # "is there an accelerator": verl then skips its memory bookkeeping
    set_device = staticmethod(lambda device=None: None)
    current_device = staticmethod(CpuIndex)
    get_device_name = staticmethod(lambda device=None: "CPU")
    get_rng_state = staticmethod(lambda device=None: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, device=None: torch.set_rng_state(state))
    manual_seed = staticmethod(torch.manual_seed)
    manual_seed_all = staticmethod(torch.manual_seed)
    mem_get_info = staticmethod(_free_and_total_memory)
    max_memory_allocated = staticmethod(_peak_memory)  # of the process: logged as perf/max_memory_allocated_gb
    max_memory_reserved = staticmethod(_peak_memory)
    memory_allocated = staticmethod(lambda device=None: 0)
    memory_reserved = staticmethod(lambda device=None: 0)
    reset_peak_memory_stats = staticmethod(lambda device=None: None)
    empty_cache = staticmethod(lambda: None)
    ipc_collect = staticmethod(lambda: None)


class CpuPlatform(PlatformBase):
    """verl's platform "cpu". Ray counts its slots as GPUs: `ray_init.num_gpus` is the number of slots."""

    _module = CpuDeviceModule("ssl4rl_plugin.cpu.device")

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return self._module

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return not torch_has_accelerator()

    def current_device(self) -> CpuIndex:
        return CpuIndex()

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"  # Ray sets it from the slots; verl reads it to number the workers

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False  # weights then travel from trainer to rollout over shared memory

    def rollout_env_vars(self) -> dict[str, str]:
        return {name: os.environ.get(name, default) for name, default in ROLLOUT_ENVIRONMENT.items()}

    def cudart(self) -> None:
        return None

    def communication_backend_name(self) -> str:
        """Return "gloo", and start the process group in a worker that has none yet.

        verl calls this right before it starts a group with the backend "cpu:gloo,{device}:{name}", which torch rejects
        because it names the device cpu twice. verl starts no group if one is running, so this starts it first.
        """
        distributed = torch.distributed
        is_worker = "RANK" in os.environ and "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ
        if is_worker and not distributed.is_initialized():
            distributed.init_process_group(
                "gloo",
                rank=int(os.environ["RANK"]),
                world_size=int(os.environ["WORLD_SIZE"]),
                init_method=os.environ.get("DIST_INIT_METHOD"),
            )
        return "gloo"


def torch_has_accelerator() -> bool:
    """True if this torch is built for, or finds, an accelerator.

    The build counts as well as the device: a CPU-only driver or Ray actor of a GPU cluster sees no device, and must still
    choose the cluster's platform.
    """
    if torch.version.cuda is not None or torch.version.hip is not None or hasattr(torch, "npu"):
        return True
    return hasattr(torch, "xpu") and torch.xpu.is_available()


def register_where_needed() -> None:
    """Register the platform if torch has no accelerator, or if VERL_PLATFORM is "cpu"."""
    asked_for = os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"
    if asked_for or not torch_has_accelerator():
        PlatformRegistry.register(platform="cpu")(CpuPlatform)
        logger.debug("registered the platform 'cpu'")


register_where_needed()
