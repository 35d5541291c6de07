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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from urllib.parse import quote

from ssl4rl_plugin.core.files import cache_dir, write_text
from ssl4rl_plugin.data.source import Source, SourceError
from ssl4rl_plugin.data_builders.sources.hub.download import download
from ssl4rl_plugin.data_builders.sources.hub.errors import explained, unreachable
from ssl4rl_plugin.data_builders.sources.hub.layout import (
    DataFiles,
    check_columns,
    files_in_cache,
    files_on_hub,
    repo_folder,
)

logger = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")
"""The full name of a commit."""
_URL = re.compile(r"(?:hf:/{1,2}|https?:/{1,2}[^/]+/)?datasets/(?P<name>[^@]+?)(?:@(?P<revision>[^@]+))?/?")
_NAME = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)?", re.ASCII)
_FILES = (".csv", ".json", ".jsonl", ".parquet", ".tar", ".tsv", ".txt", ".zip")  # a path of a file that is missing


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
    return _opened(repo, config, splits, revision, files_on_hub, files_in_cache, partial(check_columns, columns))


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
    asked, given = revision or "main", repo
    reason = "HF_HUB_OFFLINE is set" if _is_offline() else None
    with explained(repo, asked):
        commit = asked
        whole = _read_record(repo, commit, config) if COMMIT.fullmatch(asked) else None
        if whole is None:
            if reason:
                repo, commit = _kept_commit(repo, asked, reason)
            else:
                repo, commit, reason = _ask_commit(repo, asked)
            if repo != given:
                logger.warning("source 'hf': the data set %s is now called %s: use that name", given, repo)
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
        for name in {repo, given}:
            where = _kept(name) / "refs" / f"{quote(asked, safe='')}.json"
            write_text(where, json.dumps({"repo": repo, "commit": commit}))
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
            f"source 'hf': there is no folder {repo}, the data set {repo} (revision {revision}) is not in the cache "
            f"{repo_folder(repo).parent}, and {reason}: index it once with a network, set HF_HOME to a cache that has it, "
            "or give a local folder"
        ) from None


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
