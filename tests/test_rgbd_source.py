"""Pictures with depth: found in every documented layout, checked when indexed, and given to tasks as one thing."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import photo, rgbd
from PIL import Image

from ssl4rl_plugin.core import RGBD
from ssl4rl_plugin.data import source as source_module
from ssl4rl_plugin.data.depth import resampled
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources.rgbd import RgbdSource
from ssl4rl_plugin.data_builders.sources.sample_depth import SampleDepthSource

WIDTH, HEIGHT = 96, 64


@pytest.fixture(autouse=True)
def sources() -> None:
    """Manifest.load finds sources by name; where the package is not installed, there are no entry points."""
    for kind in (RgbdSource, SampleDepthSource):
        if kind.name not in source_module.registry.names():
            source_module.registry.register(kind.name, kind)


def ramp(seed: int = 0) -> np.ndarray:
    """Depth in metres in which each pixel is told from its neighbours; the first row is unknown."""
    depth = (1 + seed + np.arange(HEIGHT)[:, None] * 0.02 + np.arange(WIDTH)[None, :] * 0.01).astype(np.float32)
    depth[0] = np.nan
    return depth


def put(path: Path, seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(seed, WIDTH, HEIGHT).save(path, **options)  # type: ignore[arg-type]
    return path


def put_png(path: Path, depth: np.ndarray, scale: float = 1000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(np.nan_to_num(depth) * scale).astype(np.uint16)).save(path)


def put_npy(path: Path, depth: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, depth, allow_pickle=True)


def indexed(source: RgbdSource | SampleDepthSource, tmp_path: Path) -> Manifest:
    return build_manifest(source, tmp_path / "out" / "manifest.parquet", val_fraction=0.0)


def opened(source: RgbdSource, tmp_path: Path, max_pixels: int | None = None) -> dict[str, RGBD]:
    manifest = indexed(source, tmp_path)
    found = {item.ref: manifest.open(item, max_pixels) for item in manifest.items("train")}
    assert all(isinstance(data, RGBD) for data in found.values())
    return found  # type: ignore[return-value]


def rejected(folder: Path, tmp_path: Path, **limits: int) -> dict[str, str]:
    """Reason by ref; one good item is put beside them, as a manifest needs one."""
    put(folder / "good.png", 99)
    put_npy(folder / "good.npy", ramp())
    manifest = build_manifest(RgbdSource(folder), tmp_path / "out" / "m.parquet", val_fraction=0.0, **limits)
    rows = manifest.table.select(["ref", "reason"]).to_pylist()
    return {row["ref"]: row["reason"] for row in rows if row["ref"] != "good.png"}


def test_every_documented_layout_is_found(tmp_path: Path) -> None:
    root = tmp_path / "data"
    put(root / "a.jpg", 1)
    put_png(root / "a_depth.png", ramp(1))
    put(root / "b.png", 2)
    put_npy(root / "b_depth.npy", ramp(2))
    put(root / "c.jpeg", 3)
    put_npy(root / "c.npy", ramp(3)[..., None].astype(np.float64))
    for number, folder in enumerate(("rgb", "image", "images", "color"), 4):
        put(root / f"scene{number}" / folder / "deep" / "x.y.png", number)
        put_png(root / f"scene{number}" / "depth" / "deep" / "x.y.png", ramp(number))
    put(root / "scene8" / "rgb" / "z.png", 8)
    put_npy(root / "scene8" / "depth" / "z.npy", ramp(8).astype(np.float16))
    put(root / "diode.png", 9)
    put_npy(root / "diode_depth.npy", ramp(9)[..., None])
    mask = np.ones((HEIGHT, WIDTH))
    mask[5] = 0
    put_npy(root / "diode_depth_mask.npy", mask)

    found = opened(RgbdSource(root), tmp_path)
    seeds = {"a.jpg": 1, "b.png": 2, "c.jpeg": 3, "scene8/rgb/z.png": 8, "diode.png": 9} | {
        f"scene{n}/{folder}/deep/x.y.png": n for n, folder in enumerate(("rgb", "image", "images", "color"), 4)
    }
    assert set(found) == set(seeds), "depth maps are no pictures"
    for ref, seed in seeds.items():
        data, expected = found[ref], ramp(seed)
        assert data.image.size == (WIDTH, HEIGHT) and data.depth.dtype == np.float32
        assert np.isnan(data.depth[0]).all()
        if ref == "diode.png":
            assert np.isnan(data.depth[5]).all()
            expected[5] = np.nan
        np.testing.assert_allclose(data.depth, expected, atol=0.006)


def test_the_order_of_preference_is_as_documented(tmp_path: Path) -> None:
    picture = put(tmp_path / "data" / "rgb" / "a.png")
    put_png(tmp_path / "data" / "depth" / "a.png", ramp(1))
    put_npy(tmp_path / "data" / "depth" / "a.npy", ramp(2))
    put_npy(picture.with_suffix(".npy"), ramp(3))
    put_png(picture.with_name("a_depth.png"), ramp(4))
    put_npy(picture.with_name("a_depth.npy"), ramp(5))
    source = RgbdSource(tmp_path / "data")
    for expected, gone in (
        (5, "rgb/a_depth.npy"),
        (4, "rgb/a_depth.png"),
        (3, "rgb/a.npy"),
        (2, "depth/a.npy"),
        (1, ""),
    ):
        data = source.item("rgb/a.png", lambda: Image.open(picture).convert("RGB"), None)
        assert data.depth[1, 0] == pytest.approx(ramp(expected)[1, 0], abs=0.001)
        if gone:
            (tmp_path / "data" / gone).unlink()


def test_depth_scale_is_that_of_png_only(tmp_path: Path) -> None:
    put(tmp_path / "data" / "a.png", 1)
    put_png(tmp_path / "data" / "a_depth.png", ramp(), scale=5000)
    put(tmp_path / "data" / "b.png", 2)
    put_npy(tmp_path / "data" / "b.npy", ramp())
    found = opened(RgbdSource(tmp_path / "data", depth_scale=5000), tmp_path)
    for data in found.values():
        np.testing.assert_allclose(data.depth[1:], ramp()[1:], atol=0.001)
    for wrong in (0, -1, True, "a", float("nan")):
        with pytest.raises(SourceError, match="depth_scale"):
            RgbdSource(tmp_path / "data", depth_scale=wrong)  # type: ignore[arg-type]


def test_depth_shrinks_with_its_picture_by_nearest_pixels(tmp_path: Path) -> None:
    put(tmp_path / "data" / "a.png")
    put_npy(tmp_path / "data" / "a.npy", ramp())
    data = opened(RgbdSource(tmp_path / "data"), tmp_path, max_pixels=WIDTH * HEIGHT // 4)["a.png"]
    assert data.depth.shape == (data.image.height, data.image.width) == (HEIGHT // 2, WIDTH // 2)
    np.testing.assert_array_equal(data.depth, ramp()[1::2, 1::2])
    steps = np.where(np.arange(90) < 45, 1.0, 9.0)[None, :].repeat(60, axis=0)
    assert set(np.unique(resampled(steps, (33, 17)))) == {1, 9}, "nothing in between"
    np.testing.assert_array_equal(resampled(steps, (180, 60))[:, ::2], steps)


def test_zero_negative_and_infinite_depth_is_unknown(tmp_path: Path) -> None:
    depth = ramp()
    depth[1:5] = np.array([0, -2, np.inf, -np.inf])[:, None]
    put(tmp_path / "data" / "a.png")
    put_npy(tmp_path / "data" / "a.npy", depth)
    data = opened(RgbdSource(tmp_path / "data"), tmp_path)["a.png"]
    assert np.isnan(data.depth[:5]).all() and np.isfinite(data.depth[5:]).all()


def npy_claiming(shape: str, dtype: str = "<f4") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.full((HEIGHT, WIDTH), None, object), allow_pickle=True)
    return file.getvalue()


def as_npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def as_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "other_size": (".npy", lambda: as_npy(ramp()[:-1]), "depth_size"),
    "turned": (".npy", lambda: as_npy(ramp().T), "depth_size"),
    "unknown": (".npy", lambda: as_npy(np.where(np.arange(WIDTH) < 70, np.nan, ramp())), "no_depth"),
    "all_zero": ("_depth.png", lambda: as_png(Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16))), "no_depth"),
    "8_bit": ("_depth.png", lambda: as_png(Image.new("L", (WIDTH, HEIGHT), 9)), "bad_depth"),
    "colour": ("_depth.png", lambda: as_png(photo(1, WIDTH, HEIGHT)), "bad_depth"),
    "not_png": ("_depth.png", lambda: b"nothing like it", "bad_depth"),
    "cut_png": (
        "_depth.png",
        lambda: as_png(Image.fromarray((np.nan_to_num(ramp()) * 999).astype(np.uint16)))[:300],
        "bad_depth",
    ),
    "png_bomb": ("_depth.png", lambda: png_claiming(60000, 60000), "too_large"),
    "empty": (".npy", lambda: b"", "bad_depth"),
    "not_npy": (".npy", lambda: b"\x93NUMPX" + bytes(100), "bad_depth"),
    "cut_npy": (".npy", lambda: as_npy(ramp())[:-1], "bad_depth"),
    "png_large": ("_depth.png", lambda: png_claiming(9000, 9000), "depth_size"),
    "npy_bomb": (".npy", lambda: npy_claiming("(90000, 90000)"), "too_large"),
    "npy_large": (".npy", lambda: npy_claiming("(9000, 9000)"), "depth_size"),
    "npy_empty": (".npy", lambda: npy_claiming("(0, 96)"), "bad_depth"),
    "npy_negative": (".npy", lambda: npy_claiming("(-64, -96)"), "bad_depth"),
    "npy_code": (".npy", lambda: npy_claiming("(__import__('os').getpid(), 2)"), "bad_depth"),
    "integers": (".npy", lambda: as_npy(np.ones((HEIGHT, WIDTH), np.int32)), "bad_depth"),
    "objects": (".npy", pickled, "bad_depth"),
    "three_channels": (".npy", lambda: as_npy(np.ones((HEIGHT, WIDTH, 3), np.float32)), "bad_depth"),
    "one_row": (".npy", lambda: as_npy(np.ones(WIDTH, np.float32)), "bad_depth"),
    "complex": (".npy", lambda: as_npy(np.ones((HEIGHT, WIDTH), complex)), "bad_depth"),
}
"""Name -> ending of the depth file, its bytes, and the reason that is counted."""


def test_every_bad_depth_map_is_counted_by_its_reason(tmp_path: Path) -> None:
    for number, (name, (ending, data, _)) in enumerate(BAD.items()):
        put(tmp_path / "data" / f"{name}.png", number)
        (tmp_path / "data" / f"{name}{ending}").write_bytes(data())
    put(tmp_path / "data" / "alone.png", 50)
    put(tmp_path / "data" / "bad_mask.png", 51)
    put_npy(tmp_path / "data" / "bad_mask_depth.npy", ramp())
    put_npy(tmp_path / "data" / "bad_mask_depth_mask.npy", np.ones((3, 3)))
    put(tmp_path / "data" / "all_masked.png", 52)
    put_npy(tmp_path / "data" / "all_masked_depth.npy", ramp())
    put_npy(tmp_path / "data" / "all_masked_depth_mask.npy", np.zeros((HEIGHT, WIDTH), bool))
    exif = Image.Exif()
    exif[0x0112] = 6
    put(tmp_path / "data" / "turned_by_exif.jpg", 53, exif=exif)
    put_npy(tmp_path / "data" / "turned_by_exif.npy", ramp())
    (tmp_path / "data" / "no_picture.jpg").write_bytes(b"none")
    put_npy(tmp_path / "data" / "no_picture.npy", ramp())

    expected = {f"{name}.png": reason for name, (_, _, reason) in BAD.items()}
    expected |= {"alone.png": "no_depth_file", "bad_mask.png": "depth_size", "all_masked.png": "no_depth"}
    expected |= {"turned_by_exif.jpg": "orientation", "no_picture.jpg": "not_an_image"}
    assert rejected(tmp_path / "data", tmp_path) == expected


def test_a_cut_picture_is_not_completed_with_its_depth_map(tmp_path: Path) -> None:
    path = put(tmp_path / "data" / "cut.jpg")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    put_npy(tmp_path / "data" / "cut.npy", ramp())
    assert rejected(tmp_path / "data", tmp_path) == {"cut.jpg": "truncated"}


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif", "gif", "ppm", "avif"])
def test_every_picture_format_survives_the_depth_map_behind_it(tmp_path: Path, ending: str) -> None:
    path = put(tmp_path / "data" / f"a.{ending}", 3)
    put_npy(tmp_path / "data" / "a.npy", ramp())
    (found,) = opened(RgbdSource(tmp_path / "data"), tmp_path).values()
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(Image.open(path).convert("RGB")))


def test_a_limit_on_pixels_holds_for_the_depth_map(tmp_path: Path) -> None:
    put(tmp_path / "data" / "a.png", 1)
    put_npy(tmp_path / "data" / "a.npy", np.ones((HEIGHT * 2, WIDTH * 2), np.float32))
    assert rejected(tmp_path / "data", tmp_path, max_source_pixels=WIDTH * HEIGHT) == {"a.png": "too_large"}


def test_a_huge_depth_file_is_refused_unread(tmp_path: Path) -> None:
    put(tmp_path / "data" / "a.png", 1)
    with open(tmp_path / "data" / "a.npy", "wb") as file:
        file.truncate(10**12)  # takes no room on the disk
    assert rejected(tmp_path / "data", tmp_path) == {"a.png": "too_large"}


def test_nothing_outside_of_the_folder_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.npy"
    put_npy(secret, ramp())
    put(tmp_path / "data" / "a.png", 1)
    os.symlink(secret, tmp_path / "data" / "a.npy")
    put(tmp_path / "data" / "scene" / "rgb" / "b.png", 2)
    put_npy(tmp_path / "elsewhere" / "b.npy", ramp())
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "scene" / "depth")
    assert rejected(tmp_path / "data", tmp_path) == {"a.png": "outside_root", "scene/rgb/b.png": "outside_root"}
    source = RgbdSource(tmp_path / "data")
    for ref in ("../secret.png", "/etc/passwd", "scene/../../secret.png", ""):
        with pytest.raises(SourceError, match="does not lie below"):
            source.read(ref)


def test_a_change_of_any_of_its_files_shows(tmp_path: Path) -> None:
    put(tmp_path / "data" / "a.png", 1)
    put_npy(tmp_path / "data" / "a_depth.npy", ramp())
    source = RgbdSource(tmp_path / "data")
    out = tmp_path / "m.parquet"
    first = build_manifest(source, out, val_fraction=0.0).table["sha256"].to_pylist()
    put_npy(tmp_path / "data" / "a_depth.npy", ramp(4))  # as many bytes, another time
    second = build_manifest(source, out, val_fraction=0.0).table["sha256"].to_pylist()
    put_npy(tmp_path / "data" / "a_depth_mask.npy", np.ones((HEIGHT, WIDTH)))
    third = build_manifest(source, out, val_fraction=0.0).table["sha256"].to_pylist()
    assert len({*first, *second, *third}) == 3
    (tmp_path / "data" / "a_depth.npy").write_bytes(b"gone bad")
    with pytest.raises(ImageError, match="bad_depth"):
        source.item("a.png", lambda: photo(1, WIDTH, HEIGHT), None)
    put_npy(tmp_path / "data" / "a_depth.npy", ramp()[:9, :9])
    (tmp_path / "data" / "a_depth_mask.npy").unlink()
    with pytest.raises(ImageError, match="depth_size"):
        source.item("a.png", lambda: photo(1, WIDTH, HEIGHT), None)
    (tmp_path / "data" / "a_depth.npy").unlink()
    with pytest.raises(ImageError, match="no_depth_file"):
        source.item("a.png", lambda: photo(1, WIDTH, HEIGHT), None)


def test_a_depth_file_that_comes_later_makes_its_picture_usable(tmp_path: Path) -> None:
    folder, out = tmp_path / "data", tmp_path / "m.parquet"
    put(folder / "a.png", 1)
    put(folder / "b.png", 2)
    put_npy(folder / "b.npy", ramp())
    assert dict(build_manifest(RgbdSource(folder), out, val_fraction=0.0).rejected) == {"no_depth_file": 1}
    put_npy(folder / "a.npy", ramp())
    assert len(build_manifest(RgbdSource(folder), out, val_fraction=0.0).items("train")) == 2


def test_a_folder_of_depth_maps_alone_says_so(tmp_path: Path) -> None:
    put_png(tmp_path / "data" / "depth" / "a.png", ramp())
    with pytest.raises(SourceError, match="depth maps only"):
        list(RgbdSource(tmp_path / "data").records())


def test_it_reopens_with_its_options_and_pickles(tmp_path: Path) -> None:
    data = rgbd(3)
    (tmp_path / "data").mkdir()
    data.image.save(tmp_path / "data" / "a.png")
    put_png(tmp_path / "data" / "a_depth.png", data.depth, scale=2000)
    manifest = indexed(RgbdSource(tmp_path / "data", depth_scale=2000), tmp_path)
    for copy in (Manifest.load(manifest.path), pickle.loads(pickle.dumps(manifest))):
        (item,) = copy.items("train")
        again = copy.open(item)
        assert isinstance(again, RGBD)
        np.testing.assert_allclose(again.depth, data.depth, atol=0.001)


# ------------------------------------------------------------------------------------------------- sample_depth


def test_sample_depth_divides_one_scene(tmp_path: Path) -> None:
    pytest.importorskip("skimage.data")
    source = SampleDepthSource(None, crops=6)
    manifest = indexed(source, tmp_path)
    groups = {split: {item.group for item in manifest.items(split)} for split in ("train", "val")}
    assert [len(manifest.items(split)) for split in ("train", "val")] == [6, 6] and not manifest.rejected
    assert len(groups["train"] | groups["val"]) == 2, "one group for each half"
    assert all(item.ref.startswith("left@") for item in manifest.items("train"))
    for item in (*manifest.items("train"), *manifest.items("val")):
        data = manifest.open(item, max_pixels=20_000)
        assert isinstance(data, RGBD)
        assert data.depth.shape == (data.image.height, data.image.width)
        assert data.image.width * data.image.height <= 20_000
        assert np.isfinite(data.depth).mean() > 0.6
        assert 1.9 < np.nanmin(data.depth) < np.nanmax(data.depth) < 5.1
    assert {item.ref for item in manifest.items("train")} == {
        record.ref for record in SampleDepthSource(None, crops=6).records() if record.split == "train"
    }


def test_sample_depth_is_the_scene_s_depth() -> None:
    """The halves and boxes put together again are picture and disparity of scikit-image."""
    data = pytest.importorskip("skimage.data")
    left, _, disparity = data.stereo_motorcycle()
    source = SampleDepthSource(None)
    width, height = left.shape[1] // 2, left.shape[0]
    for half, start in (("left", 0), ("right", width)):
        wide = width if half == "left" else left.shape[1] - width
        cut = Image.fromarray(left[10:210, start + 5 : start + wide - 5])
        made = source.item(f"{half}@5,10,{wide - 5},210", lambda cut=cut: cut, None)
        part = disparity[10:210, start + 5 : start + wide - 5]
        known = np.isfinite(part)
        np.testing.assert_allclose(made.depth[known], 994.978 * 0.193001 / (part[known] + 31.086), rtol=1e-5)
        assert np.isnan(made.depth[~known]).all()
        stored = source.inspect(f"{half}@0,0,9,9", source.read(f"{half}@0,0,9,9"), 10**6)[1]
        np.testing.assert_array_equal(np.asarray(stored), left[:, start : start + wide])
    assert height == 500


def test_sample_depth_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    for options in ({"crops": 0}, {"crops": True}, {"min_side": 0.1}):
        with pytest.raises(SourceError, match="must be from"):
            SampleDepthSource(None, **options)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="takes no path"):
        SampleDepthSource(tmp_path)
    source = SampleDepthSource(None)
    for ref in ("middle@0,0,9,9", "x", ""):
        with pytest.raises(SourceError, match="none of its crops"):
            source.read(ref)
    with pytest.raises(SourceError, match="none of its crops"):
        source.item("left@here", lambda: photo(1), None)
