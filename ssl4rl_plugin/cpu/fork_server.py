"""One process imports torch, verl and vLLM; Ray's workers and vLLM's engine are forks of it.

A training starts about ten Python processes, and each spends 5 to 10 s of a core to import the same packages. On two cores
that is most of a run's start. Here the driver starts a server that imports them once. Ray starts its workers with a command
of our choice (`runtime_env.py_executable`), and so does Python's multiprocessing (`set_executable`). That command is a
client (`fork_client`): it asks the server for a fork, which takes over the client's environment, arguments and open files,
and runs the program as the interpreter would. The server has one thread and has called nothing that it imports.

A fork shares the memory of what was imported. The server ends with the driver, and takes all forks with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import itertools
import json
import os
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import spawn
from pathlib import Path

from ssl4rl_plugin.core.safe_path import run_code
from ssl4rl_plugin.cpu import fork_client
from ssl4rl_plugin.cpu.fork_client import NUMBER

EARLY = (
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "torchvision",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.core.sched.scheduler",
    "vllm.engine.arg_utils",
    "vllm.model_executor.models.qwen2_5_vl",
    "tensordict",
    "torchdata.stateful_dataloader",
    "datasets",
    "accelerate",
    "hydra",
)
"""What the processes of a training on the CPU import, and what does not import Ray: the server begins with it at once."""
LATE = (
    "verl.trainer.ppo.v1",
    "verl.workers.engine_workers",
    "verl.workers.rollout.vllm_rollout.vllm_async_server",
    "verl.workers.rollout.vllm_rollout.utils",
    "vllm.v1.executor.uniproc_executor",
    "ssl4rl_plugin.cpu.group_rollout",
)
"""The rest. Ray reads the numbers of the job and of the raylet from the environment when it is imported, so the server waits
for its first client, whose environment has them."""
PATIENCE = 10.0
"""Seconds that programs have to end by themselves after the driver has."""
SPAWNED = "from multiprocessing.spawn import spawn_main"
"""Start of the code with which multiprocessing starts a process."""
SPARE = 500
"""Descriptors from this number on are free while a fork puts its files in place."""

_servers: list[subprocess.Popen[bytes]] = []
"""Keeps the server's standard input open: its end tells the server that the driver has ended."""


def start(environment: Mapping[str, str], early: Sequence[str] = EARLY, late: Sequence[str] = LATE) -> Path:
    """Start the server, and return the command that stands in for the interpreter. It works at once, and waits if needed.

    Args:
        environment: the server's environment: what is imported may read it. Forks get that of their clients.
        early: modules to import at once. One that cannot be imported is left out.
        late: modules to import with the environment of the first client.
    """
    folder = Path(tempfile.mkdtemp(prefix="fork-", dir=environment.get("RAY_TMPDIR", "/tmp")))
    command = folder / "python"
    client = [sys.executable, "-I", "-S", fork_client.__file__, str(folder / "socket")]
    command.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
    command.chmod(0o700)
    code = f"from {__name__} import main; import sys; main(sys.argv[1:])"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen(64)
        server = subprocess.Popen(
            run_code(code, str(listener.fileno()), str(command), ",".join(early), ",".join(late)),
            env=dict(environment), stdin=subprocess.PIPE, pass_fds=[listener.fileno()],
        )  # fmt: skip
    _servers.append(server)
    return command


def main(arguments: Sequence[str]) -> None:
    """The server, and later each of its forks: this function's last call is the program of a fork."""
    listener, command = socket.socket(fileno=int(arguments[0])), Path(arguments[1])
    listener.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends on Ctrl-C, and this process with it
    early, late = (names.split(",") for names in arguments[2:])
    import_all(early)
    request = Server(listener, late).serve()
    if request is None:
        shutil.rmtree(command.parent, ignore_errors=True)
        os._exit(0)  # some of the imported libraries complain at a regular end
    become(request)
    spawn.set_executable(str(command))
    run(request.arguments)


def import_all(modules: Sequence[str]) -> None:
    """Import modules, until the driver ends."""
    for module in modules:
        if driver_has_ended():
            return
        try:
            importlib.import_module(module)
        except Exception as error:  # the program that needs it will say so
            print(f"ssl4rl: not imported beforehand: {module} ({type(error).__name__}: {error})", file=sys.stderr)


def name_process(name: str) -> None:
    """Name this process in the list of processes, with Ray's function: the first that a process uses is the only one that
    works, and Ray's workers rename themselves with it."""
    if "ray._raylet" in sys.modules:
        sys.modules["ray._raylet"].setproctitle(name)


def driver_has_ended() -> bool:
    """True if standard input, which the driver holds, has ended."""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        return bool(selector.select(0))


@dataclass(frozen=True)
class Request:
    """What a client asks for."""

    arguments: list[str]
    """Of the interpreter."""
    environment: dict[str, str]
    folder: str
    """The current folder."""
    files: list[int]
    """Numbers that the program's open files have there."""
    blocked: list[int]
    """Blocked signals."""
    received: list[int]
    """The open files, in the same order, as this process has them."""


@dataclass(frozen=True)
class Fork:
    """A program that runs in a fork."""

    pid: int
    handle: int
    """A descriptor that is readable once the program has ended."""
    client: socket.socket


class Server:
    """Forks a process for each request, and tells its client how it ended."""

    def __init__(self, listener: socket.socket, late: Sequence[str]) -> None:
        self._listener = listener
        self._late = late
        self._forks: list[Fork] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(0, selectors.EVENT_READ, self._leave)
        self._deadline: float | None = None

    def serve(self) -> Request | None:
        """Serve until the driver ends. Returns its request in each fork, and None in the server."""
        while self._deadline is None or (self._forks and time.monotonic() < self._deadline):
            ready = self._selector.select(None if self._deadline is None else 0.2)
            # One at a time, since it may close what the next one is about.
            if ready and (request := ready[0][0].data()) is not None:
                return request
        for fork in self._forks:
            os.kill(fork.pid, signal.SIGKILL)
        return None

    def _leave(self) -> None:
        """The driver has ended: its workers do so too, soon."""
        self._selector.unregister(0)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._deadline = time.monotonic() + PATIENCE

    def _accept(self) -> Request | None:
        client, _ = self._listener.accept()
        try:
            request = receive(client)
        except (OSError, ValueError):
            client.close()
            return None
        self._import_late(request)
        if not can_run(request):
            pid = 0
        elif (pid := os.fork()) == 0:
            client.close()
            self._close()
            return request
        for file in request.received:
            os.close(file)
        if pid:
            self._watch(Fork(pid, os.pidfd_open(pid), client))
        else:
            with contextlib.suppress(OSError):
                client.sendall(NUMBER.pack(0))
            client.close()
        return None

    def _import_late(self, request: Request) -> None:
        """Once, in the environment of the first client."""
        if self._late:
            os.environ.update(request.environment)
            import_all(self._late)
            self._late = ()
            name_process("ssl4rl::fork_server")
            gc.collect()
            gc.freeze()  # the collector then leaves the shared memory alone

    def _watch(self, fork: Fork) -> None:
        self._forks.append(fork)
        self._selector.register(fork.handle, selectors.EVENT_READ, lambda: self._ended(fork))
        self._selector.register(fork.client, selectors.EVENT_READ, lambda: self._client_left(fork))
        self._tell(fork, fork.pid)

    def _client_left(self, fork: Fork) -> None:
        """A client that was killed takes its program with it."""
        self._selector.unregister(fork.client)
        os.kill(fork.pid, signal.SIGKILL)

    def _ended(self, fork: Fork) -> None:
        code = os.waitstatus_to_exitcode(os.waitpid(fork.pid, 0)[1])
        self._selector.unregister(fork.handle)
        if fork.client in {key.fileobj for key in self._selector.get_map().values()}:
            self._selector.unregister(fork.client)
            self._tell(fork, code)
        fork.client.close()
        os.close(fork.handle)
        self._forks.remove(fork)

    @staticmethod
    def _tell(fork: Fork, number: int) -> None:
        with contextlib.suppress(OSError):  # it was killed
            fork.client.sendall(NUMBER.pack(number))

    def _close(self) -> None:
        """In a fork: close what belongs to the server."""
        self._selector.close()
        self._listener.close()
        for fork in self._forks:
            fork.client.close()
            os.close(fork.handle)


def receive(client: socket.socket) -> Request:
    """A client's request. Raises OSError or ValueError if it is not complete."""
    client.settimeout(10)
    size, received, _, _ = socket.recv_fds(client, NUMBER.size, 250)
    message = bytearray()
    while len(message) < NUMBER.unpack(size)[0]:
        part = client.recv(65536)
        if not part:
            raise ConnectionError("the client has ended")
        message += part
    client.settimeout(None)
    return Request(received=list(received), **json.loads(message))


def can_run(request: Request) -> bool:
    """Whether a fork can run the program: a file, or a process of multiprocessing. Others are the interpreter's own work."""
    rest = without_options(request.arguments)
    file = bool(rest) and not rest[0].startswith("-")
    spawned = rest[:1] == ["-c"] and rest[1].startswith(SPAWNED)
    return (file or spawned) and has_loaded(request.environment.get("LD_PRELOAD", "")) and threading.active_count() == 1


def has_loaded(preload: str) -> bool:
    """Whether this process has the libraries of a value of LD_PRELOAD. vLLM asks for the OpenMP library of torch."""
    names = preload.replace(" ", ":").split(":")
    maps = Path("/proc/self/maps").read_text()
    return all(f" {os.path.realpath(name)}\n" in maps for name in names if name)


def without_options(arguments: list[str]) -> list[str]:
    """The interpreter's arguments from the program on, if the options before it are some that multiprocessing passes on."""
    return list(itertools.dropwhile(lambda argument: argument in ("-P", "-B"), arguments))


def become(request: Request) -> None:
    """In a fork: take over the client's environment, folder, open files and signals."""
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, SPARE) for file in request.received]
    for file in request.received:
        os.close(file)
    for file, number in zip(moved, request.files, strict=True):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, request.blocked)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    threads = request.environment.get("OMP_NUM_THREADS", "")
    if "torch" in sys.modules and threads.isdigit():  # read when the library was loaded
        sys.modules["torch"].set_num_threads(int(threads))


def run(arguments: list[str]) -> None:
    """Run the program that the interpreter's arguments name: a file, or code after `-c`."""
    program, *rest = without_options(arguments)
    if program == "-c":
        code, *rest = rest
        first = ""
        sys.argv = ["-c", *rest]
    else:
        first = os.path.dirname(os.path.abspath(program))
        sys.argv = [program, *rest]
    if not os.environ.get("PYTHONSAFEPATH") and "-P" not in arguments[: arguments.index(program)]:
        sys.path.insert(0, first)
    if program != "-c":
        runpy.run_path(program, run_name="__main__")
        return
    name_process("ssl4rl::spawned")
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(code, "<string>", "exec"), module.__dict__)
