"""Videos are read as what they are, refused for what they are, decoded once, and the same every time."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from pictures import clip, photo
from PIL import Image

from ssl4rl_plugin.core import Clip
from ssl4rl_plugin.data.images import MAX_SOURCE_PIXELS, ImageError, difference
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources import video
from ssl4rl_plugin.data_builders.sources.sample_photos import PHOTOS
from ssl4rl_plugin.data_builders.sources.sample_videos import FPS, FRAMES, SampleVideosSource
from ssl4rl_plugin.data_builders.sources.video import VideoSource
from ssl4rl_plugin.tasks.video.clips import distances, probes

av = pytest.importorskip("av")

Frames = Sequence[Image.Image]


def write_video(
    path: Path, frames: Frames, codec: str = "mpeg4", rate: int = 16, times: Sequence[int] | None = None, **options: str
) -> Path:
    """A small video file. `times` are the frames' time stamps in 1/1000 s, where the rate is not constant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 4_000_000
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_image(image)
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def frames() -> Frames:
    return clip(1, 48, 96, 64).frames


@pytest.fixture(scope="module")
def good(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("good") / "a.mp4", frames)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    video._load.cache_clear()


def clip_of(source: VideoSource, ref: str) -> Clip:
    video._load.cache_clear()
    return source.item(ref, lambda: pytest.fail("a video has no picture of its own"), None)


def reason(path: Path, **options: object) -> str:
    """Why a file, or a folder of pictures, is refused; `fine` if it is not."""
    source = VideoSource(path.parent, **options)
    ref = path.name + ("/" if path.is_dir() else "")
    try:
        source.inspect(ref, source.read(ref), MAX_SOURCE_PIXELS)
    except ImageError as error:
        return error.reason
    return "fine"


def nearest_in(frames: Frames, made: Clip) -> list[int]:
    """For each frame of a clip the number of the frame that it looks like most."""
    small = probes(frames, 16)
    return [int(np.argmin(row)) for row in distances(probes(made.frames, 16), small)]


def same(one: Clip, other: Clip) -> bool:
    pairs = zip(one.frames, other.frames, strict=True)
    return one.fps == other.fps and all(a.tobytes() == b.tobytes() for a, b in pairs)


# ---------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mpeg4"), ("b.avi", "mjpeg"), ("c.mkv", "libx264"), ("d.mov", "libx264"), ("e.webm", "libvpx-vp9")],
)
def test_frames_are_those_of_the_file(tmp_path: Path, frames: Frames, name: str, codec: str) -> None:
    write_video(tmp_path / name, frames, codec)
    source = VideoSource(tmp_path)
    assert [record.ref for record in source.records()] == [name]
    info, middle = source.inspect(name, source.read(name), MAX_SOURCE_PIXELS)
    assert (info.width, info.height, info.orientation) == (96, 64, 1)
    made = clip_of(source, name)
    # 48 frames, 5 % off at both ends: the 42 or 43 frames inside, once each, at the file's own rate.
    assert len(made.frames) in (42, 43) and made.fps == pytest.approx(16, rel=0.05)
    assert middle.tobytes() == made.frames[len(made.frames) // 2].tobytes()
    order = nearest_in(frames, made)
    assert order == sorted(set(order)) and order[0] in (2, 3) and order[-1] in (44, 45, 46)
    assert np.mean([difference(frames[k], frame) for k, frame in zip(order, made.frames, strict=True)]) < 0.04


def test_sampling_goes_by_time_and_not_by_number(tmp_path: Path, frames: Frames) -> None:
    """The second half of the frames take three times as long each: equal distances in time mean fewer of the first half."""
    times = [50 * k if k < 24 else 1200 + 150 * (k - 24) for k in range(48)]
    write_video(tmp_path / "a.mkv", frames, rate=20, times=times)
    made = clip_of(VideoSource(tmp_path, frames=24), "a.mkv")
    nearest = nearest_in(frames, made)
    total = 1200 + 150 * 24
    moments = [total * (0.05 + 0.9 * (k + 0.5) / 24) for k in range(24)]
    expected = [max(k for k in range(48) if times[k] <= moment) for moment in moments]
    assert max(abs(a - b) for a, b in zip(nearest, expected, strict=True)) <= 1
    assert made.fps == pytest.approx(24 / (0.9 * total / 1000), rel=0.05)


def test_size_trim_and_number_of_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", clip(3, 80, 320, 240).frames)
    assert {frame.size for frame in clip_of(VideoSource(tmp_path), "a.mp4").frames} == {(320, 240)}
    made = clip_of(VideoSource(tmp_path, max_side=112, frames=20, trim=0.25), "a.mp4")
    assert {frame.size for frame in made.frames} == {(112, 84)} and len(made.frames) == 20
    assert made.fps == pytest.approx(20 / 2.5, rel=0.05)
    source = VideoSource(tmp_path)
    small = source.item("a.mp4", lambda: pytest.fail(), 5000)
    assert all(frame.width * frame.height <= 5000 for frame in small.frames)


@pytest.mark.parametrize(("degrees", "matrix"), [
    (90, (0, 1, -1, 0)), (180, (-1, 0, 0, -1)), (270, (0, -1, 1, 0)),
])  # fmt: skip
def test_the_display_matrix_is_honoured(
    tmp_path: Path, frames: Frames, good: Path, degrees: int, matrix: tuple[int, ...]
) -> None:
    """`matrix` turns clockwise by so many degrees, as phones write it into the track header."""
    data = bytearray(good.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(data)
    source = VideoSource(tmp_path)
    info, middle = source.inspect("a.mp4", source.read("a.mp4"), MAX_SOURCE_PIXELS)
    plain = clip_of(VideoSource(good.parent), "a.mp4")
    expected = plain.frames[len(plain.frames) // 2].rotate(-degrees, expand=True)
    assert middle.size == expected.size == (info.width, info.height)
    assert difference(middle, expected) < 0.01


def test_folders_of_pictures(tmp_path: Path, frames: Frames, caplog: pytest.LogCaptureFixture) -> None:
    for name, number in (("run", 48), ("deep/er", 20), ("few", 7), ("two", 20)):
        (tmp_path / name).mkdir(parents=True)
        for k in range(number):
            frames[k].save(tmp_path / name / f"frame{k}.png")  # frame10 comes after frame9
            if name == "two":
                frames[k].save(tmp_path / name / f"mask{k}.png")
    frames[0].save(tmp_path / "run/cover.png")
    write_video(tmp_path / "b.mp4", frames)
    source = VideoSource(tmp_path)
    assert [record.ref for record in source.records()] == ["b.mp4", "deep/er/", "run/"]
    assert "several series" in caplog.text
    made = clip_of(source, "run/")
    assert len(made.frames) == 43 or len(made.frames) == 44
    assert made.fps == pytest.approx(8, rel=0.05)
    order = nearest_in(frames, made)
    assert order == sorted(set(order))
    assert clip_of(VideoSource(tmp_path, frame_rate=24), "run/").fps == pytest.approx(24, rel=0.05)
    # The folder that is given may itself be the video, and a change of any picture shows.
    assert [record.ref for record in VideoSource(tmp_path / "run").records()] == ["./"]
    assert same(clip_of(VideoSource(tmp_path / "run"), "./"), made)
    before = source.stamp("run/"), source.read("run/")
    frames[5].save(tmp_path / "run/frame9.png")
    assert source.stamp("run/") != before[0] and source.read("run/") != before[1]
    assert pickle.loads(pickle.dumps(source)).stamp("run/") == source.stamp("run/")


def test_refs_stay_inside(tmp_path: Path, good: Path) -> None:
    root = tmp_path / "root"
    (root / "frames").mkdir(parents=True)
    (root / "link.mp4").symlink_to(good)
    for k in range(20):
        photo(k, 64, 64).save(tmp_path / f"{k}.png")
        (root / "frames" / f"{k}.png").symlink_to(tmp_path / f"{k}.png")
    source = VideoSource(root)
    assert [record.ref for record in source.records()] == ["link.mp4", "frames/"]
    for ref in ("link.mp4", "frames/"):
        with pytest.raises(ImageError, match="outside_root"):
            source.read(ref)
    for ref in ("../a.mp4", "/etc/", "../", "frames/../../"):
        with pytest.raises(SourceError, match="does not lie below"):
            source.read(ref)


# ---------------------------------------------------------------------------------------------------- refusals


def test_what_nobody_can_decode(tmp_path: Path, frames: Frames, good: Path) -> None:
    def made(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    whole = good.read_bytes()
    streamed = write_video(tmp_path / "fast.mp4", frames, movflags="faststart").read_bytes()
    matroska = write_video(tmp_path / "whole.mkv", frames, "libx264").read_bytes()
    rng = random.Random(0)
    assert reason(good) == reason(tmp_path / "fast.mp4") == reason(tmp_path / "whole.mkv") == "fine"
    assert reason(made("empty.mp4", b"")) == "zero_bytes"
    assert reason(made("text.mp4", b"not a video at all\n" * 100)) == "not_a_video"
    assert reason(made("noise.avi", rng.randbytes(5000))) == "not_a_video"
    assert (
        reason(made("playlist.mp4", b"#EXTM3U\n#EXTINF:5,\n" + str(good).encode() + b"\n#EXT-X-ENDLIST\n"))
        == "not_a_video"
    )
    assert reason(made("concat.mkv", b"ffconcat version 1.0\nfile " + str(good).encode())) == "not_a_video"
    assert reason(made("cut.mp4", whole[: len(whole) // 2])) == "broken"  # its index is at the end
    assert reason(made("cut_fast.mp4", streamed[: len(streamed) // 2])) == "truncated"
    assert reason(made("cut.mkv", matroska[: len(matroska) // 2])) == "truncated"
    avi = write_video(tmp_path / "whole.avi", frames, "mjpeg").read_bytes()
    assert reason(made("cut.avi", avi[: len(avi) // 2])) == "truncated"
    # The index is whole, the pictures are noise.
    start, size = streamed.index(b"mdat") + 4, len(streamed)
    assert reason(made("rotten.mp4", streamed[:start] + rng.randbytes(size - start))) in ("broken", "truncated")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert reason(tmp_path / "sound.mp4") == "not_a_video"


def test_a_huge_declared_size_is_refused_before_decoding(tmp_path: Path, frames: Frames) -> None:
    path = write_video(tmp_path / "a.avi", frames, "rawvideo")
    data = bytearray(path.read_bytes())
    header = data.index(b"strf") + 8  # BITMAPINFOHEADER: size, width, height
    data[header + 4 : header + 12] = struct.pack("<2i", 8_000, 8_000)
    path.write_bytes(data)
    assert reason(path) == "too_large"
    # Motion JPEG: the file's header is honest, one frame in the middle is not.
    path = write_video(tmp_path / "c.avi", frames, "mjpeg")
    data = bytearray(path.read_bytes())
    place = -1
    for _ in range(20):
        place = data.index(b"\xff\xc0\x00\x11\x08", place + 1)
    data[place + 5 : place + 9] = struct.pack(">2H", 30_000, 30_000)
    path.write_bytes(data)
    assert reason(path) in ("too_large", "broken")
    source = VideoSource(tmp_path)
    # A true large frame is refused by the limit of the manifest.
    write_video(tmp_path / "b.mp4", frames)
    with pytest.raises(ImageError, match="too_large"):
        source.inspect("b.mp4", source.read("b.mp4"), 96 * 64 - 1)


def test_too_short_too_long_and_too_large(tmp_path: Path, frames: Frames) -> None:
    assert reason(write_video(tmp_path / "few.mp4", frames[:14])) == "too_short"
    assert reason(write_video(tmp_path / "fast.mp4", frames, rate=60)) == "too_short"
    assert reason(write_video(tmp_path / "enough.mp4", frames[:20])) == "fine"
    path = write_video(tmp_path / "long.mp4", frames)
    assert reason(path, max_seconds=2.0) == "too_long"
    assert reason(path, max_gigabytes=1e-5) == "too_large"


def test_nothing_moves_repeats_or_is_cut_all_the_time(tmp_path: Path, frames: Frames) -> None:
    def grainy(number: int) -> Image.Image:
        noise = np.random.default_rng(number).integers(-4, 5, (64, 96, 3))
        return Image.fromarray(np.clip(np.asarray(frames[0], int) + noise, 0, 255).astype(np.uint8))

    kinds: dict[str, Callable[[], Frames]] = {
        "static": lambda: [grainy(k) for k in range(48)],
        "looping": lambda: [*frames[:24], *frames[:24]],
        "scene_cuts": lambda: [photo(k // 2, 96, 64) for k in range(48)],
    }
    for expected, make in kinds.items():
        assert reason(write_video(tmp_path / f"{expected}.mp4", make())) == expected
    assert reason(write_video(tmp_path / "often.mp4", [frames[(3 * k) % 36] for k in range(60)])) == "looping"
    assert reason(write_video(tmp_path / "back.mp4", [*frames[::2], *frames[::-2]])) == "looping"


def test_bad_pictures_in_a_folder(tmp_path: Path, frames: Frames) -> None:
    for k in range(48):
        for name in ("mixed", "broken", "gone"):
            (tmp_path / name).mkdir(exist_ok=True)
            frames[k].save(tmp_path / name / f"{k:03}.jpg", quality=95)
    frames[20].resize((48, 32)).save(tmp_path / "mixed/020.jpg")
    data = (tmp_path / "broken/030.jpg").read_bytes()
    (tmp_path / "broken/030.jpg").write_bytes(data[: len(data) // 2])
    assert reason(tmp_path / "mixed") == "mixed_sizes"
    assert reason(tmp_path / "broken") == "truncated"
    shutil.rmtree(tmp_path / "gone")
    (tmp_path / "gone").mkdir()
    with pytest.raises(ImageError, match="unreadable"):
        VideoSource(tmp_path).read("gone/")


def test_errors_of_the_source(tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="frames must be a whole number from 16"):
        VideoSource(good.parent, frames=8)
    with pytest.raises(SourceError, match="trim must be a number"):
        VideoSource(good.parent, trim=0.5)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match="no video files below"):
        list(VideoSource(tmp_path).records())
    photo(0).save(tmp_path / "photo.jpg")
    with pytest.raises(SourceError, match="no folder with at least 8"):
        list(VideoSource(tmp_path).records())
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SourceError, match=r"ssl4rl-plugin\[video\]"):
        list(VideoSource(good.parent).records())


# ---------------------------------------------------------------------------------------------------- cache


def repacked(content: bytes, compression: int = zipfile.ZIP_STORED, **facts: object) -> bytes:
    """A cache file with other facts, or packed in another way."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, json.dumps(json.loads(data) | facts) if name == "clip.json" else data)
    return buffer.getvalue()


def with_headers(content: bytes, place: int, value: int) -> bytes:
    """A cache file with a byte of all its local and central headers changed; in the latter it lies two bytes later."""
    data = bytearray(content)
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        for match in re.finditer(re.escape(signature), content):
            data[match.start() + place + shift] = value
    return bytes(data)


_TAMPERED: dict[str, Callable[[bytes], bytes]] = {
    "encrypted": lambda content: with_headers(content, 6, 1),
    "unknown compression": lambda content: with_headers(content, 8, 99),
    "not deflated": lambda content: with_headers(content, 8, zipfile.ZIP_DEFLATED),
    "deflated": lambda content: repacked(content, zipfile.ZIP_DEFLATED),
    "no frames": lambda content: repacked(content, frames=0),
    "fewer frames": lambda content: repacked(content, frames=3),
    "frames that are not there": lambda content: repacked(content, frames=10**12),
    "no time": lambda content: repacked(content, fps=0.0),
    "not a number": lambda content: repacked(content, fps=float("nan")),
    "text": lambda content: repacked(content, fps="8"),
    "no facts": lambda content: repacked(content, info=[]),
}


def test_what_is_missing_or_damaged_in_the_cache_is_made_again(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL4RL_CACHE", str(tmp_path / "cache"))
    source = VideoSource(good.parent)
    made = clip_of(source, "a.mp4")
    (kept,) = (tmp_path / "cache/frames").glob("*.zip")
    content = kept.read_bytes()

    decodings = []
    decoded = video._decoded
    monkeypatch.setattr(video, "_decoded", lambda *args: decodings.append(1) or decoded(*args))
    assert same(clip_of(source, "a.mp4"), made) and not decodings
    for damage in (b"", content[:-200], content[:3000] + b"??" + content[3002:], b"no zip at all"):
        kept.write_bytes(damage)
        decodings.clear()
        assert same(clip_of(source, "a.mp4"), made)
        assert decodings and kept.read_bytes() == content
    # Whole, but not what was written there.
    for change in _TAMPERED.values():
        kept.write_bytes(change(content))
        decodings.clear()
        assert same(clip_of(source, "a.mp4"), made)
        assert decodings and kept.read_bytes() == content
    shutil.rmtree(tmp_path / "cache")
    assert same(clip_of(source, "a.mp4"), made) and kept.read_bytes() == content
    assert not [name for name in os.listdir(kept.parent) if name.endswith(".tmp")]
    # The same content elsewhere needs no decoding; other options do.
    shutil.copy(good, tmp_path / "copy.mp4")
    decodings.clear()
    assert same(clip_of(VideoSource(tmp_path), "copy.mp4"), made) and not decodings
    clip_of(VideoSource(tmp_path, frames=20), "copy.mp4")
    assert decodings


def test_without_a_cache_everything_still_works(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = clip_of(VideoSource(good.parent), "a.mp4")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SSL4RL_CACHE", str(tmp_path / "file"))
    assert same(clip_of(VideoSource(good.parent), "a.mp4"), made)
    assert "decoded again" in caplog.text


def test_a_changed_file_is_not_taken_for_the_old_one(tmp_path: Path, frames: Frames) -> None:
    path = write_video(tmp_path / "a.mp4", frames)
    before = clip_of(VideoSource(tmp_path), "a.mp4")
    write_video(path, clip(9, 48, 96, 64).frames)
    after = clip_of(VideoSource(tmp_path), "a.mp4")
    assert difference(before.frames[20], after.frames[20]) > 0.05


def test_manifest_of_videos(tmp_path: Path, frames: Frames, good: Path) -> None:
    for number in range(4):
        write_video(tmp_path / f"{number}.mp4", clip(number + 20, 40, 96, 64).frames)
    shutil.copy(tmp_path / "0.mp4", tmp_path / "copy.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    manifest = build_manifest(VideoSource(tmp_path), tmp_path / "m.parquet", val_fraction=0.5)
    assert manifest.rejected == {"not_a_video": 1}
    items = [*manifest.items("train"), *manifest.items("val")]
    assert len(items) == 5 and {(item.width, item.height) for item in items} == {(96, 64)}
    groups = {item.ref: item.group for item in items}
    assert groups["0.mp4"] == groups["copy.mp4"] and len(set(groups.values())) == 4
    opened = manifest.open(items[0])
    assert isinstance(opened, Clip) and len(opened.frames) >= 16


# ---------------------------------------------------------------------------------------------------- sample_videos


def test_sample_videos_are_the_same_every_time() -> None:
    source = SampleVideosSource(clips=3)
    records = list(source.records())
    assert len(records) == 3 * len(PHOTOS) and len({record.ref for record in records}) == len(records)
    assert {record.group: record.split for record in records} == {
        name.partition(".")[0]: split for name, split in PHOTOS.items()
    }
    assert len({source.read(record.ref) for record in records}) == len(records)
    for record in records[::5]:
        one = source.item(record.ref, lambda: pytest.fail(), None)
        assert len(one.frames) == FRAMES and one.fps == FPS and max(one.frames[0].size) == 160
        assert len({(frame.size, frame.mode) for frame in one.frames}) == 1
        _, middle = source.inspect(record.ref, b"", MAX_SOURCE_PIXELS)
        assert middle.tobytes() == one.frames[FRAMES // 2].tobytes()
        video._check(one.frames)  # what is refused in a file does not come from here
    with pytest.raises(SourceError, match="none of its clips"):
        source.read("../secret.png#0-1")
    with pytest.raises(SourceError, match="takes no path"):
        SampleVideosSource("/tmp")
    with pytest.raises(SourceError, match="width must be a whole number"):
        SampleVideosSource(width=10)


def test_no_sample_video_is_still_or_periodic() -> None:
    source = SampleVideosSource(clips=4, seed=7)
    for record in source.records():
        video._check(source.item(record.ref, lambda: pytest.fail(), None).frames)
