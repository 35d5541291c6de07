"""Download files of a data set into the Hugging Face Hub's cache, with one progress bar."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ssl4rl_plugin.data.source import SourceError

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
    files = f"{len(paths)} file{'s' * (len(paths) > 1)} of {repo} ({_megabytes(total)})"
    print(f"ssl4rl: downloading {files} into {constants.HF_HUB_CACHE}", file=sys.stderr)
    stop = threading.Event()
    waiting: SimpleQueue[str] = SimpleQueue()
    outcomes: SimpleQueue[BaseException | None] = SimpleQueue()
    for path in paths:
        waiting.put(path)
    with tqdm(total=total, unit="B", unit_scale=True, desc=f"{repo} ({len(paths)} files)", disable=None) as bar:
        part = part_of(bar, stop)

        def work() -> None:
            while not stop.is_set():
                try:
                    path = waiting.get_nowait()
                except Empty:
                    return
                try:
                    hf_hub_download(repo, path, repo_type="dataset", revision=commit, tqdm_class=part)
                    outcomes.put(None)
                except BaseException as error:
                    outcomes.put(error)

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


def part_of(bar: Any, stop: threading.Event) -> type[Any]:
    """A class of progress bars for single files that shows nothing, and adds to the bar of all files.

    Args:
        bar: the `tqdm` of all files.
        stop: once it is set, an update ends its download with an InterruptedError.
    """
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    lock = threading.Lock()

    # A `tqdm`, because Xet downloads use more of it than plain ones.
    class Part(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **(options | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            if stop.is_set():
                raise InterruptedError("the download was stopped")
            with lock:
                bar.update(n)

        def update_transfer(self, n: float | None = 1) -> None:
            """Xet reports the bytes from the network here, and again through `update` when they are written."""

        def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None: ...

    return Part


def _existing(folder: Path) -> Path:
    """The folder, or the nearest parent that exists."""
    return next(place for place in (folder, *folder.resolve().parents) if place.exists())


def _megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
