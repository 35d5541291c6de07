"""Read back a run of verl: metrics, validations, rollouts, the config, and the samples themselves.

A run folder looks like this. Every part is optional; a missing part is empty here.

    metrics*.jsonl              verl's file logger (VERL_FILE_LOGGER_PATH=RUN/metrics.jsonl, trainer.logger=[file])
    *.log                       verl's output, read if there are no metrics*.jsonl (trainer.logger=[console])
    validation/{step}.jsonl     trainer.validation_data_dir=RUN/validation
    rollouts/{step}.jsonl       trainer.rollout_data_dir=RUN/rollouts
    hydra/.hydra/config.yaml    hydra.run.dir=RUN/hydra
    curriculum.jsonl            the curriculum's journal; in trainer.default_local_dir, RUN/checkpoints of the demo

A single file of metrics can take the place of the folder: JSON lines, or verl's output. Files of an unfinished or killed run
may end in the middle of a line. Such lines are skipped and counted.

    files      the files of a run, and verl's metrics
    responses  the dumps: single responses of the model
    accuracy   accuracies, curves and changes, computed from responses
    config     the composed config
    questions  the question of a response, made again
    log        `RunLog`: all of it
"""

from __future__ import annotations

from ssl4rl_plugin.analysis.runlog.accuracy import (
    ABOVE,
    AT,
    BELOW,
    COLLAPSED,
    COLLAPSED_FROM,
    UNREADABLE,
    Accuracy,
    AccuracyChange,
    Headline,
    Outcomes,
    TopAnswer,
    difference,
)
from ssl4rl_plugin.analysis.runlog.config import RunConfig
from ssl4rl_plugin.analysis.runlog.files import HOW_TO_RECORD, RunError
from ssl4rl_plugin.analysis.runlog.log import RunLog
from ssl4rl_plugin.analysis.runlog.responses import BenchmarkKey, KindT, LoggedArm, Response

__all__ = [
    "ABOVE",
    "AT",
    "BELOW",
    "COLLAPSED",
    "COLLAPSED_FROM",
    "HOW_TO_RECORD",
    "UNREADABLE",
    "Accuracy",
    "AccuracyChange",
    "BenchmarkKey",
    "Headline",
    "KindT",
    "LoggedArm",
    "Outcomes",
    "Response",
    "RunConfig",
    "RunError",
    "RunLog",
    "TopAnswer",
    "difference",
]
