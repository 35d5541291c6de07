"""Registries: objects by name, found through entry points. Built-in entries use the same way as those of other packages.

An entry is imported on first use. The error for a broken entry names the package that it comes from.
"""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from ssl4rl_plugin.core.errors import UserError

T = TypeVar("T")


class RegistryError(UserError):
    """A name is unknown, duplicate or broken. The message says which, where it comes from, and what to do."""


class Registry(Generic[T]):
    """The entries of one entry-point group, by name.

    Args:
        group: entry-point group, e.g. `ssl4rl.tasks`.
        kind: word for an entry in messages, e.g. `task`.
        base: class that each entry must be a subclass or an instance of; None for no check.

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
        """All known names, sorted. Imports nothing."""
        return sorted({*self._entries(), *self._loaded})

    def get(self, name: str) -> T:
        """The entry of that name, imported on first use.

        Raises:
            RegistryError: the name is unknown, two packages offer it, or its entry point cannot be loaded.
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
        except Exception as error:  # another package's module may raise anything on import
            raise RegistryError(
                f"{self.kind} {name!r} cannot be loaded from {_describe(entry)}: {type(error).__name__}: {error}"
            ) from error
        self._check(name, thing, _describe(entry))
        self._loaded[name] = thing
        return thing

    def register(self, name: str, thing: T) -> None:
        """Add an entry without an entry point, in this process only: for tests and notebooks.

        Raises:
            RegistryError: the name is taken, or `thing` fails the check against `base`.
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
                # Python may list one package twice (an editable install and its egg-info): an equal target is no clash.
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
