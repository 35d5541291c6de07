"""The imagefolder source: the layout of torchvision's ImageFolder, with or without folders for the splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from ssl4rl_plugin.data.source import Record, splits_used, stated_split
from ssl4rl_plugin.data_builders.sources.folder import FolderSource


class ImageFolderSource(FolderSource):
    """All image files below a folder, as `train/<class>/...`, `val/<class>/...` or `<class>/...`.

    The folders at the top are splits only if all of them have names of splits: a class may be called `train` too. Class
    names are not used. Refs, links and hidden files are those of the folder source.

    Args:
        path: the folder.
        use_splits: whether to use the splits; None: if there is a `train` split and another.
        root: see the folder source.
    """

    name: ClassVar[str] = "imagefolder"
    summary: ClassVar[str] = "image files in folders for splits and classes (torchvision's ImageFolder)"
    schema: ClassVar[str] = "train/CLASS/NAME.jpg and val/CLASS/NAME.jpg, or CLASS/NAME.jpg; classes are not used"
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    where: ClassVar[str] = "give the folder that holds the splits, or the classes"

    def __init__(
        self, path: str | Path | None, use_splits: bool | None = None, root: str | list[str] | None = None
    ) -> None:
        super().__init__(path, root)
        self.options["use_splits"] = use_splits

    def records(self) -> Iterator[Record]:
        top = [entry.name for entry in self.existing_path().iterdir() if entry.is_dir() and entry.name[0] != "."]
        stated = {name: stated_split(f"{name}/") for name in top}
        if None in stated.values() or not splits_used(self.options["use_splits"], stated.values()):
            yield from super().records()
            return
        for record in super().records():
            # Pictures beside the split folders have no split.
            yield replace(record, split=stated.get(record.ref.partition("/")[0]))
