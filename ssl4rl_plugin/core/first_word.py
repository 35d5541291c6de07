"""One line on stderr early in a run, before verl's imports and checks, which take 6 to 20 s.

verl loads this package at the end of `import verl`, and calls `say`. Where `cpu.setup` has run, torch calls it before, at
the end of `import torch`. Keep this module light: it is imported in every process.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

LINE = "ssl4rl: starting; verl takes some seconds to import, then the run is checked"
PROGRAMS = ("verl.trainer.main_ppo", "verl/trainer/main_ppo.py")
SHOWS_ONLY = {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i"}
"""Options with which main_ppo trains nothing."""

_said = False


def is_run(command: Sequence[str]) -> bool:
    """True if `command` is that of a training with this plugin: `python -m verl.trainer.main_ppo +plugin=ssl4rl ...`."""
    program = next((i for i, word in enumerate(command) if word == PROGRAMS[0] or word.endswith(PROGRAMS[1])), None)
    if program is None:
        return False
    options = command[program + 1 :]
    chosen = any(word.lstrip("+") == "plugin=ssl4rl" for word in options)
    return chosen and not any(word.partition("=")[0] in SHOWS_ONLY for word in options)


def say() -> None:
    """Print the line, once, in the driver of a run. Ray workers and other programs have another command. Never raises."""
    global _said
    # While Python looks for the module of `-m`, sys.argv[0] is "-m". orig_argv is the whole command.
    if not _said and is_run(sys.orig_argv):
        _said = True
        with contextlib.suppress(OSError):  # a closed pipe
            print(LINE, file=sys.stderr, flush=True)
