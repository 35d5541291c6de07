"""Pictures in archives as people have them: shards of WebDataset with masks beside photographs, and all sorts of ZIP."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import photo
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.data.arms import SourceSettings
from ssl4rl_plugin.data.choose_source import source_of
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.indexing import manifest_of
from ssl4rl_plugin.data.source import Source, SourceError
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources import zips
from ssl4rl_plugin.data_builders.sources.shard_names import expanded
from ssl4rl_plugin.data_builders.sources.webdataset import WebDatasetSource
from ssl4rl_plugin.data_builders.sources.zips import ZipSource


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    files = [io.BytesIO() for _ in range(6)]
    for i, file in enumerate(files):
        photo(i).save(file, "JPEG")
    return [file.getvalue() for file in files]


def tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def names(source: Source) -> list[str]:
    """The members' names, without the shard and the position."""
    return [record.ref.partition(":")[2].rpartition("@")[0] or record.ref for record in source.records()]


# ---------------------------------------------------------------------------------------------------- WebDataset

FIELDS: dict[str, tuple[list[str], list[str], str]] = {
    "masks beside": (
        ["0.jpg", "0.seg.png", "0.mask.png", "0.depth.png", "0.json", "1.jpg", "1.seg.png", "1.any_word.png"],
        ["0.jpg", "1.jpg"], "fields taken: jpg 2; left out: seg.png 2, mask.png 1, depth.png 1, json 1, any_word.png 1",
    ),
    "masks alone": (["0.rgb.jpg", "0.seg.png", "1.rgb.jpg", "1.depth_map2.png"], ["0.rgb.jpg", "1.rgb.jpg"], "rgb.jpg 2"),
    "two views": (["0.left.jpg", "0.right.jpg", "0.txt"], ["0.left.jpg", "0.right.jpg"], "left.jpg 1, right.jpg 1"),
    "numbered pictures": (["0.0.jpg", "0.1.jpg", "0.seg.png"], ["0.0.jpg", "0.1.jpg"], "jpg 2; left out: seg.png 1"),
    "two formats": (["0.jpg", "0.png"], ["0.jpg", "0.png"], "fields taken: jpg 1, png 1"),
    "folders in keys": (["a.b/0.jpg", "a.b/0.seg.png", "c/0.jpg"], ["a.b/0.jpg", "c/0.jpg"], "jpg 2; left out: seg.png 1"),
    "names with dots": (["IMG.v2.1.JPG", "my.cat.jpeg"], ["IMG.v2.1.JPG", "my.cat.jpeg"], "v2.jpg 1, cat.jpeg 1"),
    "nothing to say": (["0.jpg", "0.json", "1.jpg", "1.json"], ["0.jpg", "1.jpg"], ""),
}  # fmt: skip
"""Name -> members, those that are photographs, what the note says."""


@pytest.mark.parametrize("name", FIELDS)
def test_photographs_are_told_from_masks(tmp_path: Path, jpegs: list[bytes], name: str) -> None:
    members, taken, note = FIELDS[name]
    source = WebDatasetSource(tar(tmp_path / "a.tar", dict.fromkeys(members, jpegs[0])))
    assert names(source) == taken
    assert note in "".join(source.notes()) and bool(source.notes()) == bool(note)


def test_fields_are_chosen_by_an_option(tmp_path: Path, jpegs: list[bytes]) -> None:
    members = ["0.jpg", "0.seg.png", "0.json", "1.jpg", "1.seg.png"]
    file = tar(tmp_path / "a.tar", dict.fromkeys(members, jpegs[0]))
    assert names(WebDatasetSource(file, fields="seg.png")) == ["0.seg.png", "1.seg.png"]
    source = WebDatasetSource(file, fields=[".JPG", "seg.png"])
    assert names(source) == ["0.jpg", "0.seg.png", "1.jpg", "1.seg.png"]
    assert [record.group is not None for record in source.records()] == [True] * 4
    with pytest.raises(SourceError, match=r"has no field webp; its fields are: jpg 2, seg.png 2, json 1"):
        names(WebDatasetSource(file, fields=["jpg", "webp"]))
    with pytest.raises(SourceError, match="fields is a field or a list"):
        WebDatasetSource(file, fields=[])
    only = tar(tmp_path / "b.tar", dict.fromkeys(["0.seg.png", "1.seg.png"], jpegs[0]))
    with pytest.raises(SourceError, match=r"no image in .*Fields in it: seg.png 2: choose with the option fields"):
        names(WebDatasetSource(only))


def test_names_with_dots_do_not_make_one_sample_of_a_shard(tmp_path: Path, jpegs: list[bytes]) -> None:
    source = WebDatasetSource(tar(tmp_path / "a.tar", {f"IMG.{i:04}.jpg": jpegs[0] for i in range(100)}))
    assert {record.group for record in source.records()} == {None} and len(names(source)) == 100


def test_patterns_of_shards(tmp_path: Path, jpegs: list[bytes]) -> None:
    for i in range(12):
        tar(tmp_path / f"s/train-{i:03}.tar", {f"{i}.jpg": jpegs[0]})
    tar(tmp_path / "t/val-0.tar", {"v.jpg": jpegs[1]})
    assert names(WebDatasetSource(tmp_path / "s/train-{008..010}.tar")) == ["8.jpg", "9.jpg", "10.jpg"]
    both = WebDatasetSource(tmp_path / "{s/train-000,t/val-0}.tar")
    assert [(name, record.split) for name, record in zip(names(both), both.records(), strict=True)] == [
        ("0.jpg", "train"), ("v.jpg", "val"),
    ]  # fmt: skip
    assert all(both.read(record.ref)[:2] == b"\xff\xd8" for record in pickle.loads(pickle.dumps(both)).records())
    assert source_of(tmp_path / "s/train-{008..010}.tar") == source_of(tmp_path / "s") == "webdataset"
    with pytest.raises(SourceError, match=r"2 of the 4 files of .* do not exist; the first: .*train-012\.tar"):
        WebDatasetSource(tmp_path / "s/train-{010..013}.tar")
    assert expanded("{9..11}") == ["9", "10", "11"] and expanded("{08..10}") == ["08", "09", "10"]
    assert expanded("a{x,y}{1..2}") == ["ax1", "ax2", "ay1", "ay2"] and expanded("{z}") == ["{z}"]
    for text, message in (
        ("{2..1}", "runs backwards"),
        ("{0..9999999}", "more than"),
        ("{0..99999}{0..99}", "more than"),
    ):
        with pytest.raises(ValueError, match=message):
            expanded(text)


def test_the_command_names_no_source_for_shards(tmp_path: Path, jpegs: list[bytes]) -> None:
    for i in range(3):
        tar(tmp_path / f"s/{i:03}.tar", {f"{i}.jpg": jpegs[i], f"{i}.seg.png": jpegs[i]})
    run = CliRunner().invoke
    for what in (tmp_path / "s", tmp_path / "s/{000..002}.tar"):
        result = run(app, ["index", str(what), "--json", "--workers", "1"])
        found = json.loads(result.stdout)
        assert (found["source"], found["images"]) == ("webdataset", 3) and "seg.png 3" in found["notes"][0]
        run_of = manifest_of(SourceSettings("folder", str(what), {}, None, 0.1, 10**6), seed=0)
        assert run_of.source.name == "webdataset", "a run whose config has the default name of a source"
    (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b")
    result = run(app, ["index", str(tmp_path / "x.tar.gz")])
    assert result.exit_code == 2 and "x.tar.gz is compressed" in result.stderr and "gunzip" in result.stderr


# ---------------------------------------------------------------------------------------------------- ZIP


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_files_are_read_in_place(tmp_path: Path, jpegs: list[bytes], method: int) -> None:
    members = {"a.jpg": jpegs[0], "deep/er/b c%.JPG": jpegs[1], "é/ü.png": jpegs[2], "note.txt": b"x", ".h/x.jpg": b"h",
               "__MACOSX/._a.jpg": b"m", "../../up.jpg": jpegs[3], "/etc/abs.jpg": jpegs[4]}  # fmt: skip
    file = zipped(tmp_path / "a.zip", members, method)
    before = sorted(tmp_path.rglob("*"))
    source = ZipSource(file)
    refs = [record.ref for record in source.records()]
    assert refs == ["a.jpg", "deep/er/b c%25.JPG", "é/ü.png", "../../up.jpg", "/etc/abs.jpg"]
    assert [source.read(ref) for ref in refs] == jpegs[:5]
    assert source.stamp("a.jpg") == (len(jpegs[0]), file.stat().st_mtime_ns)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is unpacked"
    copy = pickle.loads(pickle.dumps(source))
    assert copy.read(refs[1]) == jpegs[1]
    with pytest.raises(SourceError, match="is not a member of"):
        source.read("gone.jpg")
    assert source_of(file) == "zip" and source_of(tmp_path) == "zip"
    below = ZipSource(tmp_path)
    assert [record.ref for record in below.records()] == [f"a.zip/{ref}" for ref in refs]
    assert below.read("a.zip/a.jpg") == jpegs[0]


def _read(job: tuple[ZipSource, str]) -> bytes:
    source, ref = job
    return source.read(ref)


def test_threads_and_processes_do_not_disturb_each_other(tmp_path: Path, jpegs: list[bytes]) -> None:
    members = {f"{i}.jpg": jpegs[i % 6] + bytes([i]) * 20_000 for i in range(120)}
    source = ZipSource(zipped(tmp_path / "a.zip", members))
    refs = [record.ref for record in source.records()] * 3
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read, refs)) == [members[ref] for ref in refs]
    # A forked process shares the file's position with its parent, if both use one handle.
    with get_context("fork").Pool(3) as processes:
        found = processes.map_async(_read, [(source, ref) for ref in refs], chunksize=10)
        assert [source.read(ref) for ref in refs] == [members[ref] for ref in refs]
        assert found.get(60) == [members[ref] for ref in refs]


def test_splits_of_a_zip_file(tmp_path: Path, jpegs: list[bytes]) -> None:
    def splits(*paths: str) -> set[str | None]:
        source = ZipSource(zipped(tmp_path / "s.zip", dict.fromkeys(paths, jpegs[0])))
        return {record.split for record in source.records()}

    assert splits("train/a.jpg", "val/b.jpg") == {"train", "val"}
    assert splits("data/train/a.jpg", "data/test/b.jpg") == {"train", "test"}
    assert splits("train/a.jpg", "cats/b.jpg") == splits("cats/train.jpg", "dogs/test.jpg") == {None}


def reasons(file: Path, tmp_path: Path) -> dict[str, int]:
    return dict(build_manifest(ZipSource(file), tmp_path / f"{file.stem}.parquet", val_fraction=0).rejected)


def test_bad_members_are_counted_by_reason(tmp_path: Path, jpegs: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "BOMB_BYTES", 2**20)
    good = {f"good{i}.jpg": jpegs[i] for i in range(2)}
    file = zipped(tmp_path / "bomb.zip", good | {"bomb.jpg": bytes(8 * 2**20)})
    assert reasons(file, tmp_path) == {"too_large": 1}

    file = zipped(tmp_path / "locked.zip", good | {"locked.jpg": jpegs[2]}, zipfile.ZIP_STORED)
    data = bytearray(file.read_bytes())
    data[data.index(b"PK\x03\x04", data.index(b"good1.jpg")) + 6] |= 1  # the flag of encryption, in both headers
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(data)
    assert reasons(file, tmp_path) == {"encrypted": 1}
    with pytest.raises(ImageError, match=r"encrypted: locked\.jpg needs a password"):
        ZipSource(file).read("locked.jpg")

    file = zipped(tmp_path / "flipped.zip", good | {"flipped.jpg": jpegs[2]}, zipfile.ZIP_STORED)
    data = bytearray(file.read_bytes())
    data[data.index(jpegs[2]) + 500] ^= 255
    file.write_bytes(data)
    assert reasons(file, tmp_path) == {"broken": 1}

    file = zipped(tmp_path / "method.zip", good | {"method.jpg": jpegs[2]}, zipfile.ZIP_STORED)
    data = bytearray(file.read_bytes())
    struct.pack_into("<H", data, data.rindex(b"PK\x01\x02") + 10, 97)
    file.write_bytes(data)
    assert reasons(file, tmp_path) == {"unsupported_compression": 1}


def test_archives_that_are_refused_or_noted(tmp_path: Path, jpegs: list[bytes]) -> None:
    file = zipped(tmp_path / "a.zip", {"a.jpg": jpegs[0], "b.jpg": jpegs[1]}, zipfile.ZIP_STORED)
    data = bytearray(file.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 42, 10)  # the second member begins inside the first
    (tmp_path / "overlap.zip").write_bytes(data)
    with pytest.raises(SourceError, match="members overlap"):
        list(ZipSource(tmp_path / "overlap.zip").records())
    (tmp_path / "cut.zip").write_bytes(file.read_bytes()[:-40])
    (tmp_path / "web.zip").write_bytes(b"<html>404</html>")
    for name in ("cut.zip", "web.zip"):
        with pytest.raises(SourceError, match="is no whole ZIP file"):
            list(ZipSource(tmp_path / name).records())
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "mixed.zip", "w") as mixed:
        mixed.writestr(link, "/etc/passwd")
        mixed.writestr("same.jpg", jpegs[0])
        mixed.writestr("same.jpg", jpegs[1])
        mixed.writestr("inner.zip", b"PK")
        mixed.writestr("film.mov", b"")
    source = ZipSource(tmp_path / "mixed.zip")
    assert [record.ref for record in source.records()] == ["same.jpg"] and source.read("same.jpg") == jpegs[1]
    notes = " ".join(source.notes())
    assert "link 1" in notes and "older copy of the same name 1" in notes
    assert "2 files with other endings: 1 .mov (source video), 1 .zip (source zip)" in notes
    empty = zipped(tmp_path / "empty.zip", {"a.txt": b"", "b.psd": b""})
    with pytest.raises(SourceError, match=r"no image in .*1 .psd \(convert it to PNG or JPEG\), 1 .txt"):
        list(ZipSource(empty).records())


def test_zip64(tmp_path: Path, jpegs: list[bytes]) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file, file.open("a.jpg", "w", force_zip64=True) as member:
        member.write(jpegs[0])
    assert ZipSource(tmp_path / "z.zip").read("a.jpg") == jpegs[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=12), cut=st.integers(0, 400))
def test_damaged_archives_raise_nothing_else(
    tmp_path: Path, jpegs: list[bytes], changes: list[tuple[int, int]], cut: int
) -> None:
    file = tmp_path / "d.zip"
    if not (tmp_path / "whole.zip").exists():
        zipped(tmp_path / "whole.zip", {f"{i}.jpg": jpegs[i][:300] for i in range(3)})
    data = bytearray((tmp_path / "whole.zip").read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    file.write_bytes(data[: len(data) - cut])
    os.utime(file, ns=(len(changes), cut))  # a new time: the archive is opened anew
    try:
        source = ZipSource(file)
        for record in source.records():
            try:
                assert len(source.read(record.ref)) == source.stamp(record.ref)[0]
            except ImageError:
                continue
    except SourceError:
        pass
