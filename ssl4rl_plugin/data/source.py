"""A source lists pictures (or RGB-D pairs, or videos) and reads them one at a time; it decides nothing about them.

Sources are found by entry point (group `ssl4rl.sources`), so another package can add one without a change here.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from ssl4rl_plugin.core import RGBD, Clip
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.registry import Registry
from ssl4rl_plugin.data.images import ImageInfo, PixelBox, decode


class SourceError(UserError):
    """A source or a manifest cannot be used at all; the message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Record:
    """One picture of a source."""

    ref: str
    """Where the bytes are; stable, unique in the source, valid UTF-8. It is also the item's id."""
    split: str | None = None
    """The source's own name of the split; None leaves the choice to the manifest."""
    group: str | None = None
    """Records that show the same thing share a group; None leaves the choice to the manifest."""
    box: PixelBox | None = None
    """The part of the decoded, upright picture that is the item; None for all of it."""


@dataclass(frozen=True)
class Question:
    """One labelled question of a benchmark: for validation only, no training sample ever sees it."""

    id: str
    """Unique in its source; the benchmark's own index where it has one."""
    refs: tuple[str, ...]
    """Refs of its pictures, in order."""
    text: str
    """What is asked. With several pictures it may hold an `<image>` mark for each; without marks they come first."""
    options: tuple[str, ...]
    """Texts of the options A, B, C, ... in order; empty for a question that is answered freely."""
    answer: str | None
    """The letter of the right option, or the right text of a free question; None where the benchmark withholds it."""
    hint: str | None = None
    """What the benchmark says before the question."""
    category: str | None = None
    """Finest category, as the benchmark spells it."""
    l2_category: str | None = None
    """Coarser category above `category`."""
    split: str | None = None
    """The benchmark's own name of the split."""


@dataclass(frozen=True)
class Hub:
    """Where the files are on the Hugging Face Hub, for `--download`."""

    repo: str
    """`owner/name` of a dataset repository."""
    files: tuple[str, ...] = ("*",)
    """Which of its files are needed, as shell patterns."""


class Source(ABC):
    """Raw pictures at one place. Subclasses set the class attributes and implement `records`, `stamp` and `read`.

    Instances are small and can be pickled: data-loader workers and other machines read through copies of them.
    Listing and reading are kept apart, so that a million records are listed without opening one.

    Args:
        path: where the files are; None for a source that knows.
        options: the source's own settings, with every default filled in; JSON values.

    Raises:
        SourceError: from the constructor, when there is nothing to read at `path` or an option makes no sense.
    """

    name: ClassVar[str]
    """Registry name, snake_case."""
    kind: ClassVar[str] = "image"
    """What its items are: `image`, `rgbd`, `video` or `graph`."""
    summary: ClassVar[str]
    """One line: what this source reads."""
    schema: ClassVar[str]
    """What the files must look like."""
    splits: ClassVar[tuple[str, ...]] = ()
    """The splits that the source itself defines; empty where the manifest divides it."""
    licence: ClassVar[str]
    """What a user should know about the rights in the pictures."""
    where: ClassVar[str]
    """Where a user gets the files."""
    hub: ClassVar[Hub | None] = None
    """A copy on the Hugging Face Hub, in a layout that the source reads; None where there is none."""

    def __init__(self, path: str | Path | None, **options: Any) -> None:
        try:
            self.path = None if path is None else Path(path).expanduser().resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, no home folder, a null byte
            raise SourceError(f"source {self.name!r}: {path!r} is no usable path: {error}") from error
        self.options = options

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Every picture, in a fixed order, without decoding any. Raises SourceError if there is none at all."""

    @abstractmethod
    def stamp(self, ref: str) -> tuple[int, int]:
        """Size in bytes and modification time in ns of what `ref` points to: unchanged means that it need not be read
        again. Raises ImageError(`unreadable`, ...) if it cannot be told."""

    @abstractmethod
    def read(self, ref: str) -> bytes:
        """The encoded picture; of an item of several files all that decides its content, as one string of bytes.

        Raises:
            ImageError: this picture cannot be read; it is skipped and counted by reason.
            SourceError: `ref` does not belong to this source.
        """

    def questions(self) -> Iterator[Question]:
        """The benchmark's questions, in a fixed order; none for a source of mere pictures.

        Raises SourceError where the file has questions in another form than `schema` says.
        """
        return iter(())

    def inspect(self, ref: str, data: bytes, max_source_pixels: int) -> tuple[ImageInfo, Image.Image]:
        """What the manifest measures: the picture, or one picture that stands for the item, after every check that
        makes an item unfit for good. `data` is what `read` gave. Raises ImageError with the reason."""
        return decode(data, max_source_pixels=max_source_pixels)

    def item(self, ref: str, picture: Callable[[], Image.Image], max_pixels: int | None) -> Image.Image | RGBD | Clip:
        """What a task gets as `Item.data`.

        Args:
            ref: which item.
            picture: gives the item's picture, upright RGB, its box cut out, at most `max_pixels` pixels.
            max_pixels: limit for whatever else is made.

        Raises:
            ImageError: it was good when it was indexed, but cannot be read now.
        """
        return picture()

    def existing_path(self) -> Path:
        """`path`, checked to be given and to exist. Raises SourceError."""
        if self.path is None:
            raise SourceError(f"source {self.name!r} needs a path: {self.where}")
        try:
            self.path.stat()
        except FileNotFoundError:
            raise SourceError(f"source {self.name!r}: {self.path} does not exist; {self.where}") from None
        except OSError as error:
            raise SourceError(f"source {self.name!r}: {self.path} cannot be opened: {error.strerror}") from error
        return self.path


_SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")


def stated_split(path: str) -> str | None:
    """The split that a path states: a folder `train`, or a file name like `train-00000-of-00005.parquet`."""
    *folders, name = path.lower().split("/")
    return next((part for part in (*folders, re.split(r"[-_.]", name)[0]) if part in _SPLITS), None)


def splits_used(wanted: bool | None, names: Iterable[str | None]) -> bool:
    """Whether a source's splits of such names hold: `wanted`, or where it is None, whether there is something to train
    on and something to hold out. (Benchmarks call all that they have `test`.)"""
    sides = {name.startswith("train") for name in names if name is not None}
    return len(sides) == 2 if wanted is None else wanted


registry: Registry[type[Source]] = Registry("ssl4rl.sources", "source", base=Source)


def load_source(name: str, path: str | Path | None = None, **options: Any) -> Source:
    """The named source, at a path.

    Raises:
        RegistryError: no such source, or the package that offers it is broken.
        SourceError: nothing to read there, or an unknown option.
    """
    kind = registry.get(name)
    # Asked of the signature beforehand: a TypeError from inside the constructor must not pass for a bad option.
    accepted = [p for p in inspect.signature(kind).parameters if p != "path"]
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise SourceError(
            f"source {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"its options are: {', '.join(accepted) or '(none)'}"
        )
    return kind(path, **options)
