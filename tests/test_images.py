"""Any picture a user may have becomes upright 8-bit RGB, or an error that names the reason."""

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from ssl4rl_plugin.data.images import (
    ImageError,
    contrast,
    decode,
    difference,
    entropy,
    open_rgb,
    shrink,
    thumbnail_array,
)

RNG = np.random.default_rng(0)
SRGB, LAB = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
PHOTO = Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def reason_of(data: bytes | Path, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        open_rgb(data, **options)
    assert caught.value.detail and caught.value.reason in str(caught.value)
    return caught.value.reason


def test_refusals(tmp_path: Path) -> None:
    jpeg = encoded(PHOTO, "JPEG")
    assert reason_of(b"") == "zero_bytes"
    assert reason_of(b"<!DOCTYPE html><html>404</html>") == "not_an_image"
    assert reason_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not_an_image"
    assert reason_of(jpeg[: len(jpeg) // 2]) == "truncated"
    assert reason_of(jpeg[:20]) in ("truncated", "broken")
    assert reason_of(encoded(PHOTO)[:-200]) in ("truncated", "broken")
    assert reason_of(encoded(PHOTO, "WEBP")[:200]) in ("truncated", "broken")
    assert reason_of(tmp_path / "missing.jpg") == "unreadable"
    assert reason_of(encoded(PHOTO), max_source_pixels=160 * 120 - 1) == "too_large"


def test_a_bomb_is_refused_by_its_header() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert reason_of(png_header(30_000, 30_000)) == "too_large"
        assert reason_of(png_header(10_001, 10_000)) == "too_large"
    assert reason_of(png_header(60, 50)) in ("truncated", "broken")


def test_global_settings_are_left_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    open_rgb(encoded(PHOTO))
    reason_of(png_header(30_000, 30_000))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == before == (before[0], False)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(format: str, orientation: int) -> None:
    # Four coloured quadrants, stored the way a camera held so would store them.
    upright = Image.new("RGB", (96, 64))
    for i, colour in enumerate([(230, 0, 0), (0, 230, 0), (0, 0, 230), (230, 230, 0)]):
        upright.paste(colour, (i % 2 * 48, i // 2 * 32, i % 2 * 48 + 48, i // 2 * 32 + 32))
    store = Image.Transpose
    stored = {
        1: upright,
        2: upright.transpose(store.FLIP_LEFT_RIGHT),
        3: upright.transpose(store.ROTATE_180),
        4: upright.transpose(store.FLIP_TOP_BOTTOM),
        5: upright.transpose(store.TRANSPOSE),
        6: upright.transpose(store.ROTATE_90),
        7: upright.transpose(store.TRANSVERSE),
        8: upright.transpose(store.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for budget in (None, 1500):
        info, image = decode(encoded(stored, format, exif=exif), max_pixels=budget)
        assert (info.width, info.height, info.orientation, info.format) == (96, 64, orientation, format)
        assert image.size == ((96, 64) if budget is None else (47, 31))
        assert difference(image, upright) < 0.04


def test_damaged_exif_is_ignored() -> None:
    plain = encoded(PHOTO, "JPEG")
    block = b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 30
    damaged = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode(damaged)[0].orientation == 1


def test_alpha_lies_on_white() -> None:
    rgba = Image.new("RGBA", (40, 30), (200, 0, 0, 0))
    rgba.paste((200, 0, 0, 128), (20, 0, 40, 30))
    gray = Image.new("LA", (40, 30), (10, 0))
    palette = Image.new("P", (40, 30), 1)
    palette.putpalette([0, 0, 0, 9, 99, 199])
    assert open_rgb(encoded(rgba)).getpixel((0, 0)) == (255, 255, 255)
    assert open_rgb(encoded(rgba)).getpixel((30, 0)) == (227, 127, 127)
    assert open_rgb(encoded(rgba, "WEBP", lossless=True)).getpixel((0, 0)) == (255, 255, 255)
    assert open_rgb(encoded(gray)).getpixel((0, 0)) == (255, 255, 255)
    assert open_rgb(encoded(palette)).getpixel((0, 0)) == (9, 99, 199)
    assert open_rgb(encoded(palette, transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    assert open_rgb(encoded(palette, transparency=b"\xff\x80")).getpixel((0, 0)) == (132, 177, 227)
    assert open_rgb(encoded(Image.new("RGB", (40, 30), (1, 2, 3)), transparency=(1, 2, 3))).getpixel((0, 0)) == (
        255, 255, 255,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB"])
def test_other_modes(mode: str) -> None:
    image = PHOTO.convert(mode) if mode != "LAB" else ImageCms.profileToProfile(PHOTO, SRGB, LAB, outputMode="LAB")
    format = {"CMYK": "JPEG", "YCbCr": "JPEG", "LAB": "TIFF"}.get(mode, "PNG")
    decoded = open_rgb(encoded(image, format, **({"quality": 95} if format == "JPEG" else {})))
    assert (decoded.mode, decoded.size) == ("RGB", PHOTO.size)
    assert difference(decoded, PHOTO if mode == "LAB" else image.convert("RGB")) < 0.03


def test_16_bit_is_scaled() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (40, 1))
    expected = np.arange(256)
    for data in (
        encoded(Image.fromarray(ramp)),
        encoded(Image.fromarray(ramp), "TIFF"),
        encoded(Image.fromarray(ramp.astype(np.int32)), "TIFF"),
        encoded(Image.fromarray(ramp.astype(np.float32)), "TIFF"),
        encoded(Image.fromarray(ramp.astype(np.float32) / 65535), "TIFF"),
        encoded(Image.fromarray(ramp.astype(np.float32) / 257), "TIFF"),
        encoded(Image.fromarray((ramp.astype(np.int32) - 30000) * 60), "TIFF"),
        b"P5 256 40 65535\n" + ramp.astype(">u2").tobytes(),
    ):
        row = np.asarray(open_rgb(data))[0]
        assert np.abs(row.astype(int) - expected[:, None]).max() <= 1


def test_floats_that_are_not_finite() -> None:
    values = np.full((30, 30), np.nan, np.float32)
    values[:, 15:] = 1.0
    assert open_rgb(encoded(Image.fromarray(values), "TIFF")).getextrema() == ((0, 255),) * 3


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(format: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert open_rgb(data).getpixel((5, 5)) == (255, 0, 0)


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 3000))
def test_the_budget_holds(width: int, height: int, budget: int) -> None:
    image = open_rgb(encoded(Image.new("RGB", (width, height), "gray"), "BMP"), max_pixels=budget)
    assert image.width * image.height <= budget
    assert image.size == shrink(Image.new("RGB", (width, height)), budget).size
    if width * height <= budget:
        assert image.size == (width, height)


def test_draft_mode_gives_the_same_picture() -> None:
    big = PHOTO.resize((1600, 1200), Image.Resampling.BICUBIC)
    data = encoded(big, "JPEG", quality=92)
    small = open_rgb(data, max_pixels=40_000)
    assert small.size == shrink(open_rgb(data), 40_000).size == (230, 173)
    assert difference(small, shrink(open_rgb(data), 40_000)) < 0.005
    assert open_rgb(data, max_pixels=40_000).tobytes() == small.tobytes()


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 1000), st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]))
def test_hostile_bytes_raise_nothing_else(noise: bytes, place: int, format: str) -> None:
    data = encoded(PHOTO.resize((30, 30)), format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for attempt in (noise, data[:place] + noise + data[place + len(noise) :]):
            with contextlib.suppress(ImageError):
                assert open_rgb(attempt, max_source_pixels=1_000_000).mode == "RGB"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 98}])
def test_a_reduced_jpeg_says_its_full_size_and_shows_damage(options: dict) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(PHOTO.resize((1000, 601)), "JPEG", exif=exif, **options)
    for least, scale in ((1000 * 601, 1), (1000 * 601 // 4, 2), (50_000, 2), (20_000, 4), (100, 8)):
        info, image = decode(data, least_pixels=least)
        assert (info.width, info.height, info.orientation) == (601, 1000, 6)
        assert image.size == (-(-601 // scale), 1000 // scale)
        assert difference(image, open_rgb(data)) < 0.02
        for kept in (0.3, 0.9, 0.98):
            with pytest.raises(ImageError) as caught:
                decode(data[: int(len(data) * kept)], least_pixels=least)
            assert caught.value.reason == "truncated"
    assert decode(encoded(PHOTO), least_pixels=100)[1].size == PHOTO.size  # a PNG is what it is


def test_statistics() -> None:
    half = Image.new("RGB", (64, 64), "black")
    half.paste("white", (0, 0, 32, 64))
    gray = Image.new("RGB", (50, 70), (90, 90, 90))
    assert contrast(half) == pytest.approx(0.5) and contrast(gray) == 0.0
    assert entropy(half) == pytest.approx(1.0) and entropy(gray) == 0.0
    assert difference(half, half) == 0.0
    assert difference(Image.new("RGB", (9, 9), "white"), np.zeros((30, 40, 3), np.uint8)) == 1.0
    thumbnail = thumbnail_array(half, 4)
    assert thumbnail.shape == (4, 4, 3) and thumbnail.dtype == np.float32
    assert thumbnail[:, :2].min() == 1.0 and thumbnail[:, 2:].max() == 0.0
    assert contrast(np.asarray(half)) == contrast(half)
    with pytest.raises(TypeError, match="uint8"):
        contrast(np.zeros((4, 4)))
