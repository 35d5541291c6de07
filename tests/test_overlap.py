"""Images that two data sets share are found, whether equal, encoded anew or cropped; others are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pictures import photo
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.data.overlap import overlap
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources.folder import FolderSource


def two_folders(root: Path) -> tuple[Path, Path]:
    """Twelve pictures, and a second folder with four of them, two as they are and two changed, beside four others."""
    one, other = root / "one", root / "other"
    one.mkdir()
    other.mkdir()
    for number in range(12):
        photo(number, 320, 240).save(one / f"{number:02}.jpg", quality=92)
    for number in (1, 2):
        (other / f"equal{number}.jpg").write_bytes((one / f"{number:02}.jpg").read_bytes())
    photo(3, 320, 240).resize((200, 150)).save(other / "small3.webp", quality=80)
    photo(4, 320, 240).crop((8, 6, 312, 232)).save(other / "crop4.png")
    for number in range(100, 104):
        photo(number, 320, 240).save(other / f"{number}.jpg", quality=92)
    return one, other


def manifest(folder: Path, **how: Any) -> Any:
    return build_manifest(FolderSource(folder), folder.with_suffix(".parquet"), **how)


def test_what_is_shared_is_found_and_nothing_else(tmp_path: Path) -> None:
    one, other = (manifest(folder, val_fraction=0.0) for folder in two_folders(tmp_path))
    found = {(pair.one, pair.other): pair.how for pair in overlap(one, other)}
    assert found == {
        ("01.jpg", "equal1.jpg"): "equal bytes",
        ("02.jpg", "equal2.jpg"): "equal bytes",
        ("03.jpg", "small3.webp"): "near-duplicate",
        ("04.jpg", "crop4.png"): "near-duplicate",
    }
    assert len(overlap(other, one)) == 4
    assert [pair.how for pair in overlap(one, one)] == ["equal bytes"] * 12


def test_only_the_splits_asked_for_are_looked_at(tmp_path: Path) -> None:
    one, other = (manifest(folder, val_fraction=0.5) for folder in two_folders(tmp_path))
    shared = {pair.one for pair in overlap(one, other)}
    train = {pair.one for pair in overlap(one, other, splits=("train",))}
    held_out = {pair.one for pair in overlap(one, other, splits=("val",))}
    assert train | held_out == shared and not train & held_out and train and held_out
    assert train <= {item.ref for item in one.items("train")}


def test_the_command(tmp_path: Path) -> None:
    one, other = two_folders(tmp_path)
    result = CliRunner().invoke(app, ["overlap", str(one), str(other)])
    assert (
        result.exit_code == 1 and "small3.webp" in result.stdout and "4 of 12 images" in " ".join(result.stderr.split())
    )
    result = CliRunner().invoke(app, ["overlap", str(one), str(other), "--json"])
    assert result.exit_code == 1 and len(json.loads(result.stdout)["shared"]) == 4
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    photo(500, 320, 240).save(lonely / "a.jpg")
    assert CliRunner().invoke(app, ["overlap", str(lonely), str(other)]).exit_code == 0
    assert CliRunner().invoke(app, ["overlap", str(tmp_path / "nowhere"), str(other)]).exit_code == 2
