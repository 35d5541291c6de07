"""Sources list what is there, read by reference, and reach nothing outside of what they were given."""

import base64
import csv
import io
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4rl_plugin.data.images import ImageError, open_rgb
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources import tsv
from ssl4rl_plugin.data_builders.sources.folder import FolderSource
from ssl4rl_plugin.data_builders.sources.sample_photos import PHOTOS, SamplePhotosSource
from ssl4rl_plugin.data_builders.sources.tsv import TsvSource


def refs(source) -> list[str]:
    return [record.ref for record in source.records()]


def reason_of(source, ref: str) -> str:
    with pytest.raises(ImageError) as caught:
        source.read(ref)
    return caught.value.reason


# ---------------------------------------------------------------------------------------------------- folder


def test_folder_lists_in_order_and_reads(tmp_path: Path) -> None:
    skipped = ("b/.hidden.jpg", ".git/x.png", "notes.txt")
    for name in ("b/2.JPG", "b/10.jpeg", "a.png", "z.WebP", "b/c/d/deep.TIF", *skipped):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    source = FolderSource(tmp_path)
    assert refs(source) == ["a.png", "z.WebP", "b/10.jpeg", "b/2.JPG", "b/c/d/deep.TIF"]
    assert source.read("b/2.JPG") == b"b/2.JPG"
    assert source.stamp("b/2.JPG") == (7, (tmp_path / "b/2.JPG").stat().st_mtime_ns)
    assert pickle.loads(pickle.dumps(source)).read("a.png") == b"a.png"


def test_folder_keeps_any_file_name(tmp_path: Path) -> None:
    names = [b"caf\xc3\xa9.jpg", b"latin\xe9.jpg", b"100%.jpg", b"a%FFb.jpg", b"two\nlines.jpg", b"# ?&.jpg"]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(name)
    source = FolderSource(tmp_path)
    listed = refs(source)
    assert {source.read(ref) for ref in listed} == set(names) and len(set(listed)) == len(names)
    assert "latin%E9.jpg" in listed and "100%25.jpg" in listed and "café.jpg" in listed
    for ref in listed:
        ref.encode("utf-8")


def test_folder_links(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "real").mkdir(parents=True)
    outside.mkdir()
    (root / "real/x.jpg").write_bytes(b"x")
    (outside / "secret.jpg").write_bytes(b"secret")
    (root / "inside.jpg").symlink_to("real/x.jpg")
    (root / "escape.jpg").symlink_to(outside / "secret.jpg")
    (root / "dangling.jpg").symlink_to("nowhere.jpg")
    (root / "self.jpg").symlink_to("self.jpg")
    (root / "aaa").symlink_to("real", target_is_directory=True)
    (root / "real/loop").symlink_to("..", target_is_directory=True)
    (root / "out").symlink_to(outside, target_is_directory=True)
    os.mkfifo(root / "pipe.jpg")
    source = FolderSource(root)
    assert refs(source) == ["dangling.jpg", "escape.jpg", "inside.jpg", "pipe.jpg", "self.jpg", "real/x.jpg"]
    assert source.read("inside.jpg") == b"x"
    assert reason_of(source, "escape.jpg") == reason_of(source, "out/secret.jpg") == "outside_root"
    assert reason_of(source, "dangling.jpg") == reason_of(source, "self.jpg") == "unreadable"
    assert reason_of(source, "pipe.jpg") == "unreadable"
    assert "outside of" in caplog.text


def test_folder_reached_only_through_a_link(tmp_path: Path) -> None:
    (tmp_path / ".store").mkdir()
    (tmp_path / ".store/x.jpg").write_bytes(b"x")
    (tmp_path / "one").symlink_to(".store", target_is_directory=True)
    (tmp_path / "two").symlink_to(".store", target_is_directory=True)
    assert refs(FolderSource(tmp_path)) == ["one/x.jpg"]


@pytest.mark.parametrize("ref", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "%2E%2E/x.jpg", "", "a%00b"])
def test_folder_refuses_refs_that_escape(tmp_path: Path, ref: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/x.jpg").write_bytes(b"x")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    with pytest.raises(SourceError, match="does not lie below"):
        FolderSource(tmp_path / "root").read(ref)


def test_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="needs a path"):
        FolderSource(None)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SourceError, match="loop"):
        FolderSource(tmp_path / "loop")
    (tmp_path / "loop").unlink()
    with pytest.raises(SourceError, match="not a usable path"):
        FolderSource("a\0b")
    with pytest.raises(SourceError, match="does not exist"):
        FolderSource(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="is empty"):
        FolderSource(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match="not a folder"):
        FolderSource(tmp_path / "notes.txt")
    with pytest.raises(SourceError, match="no image files below"):
        refs(FolderSource(tmp_path))


# ---------------------------------------------------------------------------------------------------- TSV


def write_tsv(path: Path, rows: list[dict[str, str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_tsv_reads_at_random(tmp_path: Path) -> None:
    rows = [
        {"index": "0", "question": 'two\nlines, a "quote" and a\ttab', "image": b64("zero"), "split": "dev"},
        {"index": "1", "question": 'a 5" disk', "image": "3", "split": "test"},
        {"index": "2", "question": "größer", "image": "0", "split": ""},
        {"index": "3", "question": "", "image": b64("three"), "split": "dev"},
    ]
    source = TsvSource(write_tsv(tmp_path / "bench.tsv", rows), split_column="split")
    records = list(source.records())
    assert [source.read(record.ref) for record in reversed(records)] == [b"three", b"zero", b"three", b"zero"]
    assert [record.ref.partition("@")[0] for record in records] == ["0", "1", "2", "3"]
    assert [record.split for record in records] == ["dev", "test", None, "dev"]
    assert records[0].ref.partition("@")[2] == records[2].ref.partition("@")[2]
    assert source.stamp(records[0].ref)[0] == int(records[0].ref.partition("+")[2])
    assert {record.split for record in TsvSource(tmp_path).records()} == {None}


def test_tsv_windows_line_ends_and_bom(tmp_path: Path) -> None:
    path = tmp_path / "bench.tsv"
    path.write_bytes(b"\xef\xbb\xbfindex\timage\r\n1\t" + b64("one").encode() + b"\r\n\r\n2\t" + b64("two").encode())
    source = TsvSource(path)
    assert [source.read(ref) for ref in refs(source)] == [b"one", b"two"]


def test_tsv_bad_rows_are_image_errors(tmp_path: Path) -> None:
    path = tmp_path / "bench.tsv"
    rows = [f"1\t{b64('one')}\tA", "2\tnot*base64\tB", "3\t\tC", "4\t99\tD", "5\tshort", "6\tabc\tA"]
    path.write_text("\n".join(["index\timage\tanswer", *rows]) + "\n")
    source = TsvSource(path)
    listed = refs(source)
    assert source.read(listed[0]) == b"one"
    assert [reason_of(source, ref) for ref in listed[1:]] == [
        "broken_base64", "zero_bytes", "dangling_reference", "broken_row", "broken_base64",
    ]  # fmt: skip
    for bad in ("1", "1@0+5", "1@99999999999999999999+5", f"1@20+{2**40}", "1@x+y"):
        with pytest.raises(SourceError, match="not a reference into"):
            source.read(bad)
    assert reason_of(source, "1@25+3") == "broken_row"


def test_tsv_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bench.tsv"
    with pytest.raises(SourceError, match=r"holds 0 \.tsv files"):
        TsvSource(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="is empty"):
        TsvSource(path)
    path.write_text("index\tpicture\n1\tx\n")
    with pytest.raises(SourceError, match="no column 'image'; its columns are: index, picture"):
        TsvSource(path)
    path.write_text("index\timage\n")
    with pytest.raises(SourceError, match="no column 'part'"):
        TsvSource(path, split_column="part")
    with pytest.raises(SourceError, match="no rows"):
        refs(TsvSource(path))
    monkeypatch.setattr(tsv, "MAX_RECORD_BYTES", 1000)
    path.write_text('index\timage\n1\t"' + "abc\n" * 1000)
    with pytest.raises(SourceError, match="never closed"):
        refs(TsvSource(path))


@settings(deadline=None)
@given(st.lists(st.lists(st.text(st.sampled_from('a"\t\n ,'), max_size=6), min_size=3, max_size=3), max_size=5))
def test_tsv_rows_agree_with_the_csv_module(rows: list[list[str]]) -> None:
    """On what a CSV writer writes, and on raw text with stray quotes."""
    quoted = [['"' + f.replace('"', '""') + '"' if set(f) & set('"\t\n') else f for f in row] for row in rows]
    raw = [[f.replace("\t", "").replace("\n", "") for f in row] for row in rows]
    for text in ("\n".join(map("\t".join, quoted)), "\n".join(map("\t".join, raw))):
        file, start, found = io.BytesIO(text.encode()), 0, []
        while True:
            length, record = tsv._next_record(file, start, "test")
            if not length:
                break
            start += length
            found.append([field.decode() for field in tsv._fields(record)])
        expected = [row or [""] for row in csv.reader(io.StringIO(text, newline="\n"), delimiter="\t")]
        assert found == expected
        assert start == len(text.encode())


# ---------------------------------------------------------------------------------------------------- sample photos


def test_sample_photos() -> None:
    pytest.importorskip("skimage")
    source = SamplePhotosSource(crops=7)
    records = list(source.records())
    assert records == list(SamplePhotosSource(crops=7).records())
    assert records != list(SamplePhotosSource(crops=7, seed=1).records())
    assert len(records) == len({record.ref for record in records}) == 7 * len(PHOTOS)
    train = {record.group for record in records if record.split == "train"}
    val = {record.group for record in records if record.split == "val"}
    assert len(train) >= 4 and len(val) >= 2 and not train & val
    for record in records[::7]:
        image = open_rgb(source.read(record.ref))
        left, upper, right, lower = record.box
        assert right - left == lower - upper >= min(image.size) // 2
        assert min(left, upper) >= 0 and right <= image.width and lower <= image.height


@pytest.mark.parametrize(("options", "message"), [
    ({"crops": 0}, "crops must be from 1"),
    ({"crops": True}, "crops must be from 1"),
    ({"min_side": 1.0}, "min_side must be from 0.2"),
    ({"path": "/tmp"}, "takes no path"),
])  # fmt: skip
def test_sample_photo_errors(options: dict, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        SamplePhotosSource(**options)
    pytest.importorskip("skimage")
    with pytest.raises(SourceError, match="none of its crops"):
        SamplePhotosSource().read("../../etc/passwd@0,0,1,1")
