"""Make the gallery anew: `make gallery`, or `python docs/make_gallery.py [TASK ...]` for some tasks' pictures only.

Writes docs/gallery.md, one page with every task at every level (story, chance, pictures, prompt, right answer), the
pictures in docs/assets/gallery/, and the tables of tasks in README.md and docs/tasks.md. Everything on them comes from
the code: the story is the task's module docstring, the samples are what training would see. Items are those of the
built-in sources, so the page is the same on every machine.
"""

from __future__ import annotations

import dataclasses
import html
import inspect
import re
import sys
import zlib
from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ssl4rl_plugin.core import Clip, Sample, Task
from ssl4rl_plugin.data.arms import SourceSettings
from ssl4rl_plugin.data.graphs import GraphManifest
from ssl4rl_plugin.data.indexing import manifest_of
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.samples import SampleStream, StreamSample
from ssl4rl_plugin.grading.formats import answer_format
from ssl4rl_plugin.tasks import get_task, registry
from ssl4rl_plugin.training.settings import Settings, parse_arms

DOCS = Path(__file__).parent
PICTURES = DOCS / "assets" / "gallery"
SOURCES = {
    "image": ("sample_photos", {"crops": 25}), "rgbd": ("sample_depth", {}), "video": ("sample_videos", {}),
    "graph": ("les_miserables", {}), "kg_completion": ("families", {}),
}  # fmt: skip
"""Where the items of each kind of task come from (or those of one task that needs others), with options."""
SECTIONS = {
    "image": "Tasks on images", "rgbd": "Tasks on images with depth", "video": "Tasks on videos",
    "graph": "Tasks on graphs",
}  # fmt: skip
PREFERRED = ("astronaut", "coffee", "rocket")
"""Photographs to look at; the others of the source are a galaxy field and two microscope pictures."""
TRIES = 24
"""Samples among which one of a preferred photograph is looked for."""
WIDTH, GAP, CAPTION = 640, 8, 16
"""Pixels: of a gallery picture at most, between the pictures in it, of the number above each."""
FRAME_MS = 350


def ours() -> list[str]:
    """The tasks of this package, without those of other installed packages: by kind, then from easy to guess to hard."""
    names = [name for name in registry.names() if type(get_task(name)).__module__.startswith("ssl4rl_plugin.")]
    order = list(SECTIONS)
    return sorted(names, key=lambda name: (order.index(get_task(name).kind), name))


def settings_for(task: Task) -> Settings:
    source, options = SOURCES.get(task.name, SOURCES[task.kind])
    return Settings(
        seed=0,
        arms=parse_arms([f"{task.name}:*"]),
        source=SourceSettings(source, None, dict(options), None, 0.0, 1024 * 1024),
        answer_format=answer_format("think_answer"),
        epochs=4,
        val_samples=1,
        system_prompt=None,
    )


def examples(name: str, manifests: dict[str, Manifest | GraphManifest]) -> list[StreamSample]:
    """One sample of each level of a task."""
    task = get_task(name)
    settings = settings_for(task)
    if settings.source.name not in manifests:
        manifests[settings.source.name] = manifest_of(settings.source, settings.seed, sys.stderr.isatty())
    found = []
    for arm in settings.arms:
        stream = SampleStream(dataclasses.replace(settings, arms=(arm,)), manifests[settings.source.name], "train")
        start = zlib.crc32(arm.key.encode())  # another photograph for every level
        tried = (stream[(start + k) % len(stream)] for k in range(min(TRIES, len(stream))))
        first = next(tried)
        if task.kind == "graph":
            found.append(first)
            continue
        found.append(next((m for m in (first, *tried) if m.item_id.startswith(PREFERRED)), first))
    return found


def story(task: Task) -> str:
    """The task's module docstring, without the line that names it."""
    text = inspect.getdoc(inspect.getmodule(type(task))) or ""
    text = re.sub(r"^[A-Z][\w -]*: ", "", text, count=1).strip()
    return text[:1].upper() + text[1:]


def chance(task: Task, level_name: str) -> str:
    """`1/24` where it is a simple fraction, else a percentage."""
    value = task.chance(task.levels[level_name])
    simple = Fraction(value).limit_denominator(10**9)
    return f"1/{simple.denominator:,}" if simple.numerator == 1 and simple.denominator > 1 else f"{100 * value:.1f} %"


def frames_of(sample: Sample) -> list[Image.Image]:
    """Pictures and clips of a sample side by side, numbered; more than one frame where there are clips."""
    shown = [piece for piece in sample.pieces() if not isinstance(piece, str)]
    columns = len(shown) if len(shown) <= 4 else -(-len(shown) // 2) if len(shown) <= 8 else 4
    cell = min(320 if len(shown) > 1 else 360, (WIDTH - GAP * (columns - 1)) // columns)
    length = max(len(piece.frames) if isinstance(piece, Clip) else 1 for piece in shown)
    font = ImageFont.load_default(12)
    made = []
    for moment in range(length):
        small = []
        for piece in shown:
            image = piece.frames[min(moment, len(piece.frames) - 1)] if isinstance(piece, Clip) else piece
            scale = min(1.0, cell / max(image.size))
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            small.append(image.resize(size, Image.Resampling.LANCZOS))
        rows = [small[start : start + columns] for start in range(0, len(small), columns)]
        widest = max(sum(image.width + GAP for image in row) - GAP for row in rows)
        heights = [max(image.height for image in row) + CAPTION for row in rows]
        canvas = Image.new("RGB", (widest, sum(heights) + GAP * (len(rows) - 1)), "white")
        draw = ImageDraw.Draw(canvas)
        top = number = 0
        for row, height in zip(rows, heights, strict=True):
            left = 0
            for image in row:
                number += 1
                if len(shown) > 1:
                    draw.text((left, top), f"[{number}]", fill="#5d6470", font=font)
                canvas.paste(image, (left, top + CAPTION))
                left += image.width + GAP
            top += height + GAP
        made.append(canvas)
    return made


def save(sample: Sample, path: Path) -> None:
    """Write the gallery picture, moving where there are clips."""
    first, *more = frames_of(sample)
    moving = {"save_all": True, "append_images": more, "duration": FRAME_MS, "loop": 0} if more else {}
    first.save(path, "WEBP", quality=60, method=4, **moving)


def prompt(made: StreamSample) -> str:
    """The question with `[1]`, `[2]`, ... in the places of pictures and clips."""
    number = 0
    parts = []
    for piece in made.sample.pieces():
        if isinstance(piece, str):
            parts.append(html.escape(piece, quote=False))
        else:
            number += 1
            # Not in plain brackets, which Markdown would take for a reference.
            parts.append(f"&#91;{number}&#93;" if len(made.sample.images) + len(made.sample.videos) > 1 else "")
    return re.sub(r"\s*\n\s*", "<br>", "".join(parts).strip())


def shown(made: StreamSample) -> list[str]:
    """The pictures and the prompt; of a sample without pictures the prompt as it is, line by line."""
    name, level = made.arm.task.name, made.arm.level_name
    if not made.sample.images and not made.sample.videos:
        return [f"```text\n{made.sample.question}\n```"]
    return [f"![{name}:{level}](assets/gallery/{name}-{level}.webp)", f"> {prompt(made)}"]


def page(samples: dict[str, list[StreamSample]]) -> str:
    """The gallery as Markdown."""
    parts = [
        "# Gallery",
        "Every task at every level, with what the model sees, the question, and the right answer. Made by `make gallery` "
        "from the code: the texts are the tasks' own, and the samples are what training would draw from the built-in "
        "sources. Every prompt goes on with [how to write the answer](rewards.md).",
    ]
    kinds: list[str] = []
    for name, found in samples.items():
        task = get_task(name)
        if task.kind not in kinds:
            kinds.append(task.kind)
            parts.append(f"## {SECTIONS[task.kind]}")
        parts += [f"### {name}", story(task), f"From: {task.reference}."]
        for made in found:
            level = made.arm.level_name
            default = ", default" if level == task.default_level else ""
            parts += [
                f"#### {name}:{level}",
                f"Chance {chance(task, level)}{default}.",
                *shown(made),
                f"Answer: **{html.escape(made.gold)}**",
            ]
    return "\n\n".join(parts) + "\n"


def table(link: str) -> str:
    """The tasks as a Markdown table; `link` is where the gallery is, seen from the page."""
    lines = ["| Task | What the model must find out | Levels | Chance | From |", "|---|---|---|---|---|"]
    kind = "image"
    for name in ours():
        task = get_task(name)
        if task.kind != kind:
            kind = task.kind
            lines.append(f"| **{SECTIONS[kind].removeprefix('Tasks ')}** | | | | |")
        levels = ", ".join(f"`{level}`" for level in task.levels)
        chances = ", ".join(dict.fromkeys(chance(task, level) for level in task.levels))
        lines.append(f"| [`{name}`]({link}#{name}) | {task.summary} | {levels} | {chances} | {task.reference} |")
    return "\n".join(lines)


def with_table(text: str, link: str) -> str:
    """A page with the table of tasks between its two marks made anew."""
    before, _, rest = text.partition("<!-- tasks -->\n")
    _, mark, after = rest.partition("\n<!-- end of tasks -->")
    if not mark:
        raise SystemExit("the page lacks the lines <!-- tasks --> and <!-- end of tasks -->")
    return f"{before}<!-- tasks -->\n{table(link)}{mark}{after}"


TABLES = {DOCS.parent / "README.md": "docs/gallery.md", DOCS / "tasks.md": "gallery.md"}
"""Pages with the table, and where the gallery is from there."""


def main() -> None:
    manifests: dict[str, Manifest | GraphManifest] = {}
    samples = {name: examples(name, manifests) for name in ours()}
    PICTURES.mkdir(parents=True, exist_ok=True)
    wanted = {
        f"{name}-{made.arm.level_name}.webp": made
        for name, found in samples.items()
        for made in found
        if made.sample.images or made.sample.videos
    }
    for old in PICTURES.iterdir():
        if old.name not in wanted:
            old.unlink()
    for file, made in wanted.items():
        if not sys.argv[1:] or made.arm.task.name in sys.argv[1:]:
            save(made.sample, PICTURES / file)
    (DOCS / "gallery.md").write_text(page(samples), encoding="utf-8")
    for path, link in TABLES.items():
        path.write_text(with_table(path.read_text(encoding="utf-8"), link), encoding="utf-8")
    print(f"{DOCS / 'gallery.md'}: {len(samples)} tasks, {sum(map(len, samples.values()))} levels")


if __name__ == "__main__":
    main()
