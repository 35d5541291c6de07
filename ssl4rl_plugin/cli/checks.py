"""`ssl4rl doctor`: check whether this machine can train, and print how to fix problems.

Checks that need torch, verl or vLLM run in separate processes, side by side. A broken binary can crash only its own process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version
from rich.console import Console
from rich.markup import escape

from ssl4rl_plugin.analysis.terminal import show_json
from ssl4rl_plugin.cli.catalogue import source_entries, task_entries
from ssl4rl_plugin.cli.check import Check, requirement
from ssl4rl_plugin.cli.container import installed_image
from ssl4rl_plugin.core.processes import cores
from ssl4rl_plugin.core.safe_path import environment, run_code
from ssl4rl_plugin.training.machine import GIB, Machine, package_findings, shared_memory_findings, unusable

PROBE_SECONDS = 180
"""Timeout of a probe."""
REINSTALL = "pip install ssl4rl-plugin (or pip install -e . again)"
VERL_CPU_SLOTS = 16
"""Ray CPU slots that verl's defaults need, 8 of them for agent-loop workers. With fewer, verl waits silently."""


def show_checks(model: str | None, as_json: bool) -> int:
    """Run all checks, print them, and return the exit code: 1 if one failed, else 0.

    Args:
        model: model folder or hub name, to check its processor too; None for none.
        as_json: print JSON instead of text.
    """
    with Console(stderr=True).status("checking (verl and vLLM take a while to import)"):
        checks = run_checks(model)
    if as_json:
        show_json([asdict(check) for check in checks])
    else:
        print_checks(checks)
    return int(any(check.status == "fail" for check in checks))


def print_checks(checks: list[Check]) -> None:
    """Print each check with its remedy, and the number of checks by status."""
    console = Console(soft_wrap=True, highlight=False)
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = f"[bold {colours[check.status]}]{check.status:4}[/]"
        console.print(f"{mark}  {check.name:{width}}  {escape(check.detail)}")
        if check.remedy:
            console.print(f"{'':{width + 8}}[dim]→ {escape(check.remedy)}[/]")
    counts = {status: sum(check.status == status for check in checks) for status in colours}
    console.print(f"\n{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed")


def run_checks(model: str | None = None) -> list[Check]:
    """All checks, in the order of printing. Takes as long as importing verl and vLLM."""
    with ThreadPoolExecutor(2) as pool:
        verl = pool.submit(probe, _VERL_PROBE)
        vllm = pool.submit(probe, _VLLM_PROBE) if metadata_version("vllm") else None
        processor = pool.submit(probe, _PROCESSOR_PROBE, model) if model and Path(model).expanduser().is_dir() else None
        checks = [check_python(), *check_distributions(), check_torchvision(verl.result()), check_plugin(verl.result())]
        checks += [check_device(verl.result()), check_vllm(vllm.result() if vllm else None)]
        checks += check_packages(verl.result())
        checks += installed_image()
        if model:
            checks.append(check_processor(model, processor.result() if processor else None))
    return [
        *checks,
        check_entries("tasks", task_entries()),
        check_entries("sources", source_entries()),
        check_folder(Path.cwd()),
        check_cores(cores()),
        check_shared_memory(Path("/dev/shm")),
        check_disk(Path.cwd(), "disk for checkpoints", 20),
        check_disk(Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()), "disk for Ray", 10),
    ]


def probe(code: str, *arguments: str) -> dict[str, Any]:
    """Run Python code in a separate process, and return the JSON object on its last line of output.

    If the code fails, crashes or hangs, returns {"error": reason}.
    """
    try:
        done = subprocess.run(
            run_code(code, *arguments), env=environment(),
            capture_output=True, text=True, errors="replace", timeout=PROBE_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {PROBE_SECONDS} s"}
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
        if isinstance(found, dict):
            return found
    except (ValueError, IndexError):
        pass
    last = done.stderr.strip().splitlines()
    return {"error": last[-1][:300] if last else f"the process ended with code {done.returncode}"}


# Each part runs separately, so that one broken library does not hide the state of the others.
_VERL_PROBE = """
import json, warnings
found = {}
def attempt(name, action):
    try:
        found[name] = action()
    except BaseException as error:
        found[name + "_error"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
def devices():
    import torch
    if not torch.cuda.is_available():
        return []
    each = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    return [[card.name, card.total_memory] for card in each]
def recipes():
    from hydra import compose, initialize_config_module
    with initialize_config_module("verl.trainer.config", version_base=None):
        return str(compose("ppo_trainer", overrides=["+plugin=ssl4rl"]).ssl4rl.answer_format)
def machine():
    from dataclasses import asdict
    from ssl4rl_plugin.training.machine import look
    return asdict(look())
def platform():
    from verl.plugin.platform import get_platform
    return type(get_platform()).__name__
attempt("torch", lambda: __import__("torch").__version__)
attempt("cuda", lambda: __import__("torch").version.cuda or "")
attempt("torchvision", lambda: __import__("torchvision").__version__)
attempt("devices", devices)
attempt("machine", machine)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    attempt("verl", lambda: __import__("verl").__version__)
found["warnings"] = [str(w.message) for w in caught if "ssl4rl" in str(w.message)]
attempt("platform", platform)
attempt("recipes", recipes)
print()
print(json.dumps(found))
"""

_VLLM_PROBE = """
import json
from vllm.platforms import current_platform
import vllm
print()
print(json.dumps({"version": vllm.__version__, "platform": current_platform.device_type or "none"}))
"""

_PROCESSOR_PROBE = """
import json, os, sys
import verl
from verl.utils import hf_processor
processor = hf_processor(os.path.expanduser(sys.argv[1]))
print()
print(json.dumps({"processor": type(processor).__name__ if processor is not None else ""}))
"""


def metadata_version(name: str) -> str | None:
    """The installed version of a distribution; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """Python 3.10 to 3.12, as verl requires."""
    detail = f"{version[0]}.{version[1]}"
    if (3, 10) <= version <= (3, 12):
        return Check("Python", "ok", detail)
    return Check("Python", "fail", f"{detail}; verl needs 3.10 to 3.12", "make a virtual environment with Python 3.11")


def check_distributions() -> list[Check]:
    """The distributions that a run needs, against the versions that this package and verl require."""
    asked_by = {"verl": "ssl4rl-plugin", "transformers": "ssl4rl-plugin", "ray": "verl", "TransferQueue": "verl"}
    return [check_version(name, metadata_version(name), requirement(by, name)) for name, by in asked_by.items()]


def check_version(name: str, installed: str | None, needs: Requirement | None) -> Check:
    """Whether a distribution is installed, in a version that fits."""
    wanted = f"{name}{needs.specifier}" if needs else name
    if installed is None:
        return Check(name, "fail", "not installed", f"pip install '{wanted}'")
    # A local part (+cpu) does not matter. A release candidate counts.
    if needs and not needs.specifier.contains(Version(installed), prereleases=True):
        return Check(name, "fail", f"{installed}, outside of {needs.specifier}", f"pip install '{wanted}'")
    return Check(name, "ok", installed)


def check_torchvision(found: dict[str, Any]) -> Check:
    """torch and torchvision import together. Without torchvision, verl drops pictures with only a warning."""
    problem = found.get("error") or found.get("torch_error") or found.get("torchvision_error")
    if problem:
        remedy = "install a torchvision that matches torch (see pytorch.org); without it verl finds no image processor"
        return Check("torch, torchvision", "fail", problem, remedy)
    return Check("torch, torchvision", "ok", f"{found.get('torch')}, {found.get('torchvision')}")


def check_plugin(found: dict[str, Any]) -> Check:
    """verl loads this plugin, and the recipes compose."""
    name = "plugin in verl"
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip()
    if policy.lower() != "auto" and "ssl4rl" not in (part.strip() for part in policy.split(",")):
        return Check(name, "fail", f"VERL_USE_EXTERNAL_PLUGINS={policy} disables it", "unset it, or add ssl4rl")
    if not metadata.entry_points(group="verl.plugins", name="ssl4rl"):
        return Check(name, "fail", "the entry point is not installed", REINSTALL)
    problem = found.get("error") or found.get("verl_error") or next(iter(found.get("warnings") or []), "")
    if problem:
        return Check(name, "fail", problem, "run `python -c 'import verl'` to see all of it")
    if "recipes" not in found:
        detail = f"the recipes do not compose: {found.get('recipes_error', 'no answer')}"
        return Check(name, "fail", detail, "pip install ssl4rl-plugin again; verl must be 0.9.x")
    return Check(name, "ok", f"loaded by verl {found.get('verl')}, recipes found")


def check_device(found: dict[str, Any]) -> Check:
    """The device that training would use."""
    cards = found.get("devices") or []
    if cards:
        smallest = min(memory for _, memory in cards)
        detail = f"{len(cards)} x {cards[0][0]}, {smallest / GIB:.0f} GiB each"
        if smallest < 20 * GIB:
            return Check("GPU", "warn", detail, "too small for the 3B recipes; try a smaller model")
        return Check("GPU", "ok", detail)
    machine = machine_in(found)
    if machine is None or machine.torch is None:
        problem = next((found[key] for key in ("error", "devices_error", "torch_error") if found.get(key)), "no answer")
        return Check("GPU", "warn", problem, "fix torch first")
    finding = unusable(machine)
    if machine.present:
        return Check("GPU", "fail", finding.message, finding.remedy)
    if "platform_error" in found:
        return Check("GPU", "warn", f"none, no CPU platform: {found['platform_error']}", "see `plugin in verl`")
    return Check("GPU", "warn", f"{finding.message}; verl would use {found.get('platform')}", finding.remedy)


def check_packages(found: dict[str, Any]) -> list[Check]:
    """Packages that do not fit together; empty if all do."""
    machine = machine_in(found)
    problems = package_findings(machine, on_gpu=machine.gpus > 0) if machine else []
    return [Check(one.name, "fail" if one.fatal else "warn", one.message, one.remedy) for one in problems]


def machine_in(found: dict[str, Any]) -> Machine | None:
    """The machine's facts in the result of the probe; None if the probe could not tell."""
    facts = found.get("machine")
    if facts is None:
        return None
    return Machine(**{**facts, "torch_installed": tuple(map(tuple, facts.get("torch_installed", ())))})


def check_vllm(found: dict[str, Any] | None) -> Check:
    """vLLM imports and recognises its platform. `found` is the probe's result; None if vLLM is not installed."""
    remedy = "pip install 'ssl4rl-plugin[gpu]'; without a GPU, [cpu], then python -m ssl4rl_plugin.cpu.setup"
    if found is None:
        return Check("vLLM", "fail", "not installed", remedy)
    if "error" in found:
        return Check("vLLM", "fail", f"cannot be imported: {found['error']}", remedy)
    if found["platform"] == "none":
        return Check("vLLM", "fail", f"{found['version']} recognises no platform", remedy)
    return Check("vLLM", "ok", f"{found['version']} on {found['platform']}")


def check_processor(model: str, found: dict[str, Any] | None) -> Check:
    """verl finds an image processor for the model. `found` is the probe's result; None if `model` is no local folder."""
    if found is None:
        if model.startswith((".", "/", "~")):
            return Check("processor", "fail", f"there is no folder {model}", "give the folder of the model")
        return Check("processor", "warn", f"{model} is no local folder", "download it, and give its folder")
    if "error" in found:
        return Check("processor", "fail", found["error"], f"check the files in {model}")
    if not found["processor"]:
        remedy = "use Qwen2-VL, Qwen2.5-VL, Qwen3-VL, GLM-4V, Mllama or Gemma; verl would drop the pictures"
        return Check("processor", "fail", f"verl finds none in {model}", remedy)
    return Check("processor", "ok", str(found["processor"]))


def check_entries(kind: str, entries: Iterable[dict[str, Any]]) -> Check:
    """Every registered task or source loads."""
    entries = list(entries)
    broken = [f"{entry['name']}: {entry['error']}" for entry in entries if entry["error"]]
    if broken:
        return Check(kind, "fail", "; ".join(broken), "update or uninstall its package")
    if not entries:
        return Check(kind, "fail", "none registered", REINSTALL)
    return Check(kind, "ok", ", ".join(entry["name"] for entry in entries))


def check_folder(folder: Path) -> Check:
    """Nothing in the current folder has the name of a module: `python -m` and Ray's workers look there first."""
    files = [*folder.glob("*.py"), *(path.parent for path in folder.glob("*/__init__.py"))]
    shadowing = sorted(path.name for path in files if _is_installed(path.stem, folder))
    shadowing += ["hydra_plugins"] if (folder / "hydra_plugins").is_dir() else []
    if not shadowing:
        return Check("current folder", "ok", str(folder))
    shown = ", ".join(shadowing[:5]) + (f" and {len(shadowing) - 5} more" if len(shadowing) > 5 else "")
    detail = (
        f"{folder} holds {shown}: `python -m verl.trainer.main_ppo`, started here, runs them instead of the real ones"
    )
    return Check("current folder", "warn", detail, "start the training from another folder")


def _is_installed(name: str, folder: Path) -> bool:
    """Whether a module of that name is found outside of the folder. Imports nothing."""
    try:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    return spec.origin is None or folder not in Path(spec.origin).parents


def check_cores(count: int) -> Check:
    """Enough cores for verl's default number of Ray workers."""
    if count >= VERL_CPU_SLOTS:
        return Check("CPU cores", "ok", str(count))
    remedy = f"set ray_kwargs.ray_init.num_cpus={VERL_CPU_SLOTS} (the CPU recipes do), or verl may wait forever"
    return Check("CPU cores", "warn", f"{count}; verl's workers ask Ray for about {VERL_CPU_SLOTS}", remedy)


def check_shared_memory(path: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> Check:
    """Size of /dev/shm, which holds Ray's object store and the weights in transfer to vLLM."""
    try:
        size = usage(path).total
    except OSError:
        size = None
    for finding in shared_memory_findings(size):
        return Check(finding.name, "fail" if finding.fatal else "warn", finding.message, finding.remedy)
    return Check("shared memory", "ok", f"{path} has {size / GIB:.1f} GiB")


def check_disk(path: Path, name: str, wanted: float, usage: Callable[[Path], Any] = shutil.disk_usage) -> Check:
    """Free space at `path` against `wanted` GiB; less than a tenth of it is a failure."""
    try:
        free = usage(path).free / GIB
    except OSError as error:
        return Check(name, "fail", f"{path}: {error.strerror}", "make the folder, or choose another one")
    status = "ok" if free >= wanted else "warn" if free >= wanted / 10 else "fail"
    remedy = "" if status == "ok" else f"free some space: real models need at least {wanted:.0f} GiB"
    return Check(name, status, f"{free:.0f} GiB free at {path}", remedy)
