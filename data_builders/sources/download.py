"""Downloads a benchmark's files from the Hugging Face Hub, only when a user asks for it."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from ssl4rl_plugin.data.source import SourceError, registry
from ssl4rl_plugin.data_builders.sources.benchmarks import Benchmark
from ssl4rl_plugin.data_builders.sources.hub.errors import explained, hub_page


def download(name: str, folder: Path | None) -> Path:
    """Download the files of a source. Existing files are not downloaded again.

    Args:
        name: a source with a copy on the Hub (`Source.hub`).
        folder: parent of a folder for copies; None to use the Hub's own cache, if the source can read there.

    Returns:
        The source's `path`: the new folder, or the name of the copy on the Hub.

    Raises:
        RegistryError: there is no such source.
        SourceError: it has no copy on the Hub, or its files cannot be reached or written.
    """
    kind = registry.get(name)
    hub = kind.hub
    if hub is None:
        raise SourceError(f"source {name!r} has no copy on the Hugging Face Hub to download: {kind.where}")
    if folder is None:
        if issubclass(kind, Benchmark):
            return Path(hub.repo)  # opening it downloads it
        raise SourceError(f"source {name!r} is downloaded into a folder: name one with --path")
    from huggingface_hub import snapshot_download

    target = Path(folder).expanduser().resolve() / name
    page = hub_page(hub.repo)
    files = ", ".join(hub.files)
    with explained(hub.repo, "main", name, f"without the Hub, copy the files ({files}) to {target}; {kind.where}"):
        target.mkdir(parents=True, exist_ok=True)
        snapshot_download(hub.repo, repo_type="dataset", allow_patterns=list(hub.files), local_dir=target)
    names = (file.relative_to(target).as_posix() for file in target.rglob("*") if file.is_file())
    if not any(fnmatch(found, pattern) for found in names for pattern in hub.files if not found.startswith(".")):
        raise SourceError(f"source {name!r}: {page} has no files {files} any more; {kind.where}")
    return target
