"""A command whose output nobody reads any more ends quietly: `ssl4rl build --help | head`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer

from ssl4rl_plugin.cli import PIPE_CLOSED, app

START = [sys.executable, "-c", "from ssl4rl_plugin.cli import app; app()"]


def names() -> list[str]:
    group = typer.main.get_command(app)
    return sorted(group.commands)  # type: ignore[attr-defined]


def ended(*arguments: str, start: list[str] = START, read: int = 0) -> tuple[int, str]:
    """Exit code and stderr of a command whose reader leaves after `read` bytes."""
    out, into = os.pipe()
    if not read:
        os.close(out)
    with subprocess.Popen([*start, *arguments], stdout=into, stderr=subprocess.PIPE, text=True) as process:
        os.close(into)
        if read:
            os.read(out, read)
            os.close(out)
        assert process.stderr is not None
        said = process.stderr.read()
    return process.returncode, said


@pytest.mark.parametrize("arguments", [["build", "--help"], ["--help"], ["sources", "--json"], ["tasks"]])
def test_a_command_whose_reader_has_gone_is_quiet(arguments: list[str]) -> None:
    assert ended(*arguments) == (PIPE_CLOSED, "")


def test_head_is_quiet() -> None:
    code, said = ended("build", "--help", read=1)
    assert code in (0, PIPE_CLOSED) and said == ""


def test_output_that_is_written_only_at_the_end_is_quiet() -> None:
    code = (
        "from ssl4rl_plugin.cli import app\n"
        "@app.command()\ndef short() -> None:\n    print('x')\n"
        "app(['short'])"
    )  # fmt: skip
    assert ended(start=[sys.executable, "-c", code]) == (PIPE_CLOSED, "")


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_the_help_of_every_command_is_quiet(name: str) -> None:
    assert ended(name, "--help") == (PIPE_CLOSED, "")


def test_exit_codes_are_kept_where_somebody_reads() -> None:
    run = subprocess.run(
        [*START, "score", "rotation", "180", "--truth", "90"], capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 1 and "BrokenPipe" not in run.stderr
    run = subprocess.run([*START, "build", "--bad"], capture_output=True, text=True, timeout=100)
    assert run.returncode == 2
