"""Overrides on verl's command line that name no key, group or option of this plugin, with the one that was meant.

Hydra ends such a run with "Key 'pth' is not in struct", or with a list of all options. This is looked at before Hydra
composes the config. Overrides of verl's own keys are left to Hydra.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib import resources
from typing import Any

import yaml

from ssl4rl_plugin.core.first_word import PROGRAMS
from ssl4rl_plugin.training.config_model import ConfigModel

SECTION = "ssl4rl"
LISTED = 100
"""Most names that a message lists; there are 75 recipes."""

_OWN_CONFIGS = ("--config-dir", "-cd", "--config-path", "-cp", "hydra.searchpath")
"""With these on the command line, there may be further recipes and options."""
_LISTS = ("tasks", "benchmarks", "sources")  # keys with a list of mappings
_OVERRIDE = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=]+)=(?P<value>.*)", re.DOTALL)


def is_training(command: Sequence[str], arguments: Sequence[str]) -> bool:
    """Whether this process is main_ppo with the plugin: only there, its arguments are overrides.

    Args:
        command: the whole command (`sys.orig_argv`).
        arguments: the program's arguments.
    """
    program = any(word == PROGRAMS[0] or word.endswith(PROGRAMS[1]) for word in command)
    return program and any(word.lstrip("+") == "plugin=ssl4rl" for word in arguments)


def check_command_line(configs: Collection[str]) -> None:
    """End a training whose overrides name what does not exist, with one message on stderr and exit code 1.

    Args:
        configs: paths of all configs of the plugin, such as `recipe/images` and `ssl4rl/task/rotation`.
    """
    arguments = sys.argv[1:]
    if is_training(sys.orig_argv, arguments) and (wrong := hints(arguments, configs)):
        raise SystemExit("\n".join(f"ssl4rl: {line}" for line in wrong))


def hints(arguments: Iterable[str], configs: Collection[str]) -> list[str]:
    """A sentence for each override that names no key, group or option of the plugin.

    Args:
        arguments: the program's arguments; options such as `--cfg` are skipped.
        configs: paths of all configs of the plugin.
    """
    arguments = list(arguments)
    own = any(word.lstrip("+").startswith(_OWN_CONFIGS) for word in arguments)
    found = []
    for word in arguments:
        match = None if word.startswith("-") else _OVERRIDE.fullmatch(word)
        if match is None or match["sign"] == "~":
            continue
        key, value = match["key"].strip(), match["value"].strip()
        group = key.partition("@")[0]
        if group in ("recipe", "/recipe") or "/" in group:
            hint = _group_hint(group.strip("/"), value, configs, own)
        else:
            hint = _key_hint(key, value, configs) or _option_hint(key, value, match["sign"], arguments, own)
        if hint:
            found.append(f"{word}: {hint}")
    return found


def _group_hint(group: str, value: str, configs: Collection[str], own: bool) -> str | None:
    """What is wrong with `group=value`; None if nothing is, or it is none of ours."""
    groups = _groups(configs)
    if group not in groups:
        top = group.partition("/")[0]
        if own or not _alike(top, (SECTION,)):
            return None
        key = group.replace("/", ".")
        known = top == SECTION and key.partition(".")[2] in _section_keys()
        return f"there is no group {group}{_meant(_alike(group, groups), f'={value}', groups, key if known else None)}"
    options = sorted(path.rpartition("/")[2] for path in configs if path.rpartition("/")[0] == group)
    if own or value in options or not re.fullmatch(r"[\w.-]+", value) or value == "null":
        return None
    what = "recipe" if group == "recipe" else f"option of {group}"
    return f"there is no {what} {value!r}{_meant(_alike(value, options), '', options)}"


def _key_hint(key: str, value: str, configs: Collection[str]) -> str | None:
    """What is wrong with a dotted key; None if nothing is, or it is none of ours."""
    top, *below = key.split(".")
    if top != SECTION:
        return f"did you mean {SECTION}.{'.'.join(below)}?" if below and _alike(top, (SECTION,)) else None
    place = SECTION
    known: Collection[str] = _section_keys()
    for depth, part in enumerate(below):
        if part not in known and not (part.isdecimal() and place.removeprefix(f"{SECTION}.") in _LISTS):
            if depth == 0 and f"{SECTION}/{part}" in _groups(configs):
                close = _alike(part, known)
                other = f"; {SECTION}.{close}=... sets the key" if close else ""
                if part == "task":
                    other = f"; ssl4rl.tasks=[{value.strip('[]')}] lists the tasks"
                return f"{SECTION}.{part} is no key, but {SECTION}/{part} is a group: {SECTION}/{part}={value}{other}"
            rest = f".{'.'.join(below[depth + 1 :])}" if below[depth + 1 :] else ""
            close = _alike(part, known)
            meant = f": did you mean {place}.{close}{rest}?" if close else f"; known keys: {', '.join(known)}"
            return f"there is no key {place}.{part}{meant}"
        place = f"{place}.{part}"
        deeper = _keys_below(below[: depth + 1])
        if deeper is None:
            return None
        known = deeper
    if below == ["source"] and re.fullmatch(r"[\w./~-]+", value) and value != "null":
        name = re.fullmatch(r"\w+", value) is not None
        way = f"ssl4rl/source={value}, or ssl4rl.source.name={value}" if name else f"ssl4rl.source.path={value}"
        return f"ssl4rl.source is a mapping: write {way}"
    return None


def _option_hint(key: str, value: str, sign: str | None, arguments: Sequence[str], own: bool) -> str | None:
    """What is wrong with `ssl4rl.source.options.NAME`: the source has no such option, or a new key needs a plus."""
    if not key.startswith(f"{SECTION}.source.options."):
        return None
    option = key.split(".")[3]
    named = [word for word in arguments if re.fullmatch(r"(\+|\+\+)?ssl4rl(\.source\.name|/source)=\w+", word)]
    if named and (accepted := _options_of(named[-1].partition("=")[2])) is not None and option not in accepted:
        close = _alike(option, accepted)
        meant = close and f"{SECTION}.source.options.{close}"
        return f"the source has no option {option}{_meant(meant, f'={value}', accepted)}"
    if sign is None and not own and option not in _declared_options():
        return f"the recipe has no such key yet: write +{key}={value}"
    return None


def _options_of(source: str) -> list[str] | None:
    """The options of a source; None if there is no such source."""
    from ssl4rl_plugin.core.registry import RegistryError
    from ssl4rl_plugin.data.source import registry

    try:
        return [name for name in inspect.signature(registry.get(source)).parameters if name != "path"]
    except RegistryError:
        return None


def _declared_options() -> set[str]:
    """Options of sources that some recipe sets, so that Hydra may know the key."""

    def below(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            source = value.get("source")
            if isinstance(source, dict) and isinstance(source.get("options"), dict):
                yield from source["options"]
            for inner in value.values():
                yield from below(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from below(inner)

    pending = [resources.files("ssl4rl_plugin.recipes")]
    found: set[str] = set()
    while pending:
        for entry in pending.pop().iterdir():
            if entry.is_dir():
                pending.append(entry)
            elif entry.name.endswith(".yaml"):
                found.update(below(yaml.safe_load(entry.read_text(encoding="utf-8"))))
    return found


def _section_keys() -> list[str]:
    from ssl4rl_plugin.training.settings import Section  # imports the tasks: only where a run starts

    return list(Section.model_fields)


def _keys_below(path: Sequence[str]) -> list[str] | None:
    """The keys of a mapping in the section; None where any key may be, or there is no mapping."""
    from ssl4rl_plugin.training.settings import BenchmarkSection, SourceEntry, SourceSection, TaskSection

    lists: dict[str, type[ConfigModel]] = dict(zip(_LISTS, (TaskSection, BenchmarkSection, SourceEntry), strict=True))
    if len(path) == 1 and path[0] in _LISTS:
        return []  # numbers of entries
    if list(path) == ["source"]:
        return list(SourceSection.model_fields)
    if len(path) == 2 and path[0] in lists and path[1].isdecimal():
        return list(lists[path[0]].model_fields)
    return None


def _groups(configs: Collection[str]) -> set[str]:
    return {path.rpartition("/")[0] for path in configs if "/" in path}


def _alike(word: str, known: Iterable[str]) -> str | None:
    """The most similar of the known words, also if one is the start of the other; None if none is similar."""
    known = list(known)
    folded = {other.lower(): other for other in known}
    close = difflib.get_close_matches(word.lower(), folded, n=1)
    return folded[close[0]] if close else None


def _meant(close: str | None, behind: str, known: Collection[str], key: str | None = None) -> str:
    """The similar name, or the known ones; `key` is a key of the same name, which may be meant too."""
    listed = sorted(known)
    shown = ", ".join(listed[:LISTED]) + (", ..." if len(listed) > LISTED else "")
    other = f", or the key {key}{behind}" if key else ""
    return f": did you mean {close}{behind}{other}?" if close else f"; known: {shown}{other}"
