"""Every question of a run, and hundreds of samples of each arm, measured before the run, and the measurements cached.

The check before a run measures on the driver; the validation dataset measures the questions again, from the cache if it
lives on the same machine, and leaves out those that do not fit.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from ssl4rl_plugin import __version__
from ssl4rl_plugin.core.files import WriteError, cache_dir, write_text
from ssl4rl_plugin.core.seeding import digest
from ssl4rl_plugin.data.rows import Row, Rows
from ssl4rl_plugin.graphs.words import GraphLevel
from ssl4rl_plugin.training.left_out import TOO_LONG, FittingRows, LeftOut, place_of
from ssl4rl_plugin.training.prompt_lengths import PixelLimits, PromptLength, too_long
from ssl4rl_plugin.training.prompt_sample import Group, Wanted, all_of, forms
from ssl4rl_plugin.training.questions import QuestionRows
from ssl4rl_plugin.training.settings import Settings, SettingsError
from ssl4rl_plugin.training.verl.prompt_measure import PromptMeasure
from ssl4rl_plugin.training.verl.prompts import prompt_length

MEASURE = "1"
"""Raised whenever the same prompts would be counted differently."""
MODEL_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "added_tokens.json", "special_tokens_map.json",
               "chat_template*", "*processor_config.json")  # fmt: skip
"""The files of a model on which the length of its prompts depends."""
FOLDER = "prompt_lengths"
"""Of the cache folder."""


@dataclass(frozen=True)
class MeasuredPrompt:
    """A prompt's length, and where it counts."""

    length: PromptLength
    data_source: str
    question: str
    """The question's id in its benchmark; empty for a pretext task."""


@dataclass(frozen=True)
class PromptCheck:
    """Measures the prompts of one run with one model.

    Args:
        settings: of the run.
        processor: the model's, from `verl.utils.hf_processor`; None for a text model.
        tokenizer: the model's.
        config: verl's `data` section.
        as_video: clips are shown as videos.
    """

    settings: Settings
    processor: Any
    tokenizer: Any
    config: Mapping[str, Any]
    as_video: bool

    def measure(
        self, parts: Sequence[Rows], groups: Sequence[Group], progress: bool = False
    ) -> list[list[MeasuredPrompt]]:
        """The prompts of each group, from the cache if they were measured before.

        Args:
            parts: the rows, by number of the part.
            groups: which of them.
            progress: show a bar on stderr, if it is a terminal.

        Raises the errors of the rows, and SettingsError if there is no processor for pictures.
        """
        files = [self._file(group) for group in groups]
        sides = self._sides()
        found = [_read(file, len(group.rows), sides) for file, group in zip(files, groups, strict=True)]
        missing = [number for number, measured in enumerate(found) if measured is None]
        if missing:
            wanted = list(dict.fromkeys(chain.from_iterable(groups[number].rows for number in missing)))
            with _bar(len(wanted), progress) as done:
                measured = self._measured(parts, wanted, done)
            for number in missing:
                found[number] = [measured[one] for one in groups[number].rows]
                _write(files[number], found[number] or [])
        return [measured or [] for measured in found]

    def _measured(
        self, parts: Sequence[Rows], wanted: Sequence[Wanted], done: Callable[[int], object]
    ) -> dict[Wanted, MeasuredPrompt]:
        counting = PromptMeasure(
            self.processor,
            self.tokenizer,
            dict(self.config.get("apply_chat_template_kwargs") or {}),
            dict(self.config.get("mm_processor_kwargs") or {}),
            self.settings.system_prompt,
            self.as_video,
            self._sides(),
        )
        used = sorted({one.part for one in wanted})
        differing = counting.differing(chain.from_iterable(parts[part].probes() for part in used), self.whole)
        made = list(forms(parts, wanted, done))
        if differing:
            count, whole = differing[0]
            print(
                f"ssl4rl: prompts are measured whole, which takes longer: one of {whole.kind} has {whole.tokens} tokens, "
                f"and {count.tokens} by the sizes of its pictures",
                file=sys.stderr,
            )
            lengths = [self.whole(_row(parts, one)) for one, _ in made]
        else:
            lengths = counting.lengths(form for _, form in made)
        return {
            one: MeasuredPrompt(length, form.data_source, form.question)
            for (one, form), length in zip(made, lengths, strict=True)
        }

    def _sides(self) -> dict[str, int]:
        return {arm.key: arm.level.side for arm in self.settings.arms if hasattr(arm.level, "side")}

    def whole(self, row: Row) -> PromptLength:
        """The length of a row's prompt by the model's processor, with its pixels. Raises SettingsError without one."""
        if (row.images or row.videos) and self.processor is None:
            raise SettingsError(
                "verl found no processor for this model, so pictures would be lost: use a model family that it knows "
                "(Qwen2-VL, Qwen2.5-VL, Qwen3-VL, GLM-4V, Mllama, Gemma), and check that torchvision imports "
                "(`ssl4rl doctor`)"
            )
        return prompt_length(row, self.settings, self.processor, self.tokenizer, self.as_video, self.config)

    def refuse_long(self, lengths: Sequence[PromptLength]) -> None:
        """Raise SettingsError if a pretext task's prompt is too long: verl would lose it, or cut its text."""
        if (message := self._advice(lengths)) is not None:
            raise SettingsError(message)

    def _advice(self, lengths: Sequence[PromptLength]) -> str | None:
        """What to do about prompts that are too long; None if all fit."""
        pixels = PixelLimits.of(self.processor, self.config.get("mm_processor_kwargs"))
        limit, built = int(self.config["max_prompt_length"]), self.settings.data is not None
        message = too_long(lengths, limit, pixels, built)
        if message is None:
            return None
        over = [length for length in lengths if length.tokens > limit]
        bounded = {
            benchmark.source.name
            for benchmark in self.settings.benchmarks
            if benchmark.source.max_pixels != self.settings.benchmark_max_pixels
        }
        if any(length.kind in bounded for length in over):  # the common key has no effect on them
            message = re.sub(
                r"ssl4rl\.benchmark_max_pixels=(\d+)", r"max_pixels: \1 in its entry of ssl4rl.benchmarks", message
            )
        graphs = {arm.key for arm in self.settings.arms if isinstance(arm.level, GraphLevel)}
        if all(length.kind in graphs for length in over):  # how much that saves depends on the texts
            message += ", or show less of the graph: lower `nodes`, `tokens` or `budget` of the level"
            message += " (+ssl4rl.options.nodes=...)"
        if prompt := self.settings.system_prompt:
            system = len(self.tokenizer(prompt)["input_ids"])
            if system > max(length.tokens for length in over) - limit:
                message += f", or shorten ssl4rl.system_prompt, which has {system} tokens"
        return message

    def fitting(
        self, parts: Sequence[Rows], progress: bool = False
    ) -> tuple[list[Rows], list[LeftOut], list[PromptLength]]:
        """The questions whose prompts fit, what is left out for any reason, and the lengths of those that fit.

        Args:
            parts: the questions of each benchmark.
            progress: show a bar on stderr.

        Raises:
            SettingsError: more than `ssl4rl.allow_left_out` of a benchmark's questions do not fit.
        """
        measured = self.measure(parts, [all_of(rows, part) for part, rows in enumerate(parts)], progress)
        kept, left_out, lengths, errors = [], [], [], []
        for rows, prompts in zip(parts, measured, strict=True):
            fits = self._fits(prompts)
            found = _counted(prompts, fits)
            questions = len({(place_of(one.data_source)[0], one.question) for one in prompts})
            lost = sum(one.count for one in found)
            if lost > self.settings.allow_left_out * questions:
                named = "; ".join(f"{one.category!r} {one.count} of {one.of}" for one in found[:5])
                errors.append(
                    f"{lost} of {questions} questions of {found[0].benchmark} do not fit and would be left out (by "
                    f"category: {named}{'; ...' if len(found) > 5 else ''}), more than ssl4rl.allow_left_out="
                    f"{self.settings.allow_left_out:g}: {self._advice([one.length for one in prompts])}, or allow it with "
                    f"ssl4rl.allow_left_out={_share(lost / questions)}"
                )
            if isinstance(rows, QuestionRows):
                name = rows.manifest.source.name
                left_out += [LeftOut(name, *place, count, 0) for place, count in sorted(rows.left_out_of.items())]
            left_out += found
            lengths += [one.length for one, fit in zip(prompts, fits, strict=True) if fit]
            numbers = [number for number, fit in enumerate(fits) if fit]
            counts = Counter(prompts[number].data_source for number in numbers)
            kept.append(rows if all(fits) else FittingRows(rows, numbers, counts))
        if errors:
            raise SettingsError("\n".join(errors))
        return kept, left_out, lengths

    def _fits(self, prompts: Sequence[MeasuredPrompt]) -> list[bool]:
        """Whether each row is asked: no order of a question's options is asked unless all of them fit."""
        limit = int(self.config["max_prompt_length"])
        over = {_question(one) for one in prompts if one.length.tokens > limit}
        return [_question(one) not in over for one in prompts]

    def _file(self, group: Group) -> Path | None:
        """The cache file of a group; None if the model has no folder to identify it by."""
        if self._model is None:
            return None
        return cache_dir() / FOLDER / f"{digest('prompt lengths', *self._model, *group.key).hex()}.json"

    @cached_property
    def _model(self) -> tuple[str, ...] | None:
        """All but the rows that a length depends on: the model's files, versions, and settings."""
        folder = Path(str(getattr(self.tokenizer, "name_or_path", "")))
        files = sorted({file for pattern in MODEL_FILES for file in folder.glob(pattern)}) if folder.is_dir() else []
        if not files:
            return None
        content = hashlib.sha256()
        for file in files:
            content.update(f"{file.name} {file.stat().st_size}\n".encode())
            content.update(file.read_bytes())
        templates = [str(getattr(one, "chat_template", None)) for one in (self.processor, self.tokenizer)]
        options = [str(self.config.get(key)) for key in ("apply_chat_template_kwargs", "mm_processor_kwargs")]
        versions = MEASURE, __version__, version("transformers")
        shown = str(self.settings.system_prompt), str(self.as_video)
        return *versions, content.hexdigest(), *templates, *options, *shown


def _question(one: MeasuredPrompt) -> tuple[str, str]:
    return place_of(one.data_source)[0], one.question


def _counted(prompts: Sequence[MeasuredPrompt], fits: Sequence[bool]) -> list[LeftOut]:
    """The questions that do not fit, by category; the most first. Orders of one question count once."""
    every: Counter[tuple[str, str]] = Counter(
        place for place, _ in {(place_of(p.data_source), p.question) for p in prompts}
    )
    lost = {(place_of(p.data_source), p.question) for p, fit in zip(prompts, fits, strict=True) if not fit}
    counts = Counter(place for place, _ in lost)
    return [LeftOut(*place, TOO_LONG, count, every[place]) for place, count in counts.most_common()]


def _share(share: float) -> str:
    """A share of questions, rounded up to three digits."""
    return f"{min(1.0, -(-share * 1000 // 1) / 1000):g}"


def _row(parts: Sequence[Rows], wanted: Wanted) -> Row:
    rows: Any = parts[wanted.part]
    return rows[wanted.number] if wanted.arm is None else rows.of_arm(wanted.number, wanted.arm, 0)


def _read(file: Path | None, rows: int, sides: Mapping[str, int]) -> list[MeasuredPrompt] | None:
    """The measurements in a cache file; None if there are none that can be used."""
    if file is None:
        return None
    try:
        found = [
            MeasuredPrompt(
                PromptLength(kind, tokens, tuple(pictures), video, pixels, sides.get(kind) if pixels else None),
                data_source,
                question,
            )
            for kind, tokens, pictures, video, pixels, data_source, question in json.loads(file.read_text("utf-8"))
        ]
    except (OSError, ValueError, TypeError):
        return None
    return found if len(found) == rows else None


def _write(file: Path | None, measured: Sequence[MeasuredPrompt]) -> None:
    if file is None:
        return
    rows = [
        (one.length.kind, one.length.tokens, one.length.pictures, one.length.video, one.length.pixels, one.data_source,
         one.question)
        for one in measured
    ]  # fmt: skip
    with suppress(WriteError):  # a cache that cannot be written costs time only
        write_text(file, json.dumps(rows))


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callable[[int], object]]:
    if not (shown and sys.stderr.isatty()):
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("measuring prompts"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
