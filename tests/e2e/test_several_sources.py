"""Pictures, videos and a graph in the same batches of one run through unmodified verl, stopped after a step and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shared_run import K3, SMALL, metric, rollouts

from ssl4rl_plugin.analysis.report import report_html
from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.demo import run as demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.xdist_group("several sources")]

STEPS, BATCH = 2, 8
SOURCES = {"sample_photos": "rotation", "clips": "arrow_of_time", "novel": "link_prediction"}
"""Name of each source -> the task that draws from it."""
EXTRA = (
    "ssl4rl.sources=[{source: sample_photos, val_fraction: 0.2}, {source: sample_videos, name: clips}, "
    "{source: les_miserables, name: novel, val_fraction: 0.2, options: {questions: 4}}]",
    f"ssl4rl.tasks=[{','.join(SOURCES.values())}]",
    "ssl4rl.source.path=???",  # as a recipe for the user's own images leaves it
    "ssl4rl.options.side=56",
    "ssl4rl.transductive=true",
    "ssl4rl.videos_as=video",
    "ssl4rl.val_samples=4",
    "trainer.test_freq=10",
    "trainer.save_freq=1",
    "ssl4rl.warm_up.steps=20",  # nothing has to be learnt here
    *SMALL[1:5],
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, resumed for a second one."""
    out = tmp_path_factory.mktemp("several") / "run"
    for steps in range(1, STEPS + 1):
        assert demo.main(out, recipe="cpu_videos", steps=steps, extra=EXTRA) == 0
        assert demo.reached(out) == steps
    return out


def test_rows_of_all_kinds_train_in_one_batch(run: Path) -> None:
    for step in range(1, STEPS + 1):
        rows = rollouts(run, step)
        assert len(rows) == 4 * BATCH and all(0 <= row["score"] <= 1 for row in rows), "no prompt was lost"
        truths = [json.loads(row["gts"]) for row in rows]
        assert {truth["source"]: truth["task"] for truth in truths} == SOURCES
    # Trainer and vLLM agree on what they saw, in rows with a picture, with a video and with text alone.
    assert all(abs(metric(run, K3)[step]) < 1e-2 for step in range(1, STEPS + 1))


def test_the_resumed_run_goes_on_with_the_samples_that_come_next(run: Path) -> None:
    settings = RunLog(run).settings
    stream = SampleStream(settings, load_manifest(settings), "train")
    for step in range(1, STEPS + 1):
        planned = sorted(stream[index].truth_json for index in range((step - 1) * BATCH, step * BATCH))
        assert sorted({row["gts"] for row in rollouts(run, step)}) == planned
        assert {RunLog(run).sample_of(row).source for row in RunLog(run).rollout(step)} == set(SOURCES)


def test_metrics_and_report_name_the_sources(run: Path) -> None:
    for source, task in SOURCES.items():
        assert set(metric(run, f"val-core/ssl4rl/{task}/{source}/acc/mean@1")) == {0, 1, STEPS}
        shares = metric(run, f"ssl4rl/source/{source}/share")
        drawn = {
            step: sum(json.loads(row["gts"])["source"] == source for row in rollouts(run, step)) for step in shares
        }
        assert shares == {step: count / (4 * BATCH) for step, count in drawn.items()} and set(shares) == {1, STEPS}
    assert "val-core/bench/novel/link_prediction/acc/mean@1" in RunLog(run).names("val-core/")
    log = RunLog(run)
    assert {line.kind.source: line.kind.task for line in log.source_headline()} == SOURCES
    assert all(line.after and line.after.rate.n == 4 for line in log.source_headline())
    page = report_html(log)
    assert "Held-out accuracy by source" in page and "Pictures are missing" not in page
