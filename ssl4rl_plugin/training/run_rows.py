"""The rows of a run: its own samples, made on the fly or built, and the questions that it validates on."""

from __future__ import annotations

import logging
from pathlib import Path

from ssl4rl_plugin.data.graphs import GraphManifest
from ssl4rl_plugin.data.indexing import load_manifest, picture_manifest
from ssl4rl_plugin.data.mixture import parts_of
from ssl4rl_plugin.data.rows import OnlineRows, Rows
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.training.graph_questions import GraphQuestionRows
from ssl4rl_plugin.training.questions import QuestionRows
from ssl4rl_plugin.training.settings import Settings, SettingsError
from ssl4rl_plugin.training.stored_rows import StoredRows

logger = logging.getLogger(__name__)


def own_rows(settings: Settings, split: str) -> OnlineRows | StoredRows:
    """The rows of a split (`train` or `val`) of a run, without benchmarks.

    Raises SourceError, SampleError, PlanError or StoredRowsError.
    """
    if settings.data is not None:
        return StoredRows(Path(settings.data), split)
    return OnlineRows(SampleStream(settings, load_manifest(settings), split))


def graph_questions(own: OnlineRows | StoredRows) -> list[GraphQuestionRows]:
    """The questions about a run's graphs beside its pretext tasks: labels of held-out nodes, and held-out edges."""
    if not isinstance(own, OnlineRows):
        return []
    return [
        GraphQuestionRows(manifest, own.stream.settings.answer_format, limit, label)
        for label, manifest in parts_of(own.stream.manifest)
        if isinstance(manifest, GraphManifest) and (limit := int(manifest.source.options["questions"]))
    ]


def questions(own: OnlineRows | StoredRows, settings: Settings) -> list[Rows]:
    """The validation rows beside a run's own samples: the questions about its graph or in its build, and those of
    `ssl4rl.benchmarks`."""
    built = [StoredRows(own.folder, "questions")] if isinstance(own, StoredRows) else graph_questions(own)
    return [*built, *benchmark_rows(settings)]


def benchmark_rows(settings: Settings) -> list[QuestionRows]:
    """The questions of each benchmark that a run validates on. Raises SourceError."""
    found = []
    for benchmark in settings.benchmarks:
        manifest = picture_manifest(benchmark.source, seed=0)
        rows = QuestionRows(
            manifest, settings.answer_format, benchmark.source.max_pixels, benchmark.limit, benchmark.circular
        )
        counts = ", ".join(f"{reason} {count}" for reason, count in rows.left_out.most_common())
        if not len(rows):
            raise SettingsError(
                f"ssl4rl.benchmarks: {benchmark.source.name!r} has no questions that can be asked"
                + (f" ({counts})" if counts else ": it is a source of pictures without labels")
            )
        if counts:
            logger.warning("%s: %d questions are left out: %s", benchmark.source.name, rows.left_out.total(), counts)
        found.append(rows)
    return found
