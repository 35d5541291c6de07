"""The hf source: a data set of the Hugging Face Hub by its name, a local folder in its layout, or a saved data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ssl4rl_plugin.data.files import allowed_folders
from ssl4rl_plugin.data.source import Record, Source, SourceError
from ssl4rl_plugin.data_builders.sources.hub.layout import DataFiles, local_files
from ssl4rl_plugin.data_builders.sources.hub.readers import reader_of
from ssl4rl_plugin.data_builders.sources.hub.repository import hub_files, hub_name, name_or_path
from ssl4rl_plugin.data_builders.sources.saved import SavedSource, is_saved
from ssl4rl_plugin.data_builders.sources.tables import TableRow, TableSource


class HfSource(TableSource):
    """A data set of the Hugging Face Hub (`ORG/NAME`), a local folder in the Hub's layout, or a folder that
    `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote. A path that exists is taken for a folder.

    For the Hub, the files of the configuration and the splits that are asked for are downloaded into the Hub's own cache,
    and read there: parquet and Arrow files, tar files (WebDataset), image files and ZIP files of them. The library
    `datasets` finds the files. No code of the data set runs. The branch or tag is resolved to a commit, which the manifest
    keeps. Each part has the split that `datasets` gives it. For columns and refs see `ArrowSource`.

    Args:
        path: the name or the folder.
        columns: names of the columns with pictures, or the fields of the pictures in tar files; None finds them.
        split_column: the column that names a row's split.
        use_splits: whether to use the splits of the data set; None: if there is a `train` split and another.
        config: name of the configuration; None for the only one or the default.
        split: the split, or a list of splits, to read; None for all.
        revision: branch, tag or commit of a data set of the Hub; None for `main`.
        root: folders outside that paths of pictures in tables may lead to: a path or a list.
    """

    name: ClassVar[str] = "hf"
    summary: ClassVar[str] = "a data set of the Hugging Face Hub by its name, or one saved with save_to_disk"
    schema: ClassVar[str] = (
        "ORG/NAME on the Hub or a local copy: parquet or Arrow files with columns of type Image, binary or text, or lists "
        "of these; tar files of images; image files, also in ZIP files. Or a folder that save_to_disk wrote"
    )
    licence: ClassVar[str] = "that of the data set; `ssl4rl index` shows what its card states"
    where: ClassVar[str] = (
        "give the name ORG/NAME of a data set on the Hub, a local copy of its repository, or the folder that "
        "Dataset.save_to_disk or DatasetDict.save_to_disk wrote"
    )

    def __init__(
        self,
        path: str | Path | None,
        columns: Sequence[str] | None = None,
        split_column: str | None = None,
        use_splits: bool | None = None,
        config: str | None = None,
        split: str | Sequence[str] | None = None,
        revision: str | None = None,
        root: str | Sequence[str] | None = None,
    ) -> None:
        columns = [columns] if isinstance(columns, str) else columns and list(columns)
        options: dict[str, Any] = {"columns": columns, "split_column": split_column, "use_splits": use_splits}
        if allowed := allowed_folders(self.name, root):  # left out where it is not given, as in `ArrowSource`
            options["root"] = allowed
        super().__init__(path, **options)
        self._reading = options
        self._reader: Source | None = None
        self._repo: str | None = None
        self._config = None if config is None else str(config)
        self._split = [str(split)] if isinstance(split, (str, int)) else split and [str(one) for one in split]
        self._licence: str | None = None
        name, asked = name_or_path(self, path, revision)
        if name is None:
            try:
                self._open_local(self.existing_path(), revision)
            except SourceError as error:
                if self.path is None or not self.path.exists() or (on_hub := hub_name(str(path))) is None:
                    raise
                raise SourceError(f"{error}. For the data set of the Hub, give hf://datasets/{on_hub[0]}") from error
            return
        files = hub_files(name, self._config, self._split, asked, columns)
        assert files.repo is not None
        self._repo = files.repo
        # Not `Path.resolve`: the manifest keeps the name, and a run on another machine takes it for a name again.
        self.path = Path(files.repo)
        self._keep(files, revision=files.commit)

    def _open_local(self, place: Path, revision: str | None) -> None:
        if is_saved(place):
            if self._config or self._split:
                raise SourceError(
                    f"source 'hf': {place} was saved with save_to_disk, and has no configurations: leave out `config` and "
                    "`split` (for one split, give its folder)"
                )
            self._reader = SavedSource(place, **self._reading)
        elif not place.is_dir():
            raise SourceError(f"source 'hf': {place} is a file; {self.where}")
        else:
            files = local_files(place, self._config).only(self._split)
            saved = sorted({folder.name for path in files.paths() if is_saved(folder := (place / path).parent)})
            if saved:
                raise SourceError(
                    f"source 'hf': {place} is not a data set saved to disk, but holds some: give one of them "
                    f"({', '.join(saved[:10])})"
                )
            self._keep(files, revision=None)

    def _keep(self, files: DataFiles, revision: str | None) -> None:
        """Prepare to read the files. The options name the configuration and the commit, so that they stay the same."""
        self._config, self._licence = files.config, files.licence
        self.options |= {"config": files.config, "split": self._split, "revision": revision}
        self._reader = reader_of(files, **self._reading)

    def __getstate__(self) -> dict[str, Any]:
        # The list of files may be long. A copy opens them again: from the cache, or else from the Hub.
        return self.__dict__ | {"_reader": None}

    @property
    def reader(self) -> Source:
        """The source of the files."""
        if self._reader is None:
            if self._repo is not None:
                files = hub_files(self._repo, self._config, self._split, self.options["revision"])
                self._reader = reader_of(files, **self._reading)
            else:
                self._open_local(self.existing_path(), None)
        assert self._reader is not None
        return self._reader

    def about(self) -> dict[str, str]:
        if self._repo is None and self._licence is None:
            return {}
        stated = {"data set": self._repo, "commit": self.options.get("revision"), "config": self._config}
        return {key: value for key, value in stated.items() if value} | {"licence": self._licence or "not stated"}

    def records(self) -> Iterator[Record]:
        return self.reader.records()

    def notes(self) -> list[str]:
        return self.reader.notes()

    def rows(self) -> Iterator[TableRow]:
        return self.reader.rows() if isinstance(self.reader, TableSource) else iter(())

    def stamp(self, ref: str) -> tuple[int, int]:
        size, modified = self.reader.stamp(ref)
        # A commit does not change: the same manifest on every machine, whenever the files were downloaded there.
        return size, 0 if self._repo is not None else modified

    def read(self, ref: str) -> bytes:
        return self.reader.read(ref)
