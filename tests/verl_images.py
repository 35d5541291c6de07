"""verl's Dockerfiles, read from a checkout or git directory of verl that SSL4RL_VERL_REPO names."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from functools import cached_property

from packaging.utils import canonicalize_name

REPOSITORY = os.environ.get("SSL4RL_VERL_REPO", "")
"""Path of a clone of verl, or of its git directory. Empty: tests that need it are skipped."""
GIT_NAMES = {
    "apex": ("apex", None),
    "TransformerEngine": ("transformer-engine", "TRANSFORMER_ENGINE_VERSION"),
    "mbridge": ("mbridge", None),
    "Megatron-Bridge": ("megatron-bridge", "MEGATRON_BRIDGE_VERSION_OR_BRANCH"),
    "Megatron-LM": ("megatron-core", "MCORE_VERSION"),
}
"""Repository that the stable image installs from -> name of the distribution, ARG with its version."""


def canonical(name: str) -> str:
    """The name of a distribution as pip compares it."""
    return str(canonicalize_name(name))


def git(*arguments: str) -> str:
    """Output of a git command in verl's repository."""
    return subprocess.run(["git", "-C", REPOSITORY, *arguments], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Text:
    """A file of verl's repository."""

    text: str

    def install_requires(self) -> list[str]:
        """The list `install_requires` of a setup.py."""
        (body,) = re.findall(r"^install_requires = \[(.*?)^\]", self.text, re.MULTILINE | re.DOTALL)
        return re.findall(r'"([^"]+)"', body)


@dataclass(frozen=True)
class Dockerfile(Text):
    """A Dockerfile that installs with pip."""

    @cached_property
    def arguments(self) -> dict[str, str]:
        """ARGs with a default."""
        return dict(re.findall(r"^ARG (\w+)=(\S+)$", self.text, re.MULTILINE))

    def _commands(self, verb: str) -> list[list[str]]:
        """The arguments of each `pip VERB`, with the ARGs put in."""
        joined = re.sub(r"\\\n", " ", "\n".join(line for line in self.text.split("\n") if not line.startswith("#")))
        put_in = re.sub(r"\$\{(\w+)\}", lambda match: self.arguments.get(match[1], match[0]), joined)
        found = re.findall(rf"\bpip3? {verb}\b(.*?)(?:&&|$)", put_in, re.MULTILINE)
        return [shlex.split(text) for text in found]

    def plain_requirements(self) -> list[str]:
        """What `pip install` lines without options take from the default index."""
        lists = [words for words in self._commands("install") if not any(word.startswith("-") for word in words)]
        names = [word for words in lists for word in words]
        return [
            name for name in names if "://" not in name and "$" not in name and not name.startswith("transformers==")
        ]

    def uninstalled(self) -> list[str]:
        """What `pip uninstall -y` takes out."""
        return [canonical(word) for words in self._commands("uninstall") for word in words if word != "-y"]

    def from_git(self) -> dict[str, str]:
        """Distributions that are built from git, with the version in the ARG ("0" for none)."""
        named = {name: which for name, which in GIT_NAMES.items() if f"/{name}.git" in self.text}
        number = re.compile(r"\d+(\.\d+)*")
        return {name: number.search(self.arguments.get(arg or "", "0"))[0] for name, arg in named.values()}  # type: ignore[index]


def committed(path: str) -> Text:
    """A file at a revision, as "v0.7.1:setup.py"."""
    return Text(git("show", path))


def stable_image() -> tuple[Dockerfile, str]:
    """The Dockerfile of verl's stable image with vLLM, and the day of its last change as YYYY-MM-DD."""
    path = "docker/Dockerfile.stable.vllm"
    return Dockerfile(git("show", f"HEAD:{path}")), git("log", "-1", "--format=%cs", "--", path).strip()
