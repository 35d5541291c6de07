"""The files of a run folder, and verl's metrics in them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core.errors import UserError

HOW_TO_RECORD = (
    "VERL_FILE_LOGGER_PATH=RUN/metrics.jsonl python -m verl.trainer.main_ppo ... hydra.run.dir=RUN/hydra "
    "trainer.validation_data_dir=RUN/validation trainer.rollout_data_dir=RUN/rollouts"
)
"""The command with which verl writes a run folder that can be read here."""

LARGEST = 1e30
"""Numbers beyond this are left out and noted: the square of a larger one, as in a variance, may be no number any more."""
LAST_STEP = 10**12
"""A line with a larger step counts as unreadable."""
LONGEST_LINE = 2**26
"""Characters of a line that is read."""

_PRINTED = r"(\S.*):(?:np\.\w+\()?(-?(?:\d[\d.]*(?:e[+-]?\d+)?|nan|inf))\)?"
"""`name:0.5`, `name:np.float64(0.5)`."""


class RunError(UserError):
    """A folder that holds no run, or a sample that cannot be made again; the message says what to do."""


class RunFiles:
    """The files of a run. They are read on demand, and not kept open.

    Args:
        run: the run folder, or one file of metrics (see the package).

    Raises:
        RunError: there is no such folder or file, or it holds nothing of a run.
    """

    def __init__(self, run: str | Path) -> None:
        self.path = Path(run).expanduser().resolve()
        self._torn: set[tuple[Path, int]] = set()
        self.metric_files: list[Path]
        if self.path.is_file():
            self.folder, self.name = self.path.parent, self.path.stem
            self.metric_files, self.validations, self.rollouts = [self.path], {}, {}
            if not self.metrics:
                raise RunError(f"{self.path} holds no metrics of verl: give a run folder, or the file of verl's logger")
            return
        if not self.path.is_dir():
            raise RunError(f"{self.path} is not a folder: give the run folder of a training")
        self.folder, self.name = self.path, self.path.name
        self.metric_files = sorted(self.folder.glob("metrics*.jsonl"), key=_natural)
        self.validations = _steps(self.folder / "validation")
        """Step -> file of the validation at that step, in order."""
        self.rollouts = _steps(self.folder / "rollouts")
        """Step -> file of the training rollouts of that step, in order."""
        if not self.metric_files:
            self.metric_files = sorted(self.folder.glob("*.log"), key=_natural)
        if not (self.metric_files or self.validations or self.rollouts):
            raise RunError(
                f"{self.folder} holds no metrics, validations or rollouts; record a run with {HOW_TO_RECORD}"
            )

    @cached_property
    def config_file(self) -> Path | None:
        """The composed config that Hydra wrote; None if it is not in the run folder."""
        if self.path.is_file():
            return None  # a config beside the file may belong to another run
        candidates = (self.folder / "hydra" / ".hydra" / "config.yaml", self.folder / ".hydra" / "config.yaml")
        return next((path for path in candidates if path.is_file()), None)

    def journal(self) -> Iterator[dict[str, Any]]:
        """The lines of the curriculum's journal; none if the run has none."""
        for folder in () if self.path.is_file() else (self.folder, self.folder / "checkpoints"):
            if (folder / "curriculum.jsonl").is_file():
                yield from self._lines(folder / "curriculum.jsonl")
                return

    @cached_property
    def _logged(self) -> dict[int, dict[str, float]]:
        """Step -> verl's metrics at that step, ordered by step; NaN for a value that is no usable number (see `is_number`).

        A resumed run writes a new file. Files are read in the order of their names (numbers by value). If several files
        have a step, the later file overrides each metric that it has.
        """
        merged: dict[int, dict[str, float]] = {}
        others: dict[int, set[str]] = {}
        for path in self.metric_files:
            for step, data, rest in self._json_steps(path) if path.suffix == ".jsonl" else _console_steps(path):
                merged.setdefault(step, {}).update(data)
                others.setdefault(step, set()).update(rest)
        numeric = {name for data in merged.values() for name in data}
        for step, names in others.items():  # a text or a list where other steps have a number
            merged[step] |= dict.fromkeys((names & numeric) - merged[step].keys(), math.nan)
        return dict(sorted(merged.items()))

    def _json_steps(self, path: Path) -> Iterator[tuple[int, dict[str, float], set[str]]]:
        """Steps with their numbers, and the names of what is no number, from verl's file logger."""
        for line in self._lines(path):
            step, data = line.get("step"), line.get("data")
            if isinstance(step, int) and 0 <= step <= LAST_STEP and isinstance(data, dict):
                values: dict[str, float] = {}
                others: set[str] = set()
                for name, value in data.items():
                    if is_number(value):
                        values[name] = float(value)
                    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                        values[name] = math.nan  # verl writes NaN as null
                    else:
                        others.add(name)
                yield step, values, others

    @cached_property
    def metrics(self) -> dict[int, dict[str, float]]:
        """Step -> verl's metrics at that step, ordered by step; values that are no usable numbers are left out."""
        return {
            step: {name: value for name, value in data.items() if math.isfinite(value)}
            for step, data in self._logged.items()
        }

    @cached_property
    def gaps(self) -> dict[str, list[int]]:
        """Metric -> steps at which verl logged a value that is no usable number."""
        found: dict[str, list[int]] = {}
        for step, data in self._logged.items():
            for name, value in data.items():
                if not math.isfinite(value):
                    found.setdefault(name, []).append(step)
        return found

    def curve(self, name: str, gaps: bool = False) -> tuple[list[int], list[float]]:
        """Steps and values of one of verl's metrics; both empty if it was never logged.

        A step whose value is no usable number has NaN with `gaps`, and is left out otherwise.
        """
        source = self._logged if gaps else self.metrics
        points = [(step, data[name]) for step, data in source.items() if name in data]
        if all(math.isnan(value) for _, value in points):
            return [], []
        return [step for step, _ in points], [value for _, value in points]

    def names(self, prefix: str) -> list[str]:
        """All metric names with a prefix, in the order of their first appearance."""
        return list(dict.fromkeys(name for data in self.metrics.values() for name in data if name.startswith(prefix)))

    @property
    def torn_lines(self) -> int:
        """Number of lines that could not be read, in the files read so far."""
        return len(self._torn)

    def _lines(self, path: Path) -> Iterator[dict[str, Any]]:
        """The JSON objects of a file; torn lines are counted and skipped."""
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), "")):
                    try:
                        value = json.loads(line)
                    except (ValueError, RecursionError):
                        value = None
                    if isinstance(value, dict):
                        yield value
                    elif line.strip():
                        self._torn.add((path, number))
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}") from error


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that can be computed with: not NaN, not infinite, not beyond `LARGEST`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _steps(folder: Path) -> dict[int, Path]:
    """The `{step}.jsonl` files of a folder, ordered by step."""
    files = {int(path.stem): path for path in folder.glob("*.jsonl") if path.stem.isdecimal()}
    return dict(sorted(files.items()))


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key of a file name: 10 comes after 9, and `metrics` before `metrics_2`."""
    parts = re.findall(r"\d+|\D+", path.stem)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def _console_steps(path: Path) -> Iterator[tuple[int, dict[str, float], set[str]]]:
    """Steps with their numbers, from the output of verl's console logger: `step:12 - name:value - ...`."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in iter(lambda: file.readline(LONGEST_LINE), ""):
                # Ray puts the worker's name in front.
                if match := re.search(r"(?:^|\s)step:(\d{1,12}) - (\S.*)", line):
                    numbers = (re.fullmatch(_PRINTED, part) for part in match[2].strip().split(" - "))
                    values = {found[1]: float(found[2]) for found in numbers if found}
                    yield int(match[1]), {name: v if is_number(v) else math.nan for name, v in values.items()}, set()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
