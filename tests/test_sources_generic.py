"""Sources for tables, tar files and class folders: what is listed can be read, and nothing leads out of the path."""

import base64
import io
import json
import logging
import os
import pickle
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import photo

from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.source import Source, SourceError, load_source
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources import parquet, webdataset
from ssl4rl_plugin.data_builders.sources.hub.hf import HfSource
from ssl4rl_plugin.data_builders.sources.imagefolder import ImageFolderSource
from ssl4rl_plugin.data_builders.sources.jsonl import JsonSource
from ssl4rl_plugin.data_builders.sources.parquet import ParquetSource
from ssl4rl_plugin.data_builders.sources.tsv import TsvSource
from ssl4rl_plugin.data_builders.sources.webdataset import WebDatasetSource

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    """Twelve different pictures as JPEG files."""
    found = []
    for seed in range(12):
        buffer = io.BytesIO()
        photo(seed, 96, 80).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read_all(source: Source) -> list[bytes]:
    """Everything that is listed, read by a copy as another process would; refs are unique, UTF-8 and have a stamp."""
    refs = [record.ref for record in source.records()]
    assert len(set(refs)) == len(refs)
    copy = pickle.loads(pickle.dumps(source))
    assert [record.ref for record in copy.records()] == refs
    for ref in refs:
        ref.encode("utf-8")
    return [copy.read(ref) for ref in refs if copy.stamp(ref)[0] > 0]


def reason_of(source: Source, ref: str) -> str:
    """The reason for which a ref is rejected, whether it is stamped or read."""
    with pytest.raises(ImageError) as caught:
        source.stamp(ref)
        source.read(ref)
    return caught.value.reason


def manifest_of(source: Source, tmp_path: Path) -> Manifest:
    """Built, and loaded by name as a run does."""
    build_manifest(source, tmp_path / "manifest.parquet", val_fraction=0.4)
    return Manifest.load(tmp_path / "manifest.parquet")


def struct(data: bytes | None, path: str | None = None) -> dict | None:
    return None if data is None and path is None else {"bytes": data, "path": path}


# ---------------------------------------------------------------------------------------------------- parquet


def test_parquet_as_the_hub_has_it(tmp_path: Path, jpegs: list[bytes]) -> None:
    for name, part in (("train-00000-of-00002", jpegs[:4]), ("train-00001-of-00002", jpegs[4:8]), ("test", jpegs[8:])):
        table = pa.table({
            "image": pa.array([struct(data, f"{i}.jpg") for i, data in enumerate(part)], PICTURE),
            "label": list(range(len(part))),
        })  # fmt: skip
        (tmp_path / "in/data").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, tmp_path / f"in/data/{name}.parquet", row_group_size=2)
    (tmp_path / "in/.cache").mkdir()
    (tmp_path / "in/.cache/half.parquet").write_bytes(b"PAR1")
    source = load_source("parquet", tmp_path / "in")
    assert read_all(source) == jpegs[8:] + jpegs[:8]
    records = list(source.records())
    assert Counter(record.split for record in records) == {"train": 8, "test": 4}
    assert records[0].ref == "data/test.parquet#0/image"
    manifest = manifest_of(source, tmp_path)
    assert len(manifest.items("train")) == 8 and len(manifest.items("val")) == 4
    assert manifest.open(manifest.items("val")[0]).size == (96, 80)
    assert {record.split for record in ParquetSource(tmp_path / "in", use_splits=False).records()} == {None}
    one = ParquetSource(tmp_path / "in/data/test.parquet")
    assert read_all(one) == jpegs[8:] and {record.split for record in one.records()} == {None}
    forced = ParquetSource(tmp_path / "in/data/test.parquet", use_splits=True)
    assert {record.split for record in forced.records()} == {"test"}


@pytest.mark.parametrize("kind", ["binary", "large_binary", "structs", "binaries", "base64", "paths", "struct_paths"])
def test_parquet_columns_are_found_by_type(tmp_path: Path, jpegs: list[bytes], kind: str) -> None:
    (tmp_path / "in/pictures").mkdir(parents=True)
    for i in range(4):
        (tmp_path / f"in/pictures/{i}.jpg").write_bytes(jpegs[i])
    several = [jpegs[:3], [], jpegs[3:4]]
    column = {
        "binary": lambda: pa.array(jpegs[:4], pa.binary()),
        "large_binary": lambda: pa.array(jpegs[:4], pa.large_binary()),
        "structs": lambda: pa.array([[struct(d) for d in row] for row in several], pa.list_(PICTURE)),
        "binaries": lambda: pa.array(several, pa.list_(pa.binary())),
        "base64": lambda: pa.array([b64(data) for data in jpegs[:4]]),
        "paths": lambda: pa.array([f"pictures/{i}.jpg" for i in range(4)]),
        "struct_paths": lambda: pa.array([struct(None, f"pictures/{i}.jpg") for i in range(4)], PICTURE),
    }[kind]()
    table = pa.table({"question": ["what?"] * len(column), "image": column})
    pq.write_table(table, tmp_path / "in/data.parquet", row_group_size=2)
    source = ParquetSource(tmp_path / "in")
    records = list(source.records())
    if kind in ("structs", "binaries"):
        assert [r.ref.partition("#")[2] for r in records] == [
            "0/image.0", "0/image.1", "0/image.2", "1/image.0", "2/image.0",
        ]  # fmt: skip
        assert len({r.group for r in records[:3]}) == 1 and {r.group for r in records[3:]} == {None}
        assert [source.read(r.ref) for r in records if r.ref.partition("#")[2] != "1/image.0"] == jpegs[:4]
        assert reason_of(source, records[3].ref) == "no_image"
    else:
        assert read_all(source) == jpegs[:4]
    build_manifest(source, tmp_path / "m.parquet", val_fraction=0.4)


def test_parquet_rows_without_a_picture(tmp_path: Path, jpegs: list[bytes]) -> None:
    first = [struct(jpegs[0]), None, struct(jpegs[1]), None]
    second = [struct(jpegs[2]), None, None, struct(jpegs[3])]
    table = pa.table({"image_1": pa.array(first, PICTURE), "image_2": pa.array(second, PICTURE)})
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": pa.array([jpegs[4], None, b""], pa.binary())}), tmp_path / "b.parquet")
    source = ParquetSource(tmp_path)
    listed = [(record.ref.partition("#")[2], record.group is not None) for record in source.records()]
    assert listed[:5] == [
        ("0/image_1", True), ("0/image_2", True), ("1/image_1", False), ("2/image_1", False), ("3/image_2", False),
    ]  # fmt: skip
    manifest = build_manifest(source, tmp_path / "manifest/m.parquet", val_fraction=0.4)
    assert manifest.rejected == {"no_image": 3}
    assert len(manifest.items("train")) + len(manifest.items("val")) == 5


def test_parquet_paths_stay_inside(tmp_path: Path, jpegs: list[bytes]) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(jpegs[0])
    (root / "good.jpg").write_bytes(jpegs[1])
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    bad = ["../../../../../etc/passwd", "/etc/passwd", "../../secret.jpg", "../link.jpg", str(tmp_path / "secret.jpg")]
    paths = ["../good.jpg", str(root / "good.jpg"), *bad, "nowhere.jpg", "a\0b"]
    pq.write_table(pa.table({"image_path": paths}), root / "sub/texts.parquet")
    pq.write_table(
        pa.table({"image": pa.array([struct(None, path) for path in paths], PICTURE)}), root / "sub/structs.parquet"
    )
    for name in ("texts", "structs"):
        source = ParquetSource(root)
        refs = [record.ref for record in source.records() if name in record.ref]
        assert [source.read(ref) for ref in refs[:2]] == [jpegs[1]] * 2
        assert [reason_of(source, ref) for ref in refs[2:]] == ["outside_root"] * 5 + ["unreadable"] * 2
    assert build_manifest(source, tmp_path / "m.parquet", val_fraction=0).rejected == {
        "outside_root": 10, "unreadable": 4,
    }  # fmt: skip


def test_parquet_says_what_is_wrong(tmp_path: Path, jpegs: list[bytes], monkeypatch, caplog) -> None:
    with pytest.raises(SourceError, match=r"no \.parquet files below"):
        ParquetSource(tmp_path)
    file = tmp_path / "a.parquet"
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SourceError, match=r"a\.parquet cannot be read as a parquet file .* Git LFS"):
        ParquetSource(tmp_path)
    pq.write_table(pa.table({"question": ["a"], "number": [1]}), file)
    with pytest.raises(
        SourceError, match=r"a column with images; its columns are: question \(string\), number \(int64"
    ):
        list(ParquetSource(tmp_path).records())
    with pytest.raises(SourceError, match="does not have any column 'image' or 'img'"):
        list(ParquetSource(tmp_path, columns=["image", "img"]).records())
    pq.write_table(pa.table({"thumb": [jpegs[0]], "embedding": [b"x" * 400], "a.b": [jpegs[1]]}), file)
    assert len(read_all(ParquetSource(tmp_path))) == 3
    assert read_all(ParquetSource(tmp_path, columns=["thumb", "a.b"])) == jpegs[:2]
    assert read_all(ParquetSource(tmp_path, columns="thumb")) == jpegs[:1]
    with pytest.raises(SourceError, match="no column 'part'"):
        list(ParquetSource(tmp_path, split_column="part").records())
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), file)
    with pytest.raises(SourceError, match="has no rows"):
        list(ParquetSource(tmp_path).records())
    pq.write_table(pa.table({"image": jpegs[:2], "part": ["train", None]}), file)
    assert [record.split for record in ParquetSource(file, split_column="part").records()] == ["train", None]
    for ref in ("x", "a.parquet#2/image", "a.parquet#0/part", "a.parquet#0/image.0", "b.parquet#0/image", "#0/image"):
        with pytest.raises(SourceError, match="not a reference into"):
            ParquetSource(file).read(ref)
    assert not caplog.text
    monkeypatch.setattr(parquet, "HUGE_GROUP", 100)
    source = ParquetSource(file)
    assert len(list(source.records())) == len(list(source.records())) == 2
    assert caplog.text.count("row_group_size=100") == 1
    pictures = pa.array([struct(data, "x.jpg") for data in jpegs[:2]], PICTURE)
    pq.write_table(pa.table({"image": pictures}), file, compression="snappy")
    whole = file.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    file.write_bytes(whole[:4] + b"\xff" * (footer - 4) + whole[footer:])
    source = ParquetSource(file)
    assert reason_of(source, "a.parquet#0/image") == "unreadable"
    with pytest.raises(SourceError, match=r"a\.parquet cannot be read"):
        list(source.records())
    file.unlink()
    assert reason_of(source, "a.parquet#0/image") == "unreadable"


def test_parquet_decodes_each_row_group_once_and_keeps_few(tmp_path: Path, jpegs: list[bytes], monkeypatch) -> None:
    table = pa.table({"image": jpegs * 4, "noise": [os.urandom(5000)] * 48})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=8)
    loads: list[tuple] = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, i, **k: loads.append((i, k["columns"])) or original(self, i, **k)
    )
    held = parquet._Groups(2**30)
    monkeypatch.setattr(parquet, "_GROUPS", held)
    source = ParquetSource(tmp_path, columns=["image"])
    refs = [record.ref for record in source.records()]
    assert not loads  # listing reads no picture
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read, refs)) == jpegs * 4
    assert sorted(loads) == [(group, ["image"]) for group in range(6)]
    held.clear()
    held.limit = 3 * sum(map(len, jpegs[:8]))
    for number, ref in enumerate(refs):
        assert source.read(ref) == jpegs[number % 12]
        assert held._bytes == sum(column.nbytes for column in held._held.values()) <= held.limit
    assert sorted(loads) == sorted([(group, ["image"]) for group in range(6)] * 2)
    held.limit = 1  # less than one group: the last is kept
    source.read(refs[0])
    assert source.read(refs[1]) == jpegs[1] and len(held._held) == 1 and len(loads) == 13


# ---------------------------------------------------------------------------------------------------- datasets


def test_hf_datasets_on_disk(tmp_path: Path, jpegs: list[bytes]) -> None:
    datasets = pytest.importorskip("datasets")
    pictures = datasets.Image(decode=False)

    def made(rows: list[list[bytes]]) -> object:
        features = datasets.Features(
            {"image": pictures, "more": datasets.List(pictures), "question": datasets.Value("string")}
        )
        columns = {
            "image": [{"bytes": row[0], "path": None} for row in rows],
            "more": [[{"bytes": data, "path": None} for data in row[1:]] for row in rows],
            "question": ["what?"] * len(rows),
        }
        return datasets.Dataset.from_dict(columns, features)

    both = datasets.DatasetDict({"train": made([jpegs[:3], jpegs[3:4]]), "test": made([jpegs[4:6], [jpegs[6]]])})
    both.save_to_disk(tmp_path / "dict")
    source = load_source("hf", tmp_path / "dict")
    assert read_all(source) == jpegs[:7]
    records = list(source.records())
    assert [record.split for record in records] == ["train"] * 4 + ["test"] * 3
    assert records[0].group == records[2].group == records[0].ref and records[3].group is None
    manifest = manifest_of(source, tmp_path)
    assert (len(manifest.items("train")), len(manifest.items("val"))) == (4, 3)
    assert [(question.text, len(question.refs)) for question in source.questions()] == [
        ("what?", 3), ("what?", 1), ("what?", 2), ("what?", 1),
    ]  # fmt: skip
    made([[data] for data in jpegs]).shuffle(seed=0).select(range(5)).save_to_disk(tmp_path / "one")
    source = HfSource(tmp_path / "one", columns="image")
    assert len(set(read_all(source)) & set(jpegs)) == 5 and {record.split for record in source.records()} == {None}
    with pytest.raises(SourceError, match="not a data set saved to disk"):
        HfSource(tmp_path)
    (tmp_path / "one/state.json").write_text("{}")
    with pytest.raises(SourceError, match="cannot be opened"):
        list(HfSource(tmp_path / "one").records())


# ---------------------------------------------------------------------------------------------------- tar files


def add(tar: tarfile.TarFile, name: str, data: bytes, **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def test_webdataset_shards(tmp_path: Path, jpegs: list[bytes]) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    with tarfile.open(tmp_path / "in/train-0000.tar", "w") as tar:
        for i in range(6):
            add(tar, f"sample/{i:03}.jpg", jpegs[i])
            add(tar, f"sample/{i:03}.json", b"{}")
    with tarfile.open(tmp_path / "in/deep/val-0000.tar", "w") as tar:
        add(tar, "a.left.JPG", jpegs[6])
        add(tar, "a.txt", b"two pictures")
        add(tar, "a.right.jpg", jpegs[7])
        add(tar, "b.jpg", jpegs[8])
        add(tar, "._b.jpg", b"AppleDouble")
    source = load_source("webdataset", tmp_path / "in")
    assert read_all(source) == jpegs[6:9] + jpegs[:6]
    records = list(source.records())
    assert records[0].ref.startswith("deep/val-0000.tar:a.left.JPG@512+")
    assert records[0].group == records[1].group == records[0].ref and records[2].group is None
    assert Counter(record.split for record in records) == {"train": 6, "val": 3}
    manifest = manifest_of(source, tmp_path)
    assert (len(manifest.items("train")), len(manifest.items("val"))) == (6, 3)
    assert read_all(WebDatasetSource(tmp_path / "in/train-0000.tar")) == jpegs[:6]
    before = sorted(tmp_path.rglob("*"))
    for ref in ("x", "train-0000.tar:a@9", "../x.tar:a@0+1", "/etc/passwd:a@0+1"):
        with pytest.raises(SourceError, match="not a reference into"):
            source.read(ref)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_the_tarfile_module(tmp_path: Path, form: int) -> None:
    names = [
        "a.jpg",
        "x" * 90 + "/" + "y" * 90 + ".jpg",
        "café.png",
        "latin\udce9.jpg",
        "../../etc/passwd.jpg",
        "/abs.jpg",
    ]
    if form != tarfile.USTAR_FORMAT:
        names.append("long/" * 60 + "z.jpg")
    with tarfile.open(tmp_path / "a.tar", "w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for number, name in enumerate(names):
            add(tar, name, b"#" * (number * 300), mtime=1.5 if form == tarfile.PAX_FORMAT else 1)
            add(tar, name + ".dir", b"", type=tarfile.DIRTYPE)
    with tarfile.open(tmp_path / "a.tar", encoding="utf-8", errors="surrogateescape") as tar:
        expected = [(os.fsencode(m.name), m.offset_data, m.size) for m in tar if m.isreg()]
    with open(tmp_path / "a.tar", "rb") as file:
        left_out: Counter[str] = Counter()
        found = [(m.name, m.offset, m.size) for m in webdataset.members(file, left_out)]
    assert found == expected and len(found) == len(names) and not left_out
    source = WebDatasetSource(tmp_path / "a.tar")
    assert [len(data) for data in read_all(source)] == [300 * number for number in range(1, len(names))]


def shard_of_every_kind() -> bytes:
    """Long names, attributes, a link and a sparse member."""
    whole = io.BytesIO()
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        part = io.BytesIO()
        with tarfile.open(fileobj=part, mode="w", format=form) as tar:
            add(tar, "é" * 120 + ".jpg", b"#" * 700, mtime=1.5)
            add(tar, "link.jpg", b"", type=tarfile.SYMTYPE, linkname="long/" * 40)
            add(tar, "sparse.jpg", b"#" * 20, type=tarfile.GNUTYPE_SPARSE)
        whole.write(part.getvalue().rstrip(b"\0").ljust(-(-len(part.getvalue().rstrip(b"\0")) // 512) * 512, b"\0"))
    return whole.getvalue() + bytes(1024)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 9000), st.binary(min_size=1, max_size=12)), max_size=4), st.booleans())
def test_members_survive_anything(tmp_path: Path, changes: list[tuple[int, bytes]], sound: bool) -> None:
    """Damaged bytes, with headers' sums put right again or not: it ends, and says so with ValueError at most."""
    data = bytearray(shard_of_every_kind())
    for place, new in changes:
        data[place % len(data) : place % len(data) + len(new)] = new
    if sound:
        for start in range(0, len(data) - 511, 512):
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    (tmp_path / "a.tar").write_bytes(data)
    with open(tmp_path / "a.tar", "rb") as file:
        try:
            found = list(webdataset.members(file, Counter()))
        except ValueError:
            return
    assert len(found) <= len(data) // 512 and all(0 <= m.size < 10**12 and m.offset > 0 for m in found)


def test_webdataset_leaves_out_and_counts(tmp_path: Path, jpegs: list[bytes], caplog) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        add(tar, "link.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.jpg", b"", type=tarfile.LNKTYPE, linkname="../../x.jpg")
        add(tar, "pipe.jpg", b"", type=tarfile.FIFOTYPE)
        add(tar, "sparse.jpg", b"s" * 700, type=tarfile.GNUTYPE_SPARSE)
        add(tar, "good.jpg", jpegs[0])
        add(tar, "cut.jpg", jpegs[1])
    whole = (tmp_path / "a.tar").read_bytes()
    end = whole.index(jpegs[1]) + 100
    (tmp_path / "a.tar").write_bytes(whole[:end])
    source = WebDatasetSource(tmp_path)
    good, cut = [record.ref for record in source.records()]
    assert "link 2, device 1, sparse 1, truncated_shard 1" in caplog.text
    assert source.read(good) == jpegs[0] and reason_of(source, cut) == "truncated"
    assert build_manifest(source, tmp_path / "m.parquet", val_fraction=0).rejected == {"truncated": 1}
    for name, data in {"header": whole[: whole.index(jpegs[1]) - 200], "damaged": b"".join([
        whole[: whole.index(jpegs[1]) - 512], b"\x01" * 512, jpegs[1],
    ])}.items():  # fmt: skip
        caplog.clear()
        (tmp_path / "a.tar").write_bytes(data)
        assert [record.ref for record in source.records()] == [good]
        assert f"{'truncated' if name == 'header' else 'damaged'}_shard 1" in caplog.text
    bomb = bytearray(tarfile.TarInfo("bomb.jpg").tobuf(tarfile.GNU_FORMAT))
    bomb[124:136] = b"\x80" + (2**60).to_bytes(11, "big")
    bomb[148:156] = b" " * 8
    bomb[148:156] = b"%06o\0 " % sum(bomb)
    (tmp_path / "a.tar").write_bytes(whole[: whole.index(jpegs[1]) - 512] + bytes(bomb))
    caplog.clear()
    assert [record.ref for record in source.records()] == [good] and "damaged_shard 1" in caplog.text


def test_webdataset_says_what_is_wrong(tmp_path: Path, jpegs: list[bytes]) -> None:
    with pytest.raises(SourceError, match=r"no \.tar files below"):
        WebDatasetSource(tmp_path)
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        add(tar, "a.jpg", jpegs[0])
    with pytest.raises(SourceError, match=r"b\.tar\.gz is compressed.*gunzip"):
        WebDatasetSource(tmp_path)
    os.rename(tmp_path / "b.tar.gz", tmp_path / "b.tar")
    with pytest.raises(SourceError, match=r"it is compressed \(gzip\)"):
        list(WebDatasetSource(tmp_path).records())
    (tmp_path / "b.tar").write_bytes(b"no tar file at all" * 100)
    with pytest.raises(SourceError, match="not a tar file"):
        list(WebDatasetSource(tmp_path).records())
    (tmp_path / "b.tar").write_bytes(bytes(10240))
    with pytest.raises(SourceError, match="no image in"):
        list(WebDatasetSource(tmp_path).records())


# ---------------------------------------------------------------------------------------------------- class folders


def test_imagefolder_splits(tmp_path: Path, jpegs: list[bytes]) -> None:
    names = ["train/cat/0.jpg", "train/dog/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg", "val/dog/4.jpg"]
    for name, data in zip(names, jpegs, strict=False):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    source = load_source("imagefolder", tmp_path / "in")
    assert sorted(read_all(source)) == sorted(jpegs[:5])
    assert {record.ref: record.split for record in source.records()} == {name: name.partition("/")[0] for name in names}
    manifest = manifest_of(source, tmp_path)
    assert (len(manifest.items("train")), len(manifest.items("val"))) == (3, 2)
    assert {r.split for r in ImageFolderSource(tmp_path / "in", use_splits=False).records()} == {None}
    # Vehicles: `train` and `val` are classes here.
    (tmp_path / "in/bus").mkdir()
    (tmp_path / "in/bus/5.jpg").write_bytes(jpegs[5])
    assert {record.split for record in source.records()} == {None}


# ---------------------------------------------------------------------------------------------------- JSON


def test_json_files(tmp_path: Path, jpegs: list[bytes], caplog) -> None:
    (tmp_path / "in/images").mkdir(parents=True)
    for i in range(5):
        (tmp_path / f"in/images/{i}.jpg").write_bytes(jpegs[i])
    entries = [
        {"id": 7, "image": "0.jpg", "question": "what?", "options": {"A": "cat", "B": "dog"}, "answer": "dog"},
        {"id": 8, "image": ["1.jpg", "2.jpg"], "question": "which?", "part": "val"},
        {"id": 9, "image": "0.jpg", "question": "again?"},
        {"id": 10, "image": None, "question": "none?"},
        {"id": 11, "image": "3.jpg", "question": "last?"},
    ]
    layouts = {
        "a.jsonl": "\n".join(map(json.dumps, entries)) + '\n\nnot json\n["list"]\n',
        "b.json": json.dumps(entries),
        "c.json": json.dumps({"info": {}, "names": ["x"], "data": entries}),
    }
    for name, text in layouts.items():
        caplog.clear()
        (tmp_path / "in" / name).write_text(text)
        source = JsonSource(tmp_path / "in" / name, split_column="part")
        assert read_all(source) == jpegs[:4]
        records = list(source.records())
        assert [record.ref for record in records] == [f"images/{i}.jpg" for i in range(4)]
        assert records[1].group == records[2].group and [r.split for r in records] == [None, "val", "val", None]
        questions = list(source.questions())
        assert [(q.id, q.refs) for q in questions[:2]] == [
            ("7", ("images/0.jpg",)),
            ("8", ("images/1.jpg", "images/2.jpg")),
        ]
        assert questions[0].options == ("cat", "dog") and questions[0].answer == "B" and len(questions) == 4
        (note,) = source.notes()
        assert "without an image 1" in note and "named again 1" in note and "no_image 1" in caplog.text
        assert ("not a JSON object 2" in note) == (name == "a.jsonl")
    manifest = manifest_of(source, tmp_path)
    assert len(manifest.items("train")) + len(manifest.items("val")) == 4 and not manifest.rejected
    with pytest.raises(SourceError, match="holds 3 JSON files"):
        JsonSource(tmp_path / "in")
    with pytest.raises(SourceError, match="no folder 'gone'"):
        JsonSource(tmp_path / "in/b.json", image_folder="gone")


def test_json_paths_stay_inside(tmp_path: Path, jpegs: list[bytes]) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(jpegs[0])
    (root / "good.jpg").write_bytes(jpegs[1])
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    paths = [
        "sub/../good.jpg",
        "../../../../../etc/passwd",
        "/etc/passwd",
        "../secret.jpg",
        "link.jpg",
        "gone.jpg",
        "a\0b",
    ]
    (root / "a.jsonl").write_text("".join(json.dumps({"image": path}) + "\n" for path in paths))
    source = JsonSource(root)
    refs = [record.ref for record in source.records()]
    assert source.read(refs[0]) == jpegs[1]
    assert [reason_of(source, ref) for ref in refs[1:]] == ["outside_root"] * 4 + ["unreadable"] * 2
    assert build_manifest(source, tmp_path / "m.parquet", val_fraction=0).rejected == {
        "outside_root": 4, "unreadable": 2,
    }  # fmt: skip


@pytest.mark.parametrize(("text", "message"), [
    ("[", "cannot be read as JSON"),
    ("[" * 100_000, "cannot be read as JSON"),
    ("[]", "has no entries"),
    ('{"a": 1}', "has no entries"),
    ('[{"picture_of": 1, "text": "x"}]', "names no image under image; its keys are: picture_of, text"),
])  # fmt: skip
def test_json_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        JsonSource(tmp_path)


# ---------------------------------------------------------------------------------------------------- TSV


def test_tsv_lists_of_pictures(tmp_path: Path, jpegs: list[bytes], caplog) -> None:
    one, two, three = (b64(data) for data in jpegs[:3])
    rows = [
        f"1\t['{one}', '{two}']\twhich?\t['(A) left', '(B) right']\t(B)",
        f'2\t"[""{three}""]"\tone?\tyes or no\tyes',
        "3\t1\tthe same?\t\t",
        f"4\t['{one}', '!!!!']\tbroken?\t\t",
        f"4\t{one}\ttwice?\t\t",
    ]
    (tmp_path / "a.tsv").write_text("\n".join(["index\timage\tquestion\toptions\tanswer", *rows]) + "\n")
    source = TsvSource(tmp_path)
    records = list(source.records())
    assert [source.read(record.ref) for record in records[:-2]] == jpegs[:3] + jpegs[:2] + jpegs[:1]
    assert source.read(records[-1].ref) == jpegs[0] and reason_of(source, records[-2].ref) == "broken_base64"
    assert len({record.ref for record in records}) == 8
    assert [record.group is None for record in records] == [False] * 2 + [True] + [False] * 4 + [True]
    with caplog.at_level(logging.WARNING):
        questions = list(source.questions())
    assert [(q.id, len(q.refs), q.options, q.answer) for q in questions] == [
        ("1", 2, ("left", "right"), "B"), ("2", 1, (), "yes"), ("3", 2, (), None), ("4", 2, (), None),
        ("4#2", 1, (), None),
    ]  # fmt: skip
    assert {ref for question in questions for ref in question.refs} == {record.ref for record in records}
    manifest = build_manifest(source, tmp_path / "m.parquet", val_fraction=0.0)
    assert manifest.rejected == {"broken_base64": 1}
    assert reason_of(source, records[0].ref.replace(".0", ".7")) == "broken_row"
