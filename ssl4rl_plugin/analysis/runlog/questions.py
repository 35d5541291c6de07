"""The question of a response, made again with its pictures."""

from __future__ import annotations

import functools
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl4rl_plugin.analysis.runlog.config import RunConfig
from ssl4rl_plugin.analysis.runlog.files import RunError
from ssl4rl_plugin.analysis.runlog.responses import LoggedArm, Response
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.pools import SampleError
from ssl4rl_plugin.data.samples import SampleStream, StreamSample

if TYPE_CHECKING:
    from ssl4rl_plugin.data.rows import Row, Rows


class RunQuestions:
    """What a run asked, made again from its config."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config

    def sample_of(self, row: Response) -> StreamSample:
        """The sample of a response, with its pictures.

        Raises:
            RunError: the sample is unknown, or it differs from what the model saw, because the images, the settings or the
                package changed since.
            SettingsError, SourceError, SampleError: the settings or the images are no longer usable.
        """
        split, _, number = row.sample.partition(":")
        if split not in ("train", "val") or not number.isdecimal():
            raise RunError(f"the response of step {row.step} does not say which sample it answers ({row.sample!r})")
        try:
            stream = self._stream(split)
            # The config does not hold a curriculum's decisions; the row names the arm that was drawn.
            arm = next((arm for arm in self._config.settings.arms if row.arm == LoggedArm.of(arm)), None)
            made = stream[int(number)] if arm is None else stream.of_arm(int(number), arm)
        except IndexError:
            raise RunError(f"sample {row.sample} is not in the stream that the config describes") from None
        if made.truth_json != row.truth:
            raise RunError(f"sample {row.sample} comes out differently now: its images or the package have changed")
        return made

    def asked(self, row: Response) -> Row:
        """The row of a response, with its pictures: a sample or a benchmark's question.

        Raises:
            RunError: it is unknown, or it differs from what the model saw.
            SettingsError, SourceError, SampleError, BuiltError: the settings or the images are no longer usable.
        """
        from ssl4rl_plugin.data.rows import row_of

        data = self._config.settings.data
        if row.answered is None and data is None:
            return row_of(self.sample_of(row))
        if row.answered is None:
            from ssl4rl_plugin.training.stored_rows import StoredRows

            split, _, number = row.sample.partition(":")
            try:
                made = StoredRows(Path(str(data)), split)[int(number)]
            except (ValueError, IndexError) as error:
                raise RunError(f"sample {row.sample!r} cannot be read from {data}: {error}") from error
        else:
            key = (row.answered.benchmark, row.answered.question, row.answered.rotation)
            place = self._of_benchmarks.get(key)
            if place is None:
                raise RunError(
                    f"question {row.sample} is in none of the benchmarks (ssl4rl.benchmarks) of the config; questions in "
                    "built data cannot be looked up"
                )
            made = place[0][place[1]]
        if _truth(made.ground_truth) != _truth(row.truth):
            raise RunError(f"{row.sample} comes out differently now: its images or the package have changed")
        return made

    def groups(self, items: set[str]) -> dict[str, str]:
        """Id of a held-out item -> its group, for those of `items` that the run's sources have; empty if they are gone."""
        try:
            sources = self._stream("val").sources if self._config.settings.data is None else ()
        except UserError:
            return {}
        return {
            name: source.group_of(row)
            for source in sources
            for row in source.items
            if (name := source.id_of(row)) in items
        }

    @cached_property
    def _of_benchmarks(self) -> dict[tuple[str, str, int], tuple[Rows, int]]:
        """Benchmark, question and rotation -> its rows and the index in them. Built rows are not included."""
        from ssl4rl_plugin.training.graph_questions import GraphQuestionRows
        from ssl4rl_plugin.training.questions import QuestionRows
        from ssl4rl_plugin.training.run_rows import own_rows, questions  # here: it imports verl

        found: dict[tuple[str, str, int], tuple[Rows, int]] = {}
        for rows in questions(own_rows(self._config.settings, "val"), self._config.settings):
            if isinstance(rows, QuestionRows):
                name = rows.manifest.source.name
                found |= {(name, one.question.id, one.rotation): (rows, n) for n, one in enumerate(rows.asked)}
            elif isinstance(rows, GraphQuestionRows):
                found |= {(rows.name, f"{one.sort}:{one.node}", 0): (rows, n) for n, one in enumerate(rows.asked)}
        return found

    @functools.lru_cache(maxsize=2)  # noqa: B019 -- it lives as long as its report
    def _stream(self, split: str) -> SampleStream:
        return SampleStream(self._config.settings, self._manifest, split)

    @cached_property
    def _manifest(self) -> Any:
        try:
            return load_manifest(self._config.settings)
        except OSError as error:
            raise SampleError(f"the images of the run cannot be read: {error}") from error


def _truth(text: str) -> Any:
    """A ground truth without the number of questions of its category: a run may have left some out."""
    try:
        truth = json.loads(text)
    except ValueError:
        return text
    return {**truth, "questions": None} if isinstance(truth, dict) else truth
