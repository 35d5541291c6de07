"""Building under bad conditions: killed, out of disk, on a cluster."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pictures import photo

from ssl4rl_plugin.data.build_plan import MANIFEST

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.xdist_group("building")]

KILLS = 20
TASKS = ("-t", "rotation", "-t", "jigsaw:2x1", "-t", "contrastive")
SIZES = ("--set", "options.side=112", "--set", "val_samples=8", "--shard-rows", "16")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(60):
        photo(number, 240, 200).save(folder / f"{number:02}.jpg", quality=90)
    return folder


def command(images: Path, out: Path, *extra: str) -> list[str]:
    return [
        str(Path(sys.executable).with_name("ssl4rl")),
        "build",
        str(images),
        *TASKS,
        *SIZES,
        "--out",
        str(out),
        *extra,
    ]


def finish(images: Path, out: Path, *extra: str) -> str:
    """Build to the end; returns what was said."""
    done = subprocess.run(command(images, out, *extra), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    """What must not depend on how it came about: all but the report (which tells where) and the manifest's copy."""
    skipped = (MANIFEST, ".lock", "report.json", "report.html")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name not in skipped}


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("built") / "undisturbed"
    finish(images, out, "--epochs", "6", "--workers", "1")
    return contents(out)


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """SIGKILL to the command itself; its workers have to notice. Each moment is followed by a resume to the end."""
    begun = time.monotonic()
    finish(images, tmp_path / "timing", "--epochs", "6", "--workers", "2")
    usual = time.monotonic() - begun
    rng = random.Random(0)
    files = len([name for name in undisturbed if name.endswith(".parquet")])
    partly = 0
    for number in range(KILLS):
        out = tmp_path / str(number)
        process = subprocess.Popen(
            command(images, out, "--epochs", "6", "--workers", "2"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # By time, and by the files that are there: how long a start takes depends on what else the machine does.
        if number % 2:
            time.sleep(usual * rng.uniform(0.2, 1.0))
        else:
            count = rng.randrange(1, files // 2)
            while process.poll() is None and len([*out.glob("*.parquet")]) < count:
                time.sleep(0.01)
        workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not psutil.wait_procs(workers, timeout=30)[1], "workers outlive the command"
        there = {path.name for path in out.glob("*.parquet")} - {MANIFEST}
        assert all((out / name).read_bytes() == undisturbed[name] for name in there), "a half-written file shows"
        partly += 0 < len(there) < files
        finish(images, out, "--epochs", "6", "--workers", "2")
        assert contents(out) == undisturbed
        shutil.rmtree(out)
    assert partly >= 3, "nearly no kill came while files were being written: the moments say nothing"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a part of the build."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(mount)], capture_output=True)
    if done.returncode:
        pytest.skip(f"this user cannot mount a file system: {done.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_disk_that_fills_up_is_said_and_a_larger_one_completes_it(
    images: Path, undisturbed: dict[str, bytes], small_disk: Path, tmp_path: Path
) -> None:
    out = small_disk / "out"
    done = subprocess.run(
        command(images, out, "--epochs", "6", "--workers", "2"), capture_output=True, text=True, timeout=300
    )
    said = " ".join(done.stderr.split())
    assert done.returncode == 2 and "no space is left" in said and "start the same command again" in said, said
    assert "Traceback" not in said
    there = contents(out)
    assert 1 < len(there) < len(undisturbed) and not list(out.glob(".*.tmp"))
    shutil.copytree(out, tmp_path / "larger")
    assert "files were already finished" in finish(images, tmp_path / "larger", "--epochs", "6", "--workers", "2")
    assert contents(tmp_path / "larger") == undisturbed


def test_two_nodes_of_a_ray_cluster_make_the_same_bytes(
    images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """In a process of its own: Ray leaves threads and settings behind."""
    script = tmp_path / "cluster.py"
    script.write_text(
        "import json, sys\n"
        "import ray\n"
        "from ray.cluster_utils import Cluster\n"
        "from ssl4rl_plugin.cli import app\n"
        "if __name__ == '__main__':\n"
        "    cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False})\n"
        "    cluster.add_node(num_cpus=1)\n"
        "    cluster.wait_for_nodes()\n"
        "    try:\n"
        "        app([*sys.argv[1:], '--address', cluster.address], standalone_mode=False)\n"
        "    finally:\n"
        "        cluster.shutdown()\n"
    )
    arguments = command(images, tmp_path / "out", "--epochs", "6", "--engine", "ray")[1:]
    short = Path("/tmp") / f"ray-{os.getpid()}"  # Ray's sockets lie below, and their names are limited
    environment = {**os.environ, "RAY_TMPDIR": str(short)}
    short.mkdir()
    try:
        done = subprocess.run(
            [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=300, env=environment
        )
    finally:
        shutil.rmtree(short, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(tmp_path / "out") == undisturbed
    nodes = json.loads((tmp_path / "out" / "report.json").read_text())["made_by"]
    assert len(nodes) == 2, nodes
