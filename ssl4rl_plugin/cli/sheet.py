"""`ssl4rl preview`: a contact sheet of samples, as the model gets them in training."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import Progress

from ssl4rl_plugin.analysis.report.page import card, percent, readable, render, write, write_output
from ssl4rl_plugin.cli.sources_for import described, source_for
from ssl4rl_plugin.core import Clip
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.arms import StreamSettings
from ssl4rl_plugin.data.graphs import GraphManifest
from ssl4rl_plugin.data.indexing import manifest_of
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.samples import SampleStream, StreamSample
from ssl4rl_plugin.grading.formats import answer_format
from ssl4rl_plugin.training.settings import parse_arms

QUESTION = 4000
"""Maximum number of characters of a question on a card; a graph as text is long."""
STRIP = 8
"""Maximum number of frames of a clip in a .png."""
PHOTO_CROPS = 25
"""Crops of each sample photograph, which are indexed in a second."""


def write_preview(
    arms: Sequence[str],
    path: Path | None,
    count: int,
    out: Path,
    seed: int,
    progress: bool,
    source: str | None = None,
) -> Path:
    """Draw `count` samples of every arm and write them to one file.

    Args:
        arms: `task`, `task:level` or `task:*`.
        path: folder of images or .tsv file; None for the sample photographs.
        count: samples of each arm, at least 1.
        out: .html (self-contained) or .png file.
        seed: seed of the samples.
        progress: show a progress bar on stderr.
        source: name of the source; None to choose it by the path and the task.

    Returns:
        The file written.

    Raises:
        UserError: unknown task or level, wrong kind of file, no usable images, or images that do not fit a task.
        WriteError: the file cannot be written.
    """
    if out.suffix.lower() not in (".html", ".png"):
        raise UserError(f"--out {out}: the name must end in .html or .png")
    streams: list[SampleStream] = []
    manifests: dict[str, Manifest | GraphManifest] = {}
    for arm in parse_arms(list(arms)):
        try:
            found = source_for(arm.task.kind, path, source, PHOTO_CROPS)
        except UserError as error:
            raise UserError(f"task {arm.key}: {error}") from error
        settings = StreamSettings(
            seed=seed,
            arms=(arm,),
            source=found,  # nothing is held out
            answer_format=answer_format("think_answer"),
            epochs=count,  # enough samples even for a single picture
            val_samples=1,
            system_prompt=None,
        )
        if found.name not in manifests:
            manifests[found.name] = made = manifest_of(found, seed, progress)
            if isinstance(made, GraphManifest):
                print(made.summary(), file=sys.stderr)
        streams.append(SampleStream(settings, manifests[found.name], "train"))
    sheet: list[list[StreamSample]] = []
    bar = Progress(console=Console(stderr=True), transient=True, disable=not progress)
    with bar:
        job = bar.add_task("making samples", total=count * len(streams))
        for stream in streams:
            sheet.append([])
            for index in range(count):
                sheet[-1].append(stream[index])
                bar.advance(job)
    if out.suffix.lower() == ".html":
        where = ", ".join(dict.fromkeys(described(stream.settings.source) for stream in streams))
        return write(sheet_html(sheet, where, streams[0].settings), out)
    return write_output(out, lambda file: sheet_image(sheet).save(file, "PNG"))


def sheet_html(sheet: Sequence[Sequence[StreamSample]], where: str, settings: StreamSettings) -> str:
    """The contact sheet as one self-contained page, one row of samples for each arm. `where` names the source."""
    sections = []
    for samples in sheet:
        arm = samples[0].arm
        cards = [
            card(
                made.sample,
                made.sample.question,
                made.gold,
                json.dumps(made.sample.params, sort_keys=True),
                made.item_id,
            )
            for made in samples
        ]
        sections.append(
            {
                "label": f"{arm.task.name}:{arm.level_name}",
                "summary": arm.task.summary,
                "reference": arm.task.reference,
                "chance": percent(arm.task.chance(arm.level)),
                "cards": cards,
            }
        )
    return render(
        "preview.html.j2",
        sections=sections,
        where=readable(where),
        seed=settings.seed,
        instruction=settings.answer_format.instructions[0],
    )


_CARD, _GAP, _PAD = 380, 16, 14
_INK, _MUTED, _GOOD, _LINE = "#16181d", "#5d6470", "#13734b", "#e1e4ea"


def sheet_image(sheet: Sequence[Sequence[StreamSample]]) -> Image.Image:
    """The contact sheet as one picture (RGB), one row of cards for each arm, wrapped after four."""
    rows: list[tuple[str, list[Image.Image]]] = []
    for samples in sheet:
        arm = samples[0].arm
        title = f"{arm.task.name}:{arm.level_name}   chance {percent(arm.task.chance(arm.level))}"
        cards = [_card(made) for made in samples]
        rows += [(title if start == 0 else "", cards[start : start + 4]) for start in range(0, len(cards), 4)]
    columns = max(len(cards) for _, cards in rows)
    heights = [max(card.height for card in cards) + (34 if title else 0) + _GAP for title, cards in rows]
    whole = Image.new("RGB", (columns * (_CARD + _GAP) + _GAP, sum(heights) + _GAP), "#f6f7f9")
    draw = ImageDraw.Draw(whole)
    top = _GAP
    for (title, cards), height in zip(rows, heights, strict=True):
        below = top
        if title:
            draw.text((_GAP, top + 4), title, fill=_INK, font=_font(17, bold=True))
            below += 34
        for column, drawn in enumerate(cards):
            whole.paste(drawn, (_GAP + column * (_CARD + _GAP), below))
        top += height
    return whole


def _card(made: StreamSample) -> Image.Image:
    """One sample: pictures in rows, the question, the right answer, the parameters."""
    inner = _CARD - 2 * _PAD
    shown = [_strip(piece) if isinstance(piece, Clip) else piece for piece in made.sample.pieces()]
    images = [image for image in shown if not isinstance(image, str)]
    count = len(images)
    columns = (
        1 if made.sample.videos or not images else count if count <= 3 else 2 if count == 4 else 3 if count <= 9 else 4
    )
    cell = (inner - 8 * (columns - 1)) // columns
    small = [_shrunk(image, cell) for image in images]
    question = readable(re.sub("<image>|<video>", "", made.sample.question), QUESTION)
    texts = [
        *((line, _INK, _font(13)) for line in _wrapped(question, 13, inner)),
        *((line, _GOOD, _font(14, True)) for line in _wrapped(f"→ {readable(made.gold, 200)}", 14, inner)),
        *((line, _MUTED, _font(11)) for line in _wrapped(readable(json.dumps(made.sample.params), 200), 11, inner)),
    ]
    rows = [small[start : start + columns] for start in range(0, count, columns)]
    height = sum(max(image.height for image in row) + 8 for row in rows)
    height += sum(int(font.size * 1.4) for _, _, font in texts) + 2 * _PAD
    card = Image.new("RGB", (_CARD, height), "white")
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, _CARD - 1, height - 1), outline=_LINE)
    top = _PAD
    for row in rows:
        for column, image in enumerate(row):
            card.paste(image, (_PAD + column * (cell + 8), top))
        top += max(image.height for image in row) + 8
    for line, colour, font in texts:
        draw.text((_PAD, top), line, fill=colour, font=font)
        top += int(font.size * 1.4)
    return card


def _strip(clip: Clip) -> Image.Image:
    """At most `STRIP` frames of a clip side by side, including the first and the last."""
    count = min(STRIP, len(clip.frames))
    chosen = [clip.frames[round(k * (len(clip.frames) - 1) / max(1, count - 1))] for k in range(count)]
    (w, h), gap = chosen[0].size, max(1, chosen[0].width // 40)
    strip = Image.new("RGB", (count * (w + gap) - gap, h), "white")
    for k, frame in enumerate(chosen):
        strip.paste(frame, (k * (w + gap), 0))
    return strip


def _shrunk(image: Image.Image, width: int) -> Image.Image:
    """The picture at `width` pixels along its longer side; small pictures are enlarged without blur."""
    scale = width / max(image.size)
    filter = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), filter)


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib, which covers most alphabets."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """Lines of at most `width` pixels; longer words are split."""
    font = _font(size)
    lines: list[str] = []
    for paragraph in text.strip().split("\n"):
        line = ""
        for word in paragraph.split():
            for piece in _cut(word, font, width):
                joined = f"{line} {piece}".strip()
                if line and font.getlength(joined) > width:
                    lines.append(line)
                    joined = piece
                line = joined
        lines.append(line)
    return lines


def _cut(word: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The word in pieces of at most `width` pixels; one piece if it fits."""
    pieces = [""]
    for letter in word:
        if font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces
