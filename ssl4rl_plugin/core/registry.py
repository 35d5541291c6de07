"""Names to things, filled from an entry-point group: our own tasks and sources are found the way a stranger's are.

Nothing is imported until it is asked for, and an entry that is broken says which package it came from.
"""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from ssl4rl_plugin.core.errors import UserError

T = TypeVar("T")


class RegistryError(UserError):
    """An unknown, duplicate or broken name; the message says which, where it came from, and what to do."""


class Registry(Generic[T]):
    """The things of one kind, by name.

    Args:
        group: entry-point group, e.g. `ssl4rl.tasks`.
        kind: what one of them is called in messages, e.g. `task`.
        base: class that every one of them must be a subclass or an instance of; None for no check.

    Example:
        >>> sources = Registry("ssl4rl.sources", "source", base=Source)
        >>> sources.get("folder")
        <class 'ssl4rl_plugin.data_builders.sources.folder.FolderSource'>
    """

    def __init__(self, group: str, kind: str, base: type | None = None) -> None:
        self.group = group
        self.kind = kind
        self.base = base
        self._found: dict[str, list[EntryPoint]] | None = None
        self._loaded: dict[str, T] = {}

    def names(self) -> list[str]:
        """All known names, sorted; nothing is imported."""
        return sorted({*self._entries(), *self._loaded})

    def get(self, name: str) -> T:
        """The thing of that name, imported on first use.

        Raises:
            RegistryError: the name is unknown, offered by two packages, or its entry point cannot be loaded.
        """
        if name in self._loaded:
            return self._loaded[name]
        entries = self._entries().get(name)
        if entries is None:
            raise RegistryError(self._unknown(name))
        if len(entries) > 1:
            offers = " and ".join(_describe(entry) for entry in entries)
            raise RegistryError(
                f"{self.kind} {name!r} is offered by {offers}; uninstall one of the packages, or rename its entry point"
            )
        entry = entries[0]
        try:
            thing: T = entry.load()
        except Exception as error:  # a stranger's module may raise anything while it is imported
            raise RegistryError(
                f"{self.kind} {name!r} cannot be loaded from {_describe(entry)}: {type(error).__name__}: {error}"
            ) from error
        self._check(name, thing, _describe(entry))
        self._loaded[name] = thing
        return thing

    def register(self, name: str, thing: T) -> None:
        """Add something without an entry point, in this process only: for tests and notebooks.

        Raises:
            RegistryError: the name is taken by something else, or `thing` is not of the kind.
        """
        if name in self._entries() or self._loaded.get(name, thing) is not thing:
            raise RegistryError(f"{self.kind} {name!r} exists already; choose another name")
        self._check(name, thing, "register()")
        self._loaded[name] = thing

    def _entries(self) -> dict[str, list[EntryPoint]]:
        if self._found is None:
            found: dict[str, list[EntryPoint]] = {}
            for entry in entry_points(group=self.group):
                same = found.setdefault(entry.name, [])
                # One package may be seen twice (an editable install beside its egg-info): the same target is no clash.
                if all(entry.value != other.value for other in same):
                    same.append(entry)
            self._found = found
        return self._found

    def _check(self, name: str, thing: Any, origin: str) -> None:
        base = self.base
        if base and not isinstance(thing, base) and not (isinstance(thing, type) and issubclass(thing, base)):
            raise RegistryError(
                f"{self.kind} {name!r} from {origin} is {thing!r}, which is not a {base.__module__}.{base.__qualname__}"
            )

    def _unknown(self, name: str) -> str:
        known = self.names()
        if not known:
            return (
                f"unknown {self.kind} {name!r}: no package offers any in the entry-point group {self.group!r}; "
                "is ssl4rl-plugin installed (pip install -e .)?"
            )
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return f"unknown {self.kind} {name!r}{hint}; known: {', '.join(known)}"


def _describe(entry: EntryPoint) -> str:
    """`'name = module:attribute' of package 1.0`."""
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
    return f"entry point '{entry.name} = {entry.value}' of {package}"
