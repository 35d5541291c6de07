"""The manifest: every bad picture is counted, duplicates stay on one side, and equal input gives equal bytes."""

import base64
import io
import os
import pickle
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import photo
from PIL import Image

from ssl4rl_plugin.core.files import WriteError
from ssl4rl_plugin.data import manifest as manifest_module
from ssl4rl_plugin.data import source as source_module
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.source import Record, Source, SourceError
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources.folder import FolderSource
from ssl4rl_plugin.data_builders.sources.sample_photos import SamplePhotosSource
from ssl4rl_plugin.data_builders.sources.tsv import TsvSource


@pytest.fixture(autouse=True)
def sources() -> None:
    """Manifest.load finds sources by name; where the package is not installed, there are no entry points."""
    for kind in (FolderSource, TsvSource, SamplePhotosSource):
        if kind.name not in source_module.registry.names():
            source_module.registry.register(kind.name, kind)


class Listed(Source):
    """A source of pictures that a test holds in memory: ref -> (bytes, split, group, box)."""

    name = "listed"
    summary = schema = licence = where = "for tests"

    def __init__(self, pictures: dict[str, tuple], **options: object) -> None:
        super().__init__(None, **options)
        self.pictures = pictures
        self.reads: list[str] = []

    def records(self) -> Iterator[Record]:
        for ref, (_, split, group, box) in self.pictures.items():
            yield Record(ref, split, group, box)

    def stamp(self, ref: str) -> tuple[int, int]:
        return len(self.pictures[ref][0]), 0

    def read(self, ref: str) -> bytes:
        self.reads.append(ref)
        return self.pictures[ref][0]


def jpeg(image: Image.Image, quality: int = 90, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def mixed_folder(root: Path) -> Path:
    """Twelve good pictures of many kinds, and one of every bad kind."""
    root.mkdir()
    for i in range(5):
        photo(i, 120, 100).save(root / f"good{i}.jpg", quality=92)
    photo(10, 120, 100).convert("CMYK").save(root / "cmyk.jpg")
    photo(11, 120, 100).convert("P").save(root / "palette.png")
    photo(12, 120, 100).convert("LA").save(root / "alpha.png")
    Image.fromarray(np.asarray(photo(13, 120, 100).convert("L")).astype(np.uint16) * 257).save(root / "deep.png")
    photo(14, 120, 100).save(root / "moving.gif", save_all=True, append_images=[photo(15, 120, 100)])
    photo(16, 120, 100).save(root / "moving.webp", save_all=True, append_images=[photo(17, 120, 100)])
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(18, 120, 100).save(root / "turned.jpg", exif=exif)
    (root / "bad_zero.jpg").write_bytes(b"")
    (root / "bad_html.jpg").write_text("<html><body>404</body></html>")
    (root / "bad_cut.jpg").write_bytes(jpeg(photo(20, 120, 100))[:900])
    (root / "bad_bomb.png").write_bytes(bomb())
    Image.new("RGB", (99, 99), "gray").save(root / "bad_blank.png")
    photo(21, 120, 100).resize((27, 99)).save(root / "bad_small.png")
    photo(22, 120, 100).resize((30, 601)).save(root / "bad_long.png")
    os.symlink(b"/etc/not-utf8-\xff", os.fsencode(root / "bad_link.jpg"))
    (root / "bad_gone.jpg").symlink_to("nowhere")
    return root


BAD = {
    "zero_bytes": 1, "not_an_image": 1, "truncated": 1, "too_large": 1, "blank": 1, "too_small": 1, "aspect": 1,
    "outside_root": 1, "unreadable": 1,
}  # fmt: skip


def test_bad_pictures_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    manifest = build_manifest(FolderSource(mixed_folder(tmp_path / "in")), tmp_path / "m.parquet", val_fraction=0.5)
    assert manifest.rejected == BAD
    items = [*manifest.items("train"), *manifest.items("val")]
    assert len(items) == 12 and len({item.group for item in items}) == 12
    for item in items:
        image = manifest.open(item, max_pixels=5000)
        assert image.mode == "RGB" and image.width * image.height <= 5000
        assert manifest.open(item).size == (item.width, item.height)
        assert item.id == item.ref and item.box is None
    rows = {row["ref"]: row for row in manifest.table.to_pylist()}
    turned = rows["turned.jpg"]
    assert (turned["width"], turned["height"], turned["exif_orientation"]) == (100, 120, 6)
    assert (rows["cmyk.jpg"]["mode"], rows["palette.png"]["mode"], rows["deep.png"]["mode"]) == ("CMYK", "P", "I;16")
    assert len(turned["sha256"]) == 64
    assert 0 < turned["entropy"] <= 8 and 0 < turned["contrast"] <= 0.5
    for row in rows.values():
        assert (row["reason"] is None) == (row["group"] is not None) == (row["split"] in ("train", "val"))


def test_equal_input_gives_equal_bytes_whatever_the_workers(tmp_path: Path) -> None:
    source = FolderSource(mixed_folder(tmp_path / "in"))
    outs = [tmp_path / f"{i}.parquet" for i in range(3)]
    digests = {build_manifest(source, out, workers=n).digest for out, n in zip(outs, (1, 4, 4), strict=True)}
    assert len(digests) == 1 and len({out.read_bytes() for out in outs}) == 1
    assert build_manifest(source, outs[0], seed=1, val_fraction=0.4).digest not in digests


def test_loading_and_pickling(tmp_path: Path) -> None:
    source = FolderSource(mixed_folder(tmp_path / "in"))
    built = build_manifest(source, tmp_path / "m.parquet")
    loaded = Manifest.load(tmp_path / "m.parquet")
    assert list(loaded.items("train")) == list(built.items("train")) and loaded.rejected == built.rejected
    assert isinstance(loaded.source, FolderSource) and loaded.source.path == source.path
    assert len(pickle.dumps(loaded)) < 2000
    items = pickle.loads(pickle.dumps(loaded.items("train")))
    assert list(items) == list(built.items("train"))
    assert items[-1] == items[len(items) - 1] and items[:2] == list(items)[:2]
    with pytest.raises(IndexError):
        items[len(items)]
    with pytest.raises(ValueError, match="'train' or 'val'"):
        loaded.items("test")
    copy = pickle.loads(pickle.dumps(loaded))
    build_manifest(source, tmp_path / "m.parquet", seed=5, val_fraction=0.7)
    with pytest.raises(SourceError, match="rebuilt while it was in use"):
        copy.items("train")[0]


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    pictures = {f"{i}": (jpeg(photo(i, 120, 100)), None, None, None) for i in range(6)}
    pictures["bad"] = (b"<html>", None, None, None)
    first, out = Listed(pictures), tmp_path / "m.parquet"
    build_manifest(first, out)
    assert sorted(first.reads) == sorted(pictures)
    before = out.stat().st_mtime_ns
    again = Listed(pictures)
    build_manifest(again, out)
    assert again.reads == [] and out.stat().st_mtime_ns == before
    changed = Listed(pictures | {"3": (jpeg(photo(33, 120, 110)), None, None, None), "7": pictures["0"]})
    manifest = build_manifest(changed, out)
    assert sorted(changed.reads) == ["3", "7"] and manifest.rejected == {"not_an_image": 1}
    scratch = build_manifest(Listed(changed.pictures), tmp_path / "scratch.parquet")
    assert scratch.digest == manifest.digest
    fewer = Listed({"1": pictures["1"]})
    assert len(build_manifest(fewer, out, val_fraction=0).items("train")) == 1 and fewer.reads == []


def test_adding_pictures_moves_none(tmp_path: Path) -> None:
    pictures = {f"{i}": (jpeg(photo(i, 120, 100)), None, None, None) for i in range(40)}
    few = build_manifest(Listed(dict(list(pictures.items())[:20])), tmp_path / "few.parquet", val_fraction=0.4)
    many = build_manifest(Listed(pictures), tmp_path / "many.parquet", val_fraction=0.4)
    for split in ("train", "val"):
        assert {item.id for item in few.items(split)} < {item.id for item in many.items(split)}
    assert 5 <= len(many.items("val")) <= 27


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL4RL_CACHE", str(tmp_path / "cache"))
    pictures = {f"{i}": (jpeg(photo(i, 120, 100)), None, None, None) for i in range(4)}
    one = build_manifest(Listed(pictures))
    assert one.path.parent == tmp_path / "cache/manifests" and one.path.name.startswith("listed-")
    other = Listed(pictures)
    two = build_manifest(other, seed=1)
    assert two.path != one.path and other.reads == []  # divided otherwise, but not read again
    third = Listed(pictures, colour="red")
    assert build_manifest(third).path.name[:23] != one.path.name[:23] and len(third.reads) == 4
    one.path.write_bytes(b"damaged")
    assert len(build_manifest(Listed(pictures), val_fraction=0.1).items("train")) + len(two.items("val")) > 0


# ---------------------------------------------------------------------------------------------------- groups


def test_near_duplicates_share_a_group(tmp_path: Path) -> None:
    pictures = {}
    for i in range(8):
        image = photo(i, 240, 200)
        pictures[f"{i}a"] = (jpeg(image), None, None, None)
        pictures[f"{i}b"] = (jpeg(image), None, None, None)
        pictures[f"{i}c"] = (jpeg(image, 60), None, None, None)
        pictures[f"{i}d"] = (jpeg(image.resize((120, 100), Image.Resampling.BICUBIC)), None, None, None)
    manifest = build_manifest(Listed(pictures), tmp_path / "m.parquet", val_fraction=0.5)
    groups: dict[str, set[str]] = {}
    for split in ("train", "val"):
        assert len(manifest.items(split)) % 4 == 0
        for item in manifest.items(split):
            groups.setdefault(item.group, set()).add(item.id[0])
    assert len(groups) == 8 and all(len(photos) == 1 for photos in groups.values())


def test_source_groups_unite(tmp_path: Path) -> None:
    pictures = {f"{i}": (jpeg(photo(i, 120, 100)), None, f"scene{i // 3}", None) for i in range(9)}
    pictures["copy"] = (pictures["0"][0], None, "scene2", None)
    manifest = build_manifest(Listed(pictures), tmp_path / "m.parquet", val_fraction=0.5)
    group = {item.id: item.group for split in ("train", "val") for item in manifest.items(split)}
    assert group["0"] == group["1"] == group["6"] == group["8"] == group["copy"] != group["3"] == group["5"]


def test_crops_are_grouped_by_their_picture_only(tmp_path: Path) -> None:
    smooth = Image.linear_gradient("L").convert("RGB")  # all crops of it have the same perceptual hash
    one, two = jpeg(smooth, 95), jpeg(smooth, 94)
    boxes = [(0, 0, 128, 128), (64, 64, 256, 256)]
    pictures = {f"a{i}": (one, None, None, box) for i, box in enumerate(boxes)}
    pictures |= {f"b{i}": (two, None, None, box) for i, box in enumerate(boxes)}
    pictures["c"] = (one, None, None, (200, 200, 300, 300))
    manifest = build_manifest(Listed(pictures), tmp_path / "m.parquet", val_fraction=0.0)
    items = {item.id: item for item in manifest.items("train")}
    assert items["a0"].group == items["a1"].group != items["b0"].group == items["b1"].group
    assert manifest.rejected == {"bad_box": 1}
    assert (items["a1"].width, items["a1"].height, items["a1"].box) == (192, 192, (64, 64, 256, 256))
    assert manifest.open(items["a1"]).size == (192, 192) and manifest.open(items["a1"], max_pixels=100).size == (10, 10)


def test_pictures_that_crops_share_are_decoded_once_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    decodings = []
    opened = manifest_module.open_rgb
    monkeypatch.setattr(manifest_module, "open_rgb", lambda *a, **k: decodings.append(1) or opened(*a, **k))
    pictures = [jpeg(photo(seed, 64, 64)) for seed in range(4)]
    decoded = manifest_module._Decoded()
    for _ in range(3):
        for data in pictures:
            assert decoded(data, 10_000) == opened(data, max_source_pixels=10_000)
    assert len(decodings) == 4
    monkeypatch.setattr(manifest_module._Decoded, "PIXELS", 2 * 64 * 64)
    decoded = manifest_module._Decoded()
    for data in (*pictures[:3], pictures[2], pictures[1], pictures[0]):
        decoded(data, 10_000)
    assert len(decodings) == 4 + 4, "the first was the least recently used"
    with pytest.raises(ImageError):
        decoded(pictures[0], 100)


def test_source_splits_and_the_side_that_wins(tmp_path: Path) -> None:
    names = ["train", "dev", "test", "validation", None, "Train_clean"]
    pictures = {f"{name}": (jpeg(photo(i, 120, 100)), name, None, None) for i, name in enumerate(names)}
    pictures["leak"] = (pictures["test"][0], "train", None, None)
    pictures["near"] = (jpeg(photo(1, 120, 100), 70), "train", None, None)
    pictures["free"] = (pictures["dev"][0], None, None, None)
    out = tmp_path / "m.parquet"
    manifest = build_manifest(Listed(pictures), out, val_fraction=0.0)
    assert {item.id for item in manifest.items("train")} == {"train", "Train_clean", "None"}
    assert {item.id for item in manifest.items("val")} == {"dev", "test", "validation", "free"}
    assert manifest.rejected == {"duplicate_of_validation": 2}
    details = dict(zip(manifest.table["ref"].to_pylist(), manifest.table["detail"].to_pylist(), strict=True))
    assert details["leak"] == "shows the same as test" and details["near"] == "shows the same as dev"
    del pictures["test"]  # what was rejected only for its duplicate comes back without being read again
    again = Listed(pictures)
    assert "leak" in {item.id for item in build_manifest(again, out, val_fraction=0.0).items("train")}
    assert again.reads == []
    with pytest.raises(SourceError, match="split 'part7' is neither"):
        build_manifest(Listed({"x": (jpeg(photo(1, 120, 100)), "part7", None, None)}), tmp_path / "x.parquet")


def test_sample_photos_hold_out_whole_photographs(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    manifest = build_manifest(SamplePhotosSource(crops=4), tmp_path / "m.parquet")
    train, val = manifest.items("train"), manifest.items("val")
    assert len(train) + len(val) + sum(manifest.rejected.values()) == 32
    assert len({item.group for item in val}) >= 2 and not {i.group for i in train} & {i.group for i in val}
    assert not Counter(manifest.rejected) and {item.id.partition("@")[0] for item in val} == {
        "chelsea.png", "motorcycle_left.png",
    }  # fmt: skip
    assert list(Manifest.load(tmp_path / "m.parquet").items("val")) == list(val)


def test_tsv_manifest(tmp_path: Path) -> None:
    rows = [f"{i}\t{base64.b64encode(jpeg(photo(i, 120, 100))).decode()}\tdev" for i in range(3)]
    (tmp_path / "b.tsv").write_text("\n".join(["index\timage\tsplit", *rows, "3\t1\tdev", "4\t!!!!\tdev"]) + "\n")
    manifest = build_manifest(TsvSource(tmp_path, split_column="split"), tmp_path / "m.parquet")
    assert manifest.rejected == {"broken_base64": 1} and not manifest.items("train")
    val = manifest.items("val")
    assert len(val) == 4 and val[1].group == val[3].group and manifest.open(val[3]).size == (120, 100)
    free = build_manifest(TsvSource(tmp_path), tmp_path / "f.parquet", val_fraction=0.0)
    assert len(free.items("train")) == 4


# ---------------------------------------------------------------------------------------------------- errors


def test_nothing_usable_is_an_error_that_counts(tmp_path: Path) -> None:
    pictures = {"a": (b"", None, None, None), "b": (b"<html>", None, None, None), "c": (b"", None, None, None)}
    with pytest.raises(SourceError, match=r"none of its 3 images .*zero_bytes 2, not_an_image 1; the first: a: "):
        build_manifest(Listed(pictures), tmp_path / "m.parquet")
    assert os.listdir(tmp_path) == []
    with pytest.raises(SourceError, match="lists no images"):
        build_manifest(Listed({}), tmp_path / "m.parquet")


def test_outputs_that_are_something_else_are_left_alone(tmp_path: Path) -> None:
    good = {"a": (jpeg(photo(1, 120, 100)), None, None, None)}
    out = tmp_path / "out.parquet"
    out.write_text("my thesis")
    with pytest.raises(SourceError, match="not a parquet file"):
        build_manifest(Listed(good), out)
    pq.write_table(pa.table({"x": [1]}), out)
    with pytest.raises(SourceError, match="not a manifest"):
        build_manifest(Listed(good), out)
    out.unlink()
    build_manifest(Listed(good), out)
    with pytest.raises(SourceError, match="is the manifest of source 'listed'"):
        build_manifest(Listed(good, colour="red"), out)
    with pytest.raises(SourceError, match="cannot be read"):
        Manifest.load(tmp_path / "nowhere.parquet")
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        build_manifest(Listed(good), tmp_path / "file/out.parquet")
    with pytest.raises(SourceError, match="val_fraction"):
        build_manifest(Listed(good), out, val_fraction=1.0)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.parquet"
    build_manifest(Listed({"a": (jpeg(photo(1, 120, 100)), None, None, None)}), out)
    before = out.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        build_manifest(Listed({"b": (jpeg(photo(2, 120, 100)), None, None, None)}), out)
    assert out.read_bytes() == before and os.listdir(tmp_path) == ["out.parquet"]


def test_refs_are_unique(tmp_path: Path) -> None:
    class Twice(Listed):
        def records(self) -> Iterator[Record]:
            yield from super().records()
            yield from super().records()

    with pytest.raises(SourceError, match="lists 'a' more than once"):
        build_manifest(Twice({"a": (jpeg(photo(1, 120, 100)), None, None, None)}), tmp_path / "m.parquet")


def test_a_picture_that_breaks_later_is_an_image_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    photo(1, 120, 100).save(tmp_path / "in/x.png")
    manifest = build_manifest(FolderSource(tmp_path / "in"), tmp_path / "m.parquet", val_fraction=0.0)
    (tmp_path / "in/x.png").write_bytes(b"gone")
    with pytest.raises(ImageError, match="not_an_image"):
        manifest.open(manifest.items("train")[0])


def test_progress_shows_only_on_long_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    source = Listed({"a": (jpeg(photo(1, 120, 100)), None, None, None)})
    build_manifest(source, tmp_path / "a.parquet", progress=True)
    assert capsys.readouterr().err == ""
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    build_manifest(source, tmp_path / "b.parquet", progress=True)
    assert "indexing" in capsys.readouterr().err
