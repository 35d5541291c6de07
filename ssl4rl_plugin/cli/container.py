"""Recognise verl's container images by what is installed in them, and say how to install this package there.

The stable image has torch, a patched vLLM and flash-attn that were built for each other, and older versions of what verl
0.9 needs. docs/installation.md shows what pip would do to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ssl4rl_plugin.cli.check import Check, requirement

NAME = "verl's image"
STABLE_MARKS = ("deep-ep", "flash-mla")
"""Built from source in verl's stable image with vLLM. No distribution that this package needs depends on them."""
KEEP = "torch|torchvision|torchaudio|vllm|flash.attn"
STABLE_LINE = (
    f"pip list --format=freeze | grep -E '^({KEEP})==' > image.txt, then "
    "pip install --constraint image.txt 'ssl4rl-plugin[gpu]'"
)
UV_LINE = "uv pip install 'ssl4rl-plugin[gpu]', and start outside of the checkout of verl: it would be imported instead"
ASKED_BY = {"verl": "ssl4rl-plugin", "transformers": "verl", "transferqueue": "verl", "torch": "vllm", "numpy": "numba"}
"""Distribution whose version matters in an image -> the installed one that says which."""


def check_image(versions: Mapping[str, str], needs: Mapping[str, Requirement]) -> Check | None:
    """Recognise an image of verl and check what it has.

    Args:
        versions: canonical name -> version, of everything installed.
        needs: canonical name -> requirement that its version has to meet.

    Returns:
        None if this is no image of verl's; otherwise the check, whose remedy is the line that is right in that image.
    """
    vllm = versions.get("vllm")
    verl = versions.get("verl")
    if vllm is None:
        return None
    if any(mark in versions for mark in STABLE_MARKS):
        kind, line = "stable image", STABLE_LINE
    elif verl is not None and Version(verl).is_devrelease:
        kind, line = "uv image, or a checkout of verl", UV_LINE
    else:
        return None
    problems = []
    for name, need in needs.items():
        found = versions.get(name)
        # A local part (+cu130) does not matter. A release candidate counts.
        if found is None or not need.specifier.contains(Version(found), prereleases=True):
            problems.append(f"{need.name} {found or 'missing'} ({ASKED_BY.get(name, 'verl')} needs {need.specifier})")
    if "torch" in needs and any(problem.startswith("torch ") for problem in problems):
        line = (
            f"torch was replaced, so that vLLM and flash-attn no longer fit: start from a fresh container, then {line}"
        )
    detail = f"{kind}: vLLM {vllm}, torch {versions.get('torch')}, flash-attn {versions.get('flash-attn', 'missing')}"
    if problems:
        return Check(NAME, "fail", f"{detail}; {', '.join(problems)}", line)
    if "flash-attn" not in versions:
        return Check(NAME, "warn", detail, "training falls back to PyTorch's attention; see docs/installation.md")
    return Check(NAME, "ok", detail)


def installed_image() -> list[Check]:
    """`check_image` of this environment, as a list of none or one."""
    versions = {str(canonicalize_name(one.name)): one.version for one in metadata.distributions() if one.name}
    asked = {
        name: requirement(by, "TransferQueue" if name == "transferqueue" else name) for name, by in ASKED_BY.items()
    }
    check = check_image(versions, {name: need for name, need in asked.items() if need})
    return [check] if check else []
