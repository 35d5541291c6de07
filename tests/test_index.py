"""Indexing at scale: bad files never stop it, a killed build goes on, and workers of any kind give the same bytes."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from pictures import photo
from PIL import Image
from test_manifest import Listed, bomb, jpeg
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.core.files import WriteError
from ssl4rl_plugin.data.choose_source import source_of
from ssl4rl_plugin.data.manifest import MEASUREMENTS, Manifest
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.index import checkpoints, parallel
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.index.measure import RecordMeasurer
from ssl4rl_plugin.data_builders.sources.folder import FolderSource


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 300 small pictures."""
    root = tmp_path_factory.mktemp("many")
    for number in range(300):
        (root / f"{number:03}.jpg").write_bytes(jpeg(noise(number)))
    return root


def noise(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """A picture of coloured patches; quick to make."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


# ---------------------------------------------------------------------------------------------------- bad input


def good_files(root: Path, count: int) -> None:
    """Pictures of every kind that can be used, in folders and with names of every kind."""
    turned = Image.Exif()
    turned[0x0112] = 8
    for number in range(count):
        image, kind = noise(number), number % 10
        name = os.fsencode(root / f"{number % 7}" / f"{number:04}")
        os.makedirs(os.path.dirname(name), exist_ok=True)
        file = io.BytesIO()
        if kind == 0:
            image.convert("CMYK").save(file, "JPEG")
        elif kind == 1:
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(file, "PNG")
        elif kind == 2:
            image.convert("P").save(file, "PNG")
        elif kind in (3, 4):
            image.save(file, ("GIF", "WEBP")[kind - 3], save_all=True, append_images=[noise(number + 10_000)])
        else:
            image.save(file, "JPEG", exif=turned if kind == 5 else b"")
        ending = {1: b".png", 2: b".PNG", 3: b".gif", 4: b".webp", 6: b"-\xff\xfe.jpg"}.get(kind, b".jpeg")
        with open(name + ending, "wb") as out:
            out.write(file.getvalue())


def broken_files(root: Path, each: int) -> dict[str, int]:
    """So many files of each broken kind; returns the reasons for which they must be left out."""
    whole, huge = jpeg(noise(1, 200, 160)), bomb()
    for number in range(each):
        folder = root / f"{number % 7}"
        (folder / f"cut{number}.jpg").write_bytes(whole[: len(whole) // 2 + number])
        (folder / f"empty{number}.png").touch()
        (folder / f"page{number}.jpg").write_text("<!doctype html><title>404</title>")
        (folder / f"bomb{number}.png").write_bytes(huge)
        (folder / f"header{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(number, 60 + number)))
        (folder / f"gone{number}.jpg").symlink_to("nowhere")
        (folder / f"self{number}.jpg").symlink_to(f"self{number}.jpg")
        (folder / f"outside{number}.jpg").symlink_to("/etc/hostname")
        os.mkfifo(folder / f"pipe{number}.jpg")
        (folder / f"tiny{number}.png").write_bytes(jpeg(noise(number, 20, 300)))
    return {
        "truncated": each, "zero_bytes": each, "not_an_image": each, "too_large": each, "broken": each,
        "unreadable": 3 * each, "outside_root": each, "too_small": each,
    }  # fmt: skip


def test_a_tenth_of_the_files_is_broken(tmp_path: Path) -> None:
    root = tmp_path / "in"
    good_files(root, 1800)
    reasons = broken_files(root, 20)
    (root / "folder.jpg").mkdir()  # a folder, whatever it is called
    (root / "1" / "round").symlink_to("..")
    out = tmp_path / "m.parquet"
    result = CliRunner().invoke(app, ["index", str(root), "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["images"], found["left_out"]) == (2000, reasons) and sum(reasons.values()) == 200
    assert sum(found["splits"][side]["images"] for side in ("train", "val")) == 1800
    manifest = Manifest.load(found["manifest"])
    items = [*manifest.items("train"), *manifest.items("val")]
    assert {(item.width, item.height) for item in items} == {(48, 40), (40, 48)}
    for item in items[::50]:
        assert manifest.open(item).size == (item.width, item.height)


def test_files_that_vanish_or_change_meanwhile(tmp_path: Path) -> None:
    class Unsteady(FolderSource):
        def read(self, ref: str) -> bytes:
            path = tmp_path / "in" / ref
            if ref == "a.jpg":
                path.unlink()
            data = super().read(ref)
            if ref == "b.jpg":  # its stamp is that of the old file by now
                path.write_bytes(jpeg(noise(77, 60, 50)))
            return data

    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / f"{name}.jpg").write_bytes(jpeg(noise(ord(name))))
    first = build_manifest(Unsteady(tmp_path / "in"), tmp_path / "m.parquet")
    assert first.rejected == {"unreadable": 1}
    second = build_manifest(FolderSource(tmp_path / "in"), tmp_path / "m.parquet")
    sizes = {row["ref"]: row["width"] for row in second.table.to_pylist()}
    assert sizes == {"b.jpg": 60, "c.jpg": 48}


def test_figures_of_a_large_jpeg_are_those_of_the_whole_picture() -> None:
    """It is decoded at a fraction of its size; a PNG of the same pixels is not."""
    for seed in range(3):
        image = photo(seed).resize((3000, 2250), Image.Resampling.BICUBIC)
        grain = np.random.default_rng(seed).integers(-20, 21, (2250, 3000, 1))
        image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
        png = io.BytesIO()
        image.save(png, "PNG", compress_level=1)
        source = Listed({"jpeg": (jpeg(image, 92), None, None, None), "png": (png.getvalue(), None, None, None)})
        reduced, whole = (
            dict(zip(MEASUREMENTS, row, strict=True))
            for row in RecordMeasurer(source, 10**8)([("jpeg", None), ("png", None)])
        )
        assert (reduced["width"], reduced["height"], reduced["reason"]) == (3000, 2250, None)
        assert abs(reduced["entropy"] - whole["entropy"]) < 0.05
        assert abs(reduced["contrast"] - whole["contrast"]) < 0.005


# ---------------------------------------------------------------------------------------------------- workers


def test_processes_and_threads_give_the_same_bytes(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = build_manifest(FolderSource(many), tmp_path / "1.parquet", workers=1)
    threads = build_manifest(FolderSource(many), tmp_path / "2.parquet", workers=4)
    started = []
    monkeypatch.setattr(parallel, "THREADS_FIRST", 0.0)
    monkeypatch.setattr(parallel, "WORTH_PROCESSES", 0.0)
    monkeypatch.setattr(parallel, "Process", lambda work: started.append(process := Process(work)) or process)
    processes = build_manifest(FolderSource(many), tmp_path / "3.parquet", workers=2)
    left = [child for child in psutil.Process().children() if "serve()" in " ".join(child.cmdline())]
    assert len(started) == 2 and not left
    assert alone.path.read_bytes() == threads.path.read_bytes() == processes.path.read_bytes()
    build_manifest(FolderSource(many), tmp_path / "3.parquet", workers=2)
    assert len(started) == 2  # nothing had changed


Process = parallel.Process


def test_a_source_that_cannot_be_sent_stays_with_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(Listed):
        pass

    monkeypatch.setattr(parallel, "THREADS_FIRST", 0.0)
    monkeypatch.setattr(parallel, "WORTH_PROCESSES", 0.0)
    pictures = {f"{i}": (jpeg(noise(i)), None, None, None) for i in range(40)}
    assert len(build_manifest(Local(pictures), tmp_path / "m.parquet", workers=2, val_fraction=0).items("train")) == 40


def test_a_process_that_dies_is_an_error_and_what_was_found_is_kept(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "THREADS_FIRST", 0.0)
    monkeypatch.setattr(parallel, "WORTH_PROCESSES", 0.0)
    monkeypatch.setattr(checkpoints, "SAVE_AFTER", 0.0)

    class Doomed(Process):
        def __call__(self, job: object) -> object:
            self._process.kill()
            return super().__call__(job)

    monkeypatch.setattr(parallel, "Process", Doomed)
    with pytest.raises(SourceError, match=r"killed by signal 9.*fewer workers.*It was reading '"):
        build_manifest(FolderSource(many), tmp_path / "m.parquet", workers=2)
    assert not [child for child in psutil.Process().children() if "serve()" in " ".join(child.cmdline())] and saved(
        tmp_path
    )


# ---------------------------------------------------------------------------------------------------- interruptions

SLOW = """
import sys, time
from pathlib import Path
from ssl4rl_plugin.data_builders.index import checkpoints
from ssl4rl_plugin.data_builders.index import parallel
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources.folder import FolderSource

class Slow(FolderSource):
    def read(self, ref):
        with open(sys.argv[3], "a") as log:
            log.write(ref + "\\n")
        time.sleep(0.06 if sys.argv[4] == "long" else 0.01)
        return super().read(ref)

checkpoints.SAVE_AFTER = checkpoints.SAVE_SHARE = 0.02
kind = Slow
if sys.argv[4] == "processes":
    kind, parallel.THREADS_FIRST, parallel.WORTH_PROCESSES = FolderSource, 0.0, 0.0
build_manifest(kind(sys.argv[1]), Path(sys.argv[2]), workers=2)
"""


def start(source: Path, out: Path, log: Path, how: str = "threads") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(source), str(out), str(log), how], stderr=subprocess.PIPE, text=True
    )


def saved(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".part")]


def wait_for_a_part(folder: Path, after: int = 0) -> None:
    end = time.monotonic() + 60
    while len(saved(folder)) <= after and time.monotonic() < end:
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(many: Path, tmp_path: Path) -> None:
    undisturbed = build_manifest(FolderSource(many), tmp_path / "reference.parquet").path.read_bytes()
    out, log, rng = tmp_path / "out/m.parquet", tmp_path / "log", random.Random(7)
    out.parent.mkdir()
    killed = 0
    for _ in range(4):
        process = start(many, out, log)
        wait_for_a_part(out.parent, len(saved(out.parent)))
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed > 1
    before = len(log.read_text().splitlines())
    assert start(many, out, log).wait() == 0
    refs = log.read_text().splitlines()
    assert set(refs) == {record.ref for record in FolderSource(many).records()}
    assert len(refs) - before < 290 and len(refs) < 500
    assert out.read_bytes() == undisturbed and os.listdir(out.parent) == ["m.parquet"]


def test_processes_end_with_the_one_that_started_them(many: Path, tmp_path: Path) -> None:
    process = start(many, tmp_path / "m.parquet", tmp_path / "log", "processes")
    children: list[psutil.Process] = []
    while not children and process.poll() is None:
        children = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    assert children and not psutil.wait_procs(children, timeout=20)[1]


def test_an_interrupt_stops_cleanly_and_says_how_to_go_on(many: Path, tmp_path: Path) -> None:
    process = start(many, tmp_path / "m.parquet", tmp_path / "log", "long")  # seconds after the first part
    wait_for_a_part(tmp_path)
    process.send_signal(signal.SIGINT)
    assert "start it again, and it resumes from here" in process.communicate()[1]
    assert saved(tmp_path) and not list(tmp_path.glob("*.tmp"))


def test_two_at_once_do_not_harm_each_other(many: Path, tmp_path: Path) -> None:
    undisturbed = build_manifest(FolderSource(many), tmp_path / "reference.parquet").path.read_bytes()
    out = tmp_path / "out/m.parquet"
    both = [start(many, out, tmp_path / "log") for _ in range(2)]
    assert [process.communicate()[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    assert out.read_bytes() == undisturbed and os.listdir(out.parent) == ["m.parquet"]


def test_parts_are_used_only_for_what_they_are_part_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SAVE_AFTER", -1.0)
    monkeypatch.setattr(checkpoints, "SAVE_SHARE", 0.0)

    class Failing(Listed):
        def read(self, ref: str) -> bytes:
            if ref == "19":
                raise SourceError("the server is gone")
            return super().read(ref)

    out = tmp_path / "m.parquet"
    pictures = {f"{i}": (jpeg(noise(i)), None, None, None) for i in range(20)}

    def fail(**options: object) -> None:
        with pytest.raises(SourceError, match="server is gone"):
            build_manifest(Failing(pictures, **options), out, workers=1)

    fail()
    assert len(saved(tmp_path)) == 3  # of the four chunks of five
    again = Listed(pictures | {"3": (jpeg(noise(333)), None, None, None), "new": (jpeg(noise(50)), None, None, None)})
    build_manifest(again, out, workers=1)
    assert set(again.reads) == {"3", "new", "15", "16", "17", "18", "19"} and not saved(tmp_path)
    out.unlink()
    fail()
    build_manifest(other := Listed(pictures, colour="red"), out, workers=1)
    assert len(other.reads) == 20 and os.listdir(tmp_path) == ["m.parquet"]
    out.unlink()
    fail()
    half = tmp_path / min(saved(tmp_path))
    half.write_bytes(half.read_bytes()[:-50])  # never happens by itself: it is renamed when it is whole
    (tmp_path / ".m.parquet.0-0.part.123.tmp").write_bytes(b"of a build that was killed")
    os.utime(tmp_path / ".m.parquet.0-0.part.123.tmp", (0, 0))
    build_manifest(last := Listed(pictures), out, workers=1)
    assert set(last.reads) == {str(i) for i in (*range(5), *range(15, 20))} and os.listdir(tmp_path) == ["m.parquet"]


def test_a_full_disk_is_told_and_leaves_what_was_saved(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SAVE_AFTER", 0.0)
    monkeypatch.setattr(checkpoints, "SAVE_SHARE", 0.0)
    sync, calls = os.fsync, iter(range(1000))

    def full(handle: int) -> None:
        if next(calls) == 6:  # two for each checkpoint: its file and its folder
            raise OSError(28, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"\.part cannot be written: No space left on device"):
        build_manifest(FolderSource(many), tmp_path / "m.parquet", workers=1)
    assert len(saved(tmp_path)) == 3 and not list(tmp_path.glob(".*tmp"))
    read: list[int] = []
    measured = RecordMeasurer.__call__
    monkeypatch.setattr(
        RecordMeasurer, "__call__", lambda self, places: read.append(len(places)) or measured(self, places)
    )
    build_manifest(FolderSource(many), tmp_path / "m.parquet", workers=1)
    assert 0 < sum(read) < 300 and os.listdir(tmp_path) == ["m.parquet"]


# ---------------------------------------------------------------------------------------------------- the command


def test_the_command_names_what_it_indexed(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = CliRunner().invoke
    result = run(app, ["index", "folder", "--path", str(many), "--val-fraction", "0.2", "--workers", "1"])
    assert result.exit_code == 0 and Path(result.stdout.strip()).is_file()
    assert "300 of 300 images of source folder" in result.stderr and "train" in result.stderr
    again = run(app, ["index", str(many), "--val-fraction", "0.2"])
    assert again.stdout == result.stdout
    crops = run(app, ["index", "sample_photos", "--option", "crops=2", "--json"])
    assert json.loads(crops.stdout)["images"] == 16
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for arguments, message in (
        (["nowhere"], "no path nowhere, and no such source"),
        (["folder"], "is a source and a path"),
        (["./folder"], "is empty"),
        ([str(many), "--path", str(many)], "if it is a path, leave out --path"),
        ([str(many), "--download"], "is a path"),
        ([str(many), "--option", "crops"], "KEY=VALUE"),
        ([str(many), "--option", "crops=2"], "no option 'crops'"),
        ([str(many), "--source", "hf", "--option", "revision=v1"], "is for a name of the Hub"),
        ([str(many), "--out", str(many / "000.jpg")], "not a parquet file"),
    ):
        result = run(app, ["index", *arguments])
        assert result.exit_code == 2 and message in " ".join(result.stderr.split()), (arguments, result.output)


def test_a_path_tells_its_source(many: Path, tmp_path: Path) -> None:
    assert source_of(many) == "folder" and source_of(tmp_path) == "folder"
    assert source_of(Path("a/b.TSV")) == "tsv" and source_of(Path("x.parquet")) == "parquet"
    (tmp_path / "train.tsv").write_text("index\timage\n0\t/9j/\n")
    assert source_of(tmp_path) == "tsv"
