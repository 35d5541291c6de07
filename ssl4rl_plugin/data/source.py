"""Sources: a source lists pictures (or RGB-D pairs, or videos) and reads them one at a time. It does not filter them.

Sources are found by entry point (group `ssl4rl.sources`), so another package can add one.
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
    """A source or a manifest cannot be used. The message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Record:
    """One picture of a source."""

    ref: str
    """Where the bytes are: stable, unique in the source, valid UTF-8. It is also the item's id."""
    split: str | None = None
    """The source's own name for the split; None if the manifest chooses."""
    group: str | None = None
    """Records that show the same thing share a group; None if the manifest chooses."""
    box: PixelBox | None = None
    """The part of the decoded, upright picture that is the item; None for all of it."""


@dataclass(frozen=True)
class Question:
    """One labelled question of a benchmark. It is used only for validation, never for training."""

    id: str
    """Unique in its source; the benchmark's own index if it has one."""
    refs: tuple[str, ...]
    """Refs of its pictures, in order."""
    text: str
    """The question. It has one `<image>` mark for each picture, or no marks: then the pictures come first."""
    options: tuple[str, ...]
    """Texts of the options A, B, C, ... in order; empty for a free answer."""
    answer: str | None
    """Letter of the correct option, or the correct text of a free answer; None if the benchmark withholds it."""
    hint: str | None = None
    """Text that the benchmark puts before the question."""
    category: str | None = None
    """Finest category, as the benchmark spells it."""
    l2_category: str | None = None
    """Coarser category above `category`."""
    split: str | None = None
    """The benchmark's own name for the split."""


@dataclass(frozen=True)
class Hub:
    """Location of the files on the Hugging Face Hub, for `--download`."""

    repo: str
    """`owner/name` of a dataset repository."""
    files: tuple[str, ...] = ("*",)
    """Shell patterns of the files that are needed."""


class Source(ABC):
    """Raw pictures in one place. Subclasses set the class attributes and implement `records`, `stamp` and `read`.

    Instances are small and picklable: data-loader workers and other machines read through copies. Listing does not open
    files, so a million records are listed quickly.

    Args:
        path: where the files are; None for a source that needs no path.
        options: the source's own settings, with all defaults filled in; JSON values.

    Raises:
        SourceError: from the constructor, if there is nothing to read at `path` or an option is invalid.
    """

    name: ClassVar[str]
    """Registry name, snake_case."""
    kind: ClassVar[str] = "image"
    """Kind of its items: `image`, `rgbd`, `video` or `graph`."""
    summary: ClassVar[str]
    """One line: what this source reads."""
    schema: ClassVar[str]
    """Required layout of the files."""
    splits: ClassVar[tuple[str, ...]] = ()
    """The splits that the source itself defines; empty if the manifest divides it."""
    licence: ClassVar[str]
    """Licence of the pictures, and what a user should know about it."""
    where: ClassVar[str]
    """Where a user gets the files."""
    endings: ClassVar[tuple[str, ...]] = ()
    """Endings of file names, such as `.tsv`, by which commands choose this source for a path."""
    hub: ClassVar[Hub | None] = None
    """A copy on the Hugging Face Hub in a layout that the source reads; None if there is none."""

    def __init__(self, path: str | Path | None, **options: Any) -> None:
        try:
            self.path = None if path is None else Path(path).expanduser().resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, no home folder, a null byte
            raise SourceError(f"source {self.name!r}: {path!r} is not a usable path: {error}") from error
        self.options = options
        # The most likely reason for a missing path of this form.
        named = path is not None and self.name != "hf" and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(path))
        self._hub_hint = "; a data set of the Hub is read by source hf (ssl4rl.source.name=hf)" if named else ""

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Every picture, in a fixed order, without decoding. Raises SourceError if there are none."""

    @abstractmethod
    def stamp(self, ref: str) -> tuple[int, int]:
        """Size in bytes and modification time in ns of the file of `ref`. If both are unchanged, it is not read again.

        Raises ImageError (`unreadable`).
        """

    @abstractmethod
    def read(self, ref: str) -> bytes:
        """The encoded picture. For an item of several files, all bytes that determine its content, concatenated.

        Raises:
            ImageError: the picture cannot be read. The caller skips it and counts the reason.
            SourceError: `ref` does not belong to this source.
        """

    def notes(self) -> list[str]:
        """What the last `records` did not take, a sentence each: kinds of files that it does not read, with the remedy."""
        return []

    def questions(self) -> Iterator[Question]:
        """The benchmark's questions, in a fixed order; none if the source is no benchmark.

        Raises SourceError if the questions do not follow `schema`.
        """
        return iter(())

    def about(self) -> dict[str, str]:
        """Origin of the pictures, which the manifest keeps: commit, licence, ...; empty if there is nothing to say."""
        return {}

    def inspect(self, ref: str, data: bytes, max_source_pixels: int) -> tuple[ImageInfo, Image.Image]:
        """The picture that the manifest measures: the item's own, or one that represents the item.

        Checks everything that makes an item permanently unusable. `data` is the result of `read`. Raises ImageError.
        """
        return decode(data, max_source_pixels=max_source_pixels)

    def item(self, ref: str, picture: Callable[[], Image.Image], max_pixels: int | None) -> Image.Image | RGBD | Clip:
        """The `Item.data` for tasks.

        Args:
            ref: ref of the item.
            picture: returns the item's picture: upright RGB, its box cut out, at most `max_pixels` pixels.
            max_pixels: limit for other images of the item, such as frames and depth maps.

        Raises:
            ImageError: the item was readable when it was indexed, but is not now.
        """
        return picture()

    def existing_path(self) -> Path:
        """`path`. Raises SourceError if it is not given or does not exist."""
        if self.path is None:
            raise SourceError(f"source {self.name!r} needs a path: {self.where}")
        try:
            self.path.stat()
        except FileNotFoundError:
            raise SourceError(
                f"source {self.name!r}: {self.path} does not exist; {self.where}{self._hub_hint}"
            ) from None
        except OSError as error:
            raise SourceError(f"source {self.name!r}: {self.path} cannot be opened: {error.strerror}") from error
        return self.path


_SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")


def stated_split(path: str) -> str | None:
    """The split named in a path: by a folder `train`, or by a file name like `train-00000-of-00005.parquet`."""
    *folders, name = path.lower().split("/")
    return next((part for part in (*folders, re.split(r"[-_.]", name)[0]) if part in _SPLITS), None)


def splits_used(wanted: bool | None, names: Iterable[str | None]) -> bool:
    """Whether to use a source's own splits: `wanted`, or if it is None, whether `names` has both a training split and
    another one. (Some benchmarks put all their data into `test`.)"""
    sides = {name.startswith("train") for name in names if name is not None}
    return len(sides) == 2 if wanted is None else wanted


registry: Registry[type[Source]] = Registry("ssl4rl.sources", "source", base=Source)


def load_source(name: str, path: str | Path | None = None, **options: Any) -> Source:
    """The source of that name, at a path.

    Raises:
        RegistryError: there is no such source, or its package is broken.
        SourceError: there is nothing to read at the path, or an option is unknown.
    """
    kind = registry.get(name)
    # Checked against the signature first: a TypeError from inside the constructor must not look like a bad option.
    accepted = [p for p in inspect.signature(kind).parameters if p != "path"]
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise SourceError(
            f"source {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"its options are: {', '.join(accepted) or '(none)'}"
        )
    return kind(path, **options)
