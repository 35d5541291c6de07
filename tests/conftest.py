"""Pictures and settings that several tests share. Everything is made here; no test needs a file from outside."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pictures import photo
from PIL import Image

BASE_SECTION: dict[str, Any] = {
    "tasks": ["rotation"],
    "options": {},
    "seed": 0,
    "epochs": 2,
    "val_samples": 8,
    "source": {
        "name": "folder",
        "path": None,
        "options": {},
        "manifest": None,
        "val_fraction": 0.3,
        "max_pixels": 250_000,
    },
    "answer_format": "think_answer",
    "format_weight": 0.1,
    "partial_credit": 0.5,
    "system_prompt": None,
    "transductive": False,
}


def pytest_configure(config: pytest.Config) -> None:
    """Stop where `--dist loadgroup` does not group: each process would make the same samples and trainings again."""
    if config.getoption("dist", "no") == "loadgroup" and not hasattr(pytest.Item, "_nodeid"):
        raise pytest.UsageError("pytest-xdist does not group tests with this pytest: install pytest<9.2 (make install)")
    # A shell without job control starts background commands with SIGINT ignored, and so would every process of a test be.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Forty different pictures, landscape, portrait and square."""
    sizes = [(320, 240), (240, 320), (260, 260)]
    return [photo(seed, *sizes[seed % 3]) for seed in range(40)]


@pytest.fixture(scope="session")
def photo_folder(photos: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures as JPEG files in nested folders."""
    root = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(photos):
        folder = root / f"part{number % 3}"
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{number:03}.jpg", quality=92)
    return root


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or leaves anything in the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL4RL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def section(photo_folder: Path) -> dict[str, Any]:
    """A valid `ssl4rl:` section over the pictures; tests change what they need."""
    return {**BASE_SECTION, "source": {**BASE_SECTION["source"], "path": str(photo_folder)}}
