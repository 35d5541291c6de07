"""What to type instead of an override that Hydra cannot read, or reads as something else.

Hydra's own message points at a character. A hint shows the whole word, quoted for Hydra's grammar and for the shell. The
search path plugin prints hints for `main_ppo`, the command line for `ssl4rl doctor --recipe`.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from ssl4rl_plugin.core.first_word import PROGRAMS

PATH_KEYS = ("path", "manifest", "data", "root", "dir")
"""How the names of keys end whose values are paths."""
OURS = ("recipe=", "ssl4rl.", "ssl4rl/")
"""How overrides begin that only exist with the plugin on."""

_PATH_IN_ENTRY = re.compile(r"((?:path|manifest|root)\s*:\s*)(?!['\"\[{])(.+?)(?=\s*(?:,\s*\w+\s*:|\}))")


def quoted(text: str) -> str:
    """A text in single quotes, so that Hydra reads exactly this text.

    >>> quoted("/data/a=b, c's")
    "'/data/a=b, c\\\\'s'"
    """
    # OmegaConf: an odd number of backslashes before ${ keeps it from being an interpolation. Hydra: backslashes count only
    # before a quote.
    text = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)
    text = re.sub(r"(\\*)'", lambda found: 2 * found[1] + r"\'", text)
    return "'" + re.sub(r"(\\+)$", lambda found: 2 * found[1], text) + "'"


def for_shell(word: str) -> str:
    """A word as it is typed in a shell, in double quotes if that is enough: Hydra's quotes are single ones."""
    return shlex.quote(word) if re.search(r'[$`"\\!\n]', word) else f'"{word}"'


def hints(overrides: Sequence[str]) -> list[str]:
    """What to type instead of overrides that Hydra refuses or misreads; empty if there are none.

    Args:
        overrides: as Hydra gets them, behind the shell.
    """
    found = []
    chosen = any(word.lstrip("+").partition("=")[0] == "plugin" for word in overrides)
    if not chosen and any(word.lstrip("+").startswith(OURS) for word in overrides):
        found.append("add +plugin=ssl4rl: it is what makes recipe=NAME and the ssl4rl keys known (not +recipe=NAME)")
    for place, word in enumerate(overrides):
        key, equals, value = word.partition("=")
        if not equals:
            before = overrides[place - 1] if place else ""
            if "=" in before and not word.startswith(("~", "-")):
                joined = for_shell(_assigned(before, word))
                found.append(f"{word!r} is no KEY=VALUE: if it belongs to the word before it, type {joined}")
        elif (better := _better(key, value)) is not None:
            found.append(f"to give {key} this text, type {for_shell(f'{key}={better}')}")
    return found


def print_hints(command: Sequence[str]) -> None:
    """Print the hints for a command of `main_ppo` to stderr, once; nothing for other programs.

    Args:
        command: `sys.orig_argv`.
    """
    global _printed
    from hydra._internal.utils import get_args_parser

    program = next((i for i, word in enumerate(command) if word == PROGRAMS[0] or word.endswith(PROGRAMS[1])), None)
    if program is None or _printed:
        return
    _printed = True
    given = get_args_parser().parse_known_args(list(command[program + 1 :]))[0]
    for hint in hints(given.overrides if not given.multirun else []):
        print(f"ssl4rl: {hint}", file=sys.stderr)


_printed = False


def _assigned(before: str, word: str) -> str:
    """The override `before` with a blank and `word` added to its value."""
    key, _, value = f"{before} {word}".partition("=")
    return f"{key}={value if _read(value) == value else quoted(value)}"


def _better(key: str, value: str) -> str | None:
    """The value as it should be typed; None if Hydra reads it as it is, or if it cannot be told what is meant."""
    read = _read(value)
    is_path = key.rpartition(".")[2].endswith(PATH_KEYS)
    if read is not _UNREADABLE and not (is_path and (read is _SWEEP or (isinstance(read, str) and read != value))):
        return None
    if value.lstrip().startswith(("[", "{")):
        repaired = _PATH_IN_ENTRY.sub(lambda found: found[1] + quoted(found[2]), value)
        return repaired if repaired != value and _read(repaired) not in (_UNREADABLE, _SWEEP) else None
    if value.startswith(("'", '"')) and value.endswith(value[0]) and len(value) > 1:
        if read is not _UNREADABLE:
            return None  # quoted already
        value = value[1:-1]
    return quoted(value)


_UNREADABLE, _SWEEP = object(), object()


def _read(value: str) -> Any:
    """The value as Hydra reads it, without interpolations resolved."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(f"key={value}")
        return _SWEEP if override.is_sweep_override() else override.value()
    except HydraException:
        return _UNREADABLE
