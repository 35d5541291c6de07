"""The data files of a data set of the Hub, as `datasets` finds them: on the Hub, in its cache, or in a local folder."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path

from ssl4rl_plugin.core.plain_yaml import check_yaml
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.arrow import picture_columns, shown_columns
from ssl4rl_plugin.data_builders.sources.hub.errors import explained

logger = logging.getLogger(__name__)

CARD = "README.md"
"""The data set's card."""
SETTINGS = ".huggingface.yaml"
"""Settings beside the card that `datasets` also reads."""
CONVERTED = "refs/convert/parquet"
"""The branch on which the Hub keeps its own conversion of a public data set to parquet."""
FOOTER = 2**20
"""Bytes at the end of a parquet file that hold its columns. Files up to four times as large are simply downloaded."""
_HEAD = 65_536  # bytes at the start of a table of text that hold the names of its columns
_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<rest>[^/]*)")
_CONVERTED_FILE = re.compile(r"(?P<config>[^/]+)/(?P<split>[^/]+)/\d+\.parquet")


@dataclass(frozen=True)
class DataFiles:
    """The data files of one configuration of a data set."""

    repo: str | None
    """Name on the Hub; None for a local folder."""
    commit: str | None
    """Commit of the files; None for a local folder."""
    config: str
    """Name of the configuration."""
    kind: str
    """Format, as `datasets` names it: parquet, imagefolder, webdataset, arrow, ..."""
    splits: Mapping[str, tuple[str, ...]]
    """Paths of the files below `root`, for each split."""
    licence: str | None = None
    """Licence as the card states it; None if it states none."""
    folder: str | None = None
    """The local folder, or the folder of links into the Hub's cache; None for the cache itself."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the files on the Hub that were looked up so far."""

    @property
    def root(self) -> Path:
        """The folder that holds the files, for a name of the Hub in its cache."""
        if self.folder is not None:
            return Path(self.folder)
        assert self.repo is not None and self.commit is not None
        return repo_folder(self.repo) / "snapshots" / self.commit

    def only(self, splits: Sequence[str] | None) -> DataFiles:
        """Only these splits; None for all. Raises SourceError for a split that is not there."""
        if splits is None or (list(splits) == ["all"] and "all" not in self.splits):
            return self
        for split in splits:
            if split not in self.splits:
                slices = (
                    "; slices are not supported: ssl4rl.source.train_size takes a part"
                    if re.search(r"[\[+]", split)
                    else ""
                )
                raise SourceError(
                    f"source 'hf': {self.repo or self.folder} (config {self.config!r}) has no split {split!r}{slices}; its "
                    f"splits are: {', '.join(self.splits)}"
                )
        return replace(self, splits={split: self.splits[split] for split in splits})

    def paths(self) -> list[str]:
        """All files, in order."""
        return [path for files in self.splits.values() for path in files]


def repo_folder(repo: str) -> Path:
    """The folder of a data set in the Hub's cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE).expanduser().resolve() / repo_folder_name(repo_id=repo, repo_type="dataset")


def local_files(folder: Path, config: str | None) -> DataFiles:
    """The data files of a local folder in the Hub's layout. Raises SourceError."""
    with explained(str(folder)):
        _check_yaml_of(folder / CARD, folder / SETTINGS)
        found = _resolve(str(folder), config, None, f"{folder}/")
        return replace(found, folder=str(folder), licence=_licence(folder / CARD))


def files_on_hub(repo: str, commit: str, config: str | None) -> DataFiles:
    """Ask the Hub, through `datasets`, for the data files of a commit."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    licence = None
    try:
        card = hf_hub_download(repo, CARD, repo_type="dataset", revision=commit)
    except EntryNotFoundError:
        names = HfApi(library_name="ssl4rl-plugin").list_repo_files(repo, revision=commit, repo_type="dataset")
        if converted := _converted(names, repo, config):
            return replace(converted, repo=repo, commit=commit)
    else:
        _check_yaml_of(Path(card))
        licence = _licence(Path(card))
    with suppress(EntryNotFoundError):
        _check_yaml_of(Path(hf_hub_download(repo, SETTINGS, repo_type="dataset", revision=commit)))
    found = _resolve(repo, config, commit, f"hf://datasets/{repo}@{commit}/")
    return replace(found, repo=repo, commit=commit, licence=licence)


def files_in_cache(repo: str, commit: str, config: str | None, reason: str) -> DataFiles:
    """The data files of a commit that another program (`hf download`) left in the cache. Raises SourceError if there are
    none, or if files of a numbered series are missing."""
    snapshot = repo_folder(repo) / "snapshots" / commit
    if not snapshot.is_dir():
        raise SourceError(
            f"source 'hf': commit {commit} of {repo} is not in the cache {repo_folder(repo)}, and {reason}: index it once "
            "with a network, or copy the cache"
        )
    _check_yaml_of(snapshot / CARD, snapshot / SETTINGS)
    names = [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*") if file.is_file()]
    found = _converted(names, repo, config) or _resolve(str(snapshot), config, None, f"{snapshot}/")
    files = replace(found, repo=repo, commit=commit, licence=_licence(snapshot / CARD))
    unnumbered = [path for path in files.paths() if _SHARD.fullmatch(path) is None]
    if unnumbered:
        _check_tree(repo, commit, unnumbered, reason)
    for path in files.paths():
        if (shard := _SHARD.fullmatch(path)) is None:
            continue
        series = [p for p in files.paths() if (s := _SHARD.fullmatch(p)) and s["stem"] == shard["stem"]]
        if len(series) != int(shard["count"]):
            raise SourceError(
                f"source 'hf': the cache {snapshot} has {len(series)} of the {int(shard['count'])} files "
                f"{shard['stem']}-*-of-{shard['count']}{shard['rest']}, and {reason}: index it once with a network"
            )
    return files


def _check_tree(repo: str, commit: str, paths: Sequence[str], reason: str) -> None:
    """Raise SourceError if files beside these are missing in the cache, as far as the listing tells that `huggingface_hub`
    keeps there; without the listing, warn."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    beside = sorted({escape(path.rpartition("/")[0] + "/").lstrip("/") + f"*{Path(path).suffix}" for path in paths})
    try:
        snapshot_download(repo, repo_type="dataset", revision=commit, local_files_only=True, allow_patterns=beside)
    except LocalEntryNotFoundError as error:
        raise SourceError(
            f"source 'hf': files like {paths[0]} of {repo} are missing in the cache, and {reason}: index it once with a "
            "network, or, if those files are not needed, give the folder "
            f"{repo_folder(repo) / 'snapshots' / commit}"
        ) from error
    if not (repo_folder(repo) / "trees" / f"{commit}.json").exists():
        logger.warning(
            "source 'hf': the cache has %d files such as %s of %s; whether these are all cannot be checked, as %s",
            len(paths), paths[0], repo, reason,
        )  # fmt: skip


def check_columns(wanted: Sequence[str] | None, files: DataFiles, path: str) -> None:
    """Raise SourceError if a parquet file on the Hub has no column with pictures. Only its end is fetched."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from huggingface_hub import HfFileSystem

    size, name = files.sizes.get(path, 0), f"datasets/{files.repo}@{files.commit}/{path}"
    if files.kind != "parquet" or size <= 4 * FOOTER:
        return
    try:
        end = HfFileSystem().cat_file(name, start=max(0, size - FOOTER), end=size)
        schema = pq.read_schema(pa.BufferReader(end))
    except Exception as error:  # the footer is longer, or damaged: it is looked at after the download
        logger.debug("the columns of %s are not looked at before the download: %s", name, error)
        return
    if not picture_columns(schema, wanted):
        columns = f"any column {' or '.join(map(repr, wanted))}" if wanted else "a column with images"
        raise SourceError(
            f"source 'hf': {files.repo} (config {files.config!r}) does not have {columns}; {shown_columns(schema)}. Name "
            "those with images in the option `columns`, or choose another configuration"
        )


def _resolve(where: str, config: str | None, revision: str | None, base: str) -> DataFiles:
    """The configuration, format and files that `datasets` finds in a repository or a folder; `base` is where paths begin."""
    from datasets import get_dataset_config_names, load_dataset_builder

    name = where if revision is None else f"{where} at commit {revision}"
    # `datasets` prefers a folder of that name in the current folder, unless the address is in full.
    place = f"hf://datasets/{where}" if revision is not None and os.path.lexists(where) else where
    try:
        builder = load_dataset_builder(place, config, revision=revision)
    except ValueError as error:
        known = get_dataset_config_names(place, revision=revision)
        option = "name one: --option config=NAME (in a run: +ssl4rl.source.options.config=NAME)"
        if config is None and len(known) > 1:
            raise SourceError(f"source 'hf': {where} has several configurations ({_some(known)}); {option}") from error
        if config is not None and config not in known:
            raise SourceError(
                f"source 'hf': {where} has no configuration {config!r}, but: {_some(known)}; {option}"
            ) from error
        raise
    module = next(c.__module__ for c in type(builder).__mro__ if c.__module__.startswith("datasets.packaged_modules."))
    splits: dict[str, tuple[str, ...]] = {}
    for split, files in (builder.config.data_files or {}).items():
        outside = [str(file) for file in files if not str(file).startswith(base) or ".." in str(file).split("/")]
        if outside:
            raise SourceError(
                f"source 'hf': the card of {name} names {outside[0]}, which is not a file of the data set"
            )
        paths = [str(file)[len(base) :] for file in files]
        splits[str(split)] = tuple(path for path in paths if path.rpartition("/")[2] not in METADATA)
    if not any(splits.values()):
        raise SourceError(f"source 'hf': {name} has no data files for the configuration {builder.config.name!r}")
    kind = module.split(".")[2]
    if kind not in READ:
        example = next(file for files in splits.values() for file in files)
        columns = list(builder.info.features or ()) or _columns(where, revision, example)
        raise SourceError(_not_pictures(where, kind, example, columns))
    return DataFiles(None, None, str(builder.config.name), kind, splits)


READ = ("parquet", "imagefolder", "webdataset", "arrow")
"""Formats of `datasets` that hold pictures and are read."""
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Files with captions and labels beside image files."""


def _columns(where: str, revision: str | None, example: str) -> list[str]:
    """The columns of a table of text, from its first lines; none if they do not tell."""
    from huggingface_hub import HfFileSystem

    try:
        if revision is None:
            with open(Path(where) / example, "rb") as file:
                head = file.read(_HEAD)
        else:
            head = HfFileSystem().cat_file(f"datasets/{where}@{revision}/{example}", start=0, end=_HEAD)
        line = head.decode("utf-8-sig").splitlines()[0]
        if example.lower().endswith((".jsonl", ".ndjson")):
            return list(json.loads(line))
        if example.lower().endswith((".csv", ".tsv")):
            return next(csv.reader([line], delimiter=max(",;\t", key=line.count)))
    except Exception as error:  # the message is complete without them
        logger.debug("the columns of %s cannot be told: %s", example, error)
    return []


def _not_pictures(name: str, kind: str, example: str, columns: Sequence[str]) -> str:
    listed = f"; its columns are: {_some(columns)}" if columns else ""
    if kind == "videofolder":
        remedy = "for videos: `hf download --repo-type dataset`, then source video with the folder"
    else:
        remedy = (
            f"if they name image files of the repository, get all of it (`hf download --repo-type dataset {name} "
            "--local-dir DIR`) and use source json, tsv or list with that file; otherwise try --option "
            f"revision={CONVERTED}"
        )
    return f"source 'hf': {name} has no pictures in its data files ({kind}, such as {example}){listed}; {remedy}"


def _converted(names: Sequence[str], repo: str, config: str | None) -> DataFiles | None:
    """The files if all of them are the Hub's own conversion to parquet (CONFIG/SPLIT/0000.parquet); None if not."""
    matches = [_CONVERTED_FILE.fullmatch(name) for name in sorted(names) if not name.startswith(".")]
    found: dict[str, dict[str, list[str]]] = {}
    for match in matches:
        if match is None:
            return None
        found.setdefault(match["config"], {}).setdefault(match["split"], []).append(match[0])
    if not found:
        return None
    chosen = config or (next(iter(found)) if len(found) == 1 else "default")
    if chosen not in found:
        raise SourceError(
            f"source 'hf': name one of the configurations of {repo} with --option config=NAME: {_some(list(found))}"
        )
    splits = {}
    for split, files in found[chosen].items():
        if split.startswith("partial-"):
            split = split.removeprefix("partial-")
            logger.warning("source 'hf': the Hub converted only the first part of the split %s of %s", split, repo)
        splits[split] = tuple(files)
    return DataFiles(None, None, chosen, "parquet", splits)


def _check_yaml_of(*files: Path) -> None:
    """Raise UserError for a card whose YAML would grow without bounds. `datasets` and messages write its values out."""
    for file in files:
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            head = text.lstrip().removeprefix("---").partition("\n---")[0] if file.name == CARD else text
            if "&" in head and "*" in head:  # without aliases nothing grows, and cards with many classes are long
                check_yaml(head, file)


def _licence(card: Path) -> str | None:
    from huggingface_hub import DatasetCard

    if not card.is_file():
        return None
    data = DatasetCard.load(card).data.to_dict()
    found = data.get("license_name") or data.get("license")
    return ", ".join(map(str, found)) if isinstance(found, list) else None if found is None else str(found)


def _some(names: Sequence[str]) -> str:
    """Names for a message."""
    shown = ", ".join(names[:30])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 30 else shown
