"""The page docs/layouts.md: each row of its tables is built here, read, and refused where the row says so."""

from __future__ import annotations

import base64
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import clip, photo
from PIL import Image

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.choose_source import source_of
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.source import load_source, registry
from ssl4rl_plugin.data_builders.index.depths import depth_figures
from ssl4rl_plugin.data_builders.index.indexer import build_manifest

PAGE = (Path(__file__).parent.parent / "docs/layouts.md").read_text(encoding="utf-8")
ROWS = {
    cells[0]: cells[1:]
    for line in PAGE.splitlines()
    if line.startswith("| ") and len(cells := [cell.strip() for cell in line.strip("|").split(" | ")]) == 5
    if cells[0] != "Layout"
}
"""First column -> the others."""

CASES: dict[str, Callable[[Path], None]] = {}


def case(row: str) -> Callable[[Callable[[Path], None]], None]:
    def add(build: Callable[[Path], None]) -> None:
        CASES[row] = build

    return add


def pictures(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(number, 96, 64).save(path)
    return folder


def index(path: Path, source: str | None = None, **options: object) -> Manifest:
    """Index a path as the command does: without a name of a source, the path decides."""
    out = path.parent / f"manifest-{len(list(path.parent.glob('manifest-*')))}.parquet"
    return build_manifest(load_source(source or source_of(path), path, **options), out, val_fraction=0, workers=1)


def used(manifest: Manifest) -> list[str]:
    return sorted(item.ref for side in ("train", "val") for item in manifest.items(side))


# ---------------------------------------------------------------------------------------------------- folders


@case("images in folders")
def _(tmp_path: Path) -> None:
    names = [f"d/{i}.{ending}" for i, ending in enumerate(("jpg", "png", "webp", "gif", "bmp", "tif", "ppm", "avif"))]
    root = pictures(tmp_path / "in", *names, ".hidden.jpg")
    (root / "d/0.jpg").rename(root / "d/0.png")
    (root / "bad.jpg").write_bytes(b"no picture")
    manifest = index(root)
    assert len(used(manifest)) == 8 and manifest.rejected == {"not_an_image": 1}


@case("HEIC")
def _(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "a.jpg")
    (root / "b.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    try:
        import pillow_heif
    except ImportError:
        assert index(root).rejected == {"no_heic_reader": 1}
    else:
        pillow_heif.from_pillow(photo(2, 96, 64)).save(root / "b.heic")
        assert used(index(root)) == ["a.jpg", "b.heic"]


@case("other files beside images")
def _(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "a.jpg")
    for name in ("b.jp2", "c.nef", "d.svg", "e.mov", "f.zip"):
        (root / name).write_bytes(b"")
    (note,) = index(root).source.notes()
    assert all(text in note for text in ("5 files", "1 .jp2 (convert", "1 .mov (source video)", "1 .zip (source zip)"))


@case("splits and classes")
def _(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "train/cat/1.jpg", "val/cat/2.jpg")
    manifest = index(root, "imagefolder")
    assert [item.split for item in (*manifest.items("train"), *manifest.items("val"))] == ["train", "val"]
    assert len(index(root, "imagefolder", use_splits=False).items("train")) == 2


@case("links out of the folder")
def _(tmp_path: Path) -> None:
    blobs = pictures(tmp_path / "blobs", "x.jpg")
    root = pictures(tmp_path / "in", "a.jpg")
    (root / "b.jpg").symlink_to(blobs / "x.jpg")
    manifest = index(root)
    (row,) = [row for row in manifest.table.to_pylist() if row["reason"]]
    assert row["reason"] == "outside_root" and f"root={blobs}" in row["detail"]
    assert used(index(root, root=[str(blobs)])) == ["a.jpg", "b.jpg"]


# ---------------------------------------------------------------------------------------------------- lists


@case("CSV with a header")
def _(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "a.jpg", "b c.jpg")
    for mark in (",", "\t", ";", "|"):
        text = f'\ufeffname{mark}file\n"x{mark}y"{mark} a.jpg\nz{mark}"b c.jpg"\nonly one\n'
        (root / "l.csv").write_text(text)
        manifest = index(root / "l.csv")
        assert used(manifest) == ["a.jpg", "b c.jpg"] and "not 2 columns" in manifest.source.notes()[0]
    for text, message in (
        ("left,right\na.jpg,b c.jpg\n", "columns left, right: choose"), ('file,x\na.jpg,"\n', "quote"),
        ("a.jpg;1,b.jpg\nc.jpg;2,d.jpg\n", "choose one with the option delimiter"),
    ):  # fmt: skip
        (root / "l.csv").write_text(text)
        with pytest.raises(UserError, match=message):
            index(root / "l.csv")


@case("CSV without a header")
def _(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "a.jpg", "b.jpg")
    (root / "l.csv").write_text("1,a.jpg\n2,b.jpg\n")
    assert used(index(root / "l.csv")) == used(index(root / "l.csv", columns=2)) == ["a.jpg", "b.jpg"]


@case("one path a line")
def _(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "a.jpg", "images/b.jpg")
    (root / "l.txt").write_text("# mine\na.jpg 0\nimages/b.jpg 1\nwhat\n")
    manifest = index(root / "l.txt")
    assert used(manifest) == ["a.jpg", "images/b.jpg"] and "not the name of a picture" in manifest.source.notes()[0]
    (root / "l.lst").write_text("b.jpg\n")
    assert used(index(root / "l.lst")) == ["images/b.jpg"]
    (root / "l.txt").write_text("hello\n")
    with pytest.raises(UserError, match="does not look like a list"):
        index(root / "l.txt")


@case("JSON")
def _(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "a.jpg", "b.jpg")
    entries = [{"image": "a.jpg"}, {"image": ["b.jpg"], "question": "?"}, {"text": 1}]
    (root / "l.json").write_text(json.dumps({"data": entries}))
    (root / "l.jsonl").write_text("\n".join(map(json.dumps, entries)) + "\nno json\n")
    for name in ("l.json", "l.jsonl"):
        manifest = index(root / name)
        assert used(manifest) == ["a.jpg", "b.jpg"] and "without an image 1" in manifest.source.notes()[0]


@case("absolute paths")
def _(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", "a.jpg", "b.jpg", "c.jpg")
    lists = pictures(tmp_path / "lists", "own.jpg")
    (lists / "l.txt").write_text(f"own.jpg\n{data}/a.jpg\n../data/b.jpg\nfile://{data}/c.jpg\n")
    (lists / "l.json").write_text(json.dumps([{"image": "own.jpg"}, {"image": f"{data}/a.jpg"}]))
    assert (
        index(lists / "l.txt").rejected == {"outside_root": 3} and index(lists / "l.json").rejected["outside_root"] == 1
    )
    assert len(used(index(lists / "l.txt", root=str(data)))) == 4
    assert len(used(index(lists / "l.json", root=str(data)))) == 2


@case("addresses")
def _(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "a.jpg")
    (root / "l.txt").write_text("a.jpg\nhttps://example.org/b.jpg\n")
    assert index(root / "l.txt").rejected == {"url": 1}


# ---------------------------------------------------------------------------------------------------- archives


def packed(file: Path, folder: Path) -> Path:
    names = sorted(path for path in folder.rglob("*") if path.is_file())
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w") as archive:
            for path in names:
                archive.write(path, path.relative_to(folder))
    else:
        with tarfile.open(file, "w:gz" if file.suffix == ".gz" else "w") as archive:
            for path in names:
                archive.add(path, path.relative_to(folder))
    return file


@case("ZIP file")
def _(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", "train/a.jpg", "val/b c.png")
    (folder / "bomb.bmp").write_bytes(bytes(40 * 2**20))
    (tmp_path / "zips").mkdir()
    with zipfile.ZipFile(tmp_path / "zips/x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder))
    manifest = index(tmp_path / "zips/x.zip")
    assert used(manifest) == ["train/a.jpg", "val/b c.png"] and manifest.rejected == {"too_large": 1}
    assert used(index(tmp_path / "zips")) == ["x.zip/train/a.jpg", "x.zip/val/b c.png"]


@case("folder of tar shards")
def _(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", "1.left.jpg", "1.right.jpg", "2.jpg")
    (tmp_path / "shards/deep").mkdir(parents=True)
    whole = packed(tmp_path / "shards/deep/0.tar", folder)
    data = whole.read_bytes()
    (tmp_path / "shards/cut.tar").write_bytes(data[: data.index(b"\xff\xd8") + 100])
    manifest = index(tmp_path / "shards")
    assert manifest.source.name == "webdataset" and manifest.rejected == {"truncated": 1}
    groups = {item.ref.partition(":")[2].partition(".")[0]: item.group for item in manifest.items("train")}
    assert len(used(manifest)) == 3 and len(set(groups.values())) == 2


@case("pattern of shards")
def _(tmp_path: Path) -> None:
    for number in range(3):
        packed(tmp_path / f"{number:03}.tar", pictures(tmp_path / f"in{number}", f"{number}.jpg"))
    photo(9, 96, 64).save(tmp_path / "in1/1.jpg")
    packed(tmp_path / "001.tar", tmp_path / "in1")
    assert len(list(load_source(source_of(tmp_path / "{000..002}.tar"), tmp_path / "{000..002}.tar").records())) == 3
    assert len(used(index(tmp_path / "{000,001}.tar"))) == 2
    with pytest.raises(UserError, match="do not exist"):
        index(tmp_path / "{000..003}.tar")


@case("masks beside photographs")
def _(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", "0.jpg", "0.seg.png", "0.mask.png", "0.depth.png", "1.webp", "1.other.png")
    manifest = index(packed(tmp_path / "x.tar", folder))
    assert [ref.partition(":")[2].partition("@")[0] for ref in used(manifest)] == ["0.jpg", "1.webp"]
    assert "left out: depth.png 1, mask.png 1, seg.png 1, other.png 1" in manifest.source.notes()[0]
    assert len(used(index(tmp_path / "x.tar", fields="seg.png"))) == 1


@case("packed tar file")
def _(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is compressed"):
        index(packed(tmp_path / "x.tar.gz", pictures(tmp_path / "in", "a.jpg")))


# ---------------------------------------------------------------------------------------------------- tables


@case("TSV with base64")
def _(tmp_path: Path) -> None:
    data = base64.b64encode((pictures(tmp_path / "in", "a.jpg") / "a.jpg").read_bytes()).decode()
    (tmp_path / "x.tsv").write_text(f"index\timage\tquestion\n1\t{data}\tx\n2\t1\ty\n3\t7\tz\n4\t!!!{data}\tw\n5\tx\n")
    manifest = index(tmp_path / "x.tsv")
    assert len(used(manifest)) == 2
    assert manifest.rejected == {"dangling_reference": 1, "broken_base64": 1, "broken_row": 1}


@case("parquet")
def _(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = (pictures(tmp_path / "in", "a.jpg") / "a.jpg").read_bytes()
    pq.write_table(pa.table({"image": [{"bytes": data, "path": None}, None]}), tmp_path / "x.parquet")
    manifest = index(tmp_path / "x.parquet")
    assert len(used(manifest)) == 1 and manifest.rejected == {"no_image": 1}
    cell = [{"bytes": data, "path": None}]
    pq.write_table(pa.table({"image": cell, "mask": cell}), tmp_path / "m.parquet")
    manifest = index(tmp_path / "m.parquet")
    assert len(used(manifest)) == 1 and "left out, as masks or the like: mask" in manifest.source.notes()[0]
    pq.write_table(pa.table({"image_path": ["a.jpg", "/elsewhere/b.jpg"]}), tmp_path / "in/y.parquet")
    assert index(tmp_path / "in/y.parquet").rejected == {"outside_root": 1}
    (tmp_path / "z.parquet").write_bytes(b"none")
    with pytest.raises(UserError, match="cannot be read as a parquet file"):
        index(tmp_path / "z.parquet")


@case("saved data set")
def _(tmp_path: Path) -> None:
    import datasets

    data = (pictures(tmp_path / "in", "a.jpg") / "a.jpg").read_bytes()
    features = datasets.Features({"image": datasets.Image()})
    rows = {"image": [{"bytes": data, "path": None}]}
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "saved")
    manifest = index(tmp_path / "saved")
    assert manifest.source.name == "hf" and len(used(manifest)) == 1


# ---------------------------------------------------------------------------------------------------- depth


def depth(low: float = 1.0, high: float = 4.0) -> np.ndarray:
    return np.linspace(low, high, 64 * 96, dtype=np.float32).reshape(64, 96)


def put(path: Path, values: np.ndarray, scale: float = 1000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(np.rint(values * scale).astype(np.uint16)).save(path)


@case("depth beside the picture")
def _(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "alone.jpg", "size.jpg", "bits.jpg"]
    root = pictures(tmp_path / "in", *names)
    for name in ("a_depth.png", "b_depth.npy", "c.npy", "d_depth.tif"):
        put(root / name, depth())
    Image.fromarray(depth()).save(root / "e_depth.tif")  # floats
    put(root / "size_depth.png", depth()[:-1])
    Image.new("L", (96, 64), 9).save(root / "bits_depth.png")
    manifest = index(root, "rgbd")
    assert used(manifest) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
    assert manifest.rejected == {"no_depth_file": 1, "depth_size": 1, "bad_depth": 1}
    for item in manifest.items("train"):
        np.testing.assert_allclose(manifest.open(item).depth, depth(), atol=0.001)  # type: ignore[union-attr]


@case("depth in a folder beside")
def _(tmp_path: Path) -> None:
    folders = ("rgb", "image", "images", "color")
    root = pictures(tmp_path / "in", *(f"{folder}_/{folder}/a.jpg" for folder in folders))
    for folder in folders:
        put(root / f"{folder}_/depth/a.png", depth(), 5000)
    assert len(used(index(root, "rgbd", depth_scale=5000))) == 4


@case("7-Scenes")
def _(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "frame-0.color.png")
    values = np.rint(depth() * 1000)
    values[:20] = 65535
    put(root / "frame-0.depth.png", values, 1)
    manifest = index(root, "rgbd")
    (item,) = manifest.items("train")
    found = manifest.open(item).depth  # type: ignore[union-attr]
    assert np.isnan(found[:20]).all() and np.isfinite(found[20:]).all()


@case("unknown depth")
def _(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "a.jpg", "b.jpg")
    values = depth()
    marks = [0, -1, np.nan, np.inf, np.finfo(np.float32).max, 5000]
    values[: len(marks)] = np.array(marks, np.float32)[:, None]
    put(root / "a_depth.npy", values)
    put(root / "b_depth.npy", np.where(depth() < 3.5, 0, depth()).astype(np.float32))
    manifest = index(root, "rgbd")
    assert used(manifest) == ["a.jpg"] and manifest.rejected == {"no_depth": 1}
    found = manifest.open(manifest.items("train")[0]).depth  # type: ignore[union-attr]
    assert np.isnan(found[: len(marks)]).all() and np.isfinite(found[len(marks) :]).all()
    cut = index(root, "rgbd", max_depth=3)
    assert np.nanmax(cut.open(cut.items("train")[0]).depth) <= 3  # type: ignore[union-attr]


@case("wrong scale")
def _(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "a.jpg")
    put(root / "a_depth.png", depth(), 5000)
    right, wrong = (depth_figures(index(root, "rgbd", depth_scale=scale)) for scale in (5000, 1000))
    assert right is not None and right.warning(5000) is None and right.median == pytest.approx(2.5, rel=0.02)
    assert wrong is not None and "5000 (median 2.5 m, a room)" in (wrong.warning(1000) or "")


@case("depth as EXR")
def _(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", "a.jpg", "b.jpg")
    put(root / "a_depth.png", depth())
    (root / "b_depth.exr").write_bytes(b"v/1\x01")
    (row,) = [row for row in index(root, "rgbd").table.to_pylist() if row["reason"]]
    assert row["reason"] == "no_depth_file" and "b_depth.exr is not read" in row["detail"]


# ---------------------------------------------------------------------------------------------------- videos


@case("video files")
def _(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    (tmp_path / "in").mkdir()
    with av.open(str(tmp_path / "in/a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=16)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 120, "yuv420p", 4_000_000
        for image in clip(1).frames:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    (tmp_path / "in/b.mkv").write_bytes(b"no video")
    manifest = index(tmp_path / "in")
    assert manifest.source.name == "video" and used(manifest) == ["a.mp4"] and manifest.rejected == {"not_a_video": 1}


@case("folders of numbered frames")
def _(tmp_path: Path) -> None:
    for number, image in enumerate(clip(1).frames):
        path = tmp_path / f"in/one/frame_{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    pictures(tmp_path / "in", "cover.jpg")
    manifest = index(tmp_path / "in", "video")
    assert used(manifest) == ["one/"] and "1 picture is in no series" in " ".join(manifest.source.notes())


@case("another kind of file")
def _(tmp_path: Path) -> None:
    (tmp_path / "d.xyz").write_bytes(b"")
    with pytest.raises(UserError, match=r"d\.xyz: unknown kind of file; known: \.csv"):
        index(tmp_path / "d.xyz")


# ---------------------------------------------------------------------------------------------------- the page


def test_every_row_has_a_case_and_names_what_exists() -> None:
    assert set(ROWS) == set(CASES) and len(ROWS) > 20
    for row, (sources, _, options, _) in ROWS.items():
        for name in re.findall(r"`(\w+)`", sources):
            import inspect

            accepted = inspect.signature(registry.get(name)).parameters
            assert set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", options))) <= set(accepted), (row, name)


@pytest.mark.parametrize("row", CASES)
def test_each_row_is_as_the_page_says(tmp_path: Path, row: str) -> None:
    CASES[row](tmp_path)
