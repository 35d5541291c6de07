"""Registries: objects by name, found through entry points. Built-in entries use the same way as those of other packages.

An entry is imported on first use. The error for a broken entry names the package that it comes from.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any, Generic, TypeVar

from ssl4rl_plugin.core.errors import UserError

T = TypeVar("T")


class RegistryError(UserError):
    """A name is unknown, duplicate or broken. The message says which, where it comes from, and what to do."""


def reason(error: BaseException) -> str:
    """`ValueError: its text`, for the exceptions of any package: their `__str__` may fail too."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Run code of another package. Turns every exception into a RegistryError that begins with `what`.

    Also `sys.exit`, and others that are not an `Exception`: a broken package must not end the program. Ctrl-C still does.
    """
    try:
        yield
    except (KeyboardInterrupt, RegistryError):
        raise
    except BaseException as error:
        raise RegistryError(f"{what}: {reason(error)}") from error


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
        with foreign(f"{self.kind} {name!r} cannot be loaded from {_describe(entry)}"):
            thing: T = entry.load()
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
            for entry in _entry_points(self.group):
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


def _entry_points(group: str) -> list[EntryPoint]:
    """The entry points of a group. A package with unreadable metadata is left out with a warning."""
    try:
        return list(entry_points(group=group))
    except Exception:  # one bad line in any package's entry_points.txt: ask one package after the other
        pass
    found: dict[str, list[EntryPoint]] = {}
    for package in distributions():
        try:
            name = package.metadata["Name"]
            if name not in found:  # the first on the path counts
                found[name] = [entry for entry in package.entry_points if entry.group == group]
        except Exception as error:
            place = getattr(package, "_path", "a package")
            warnings.warn(
                f"the entry points of {place} cannot be read ({reason(error)}), so what it offers is left out: reinstall "
                "or uninstall it",
                RuntimeWarning,
                stacklevel=2,
            )
    return [entry for entries in found.values() for entry in entries]


def _describe(entry: EntryPoint) -> str:
    """`'name = module:attribute' of package 1.0`."""
    package = "an unknown package"
    if entry.dist:
        (name, *_) = entry.dist.metadata.get_all("Name") or [None]  # without a METADATA file
        package = (
            f"{name} {entry.dist.version}" if name else f"{getattr(entry.dist, '_path', 'a package')}, without metadata"
        )
    return f"entry point '{entry.name} = {entry.value}' of {package}"
