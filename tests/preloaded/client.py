"""Stands in for `pyinfra` and `nixherd` on a test's PATH: has the program forked by a server that has imported it.

`pyinfra-python` and `nixherd-python` stand in for `python` in the same way: what they run by `-c`, `-m` or as a file
finds imported what the program imports.

Run by its name in `bin/` of a directory that `tests.preloaded.programs` made, with `-I -S` and without pathlib, so that
it starts at once. Where the program would begin otherwise than the server did (at a terminal, as somebody else, in
other namespaces, with variables that Python or a library reads as it is imported), or where no server answers, it
becomes the real one.
"""

# The modules that wrap these two take as long to import as Python takes to start.
import _signal as signal  # type: ignore[import-not-found]
import _socket
import marshal
import os
import resource
import sys

_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "FAKETIME", "GEVENT", "PYINFRA_FAKE", "OPENSSL")
_SPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)  # ignored by every Python
PYTHON = "-python"  # of the name of a Python that has imported what the program imports
USERS = ".users"  # of the file that those hold who share a place
LENGTH = 4  # bytes before a request
_INT = 4  # bytes of a descriptor
_BROKEN = 70  # the server is gone, and nobody knows how the program ended


def standing() -> str:
    """All that a program begins with and that no other process can give it."""
    variables = sorted(item for item in os.environ.items() if item[0].startswith(_READ_AT_START))
    spaces = [os.readlink(f"/proc/self/ns/{name}") for name in _SPACES]
    limits = [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
    who = [os.getresuid(), os.getresgid(), sorted(os.getgroups()), os.getpriority(os.PRIO_PROCESS, 0)]
    return repr((variables, spaces, limits, who))


def main() -> None:
    """End as the program did."""
    path, name = os.path.split(os.path.abspath(sys.argv[0]))
    directory = os.path.dirname(path)
    real = os.readlink(os.path.join(directory, f"{name}.real"))
    program = name.removesuffix(PYTHON)
    connection = _connected(os.path.join(directory, program))
    if connection is None:
        os.execv(real, [real, *sys.argv[1:]])
    umask = os.umask(0)
    os.umask(umask)
    request = {
        "argv": [real, *sys.argv[1:]],
        "is_python": name != program,
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "umask": umask,
        "ignored": [number for number in signal.valid_signals() if _is_ignored(number)],
    }
    for number in _PASSED_ON:
        if not _is_ignored(number):
            signal.signal(number, lambda got, _frame: connection.send(bytes([got])))
    streams = b"".join(number.to_bytes(_INT, sys.byteorder) for number in range(3))
    text = marshal.dumps(request)
    connection.sendmsg([len(text).to_bytes(LENGTH, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
    connection.sendall(text)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):  # whoever reads our output waits for the program's end of it alone
        os.dup2(nowhere, stream)
    answer = connection.recv(16)
    status = int(answer) if answer else _BROKEN
    if status < 0:
        if -status != signal.SIGKILL:  # whose action is nobody's to set
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _connected(place: str) -> "_socket.socket | None":
    """To the server; None where the real program is to run."""
    try:
        with open(f"{place}.standing") as file:
            as_it = file.read() == standing()
        if not as_it or any(map(os.isatty, range(3))) or _descriptors() != ["0", "1", "2"]:
            return None
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        connection.connect(f"{place}.socket")
    except OSError:
        return None
    return connection


def _descriptors() -> list[str]:
    """Those that are open, but for the one that lists them."""
    return [number for number in sorted(os.listdir("/proc/self/fd")) if os.path.exists(f"/proc/self/fd/{number}")]


def _is_ignored(number: int) -> bool:
    return number not in _PYTHONS_OWN and signal.getsignal(number) == signal.SIG_IGN


if __name__ == "__main__":
    main()
