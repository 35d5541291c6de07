"""Folders as people have them: pictures of phones and of the web, other files among them, links out of the folder."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import photo, rgbd
from PIL import Image
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.data.choose_source import source_of
from ssl4rl_plugin.data.images import ImageError, decode, open_rgb
from ssl4rl_plugin.data.source import SourceError, load_source
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources.folder import FolderSource
from ssl4rl_plugin.data_builders.sources.imagefolder import ImageFolderSource
from ssl4rl_plugin.data_builders.sources.parquet import ParquetSource
from ssl4rl_plugin.data_builders.sources.rgbd import RgbdSource
from ssl4rl_plugin.data_builders.sources.video import VideoSource

HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100)
"""The first box of a HEIC file; nothing behind it can be decoded."""


def avif(image: Image.Image, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "AVIF", quality=90, **how)  # type: ignore[arg-type]
    return file.getvalue()


def reason_of(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        open_rgb(data)
    return caught.value


# ---------------------------------------------------------------------------------------------------- AVIF and HEIC


def test_avif_is_decoded(tmp_path: Path) -> None:
    image = photo(1, 96, 64)
    info, found = decode(avif(image))
    assert (info.format, found.size, found.mode) == ("AVIF", (96, 64), "RGB")
    assert np.abs(np.asarray(found, int) - np.asarray(image, int)).mean() < 6
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, upright = decode(avif(image, exif=exif))
    assert (turned.orientation, turned.width, turned.height, upright.size) == (6, 64, 96, (64, 96))
    assert np.abs(np.asarray(upright, int) - np.asarray(found.transpose(Image.Transpose.ROTATE_270), int)).mean() < 6
    assert reason_of(avif(image)[:200]).reason in ("broken", "truncated")
    for i in range(3):
        (tmp_path / f"{i}.avif").write_bytes(avif(photo(i, 96, 64)))
    (tmp_path / "named.jpg").write_bytes(avif(photo(9, 96, 64)))  # the content counts, not the name
    assert len(build_manifest(FolderSource(tmp_path), tmp_path / "m.parquet", val_fraction=0).items("train")) == 4


def test_an_avif_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(ImageError, match="too_large"):
        decode(avif(photo(1, 96, 64)), max_source_pixels=96 * 64 - 1)


def test_heic_is_counted_with_the_remedy_and_read_once_there_is_a_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        photo(i).save(tmp_path / f"{i}.jpg")
        (tmp_path / f"IMG_{i}.HEIC").write_bytes(HEIC)
    (tmp_path / "phone.jpg").write_bytes(HEIC)  # as some phones name it
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)  # so that this also holds where it is installed
        command = ["index", str(tmp_path), "--workers", "1", "--out", str(tmp_path / "m.parquet")]
        result = CliRunner().invoke(app, command)
        said = " ".join(result.stderr.split())
        assert result.exit_code == 0 and "3 of 7 images" in said
        assert "no_heic_reader 4 pip install 'ssl4rl-plugin[heif]'" in said
        found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
        assert found["left_out"] == {"no_heic_reader": 4} and "heif" in found["remedies"]["no_heic_reader"]
    pytest.importorskip("pillow_heif", reason="the extra [heif] is not installed")
    # The files are unchanged, but a decoder is there now: they are looked at again.
    assert build_manifest(FolderSource(tmp_path), tmp_path / "m.parquet").rejected == {"broken": 4}


def test_heic_is_decoded(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="the extra [heif] is not installed")
    image = photo(2, 96, 64)
    for number in range(3):
        heif.from_pillow(photo(number, 96, 64)).save(tmp_path / f"{number}.heic", quality=90)
    info, found = decode((tmp_path / "2.heic").read_bytes())
    assert (info.format, found.size, found.mode) == ("HEIF", (96, 64), "RGB")
    assert np.abs(np.asarray(found, int) - np.asarray(image, int)).mean() < 8
    exif = Image.Exif()
    exif[0x0112] = 6
    heif.from_pillow(image).save(tmp_path / "t.heic", quality=90, exif=exif.tobytes())
    upright = open_rgb((tmp_path / "t.heic").read_bytes())
    assert upright.size == (64, 96)
    assert np.abs(np.asarray(upright, int) - np.asarray(found.transpose(Image.Transpose.ROTATE_270), int)).mean() < 6
    data = (tmp_path / "2.heic").read_bytes()
    assert reason_of(data[: len(data) // 2]).reason in ("broken", "truncated")
    with pytest.raises(ImageError, match="too_large"):
        decode(data, max_source_pixels=96 * 64 - 1)
    manifest = build_manifest(FolderSource(tmp_path), tmp_path / "m.parquet", val_fraction=0, workers=2)
    assert len(manifest.items("train")) == 4 and not manifest.rejected


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"<svg xmlns=", "SVG"),
        (b"8BPS\0\x01", "PSD"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "source video"),
        (b"what is this", "starts with b'what is this"),
    ],
)
def test_a_file_that_is_no_picture_is_named(start: bytes, kind: str) -> None:
    error = reason_of(start.ljust(60))
    assert error.reason == "not_an_image" and kind in error.detail, error


# ---------------------------------------------------------------------------------------------------- other files


def test_other_files_are_counted_by_ending(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(2):
        photo(i).save(tmp_path / f"{i}.jpg")
        (tmp_path / f"{i}.txt").write_text("a caption")
    (tmp_path / "deep").mkdir()
    for name in ("a.jp2", "b.JP2", "deep/c.nef", "deep/d.MOV", "e.tar.gz", "f.svg", "noending"):
        (tmp_path / name).write_bytes(b"x")
    source = FolderSource(tmp_path)
    build_manifest(source, tmp_path / "out/m.parquet")
    expected = (
        "not read: 9 files with other endings: 2 .jp2 (convert it to PNG or JPEG), 1 .mov (source video), "
        "1 .nef (a camera's raw data: convert it to JPEG or PNG), 1 .svg (convert it to PNG or JPEG), "
        "1 .tar.gz (unpack it, or repack it as a plain .tar for source webdataset), 2 .txt, 1 without an ending"
    )
    assert expected in caplog.text and expected in source.notes()[0]
    plain = tmp_path / "captions"
    plain.mkdir()
    photo(1).save(plain / "1.jpg")
    (plain / "1.txt").write_text("a caption")
    source = FolderSource(plain)
    assert len(list(source.records())) == 1 and not source.notes(), "captions and labels beside pictures are usual"


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.csv", "b.tar.gz", "c.mp4"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"no image files .*1 \.csv \(source list, if it lists images\)"):
        list(FolderSource(tmp_path).records())
    with pytest.raises(SourceError, match=r"is a file, not a folder.*source list reads it.*ssl4rl\.source\.name=list"):
        FolderSource(tmp_path / "a.csv")
    with pytest.raises(SourceError, match=r"unknown kind of file; known: \.csv"):
        FolderSource(os.devnull)


def test_columns_of_masks_are_no_photographs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in data sets of segmentation and of ControlNet on the Hub."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def cells(first: int) -> list[dict[str, bytes | None]]:
        files = [io.BytesIO() for _ in range(3)]
        for i, file in enumerate(files):
            photo(first + i).save(file, "PNG")
        return [{"bytes": file.getvalue(), "path": None} for file in files]

    names = ["image", "annotation", "depth_map", "conditioning_image", "label2"]
    table = pa.table({name: cells(10 * k) for k, name in enumerate(names)})
    pq.write_table(table, tmp_path / "x.parquet")
    source = ParquetSource(tmp_path / "x.parquet")
    assert [record.ref for record in source.records()] == [f"x.parquet#{i}/image" for i in range(3)]
    build_manifest(source, tmp_path / "m.parquet")
    assert (
        "taken: image; left out, as masks or the like: annotation, depth_map, conditioning_image, label2" in caplog.text
    )
    chosen = ParquetSource(tmp_path / "x.parquet", columns=["image", "annotation"])
    assert len(list(chosen.records())) == 6 and not chosen.notes()
    pq.write_table(table.select(["annotation"]), tmp_path / "y.parquet")
    assert len(list(ParquetSource(tmp_path / "y.parquet").records())) == 3, "there is nothing else in it"


# ---------------------------------------------------------------------------------------------------- links out


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder of links, as the cache of the Hugging Face Hub: snapshots/REV/NAME -> ../../blobs/HASH."""
    blobs, snapshot = tmp_path / "hub/blobs", tmp_path / "hub/snapshots/rev"
    blobs.mkdir(parents=True)
    (snapshot / "cats").mkdir(parents=True)
    for i in range(4):
        photo(i).save(blobs / f"{i}", "JPEG")
        (snapshot / f"cats/{i}.jpg").symlink_to(f"../../../blobs/{i}")
    return snapshot


@pytest.mark.parametrize("kind", [FolderSource, ImageFolderSource])
def test_root_allows_links_out_of_the_folder(tmp_path: Path, cache: Path, kind: type[FolderSource]) -> None:
    blobs = tmp_path / "hub/blobs"
    with pytest.raises(SourceError, match=rf"none of its 4 images can be used \(outside_root 4;.*root={blobs} allows"):
        build_manifest(kind(cache), tmp_path / "m.parquet")
    for root in (str(blobs), [str(tmp_path / "hub")], [str(cache), str(blobs)]):
        source = kind(cache, root=root)  # type: ignore[arg-type]
        manifest = build_manifest(source, tmp_path / f"{len(str(root))}.parquet", val_fraction=0)
        assert len(manifest.items("train")) == 4
        assert type(manifest).load(manifest.path).picture(manifest.items("train")[0]).mode == "RGB"
    (cache / "cats/secret.jpg").symlink_to("/etc/passwd")
    (cache / "cats/up.jpg").symlink_to("../../../../secret.jpg")
    (tmp_path / "secret.jpg").write_bytes((blobs / "0").read_bytes())
    source = kind(cache, root=str(blobs))
    for name in ("secret", "up"):
        with pytest.raises(ImageError, match="outside_root"):
            source.read(f"cats/{name}.jpg")
    for ref in ("../../blobs/0", "/etc/passwd", f"{blobs}/0"):
        with pytest.raises(SourceError, match="does not lie below"):
            source.read(ref)


def test_root_allows_folders_of_links(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, other = tmp_path / "data", tmp_path / "disk2/photos"
    data.mkdir()
    other.mkdir(parents=True)
    photo(1).save(other / "1.jpg")
    photo(2).save(data / "2.jpg")
    (data / "more").symlink_to(other, target_is_directory=True)
    (other / "loop").symlink_to(data, target_is_directory=True)
    assert [record.ref for record in FolderSource(data).records()] == ["2.jpg"]
    assert f"give the option root={other}" in caplog.text
    assert [record.ref for record in FolderSource(data, root=str(tmp_path / "disk2")).records()] == [
        "2.jpg",
        "more/1.jpg",
    ]


def test_every_source_with_paths_has_root(tmp_path: Path, cache: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    blobs = str(tmp_path / "hub/blobs")
    (tmp_path / "t").mkdir()
    pq.write_table(pa.table({"image_path": [f"{blobs}/{i}.jpg" for i in range(2)]}), tmp_path / "t/t.parquet")
    for i in range(2):
        os.link(f"{blobs}/{i}", f"{blobs}/{i}.jpg")
    ref = "t.parquet#0/image_path"
    with pytest.raises(ImageError, match=f"option root={blobs}"):
        ParquetSource(tmp_path / "t").read(ref)
    assert ParquetSource(tmp_path / "t", root=blobs).read(ref)[:2] == b"\xff\xd8"
    import datasets

    # With the paths in the table, as `cast_column` leaves them before the data set is saved.
    table = datasets.Dataset.from_dict({"image_path": [f"{blobs}/{i}.jpg" for i in range(2)]})
    table.save_to_disk(tmp_path / "saved")
    with pytest.raises(ImageError, match=f"option root={blobs}"):
        load_source("hf", tmp_path / "saved").read("all#0/image_path")
    assert load_source("hf", tmp_path / "saved", root=blobs).read("all#0/image_path")[:2] == b"\xff\xd8"
    pair = rgbd(1)
    pair.image.save(f"{blobs}/rgb.png")
    np.save(f"{blobs}/rgb.npy", pair.depth)
    scene = tmp_path / "scene"
    scene.mkdir()
    for ending in ("png", "npy"):
        (scene / f"a.{ending}").symlink_to(f"{blobs}/rgb.{ending}")
    with pytest.raises(ImageError, match="outside_root"):
        RgbdSource(scene).read("a.png")
    rgbd_source = RgbdSource(scene, root=blobs)
    assert rgbd_source.item("a.png", lambda: pair.image, None).depth.shape == (240, 320)
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(9):
        (frames / f"{i:03}.jpg").symlink_to(f"{blobs}/{i % 4}")
    with pytest.raises(ImageError, match="outside_root"):
        VideoSource(frames).read("./")
    assert len(VideoSource(frames, root=blobs).read("./")) == 64
    for name in ("folder", "imagefolder", "json", "list", "rgbd", "video", "parquet", "mmbench", "imagenet"):
        with pytest.raises(SourceError, match=r"root=/nowhere is not a folder"):
            load_source(name, _any_path(name, tmp_path), root="/nowhere")


def _any_path(name: str, tmp_path: Path) -> Path:
    if name in ("json", "list"):
        file = tmp_path / f"x.{'json' if name == 'json' else 'csv'}"
        file.write_text('[{"image": "a.jpg"}]' if name == "json" else "path\na.jpg\n")
        return file
    return tmp_path / "t" if name == "parquet" else tmp_path


def test_root_may_be_given_several_times(tmp_path: Path, cache: Path) -> None:
    run = CliRunner().invoke
    (tmp_path / "disk2").mkdir()
    photo(7).save(tmp_path / "disk2/7.jpg")
    (cache / "7.jpg").symlink_to(tmp_path / "disk2/7.jpg")
    (cache / "plain.jpg").write_bytes((tmp_path / "hub/blobs/0").read_bytes())
    result = run(app, ["index", str(cache), "--source", "folder", "--workers", "1"])
    said = " ".join(result.stderr.split())
    assert result.exit_code == 0 and "outside_root 5" in said and f"--option root={tmp_path}" in said
    roots = [f"root={tmp_path}/hub", f"root={tmp_path}/disk2"]
    options = [word for root in roots for word in ("--option", root)]
    result = run(app, ["index", str(cache), "--source", "folder", "--workers", "1", "--json", *options])
    assert result.exit_code == 0 and json.loads(result.stdout)["left_out"] == {}, result.output
    result = run(app, ["index", str(cache), "--option", "use_splits=true", "--option", "use_splits=false"])
    assert result.exit_code == 2 and "is given twice" in result.stderr


def test_a_path_tells_its_source(tmp_path: Path) -> None:
    for name in ("a.csv", "b.txt", "c.zip", "d.tsv", "e.tgz"):
        (tmp_path / name).write_text("path\tlabel\nx.jpg\t1\n")
    assert [source_of(tmp_path / name) for name in ("a.csv", "b.txt", "c.zip", "d.tsv", "e.tgz")] == [
        "list", "list", "zip", "list", "webdataset",
    ]  # fmt: skip
    (tmp_path / "d.tsv").write_text("index\timage\n0\t/9j/\n")
    assert source_of(tmp_path / "d.tsv") == "tsv"
