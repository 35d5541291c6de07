"""Speed of building and of reading, each against the bare work; medians and ratios.

    python tests/bench/building.py [repetitions] [rows]

The photos are those of SSL4RL_BENCH_PHOTOS, or of ../shared/data/photos_full, or the photographs of scikit-image. The
floor of a build is what nobody can leave out, written down plainly with Pillow in one process: decode, corrupt, encode,
with no check of anything. Repetitions alternate, so that a change in the machine's load falls on all.
"""

from __future__ import annotations

import gc
import io
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from photos import photographs

from ssl4rl_plugin.cli.section import section_for
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.rows import OnlineRows
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.data.shards import Codec
from ssl4rl_plugin.data_builders.build.builder import build
from ssl4rl_plugin.data_builders.build.planning import make_plan
from ssl4rl_plugin.tasks.image.augment import augmented, draw_augmentation
from ssl4rl_plugin.training.settings import Settings

TASKS = ("rotation", "jigsaw:2x2", "position", "contrastive")
GOALS = {"build, one worker": 1.3, "two workers": 1.8, "dataset": 1.2}


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def fit(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def cut(image: Image.Image, width: float, height: float, rng: random.Random) -> Image.Image:
    left, upper = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    return image.crop((int(left), int(upper), int(left + width), int(upper + height)))


def rotation(data: bytes, other: bytes, rng: random.Random) -> list[Image.Image]:
    image = decoded(data)
    side = min(image.size) * rng.uniform(0.7, 1)
    square = fit(cut(image, side, side, rng), min(448, int(side)))
    return [square, square.rotate(rng.choice((0, 90, 180, 270)))]


def jigsaw(data: bytes, other: bytes, rng: random.Random) -> list[Image.Image]:
    image = decoded(data)
    keep = rng.uniform(0.8, 1)
    whole = fit(cut(image, image.width * keep, image.height * keep, rng), 448)
    w, h = whole.width // 2, whole.height // 2
    boxes = [(x + w // 20, y + h // 20, x + w - w // 20, y + h - h // 20) for y in (0, h) for x in (0, w)]
    rng.shuffle(boxes)
    return [whole.crop(box) for box in boxes]


def position(data: bytes, other: bytes, rng: random.Random) -> list[Image.Image]:
    image = decoded(data)
    side = min(image.size) / 2 * rng.uniform(0.6, 0.9)
    return [fit(image, 448), cut(image, side, side, rng).resize((224, 224), Image.Resampling.BICUBIC)]


def contrastive(data: bytes, other: bytes, rng: random.Random) -> list[Image.Image]:
    photos = [decoded(data), decoded(other)]
    size = min(448, *photos[0].size, *photos[1].size)
    squares = [cut(p, min(p.size), min(p.size), rng).resize((size, size), Image.Resampling.BICUBIC) for p in photos]
    views = []
    for square in rng.choice(([squares[0]] * 2, squares)):
        side = size * rng.uniform(0.5, 1)
        view = cut(square, side, side, rng).resize((224, 224), Image.Resampling.BICUBIC)
        views.append(augmented(view, draw_augmentation(rng, strong=False)))
    return views


FLOORS: dict[str, Callable[[bytes, bytes, random.Random], list[Image.Image]]] = {
    "rotation": rotation, "jigsaw:2x2": jigsaw, "position": position, "contrastive": contrastive,
}  # fmt: skip


def floor(task: str, files: list[Path], rows: int) -> None:
    """As many rows as the build has, from the same files."""
    rng, codec, corrupt = random.Random(0), Codec(), FLOORS[task]
    for number in range(rows):
        data, other = (files[(number + k) % len(files)].read_bytes() for k in (0, 7))
        for picture in corrupt(data, other, rng):
            codec.encode(picture)


def timed(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bench_task(task: str, photos: Path, repetitions: int, rows: int) -> None:
    changes = {"source.val_fraction": 0.0, "epochs": 1}
    section = section_for("folder", photos, [task], {}, changes)
    manifest = load_manifest(Settings.from_config(section))
    section["epochs"] = -(-rows // len(manifest.items("train")))
    settings = Settings.from_config(section)
    plan = make_plan(section, manifest, shard_rows=64)
    rows = plan.rows["train"]
    files = [photos / item.ref for item in manifest.items("train")]
    stream = SampleStream(settings, manifest, "train")
    online = OnlineRows(stream)
    numbers = range(0, rows, max(1, rows // 300))

    def work_of(number: int) -> None:
        """What a row costs at the least: its images decoded, its sample made."""
        stream[number]

    times: dict[str, list[float]] = {}
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            for name, work in {
                "floor": lambda: floor(task, files, rows),
                "one": lambda folder=one: build(plan, manifest, Path(folder) / "out", workers=1),
                "two": lambda folder=two: build(plan, manifest, Path(folder) / "out", workers=2),
                "made": lambda: [work_of(number) for number in numbers],
                "online": lambda: [online[number] for number in numbers],
            }.items():
                times.setdefault(name, []).append(timed(work))
    median = {name: statistics.median(found) for name, found in times.items()}
    per_row = {name: 1000 * median[name] / rows for name in ("floor", "one", "two")}
    ratios = statistics.median(b / a for a, b in zip(times["floor"], times["one"], strict=True))
    speedup = statistics.median(b / a for a, b in zip(times["two"], times["one"], strict=True))
    dataset = statistics.median(b / a for a, b in zip(times["made"], times["online"], strict=True))
    print(
        f"{task:14} floor {per_row['floor']:6.2f} ms a row; build {per_row['one']:6.2f} ms, {ratios:.2f} x the floor "
        f"(goal {GOALS['build, one worker']}); two workers {per_row['two']:6.2f} ms, {speedup:.2f} x as fast (goal "
        f"{GOALS['two workers']}); dataset {dataset:.3f} x decode and corrupt (goal {GOALS['dataset']}); {rows} rows",
        flush=True,
    )


def bench_import(repetitions: int) -> None:
    """Import of the dataset's module where verl is loaded, as it is wherever verl asks for it, and without verl."""
    cases = {
        "ssl4rl_plugin.training.verl.dataset, after verl's own dataset": (
            "verl.utils.dataset.rl_dataset",
            "ssl4rl_plugin.training.verl.dataset",
        ),
        "ssl4rl_plugin.data.rows (no verl, no torch)": ("sys", "ssl4rl_plugin.data.rows"),
    }
    for name, (first, module) in cases.items():
        code = f"import {first}, time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        command = [sys.executable, "-c", code]
        runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(repetitions)]
        found = [float(run.stdout.split()[-1]) for run in runs]
        print(f"import {name}: {1000 * statistics.median(found):.0f} ms (goal 300)", flush=True)


def main(repetitions: int, rows: int) -> None:
    with photographs() as photos:
        print(f"medians of {repetitions} runs over {photos.name}", flush=True)
        for task in TASKS:
            bench_task(task, photos, repetitions, rows)
    bench_import(repetitions)


if __name__ == "__main__":
    main(*(int(argument) for argument in (*sys.argv[1:], *("5", "1000")[len(sys.argv) - 1 :])))
