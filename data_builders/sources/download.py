"""Downloads a benchmark's files from the Hugging Face Hub, only when a user asks for it."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from ssl4rl_plugin.data.source import SourceError, registry


def download(name: str, folder: Path) -> Path:
    """Download the files of a source into a folder of its own. Existing files are not downloaded again.

    Args:
        name: a source with a copy on the Hub (`Source.hub`).
        folder: parent of that folder.

    Returns:
        The folder, which is the source's `path`.

    Raises:
        RegistryError: there is no such source.
        SourceError: it has no copy on the Hub, or its files cannot be reached or written.
    """
    kind = registry.get(name)
    hub = kind.hub
    if hub is None:
        raise SourceError(f"source {name!r} has no copy on the Hugging Face Hub to download: {kind.where}")
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    target = Path(folder).expanduser().resolve() / name
    page = f"https://huggingface.co/datasets/{hub.repo}"
    try:
        target.mkdir(parents=True, exist_ok=True)
        snapshot_download(hub.repo, repo_type="dataset", allow_patterns=list(hub.files), local_dir=target)
    except GatedRepoError as error:
        reason = f"accept the terms at {page}, then run `hf auth login`"
        raise SourceError(f"source {name!r} cannot be downloaded: {reason}") from error
    except RepositoryNotFoundError as error:
        raise SourceError(f"source {name!r} cannot be downloaded: {page} is gone or private; {kind.where}") from error
    except (HTTPError, OSError) as error:
        cause = str(error).strip().partition("\n")[0] or type(error).__name__
        raise SourceError(
            f"source {name!r} cannot be downloaded from {page}: {cause}. Without a network, copy the files "
            f"({', '.join(hub.files)}) to {target} and give that as the path"
        ) from error
    names = (file.relative_to(target).as_posix() for file in target.rglob("*") if file.is_file())
    if not any(fnmatch(found, pattern) for found in names for pattern in hub.files if not found.startswith(".")):
        raise SourceError(f"source {name!r}: {page} has no files {', '.join(hub.files)} any more; {kind.where}")
    return target
