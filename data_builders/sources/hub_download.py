"""Download files of a data set into the Hugging Face Hub's cache, with one progress bar."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ssl4rl_plugin.data.source import SourceError

logger = logging.getLogger(__name__)

THREADS = 8
"""Files downloaded at a time."""
PATIENCE = 2.0
"""Seconds that an interrupted download waits for its threads to tidy up."""


def download(repo: str, commit: str, paths: Sequence[str], sizes: Mapping[str, int]) -> None:
    """Download files of a data set. Files that are finished are kept if it is interrupted, and not downloaded again.

    Args:
        repo: name of the data set.
        commit: the commit.
        paths: the files that are missing in the cache.
        sizes: their sizes in bytes.

    Raises:
        SourceError: they do not fit on the disk.
        Exception: what `huggingface_hub` raises, see `hub_errors`.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # not in its __all__

    total = sum(sizes.get(path, 0) for path in paths)
    free = shutil.disk_usage(_existing(Path(constants.HF_HUB_CACHE).expanduser())).free
    if total > free:
        raise SourceError(
            f"source 'hf': the {len(paths)} files of {repo} have {_megabytes(total)}, and the disk of the cache "
            f"{constants.HF_HUB_CACHE} has {_megabytes(free)} left: free some space, or set HF_HOME to a folder on a "
            "larger disk"
        )
    logger.info("downloading %d files of %s (%s) into %s", len(paths), repo, _megabytes(total), constants.HF_HUB_CACHE)
    stop = threading.Event()
    waiting: SimpleQueue[str] = SimpleQueue()
    outcomes: SimpleQueue[BaseException | None] = SimpleQueue()
    for path in paths:
        waiting.put(path)
    with tqdm(total=total, unit="B", unit_scale=True, desc=f"{repo} ({len(paths)} files)", disable=None) as bar:

        class Part:
            """The progress of one file, as `huggingface_hub` reports it; adds to the bar of all files."""

            def __init__(self, *_: Any, **__: Any) -> None: ...

            def __enter__(self) -> Part:
                return self

            def __exit__(self, *_: object) -> None: ...

            def update(self, count: float | None = 1) -> None:
                if stop.is_set():
                    raise InterruptedError("the download was stopped")
                with lock:
                    bar.update(count)

        def work() -> None:
            while not stop.is_set():
                try:
                    path = waiting.get_nowait()
                except Empty:
                    return
                try:
                    hf_hub_download(repo, path, repo_type="dataset", revision=commit, tqdm_class=Part)  # type: ignore[arg-type]
                    outcomes.put(None)
                except BaseException as error:
                    outcomes.put(error)

        lock = threading.Lock()
        # Daemons: a thread that waits for a silent server does not keep a stopped process alive.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(THREADS, len(paths)))]
        try:
            for thread in threads:
                thread.start()
            for _ in paths:
                if (error := outcomes.get()) is not None:
                    raise error
        finally:
            stop.set()  # after an error or Ctrl-C the files under way end at their next block
            end = time.monotonic() + PATIENCE
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest parent that exists."""
    return next(place for place in (folder, *folder.resolve().parents) if place.exists())


def _megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
