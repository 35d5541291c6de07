"""What `pip install ssl4rl-plugin` would do inside verl's container image, without the image.

    SSL4RL_VERL_REPO=path/of/verl python tests/bench/image_install.py        (make image-install)

The image's versions come from verl's docker/Dockerfile.stable.vllm: its ARGs, and for the rest what its `pip install`
lines resolve to on the day of the Dockerfile. An environment with the image's Python gets a distribution for each of them
that holds its real metadata and no files. Then the real pip plans each install line (`--dry-run`) with this checkout's
wheel. The result goes into docs/assets/versions.json and the table of docs/installation.md. It downloads metadata only.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "docs")]

from make_versions import RESULTS, write_tables  # noqa: E402
from verl_images import Dockerfile, canonical, committed, stable_image  # noqa: E402

LINES = ("ssl4rl-plugin", "ssl4rl-plugin[gpu]", "ssl4rl-plugin[gpu,graph,video,eval]")
"""What a user may type after `pip install`."""
FIXED = ("torch", "torchvision", "torchaudio", "vllm", "flash-attn")
"""What no line may replace."""


def resolve_image(image: Dockerfile, day: str) -> dict[str, str]:
    """Versions of the image's distributions that come from PyPI, by canonical name."""
    arguments = image.arguments
    wanted = [
        f"torch=={arguments['TORCH_VERSION']}",
        f"torchvision=={arguments['TORCH_VISION_VERSION']}",
        f"torchaudio=={arguments['TORCH_AUDIO_VERSION']}",
        f"vllm=={arguments['VLLM_VERSION']}",
        f"vllm-omni=={arguments['VLLM_OMNI_VERSION']}",
        *image.plain_requirements(),
        "torchcodec",
        *committed(f"{arguments['VERL_VERSION']}:setup.py").install_requires(),
    ]
    # Later lines of the Dockerfile win over what earlier ones asked for, as `pip install` without its resolver's veto.
    overrides = [f"transformers=={arguments['TRANSFORMERS_VERSION']}", "numpy<2"]
    with tempfile.TemporaryDirectory() as folder:
        source, override = Path(folder) / "image.in", Path(folder) / "override.txt"
        source.write_text("\n".join(wanted) + "\n")
        override.write_text("\n".join(overrides) + "\n")
        command = [
            "uv", "pip", "compile", str(source), "--override", str(override), "--exclude-newer", day, "--quiet",
            "--python-version", arguments["PYTHON_VERSION"], "--python-platform", "x86_64-manylinux_2_39",
            "--no-header", "--no-annotate", "--no-config",
        ]  # fmt: skip
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = dict(line.split("==") for line in listed.split())
    cuda = "".join(arguments["CUDA_VERSION"].split(".")[:2])
    for name in ("torch", "torchvision", "torchaudio"):  # from PyTorch's index, whose builds say so
        found[name] += f"+cu{cuda}"
    found["trl"] = arguments["TRL_VERSION"]
    found["transferqueue"] = arguments["TRANSFER_QUEUE_VERSION"]
    for name in image.uninstalled():
        found.pop(name, None)
    return found


def pip(python: Path, *arguments: str, report: bool = True) -> dict[str, Any]:
    """Let an environment's pip plan an installation; its report. Raises CalledProcessError with pip's words."""
    command = [python, "-m", "pip", "install", "--dry-run", "--quiet", "--disable-pip-version-check", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        subprocess.run([*command, "--report", path], check=True, capture_output=True, text=True)
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def write_distribution(site: Path, name: str, version: str, requires: list[str]) -> None:
    """Write an installed distribution that has metadata only."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    (info / "RECORD").write_text("")
    (info / "INSTALLER").write_text("pip\n")


def make_image(image: Dockerfile, day: str, interpreter: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """An environment with the image's distributions in metadata only; its interpreter, and the versions."""
    subprocess.run(["uv", "venv", "--quiet", "--seed", "--python", interpreter, folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    versions = resolve_image(image, day)
    exact = [f"{name}=={version.split('+')[0]}" for name, version in versions.items()]
    planned = pip(python, "--no-deps", "--ignore-installed", *exact)["install"]
    built = {"flash-attn": image.arguments["FLASH_ATTENTION_VERSION"], **image.from_git()}
    for item in planned:
        name = canonical(item["metadata"]["name"])
        if name not in built and name != "pip":
            write_distribution(site, name, versions[name], item["metadata"].get("requires_dist", []))
    for name, version in built.items():
        write_distribution(site, name, version, [])
    return python, {**versions, **built}


def newly_broken(python: Path, versions: dict[str, str], after: dict[str, str], env: dict[str, str]) -> list[str]:
    """Requirements of kept distributions that hold now and would not hold afterwards, as "numba: numpy<2.5"."""
    (site,) = (python.parent.parent / "lib").glob("python*/site-packages")
    broken = []
    for one in metadata.distributions(path=[str(site)]):
        owner = canonical(one.name)
        for need in map(Requirement, one.requires or [] if owner not in after else []):
            name = canonical(need.name)
            if name not in after or name not in versions or (need.marker and not need.marker.evaluate(env)):
                continue
            held, holds = (need.specifier.contains(each[name], prereleases=True) for each in (versions, after))
            if held and not holds:
                broken.append(f"{owner}: {need.name}{need.specifier}")
    return sorted(broken)


def plan(python: Path, wheel: Path, line: str, versions: dict[str, str]) -> dict[str, Any]:
    """What pip would do for one line: what it replaces (old, new) and adds."""
    extras = line.removeprefix("ssl4rl-plugin")
    result: dict[str, Any] = {"command": f"pip install '{line}'" if extras else f"pip install {line}"}
    try:
        planned = pip(python, f"ssl4rl-plugin{extras} @ {wheel.as_uri()}")["install"]
    except subprocess.CalledProcessError as error:
        lines = [text for text in error.stderr.splitlines() if text.startswith("ERROR")]
        return {**result, "refused": lines[-1] if lines else error.stderr[-300:]}
    new = {canonical(item["metadata"]["name"]): item for item in planned}
    replaced = {n: [versions[n], item["metadata"]["version"]] for n, item in new.items() if n in versions}
    added = sorted(set(new) - set(versions) - {"ssl4rl-plugin"})
    files = {n: item["download_info"]["url"].rsplit("/", 1)[-1] for n, item in new.items()}
    compiled = sorted(n for n, file in files.items() if not file.endswith("-none-any.whl"))
    after = {n: item["metadata"]["version"] for n, item in new.items()}
    broken = newly_broken(python, versions, after, {**default_environment(), "python_version": "3.12", "extra": ""})
    return {**result, "replaced": replaced, "added": added, "compiled": compiled, "broken": broken}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", help="an interpreter's path; the image's version by default")
    options = parser.parse_args()
    image, day = stable_image()
    build = runpy.run_path(str(ROOT / ".ci" / "check_wheel.py"))["build"]
    with tempfile.TemporaryDirectory(prefix="ssl4rl-image-") as name:
        folder = Path(name)
        python, versions = make_image(image, day, options.python or image.arguments["PYTHON_VERSION"], folder)
        wheel = build(folder / "wheel")
        lines = [plan(python, wheel, line, versions) for line in LINES]
    shown = {name: versions[name] for name in (*FIXED, "transformers", "transferqueue", "numpy")}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["image"] = {"of": day, "versions": shown, "lines": lines}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results["image"], indent=1))
    wrong = [f"{line['command']}: {name}" for line in lines for name in FIXED if name in line.get("replaced", {})]
    if wrong:
        sys.exit("pip would replace what it must not: " + "; ".join(wrong))
    write_tables()


if __name__ == "__main__":
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    main()
