"""Stands in for the Python interpreter: runs a program in a fork of the server of `fork_server`.

It takes the interpreter's arguments. The program has this process's environment, folder and open files, and the two end
together: signals are passed on, and the exit code comes back. Without a server that answers, it executes the interpreter.

The script that `fork_server` writes runs this file alone, without the packages of the environment: it imports nothing else,
since each of Ray's workers pays for it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys

NUMBER = struct.Struct("!i")
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(address: str, arguments: list[str]) -> None:
    """Run the program that `arguments` name, as `python arguments...` would. Does not return."""
    files = open_files()
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(address)
            send_request(server, arguments, files)
            pid = receive_number(server)
            if pid:
                follow(server, pid)
    except OSError:
        pass
    os.execv(sys.executable, [sys.executable, *arguments])


def send_request(server: socket.socket, arguments: list[str], files: list[int]) -> None:
    """Ask for a fork that runs `arguments`. The open files travel beside the message."""
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "files": files,
        "blocked": [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    }
    message = json.dumps(request).encode()
    socket.send_fds(server, [NUMBER.pack(len(message))], files)
    server.sendall(message)


def follow(server: socket.socket, pid: int) -> None:
    """Pass signals on to the program until it ends, and end as it did. Does not return."""
    for number in PASSED_ON:
        signal.signal(number, lambda received, frame: os.kill(pid, received))
    code = receive_number(server)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def receive_number(server: socket.socket) -> int:
    """The next number of the server: the process that runs the program (0 if it refuses), then its exit code."""
    data = server.recv(NUMBER.size, socket.MSG_WAITALL)
    if len(data) < NUMBER.size:
        raise ConnectionError("the server has ended")
    return int(NUMBER.unpack(data)[0])


def open_files() -> list[int]:
    """The file descriptors of this process, but for the one that lists them."""
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return sorted(found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
