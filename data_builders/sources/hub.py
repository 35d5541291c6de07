"""Data sets of the Hugging Face Hub by name: the commit and the files that a name means, in the Hub's own cache.

`datasets` finds the data files of a configuration, and `huggingface_hub` downloads them: tokens, cache, offline mode and
endpoint are theirs (HF_TOKEN, HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT). No code of a data set runs.

What was found for a commit is kept in `$SSL4RL_CACHE/hub`. So data-loader workers open the files without a request, an
offline run knows which files a split needs, and a partial download is not taken for the whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from glob import escape
from pathlib import Path
from urllib.parse import quote

from ssl4rl_plugin.core.files import cache_dir, write_text
from ssl4rl_plugin.data.source import Source, SourceError
from ssl4rl_plugin.data_builders.sources.arrow import picture_columns, shown_columns
from ssl4rl_plugin.data_builders.sources.hub_download import download
from ssl4rl_plugin.data_builders.sources.hub_errors import explained, unreachable

logger = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")
"""The full name of a commit."""
CARD = "README.md"
"""The data set's card."""
CONVERTED = "refs/convert/parquet"
"""The branch on which the Hub keeps its own conversion of a public data set to parquet."""

FOOTER = 2**20
"""Bytes at the end of a parquet file that hold its columns. Files up to four times as large are simply downloaded."""

_URL = re.compile(r"(?:hf:/{1,2}|https?:/{1,2}[^/]+/)?datasets/(?P<name>[^@]+?)(?:@(?P<revision>[^@]+))?/?")
_NAME = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)?", re.ASCII)
_FILES = (".csv", ".json", ".jsonl", ".parquet", ".tar", ".tsv", ".txt", ".zip")  # a path of a file that is missing
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


def hub_name(path: str) -> tuple[str, str | None] | None:
    """The name and the revision in a path that is no local path; None if it cannot be a name of the Hub.

    Understands `ORG/NAME`, `hf://datasets/ORG/NAME@REVISION` and the address of a data set's page.
    """
    if match := _URL.fullmatch(path):
        name, revision = match["name"], match["revision"]
        # A page has more behind the name: /tree/REVISION, /viewer/...
        parts = name.split("/")
        if parts[2:3] == ["tree"] and len(parts) > 3:
            revision = "/".join(parts[3:])
        return "/".join(parts[:2]), revision
    if not _NAME.fullmatch(path) or "--" in path or ".." in path or path.lower().endswith(_FILES):
        return None
    return path, None


def name_or_path(source: Source, path: str | Path | None, revision: object) -> tuple[str | None, str | None]:
    """The data set's name on the Hub and its revision; None for a path on this machine. Raises SourceError.

    A path that exists is a folder, unless a revision is given: a manifest that names a commit is always one of the Hub.

    Args:
        source: the source, whose `path` is the absolute path.
        path: the path as given.
        revision: the option, which YAML may have read as a number.
    """
    asked = None if revision is None else str(revision)
    if path is None or (asked is None and source.path is not None and source.path.exists()):
        return None, None
    found = hub_name(str(path))
    if found is None:
        if asked is not None:
            raise SourceError(
                f"source {source.name!r}: the option `revision` is for a name of the Hub (ORG/NAME), and {path} is a path; "
                "leave it out"
            )
        return None, None
    name, named = found
    if named and asked is not None and named != asked:
        raise SourceError(
            f"source {source.name!r}: {path} names the revision {named}, and the option {asked}: give one"
        )
    return name, named or asked


def repo_folder(repo: str) -> Path:
    """The folder of a data set in the Hub's cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE).expanduser().resolve() / repo_folder_name(repo_id=repo, repo_type="dataset")


def local_files(folder: Path, config: str | None) -> DataFiles:
    """The data files of a local folder in the Hub's layout. Raises SourceError."""
    with explained(str(folder)):
        found = _resolve(str(folder), config, None, f"{folder}/")
        return replace(found, folder=str(folder), licence=_licence(folder / CARD))


def hub_files(
    repo: str,
    config: str | None,
    splits: Sequence[str] | None,
    revision: str | None,
    columns: Sequence[str] | None = None,
) -> DataFiles:
    """The data files of a data set of the Hub, downloaded into its cache where they are missing.

    Args:
        repo: name of the data set.
        config: name of the configuration; None for the only one, or the default.
        splits: the splits that are needed; None for all.
        revision: branch, tag or commit; None for `main`.
        columns: the columns with pictures; None if they are found by type. A table without one is not downloaded.

    Raises:
        SourceError: the message says what is wrong, and what to do.
    """
    return _opened(repo, config, splits, revision, _resolve_on_hub, _resolve_in_cache, partial(_check_columns, columns))


def hub_folder(repo: str, patterns: Sequence[str], revision: str | None) -> DataFiles:
    """Chosen files of a data set of the Hub, as a folder of links into its cache.

    Args:
        repo: name of the data set.
        patterns: shell patterns of the files; `*` also stands for `/`.
        revision: branch, tag or commit; None for `main`.

    Raises:
        SourceError: there are no such files, or they cannot be had.
    """

    def on_hub(repo: str, commit: str, config: str | None) -> DataFiles:
        from huggingface_hub import HfApi

        names = HfApi(library_name="ssl4rl-plugin").list_repo_files(repo, revision=commit, repo_type="dataset")
        wanted = tuple(name for name in names if any(fnmatch(name, pattern) for pattern in patterns))
        if not wanted:
            raise SourceError(f"source 'hf': {repo} at commit {commit} has no files {', '.join(patterns)}")
        return DataFiles(repo, commit, config or "", "files", {"all": wanted})

    def in_cache(repo: str, commit: str, config: str | None, reason: str) -> DataFiles:
        raise SourceError(
            f"source 'hf': commit {commit} of {repo} was not downloaded, and {reason}: do so with a network"
        )

    files = _opened(repo, f"files {' '.join(patterns)}", None, revision, on_hub, in_cache)
    assert files.repo is not None and files.commit is not None
    # A folder of its own: the snapshot may hold files of other patterns.
    key = hashlib.sha256(files.config.encode()).hexdigest()[:16]
    folder = _kept(files.repo) / files.commit / f"files-{key}"
    for path in files.paths():
        link = folder / path
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():  # also for a link to a cache that was moved
            link.unlink(missing_ok=True)
            with suppress(FileExistsError):  # another process was faster
                link.symlink_to(files.root / path)
    return replace(files, folder=str(folder))


def _opened(
    repo: str,
    config: str | None,
    splits: Sequence[str] | None,
    revision: str | None,
    on_hub: Callable[[str, str, str | None], DataFiles],
    in_cache: Callable[[str, str, str | None, str], DataFiles],
    check: Callable[[DataFiles, str], None] = lambda files, path: None,
) -> DataFiles:
    """The files of a data set at a commit, downloaded where they are missing.

    The two functions find the files of a commit that has no record, on the Hub and in the cache. `check` looks at one file
    on the Hub before the download.
    """
    asked = revision or "main"
    reason = "HF_HUB_OFFLINE is set" if _is_offline() else None
    with explained(repo, asked):
        commit = asked
        whole = _read_record(repo, commit, config) if COMMIT.fullmatch(asked) else None
        if whole is None:
            asked_for = repo
            if reason:
                repo, commit = _kept_commit(repo, asked, reason)
            else:
                repo, commit, reason = _ask_commit(repo, asked)
            if repo != asked_for:
                logger.warning("source 'hf': the data set %s is now called %s: use that name", asked_for, repo)
            whole = _read_record(repo, commit, config)
        if whole is None and reason is None:
            try:
                whole = on_hub(repo, commit, config)
            except Exception as error:
                if (reason := unreachable(error)) is None:
                    raise
            else:
                _write_record(whole, config)
        if whole is None:
            assert reason is not None
            whole = in_cache(repo, commit, config, reason)  # no record: an online run may find more
        if outside := [path for path in whole.paths() if path.startswith("/") or ".." in path.split("/")]:
            raise SourceError(f"source 'hf': {repo} at commit {commit} names {outside[0]}, which lies outside of it")
        files = whole.only(splits)
        missing = _missing(files)
        if missing and reason:
            raise SourceError(
                f"source 'hf': {len(missing)} of the {len(files.paths())} files of {repo} at commit {commit} are not in the "
                f"cache {repo_folder(repo)} ({missing[0]}), and {reason}: index it once with a network, or copy the cache"
            )
        if missing:
            whole = replace(whole, sizes={**whole.sizes, **_sizes(repo, commit, missing)})
            _write_record(whole, config)
            check(whole, missing[0])
            download(repo, commit, missing, whole.sizes)
    if not COMMIT.fullmatch(asked):
        write_text(_kept(repo) / "refs" / f"{quote(asked, safe='')}.json", json.dumps({"repo": repo, "commit": commit}))
    return files


def _is_offline() -> bool:
    from huggingface_hub import constants

    return constants.is_offline_mode() or os.environ.get("HF_DATASETS_OFFLINE", "").upper() in (
        "1", "ON", "YES", "TRUE",
    )  # fmt: skip


def _ask_commit(repo: str, revision: str) -> tuple[str, str, str | None]:
    """The name that the Hub has now, the commit of a branch or tag, and why the cache had to answer; None if it was the
    Hub."""
    from huggingface_hub import HfApi, constants

    try:
        info = HfApi(library_name="ssl4rl-plugin").dataset_info(
            repo, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    except Exception as error:
        if (reason := unreachable(error)) is None:
            raise
        repo, commit = _kept_commit(repo, revision, reason)
        logger.warning("source 'hf': %s; %s is read from the cache, at commit %s", reason, repo, commit)
        return repo, commit, reason
    assert info.sha is not None
    return info.id, info.sha, None


def _kept_commit(repo: str, revision: str, reason: str) -> tuple[str, str]:
    """Name and commit of what an earlier run, or another program, left in the cache. Raises SourceError."""
    if COMMIT.fullmatch(revision):
        return repo, revision
    try:
        kept = json.loads((_kept(repo) / "refs" / f"{quote(revision, safe='')}.json").read_text("utf-8"))
        return str(kept["repo"]), str(kept["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        return repo, (repo_folder(repo) / "refs" / revision).read_text("utf-8").strip()
    except OSError:
        raise SourceError(
            f"source 'hf': the data set {repo} (revision {revision}) is not in the cache {repo_folder(repo).parent}, and "
            f"{reason}: index it once with a network, set HF_HOME to a cache that has it, or give a local folder"
        ) from None


def _resolve_on_hub(repo: str, commit: str, config: str | None) -> DataFiles:
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
        licence = _licence(Path(card))
    found = _resolve(repo, config, commit, f"hf://datasets/{repo}@{commit}/")
    return replace(found, repo=repo, commit=commit, licence=licence)


def _resolve_in_cache(repo: str, commit: str, config: str | None, reason: str) -> DataFiles:
    """The data files of a commit that another program (`hf download`) left in the cache. Raises SourceError if there are
    none, or if files of a numbered series are missing."""
    snapshot = repo_folder(repo) / "snapshots" / commit
    if not snapshot.is_dir():
        raise SourceError(
            f"source 'hf': commit {commit} of {repo} is not in the cache {repo_folder(repo)}, and {reason}: index it once "
            "with a network, or copy the cache"
        )
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


def _check_columns(wanted: Sequence[str] | None, files: DataFiles, path: str) -> None:
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
        option = "name one: --option config=NAME (in a run: ssl4rl.source.options.config=NAME)"
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
        split, example = next((split, file) for split, files in splits.items() for file in files)
        columns = list(builder.info.features or ()) or _columns(place, config, revision, split, example)
        raise SourceError(_not_pictures(name, kind, example, columns))
    return DataFiles(None, None, str(builder.config.name), kind, splits)


READ = ("parquet", "imagefolder", "webdataset", "arrow")
"""Formats of `datasets` that hold pictures and are read."""


METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Files with captions and labels beside image files."""


def _columns(where: str, config: str | None, revision: str | None, split: str, example: str) -> list[str]:
    """The columns of a table, from its first row; none where that would read the whole file."""
    from datasets import load_dataset

    if not example.lower().endswith((".csv", ".tsv", ".jsonl", ".ndjson")):
        return []
    try:
        return list(next(iter(load_dataset(where, config, split=split, revision=revision, streaming=True))))
    except Exception:  # the message is complete without them
        return []


def _not_pictures(name: str, kind: str, example: str, columns: Sequence[str]) -> str:
    listed = f"; its columns are: {_some(columns)}" if columns else ""
    if kind == "videofolder":
        remedy = "for videos: `hf download --repo-type dataset`, then source video with the folder"
    else:
        remedy = (
            "if they name image files of the repository, get all with `hf download --repo-type dataset NAME --local-dir "
            f"DIR` and use source json or tsv with that file; otherwise try --option revision={CONVERTED}"
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


def _licence(card: Path) -> str | None:
    from huggingface_hub import DatasetCard

    if not card.is_file():
        return None
    data = DatasetCard.load(card).data.to_dict()
    found = data.get("license_name") or data.get("license")
    return ", ".join(map(str, found)) if isinstance(found, list) else None if found is None else str(found)


def _missing(files: DataFiles) -> list[str]:
    """The files that are not in the cache, or not whole."""
    root = files.root
    missing = []
    for path in files.paths():
        try:
            size = os.stat(root / path).st_size
        except OSError:
            missing.append(path)
            continue
        if files.sizes.get(path, size) != size:
            raise SourceError(
                f"source 'hf': {root / path} has {size:,} bytes, and the Hub {files.sizes[path]:,}: delete the file, and "
                "start again"
            )
    return missing


def _sizes(repo: str, commit: str, paths: Sequence[str]) -> dict[str, int]:
    """The sizes of files on the Hub, in bytes."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api, sizes = HfApi(library_name="ssl4rl-plugin"), {}
    for start in range(0, len(paths), 500):
        block = list(paths[start : start + 500])
        for info in api.get_paths_info(repo, block, revision=commit, repo_type="dataset"):
            if isinstance(info, RepoFile):
                sizes[info.path] = info.size
    return sizes


def _kept(repo: str) -> Path:
    return cache_dir() / "hub" / quote(repo, safe="")


def _record(repo: str, commit: str, config: str | None) -> Path:
    name = "default" if config is None else f"config-{quote(config, safe='')}"
    return _kept(repo) / commit / f"{name}.json"


def _read_record(repo: str, commit: str, config: str | None) -> DataFiles | None:
    """What an earlier run found; None if there is no usable record."""
    try:
        kept = json.loads(_record(repo, commit, config).read_text("utf-8"))
        kept["splits"] = {split: tuple(files) for split, files in kept["splits"].items()}
        return DataFiles(**kept)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_record(files: DataFiles, asked: str | None) -> None:
    """Keep what was found, under the configuration's name and under what was asked for."""
    assert files.repo is not None and files.commit is not None
    text = json.dumps(asdict(files))
    for config in {asked, files.config}:
        write_text(_record(files.repo, files.commit, config), text)


def _some(names: Sequence[str]) -> str:
    """Names for a message."""
    shown = ", ".join(names[:30])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 30 else shown
