"""Remove from a record what must not be in a bug report: folders, user and machine names, addresses, tokens."""

from __future__ import annotations

import getpass
import re
import socket
from pathlib import Path
from typing import Any

_SECRETS = (
    re.compile(r"\bhf_[A-Za-z0-9]{16,}\b"),
    re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-)[A-Za-z0-9_-]{16,}"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"),
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]+"),  # JSON web token
    re.compile(r"\b[0-9a-fA-F]{32,}\b"),  # keys of Weights & Biases and others
    re.compile(r"(?<=Bearer )\S+"),
)
_NAMED = re.compile(
    r"""(?i)([\w-]*(?:token|secret|passw(?:or)?d|api_?key|credential)s?["']?\s*[=:]\s*["']?)([^\s"',}]{8,})"""
)
"""A value after a name such as HF_TOKEN. Shorter values are numbers of tokens, lengths and the like."""
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>)\]}]+")
_KEPT_URL = re.compile(r"pkg://[\w.]+$")
_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b")
_ADDRESS = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")
_PATH = re.compile(r"(?<![\w…./-])~?/(?:[\w.+@~%-]+/)*[\w.+@~%-]+/?")
COMMON = {"root", "user", "ubuntu", "admin", "runner", "nobody", "localhost"}
"""Names that tell nothing about a person and that ordinary text contains."""


def names_here() -> tuple[str, ...]:
    """The names of this user and this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in /etc/passwd
        user = ""
    host = socket.gethostname()
    return tuple(name for name in dict.fromkeys((user, Path.home().name, host, host.partition(".")[0])) if name)


def redact(value: Any, names: tuple[str, ...] | None = None, home: str | None = None) -> Any:
    """The same JSON value without private parts, in all of its strings and keys.

    Absolute paths keep their last part, or what follows `site-packages/`. Addresses of networks become `<url>` and
    `<ip>`, tokens `<secret>`.

    Args:
        value: anything that JSON can hold.
        names: names of users and machines to remove; None for those of this machine.
        home: the user's home folder; None for the one of this process.
    """
    names = names_here() if names is None else names
    home = str(Path.home()) if home is None else home
    if isinstance(value, dict):
        return {redact(str(key), names, home): redact(inner, names, home) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(inner, names, home) for inner in value]
    return _text(value, names, home) if isinstance(value, str) else value


def _text(text: str, names: tuple[str, ...], home: str) -> str:
    for pattern in _SECRETS:
        text = pattern.sub("<secret>", text)
    text = _NAMED.sub(lambda found: found[0] if found[2].isdigit() else f"{found[1]}<secret>", text)
    text = _URL.sub(lambda found: found[0] if _KEPT_URL.match(found[0]) else "<url>", text)
    text = _MAIL.sub("<mail>", text)
    if len(home) > 1:  # first, since its name may hold spaces, which end a path below
        text = text.replace(home, "~")
    text = _PATH.sub(_shortened, text)
    for name in names:
        if len(name) > 2 and name.lower() not in COMMON:
            text = re.sub(rf"(?<![\w]){re.escape(name)}(?![\w])", "<name>", text)
    return _ADDRESS.sub("<ip>", text)


def _shortened(found: re.Match[str]) -> str:
    path = found[0].rstrip("/")
    _, known, rest = path.partition("site-packages/")
    return f"…/{known}{rest}" if known else f"…/{path.rpartition('/')[2]}"
