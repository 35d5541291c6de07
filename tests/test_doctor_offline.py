"""`ssl4rl doctor --recipe` without a network: seconds, and all checks but that of the model."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.hub import HUB_SECONDS
from ssl4rl_plugin.graphs.words import load_tokenizer


@contextmanager
def no_hub(monkeypatch: pytest.MonkeyPatch, answers: bool) -> Iterator[None]:
    """A hub whose port is closed, or that accepts and never answers."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        if answers:
            one.listen(8)
        address = f"http://127.0.0.1:{one.getsockname()[1]}"
        if not answers:
            one.close()
        # What HF_ENDPOINT sets when huggingface_hub is imported.
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
        yield


@pytest.mark.parametrize("answers", [False, True])
def test_a_tokenizer_that_is_not_here_is_asked_for_once(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: ten retries, 47 s, then an OSError."""
    import transformers

    assert transformers.AutoTokenizer  # its import takes seconds, and is none of the wait
    with no_hub(monkeypatch, answers):
        begun = time.monotonic()
        with pytest.raises(UserError, match=r"tokenizer of some/model is not on this machine.*hf download some/model"):
            load_tokenizer("some/model")
        assert time.monotonic() - begun < HUB_SECONDS + 4


@pytest.mark.slow
@pytest.mark.parametrize("answers", [False, True])
def test_the_other_checks_run(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["doctor", "--recipe", "graph_mixture", "ssl4rl/source=communities", "ssl4rl.transductive=true"]
    CliRunner().invoke(app, [*command, "--elsewhere"])  # imports
    with no_hub(monkeypatch, answers):
        begun = time.monotonic()
        done = CliRunner().invoke(app, command)
        assert time.monotonic() - begun < 2 * HUB_SECONDS + 20
    assert done.exit_code == 1 and "Traceback" not in done.output
    for words in ("passes verl's validation", "hub cannot be reached", "KV cache", "checkpoints"):
        assert words in done.stdout, done.stdout
