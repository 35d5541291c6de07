"""What the end-to-end tests share: one finished run, and the check that a training leaves no process behind.

One start of verl's trainer on the CPU costs more than a minute, so that a run serves as many tests as it can. The tests
of a file stay in one process of pytest-xdist (`xdist_group`), and files run beside each other.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared_run import GREEDY, SMALL, STEPS, left_running, mmbench
from traps import set_traps, sprung

from ssl4rl_plugin.demo import run as demo

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session", autouse=True)
def _our_orphans(_own_cache: None) -> Iterator[None]:
    """Processes whose parent ends become children of this one, so that `left_running` finds them (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_running(_our_orphans: None) -> Iterator[None]:
    """After each file of end-to-end tests."""
    yield
    assert not left_running()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Path:
    """A finished run of five steps with greedy validations, whose validation has questions in MMBench's layout too.

    It is started in a folder of traps: neither the trainer, nor Ray's workers, nor vLLM run any of them.
    """
    folder = tmp_path_factory.mktemp("runs")
    traps, marks = set_traps(folder / "traps", folder / "marks"), folder / "marks"
    questions = mmbench(folder / "mmbench.tsv")
    extra = (*SMALL, *GREEDY, f"ssl4rl.benchmarks=[{{name: mmbench, path: {questions}}}]")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(traps)
        assert demo.main(folder / "undisturbed", steps=STEPS, extra=extra) == 0
    assert sprung(marks) == []
    return folder / "undisturbed"
