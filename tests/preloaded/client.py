"""Stands in for `pyinfra` and `nixherd` on a test's PATH: has the program forked by a server that has imported it.

Run by its name in `bin/` of a directory that `tests.preloaded.programs` made, with `-I -S` and without pathlib, so that
it starts at once. Where the program would begin otherwise than the server did (at a terminal, as somebody else, in
other namespaces, with variables that Python or a library reads as it is imported), or where no server answers, it
becomes the real one.
"""

import json
import os
import resource
import signal
import socket
import sys

_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "FAKETIME", "GEVENT", "PYINFRA", "OPENSSL")
_SPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)  # ignored by every Python
_BROKEN = 70  # the server is gone, and nobody knows how the program ended


def standing() -> str:
    """All that a program begins with and that no other process can give it."""
    variables = sorted(item for item in os.environ.items() if item[0].startswith(_READ_AT_START))
    spaces = [os.readlink(f"/proc/self/ns/{name}") for name in _SPACES]
    limits = [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
    who = [os.getresuid(), os.getresgid(), sorted(os.getgroups()), os.getpriority(os.PRIO_PROCESS, 0)]
    return json.dumps([variables, spaces, limits, who])


def main() -> None:
    """End as the program did."""
    path, name = os.path.split(os.path.abspath(sys.argv[0]))
    place = os.path.join(os.path.dirname(path), name)
    real = os.readlink(f"{place}.real")
    connection = _connected(place)
    if connection is None:
        os.execv(real, [real, *sys.argv[1:]])
    umask = os.umask(0)
    os.umask(umask)
    request = {
        "argv": [real, *sys.argv[1:]],
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "umask": umask,
        "ignored": [number for number in signal.valid_signals() if _is_ignored(number)],
    }
    for number in _PASSED_ON:
        if not _is_ignored(number):
            signal.signal(number, lambda got, _frame: connection.send(bytes([got])))
    socket.send_fds(connection, [b" "], [0, 1, 2])
    connection.sendall(json.dumps(request).encode() + b"\n")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):  # whoever reads our output waits for the program's end of it alone
        os.dup2(nowhere, stream)
    answer = connection.recv(16)
    status = int(answer) if answer else _BROKEN
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _connected(place: str) -> "socket.socket | None":
    """To the server; None where the real program is to run."""
    try:
        with open(f"{place}.standing") as file:
            as_it = file.read() == standing()
        if not as_it or any(map(os.isatty, range(3))) or _descriptors() != ["0", "1", "2"]:
            return None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(f"{place}.socket")
    except OSError:
        return None
    return connection


def _descriptors() -> list[str]:
    """Those that are open, but for the one that lists them."""
    return [number for number in sorted(os.listdir("/proc/self/fd")) if os.path.exists(f"/proc/self/fd/{number}")]


def _is_ignored(number: int) -> bool:
    return number not in _PYTHONS_OWN and signal.getsignal(number) is signal.SIG_IGN


if __name__ == "__main__":
    main()
