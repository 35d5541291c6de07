"""Start and read the processes that answer: one vLLM engine on each GPU or group of GPUs, or one on the CPU."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pickle
import queue
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl4rl_plugin.analysis.evaluation import worker
from ssl4rl_plugin.analysis.evaluation.predictions import Prediction
from ssl4rl_plugin.analysis.evaluation.worker import EngineJob
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.safe_path import environment, run_module


class EngineError(UserError):
    """An engine failed; the message gives the reason and the path of its log."""


def environments(tensor_parallel: int, engines: int | None) -> list[dict[str, str]]:
    """The additional environment variables of each engine's process.

    Raises EngineError if there are too few GPUs, or if vLLM is not installed for this machine.
    """
    from ssl4rl_plugin.cpu.platform import ROLLOUT_ENVIRONMENT, torch_has_accelerator

    if not torch_has_accelerator():
        from ssl4rl_plugin.cpu.setup import check_vllm

        check_vllm()
        if tensor_parallel > 1:
            raise EngineError("--tensor-parallel needs GPUs: without one, leave it at 1")
        shared = {name: os.environ.get(name, default) for name, default in ROLLOUT_ENVIRONMENT.items()}
        # Without the last variable vLLM's CPU platform overrides the executor `uni`.
        return [{**shared, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}] * (engines or 1)
    if importlib.util.find_spec("vllm") is None:
        raise EngineError("vLLM is not installed: pip install 'ssl4rl-plugin[gpu]'")
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    if len(gpus) < tensor_parallel * (engines or 1):
        raise EngineError(
            f"{engines or 1} engine(s) with {tensor_parallel} GPU(s) each do not fit on the {len(gpus)} GPUs of this machine"
        )
    groups = [gpus[k : k + tensor_parallel] for k in range(0, len(gpus) - tensor_parallel + 1, tensor_parallel)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups[:engines]]


def answers(job: EngineJob, logs: Path, extra: Sequence[Mapping[str, str]]) -> Iterator[list[Prediction] | None]:
    """Yield the predictions of each row as they arrive; None once, when the first engine has loaded its model.

    Args:
        job: the rows to ask; they are divided among the engines.
        logs: folder for the logs of the engines.
        extra: the environment variables of each engine.

    Raises:
        EngineError: an engine failed. Predictions yielded before are valid.
    """
    messages: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    started: list[subprocess.Popen[bytes]] = []
    shares = [job.numbers[k :: len(extra)] for k in range(len(extra))]
    try:
        for number, (share, variables) in enumerate(zip(shares, extra, strict=True)):
            if not share:
                continue
            with (logs / f"engine-{number}.log").open("wb") as log:
                process = subprocess.Popen(
                    run_module(worker.__name__), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                    env=environment(**variables), start_new_session=True,
                )  # fmt: skip
            started.append(process)
            threading.Thread(target=_listen, args=(number, process, messages), daemon=True).start()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it has ended; its log has the reason
                pickle.dump(replace(job, numbers=share), process.stdin)
                process.stdin.flush()
        ready, running = False, len(started)
        while running:
            number, message = messages.get()
            if message is None or "error" in message:
                log_file = logs / f"engine-{number}.log"
                reason = message["error"] if message else _tail(log_file)
                raise EngineError(f"engine {number} ended: {reason}\n(its log is {log_file})")
            if "lines" in message:
                yield message["lines"]
            elif "done" in message:
                running -= 1
            elif not ready:
                ready = True
                yield None
    finally:
        for process in started:
            _end(process)


def _listen(number: int, process: subprocess.Popen[bytes], messages: queue.Queue[tuple[int, Any]]) -> None:
    """Put a process's messages into the queue; None if it ends without `done` or `error`."""
    assert process.stdout is not None
    last: dict[str, Any] = {}
    for line in process.stdout:
        last = json.loads(line)
        messages.put((number, last))
    if "done" not in last and "error" not in last:
        messages.put((number, None))


def _tail(log: Path) -> str:
    return "".join(deque(log.open(errors="replace"), maxlen=8)).strip() or "it was killed"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children, which are vLLM's."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        for member in (*family, process):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
