"""Programs run in a fork of the server as the interpreter would run them, and end together with their clients."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ssl4rl_plugin.cpu import fork_server
from ssl4rl_plugin.cpu.fork_server import Request, can_run

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")


@pytest.fixture(scope="module")
def command() -> Iterator[Path]:
    """A server that has imported two small modules."""
    command = fork_server.start(dict(os.environ), early=["colorsys"], late=["wave", "no_such_module"])
    yield command
    server = fork_server._servers.pop()
    assert server.stdin is not None
    server.stdin.close()
    server.wait(30)
    assert not command.parent.exists()


def script(folder: Path, code: str) -> str:
    path = folder / "program.py"
    path.write_text(code)
    return str(path)


def test_a_program_gets_arguments_environment_folder_and_files(command, tmp_path):
    code = "import os, sys; print(__name__, sys.argv[1:], os.environ['X'], os.getcwd(), sys.stdin.read(), sys.path[0])"
    program = script(tmp_path, code)
    environment = {**{k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}, "X": "set"}
    runs = [
        subprocess.run([python, program, "a b"], cwd="/", env=environment, input="in", capture_output=True, text=True)
        for python in (sys.executable, str(command))
    ]
    assert runs[0].stdout == runs[1].stdout == f"__main__ ['a b'] set / in {tmp_path}\n"


def test_it_is_a_fork_with_the_modules(command, tmp_path):
    program = script(tmp_path, "import sys; print({'colorsys', 'wave'} <= set(sys.modules))")
    assert subprocess.run([command, program], capture_output=True, text=True).stdout == "True\n"


@pytest.mark.parametrize("ending", ["sys.exit(7)", "1 / 0", "os.kill(os.getpid(), signal.SIGTERM)", ""])
def test_the_exit_code_comes_back(command, tmp_path, ending):
    program = script(tmp_path, f"import os, signal, sys\n{ending}")
    codes = [subprocess.run([python, program], capture_output=True).returncode for python in (sys.executable, command)]
    assert codes[0] == codes[1]


def test_signals_reach_the_program(command, tmp_path):
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "print('on', flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([command, script(tmp_path, code)], stdout=subprocess.PIPE) as client:
        client.stdout.readline()
        client.terminate()
        assert client.wait(30) == 3


def test_a_killed_client_takes_its_program_with_it(command, tmp_path):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen([command, script(tmp_path, code)], stdout=subprocess.PIPE) as client:
        program = psutil.Process(int(client.stdout.readline()))
        client.kill()
        deadline = time.monotonic() + 30
        while program.is_running() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not program.is_running()


def test_multiprocessing_starts_forks(command, tmp_path):
    code = (
        "import multiprocessing as m, sys\n"
        "def child(queue): queue.put('wave' in sys.modules)\n"
        "if __name__ == '__main__':\n"
        "    context = m.get_context('spawn'); queue = context.Queue()\n"
        "    process = context.Process(target=child, args=(queue,)); process.start()\n"
        "    print(queue.get(), process.join(), process.exitcode)\n"
    )
    done = subprocess.run([command, script(tmp_path, code)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True None 0\n", done.stderr


def test_without_a_server_the_interpreter_runs_the_program(tmp_path):
    client = [sys.executable, "-I", "-S", fork_server.fork_client.__file__, str(tmp_path / "nothing")]
    done = subprocess.run([*client, "-c", "print('ran')"], capture_output=True, text=True)
    assert done.stdout == "ran\n"


def test_forks_end_with_the_driver(tmp_path):
    code = (
        "import os, subprocess, sys, time; from ssl4rl_plugin.cpu import fork_server\n"
        "command = fork_server.start(dict(os.environ), ['colorsys'], ['wave'])\n"
        "client = subprocess.Popen([command, sys.argv[1]], stdout=subprocess.PIPE)\n"
        "print(client.stdout.readline().decode(), flush=True); time.sleep(60)\n"
    )
    program = script(tmp_path, "import os, time; print(os.getpid(), os.getppid(), flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", code, program], stdout=subprocess.PIPE) as driver:
        family = [psutil.Process(int(pid)) for pid in driver.stdout.readline().split()]
        driver.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=fork_server.PATIENCE + 20)
        assert not any(process.is_running() for process in family)


@pytest.mark.parametrize(
    ("arguments", "preload", "expected"),
    [
        (["worker.py", "--x"], "", True),
        (["-P", "-B", "worker.py"], "", True),
        (["-c", "from multiprocessing.spawn import spawn_main; spawn_main()"], "", True),
        (["-c", "from multiprocessing.resource_tracker import main; main(3)"], "", False),
        (["-m", "worker"], "", False),
        (["-O", "worker.py"], "", False),
        ([], "", False),
        (["worker.py"], "/nowhere/libgomp.so.1", False),
    ],
)
def test_what_a_fork_can_run(monkeypatch, arguments, preload, expected):
    monkeypatch.setattr(fork_server.threading, "active_count", lambda: 1)
    assert can_run(Request(arguments, {"LD_PRELOAD": preload}, "/", [], [], [])) is expected


def test_the_callback_starts_it_only_where_ray_starts_here(monkeypatch):
    from omegaconf import OmegaConf

    from ssl4rl_plugin.training import fork_callback

    started: list[dict[str, str]] = []
    monkeypatch.setattr(fork_server, "start", lambda environment: started.append(environment) or Path("/x/python"))
    monkeypatch.setattr("verl.trainer.constants_ppo.get_ppo_ray_runtime_env", lambda config: {"env_vars": {"A": 1}})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/nowhere")

    def config(nodes: int, executable: str | None = None):
        runtime_env = {"env_vars": {"B": "2"}, "py_executable": executable}
        ray = {"ray_init": {"runtime_env": runtime_env}}
        return OmegaConf.create({"trainer": {"nnodes": nodes}, "ray_kwargs": ray})

    for unfit in (config(2), config(1, "uv run")):
        before = OmegaConf.to_container(unfit)
        fork_callback.StartForkServer().on_run_start(unfit)
        assert OmegaConf.to_container(unfit) == before and not started
    fit = config(1)
    fork_callback.StartForkServer().on_run_start(fit)
    assert fit.ray_kwargs.ray_init.runtime_env.py_executable == "/x/python"
    assert started[0]["A"] == "1" and started[0]["B"] == "2" and started[0]["TRANSFER_QUEUE_ENABLE"] == "1"
