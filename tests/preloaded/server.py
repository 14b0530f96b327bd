"""A program that has imported all, and forks for each run: `python -P server.py DIRECTORY pyinfra|nixherd [MODULE]`.

Half of what a run of `pyinfra` takes is importing it, and a run of all tests starts it a thousand times. What is
forked here is a process of its own: argv, environment, directory, umask and standard streams are those of the program
that asked (client.py), it leads a session of its own, and its code is that of the program's script from `main()` on.
gevent has patched it when pyinfra was imported, as in every run, and has no hub before it forks. Only how it starts
programs of its own is another, quicker one (tests/spawning.py).

Who asked and the process that became the program are held together by one between them: signals and the exit status
go through it, and when who asked is gone, the program's session is killed.
"""

import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import importlib.util
import inspect
import marshal
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import types
from collections.abc import Callable
from os import _exit, environ, fork, getppid, kill, killpg, waitpid
from pathlib import Path
from typing import Any, NoReturn

# From before anything is patched: the kernel's own.
_poll, _Socket, _recv_fds, _signal = select.poll, socket.socket, socket.recv_fds, signal.signal
_prctl = ctypes.CDLL(None).prctl
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
# What the library's modules import of others, and the modules of tests that processes of their own run.
_OTHERS = (
    *("hypothesis.strategies", "jinja2", "nacl.bindings", "paramiko", "pathspec", "proxmoxer", "pytest", "requests"),
    *("rich.console", "rich.live", "rich.progress", "rich.table", "tree_sitter_nix", "urllib3", "yaml"),
)
# What a deployment's files name.
_NAMED = ("deploys", "facts", "operations")
_LARGEST = 4 << 20  # bytes of a request
_USERS_PAUSE = 500  # milliseconds


def _loaded(file: Path) -> Any:
    """A module of the tests, which this process has no path to."""
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


_client = _loaded(Path(__file__).with_name("client.py"))


def _preload(program: str) -> Callable[[], Any]:
    """Import what a run imports, but for what a deployment's files name; the function that the script calls."""
    for name in (*(["pyinfra_cli.main"] if program == "pyinfra" else []), *_OTHERS):  # pyinfra first: it patches
        importlib.import_module(name)
    if program == "pyinfra":
        connectors = importlib.import_module("pyinfra.api.connectors")
        connectors.entry_points = functools.cache(connectors.entry_points)  # type: ignore[attr-defined]  # each host looks
        list(connectors.entry_points(group="pyinfra.connectors"))
    script = "pyinfra_cli.main" if program == "pyinfra" else "nixherd.cli.main"
    if program == "pyinfra":
        importlib.import_module("pyinfra.api.connectors").get_all_connectors()
        left_out = {"cli", *_NAMED}
    else:
        left_out = {"pyinfra_glue", *_NAMED}  # they import pyinfra, which patches
    package = importlib.import_module("nixherd")
    for room in pkgutil.iter_modules(package.__path__, "nixherd."):
        if room.name.removeprefix("nixherd.") not in left_out:
            path = importlib.import_module(room.name).__path__
            for module in pkgutil.walk_packages(path, f"{room.name}."):
                importlib.import_module(module.name)
    main: Callable[[], Any] = importlib.import_module(script).main
    return main


def serve(directory: Path, program: str, changed_by: str = "") -> None:
    """Returns only in a process that is to become the program, as which its `main` ends it.

    `changed_by` names a module, or none, that changes what is imported: its `imported` is called here, once, and its
    `begin` in each process before it becomes the program.
    """
    gc.disable()  # what is imported stays
    standing = _client.standing()
    main = _preload(program)
    inspect.getmodule(inspect.currentframe())  # which remembers where each module is: pyinfra asks in every run
    _loaded(Path(__file__).parents[1] / "spawning.py").put_right(gevent=program == "pyinfra")
    assert threading.active_count() == 1
    assert ("gevent" in sys.modules) == (program == "pyinfra")
    changes: Any = importlib.import_module(changed_by) if changed_by else None
    if changes:
        changes.imported()
    gc.collect()
    gc.enable()
    gc.freeze()  # a collection in a child would write to all that is shared, and so copy it
    _signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those in between
    listening = _Socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(directory / f"{program}.socket"))
    listening.listen(64)
    (directory / f"{program}.standing").write_text(standing)  # from now on clients come
    while True:
        if (connection := _accepted(listening, directory.with_suffix(_client.USERS))) is None:
            _exit(0)
        if fork() == 0:
            break
        connection.close()
    listening.close()
    _signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams = _request(connection)
    parent = os.getpid()
    child = fork()
    if child:
        for stream in streams:
            os.close(stream)
        _hold_together(connection, child)
    connection.close()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if getppid() != parent:
        _exit(1)
    _become(request, streams)
    if changes:
        changes.begin()
    if program == "nixherd":
        sys.executable = str(directory / "bin/python")  # beside which it looks for pyinfra
    status: object = None
    try:
        status = (_run_python if request["is_python"] else main)()
    except SystemExit as end:
        status = end.code
    _end(status)


def _accepted(listening: socket.socket, users: Path) -> socket.socket | None:
    """The next one to serve; None when nobody holds the file of users any more, if there is one."""
    if users.exists():
        look = _poll()
        look.register(listening, select.POLLIN)
        while not look.poll(_USERS_PAUSE):
            with users.open() as file, contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return None
    connection, _ = listening.accept()
    return connection


def _end(status: object) -> NoReturn:
    """End as Python does, but without taking down all that was imported.

    That would write to what is shared with the server, and so copy it: more work than most runs are.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except Exception:  # noqa: BLE001  (Python has a status and words of its own for it)
        sys.exit(status)  # type: ignore[arg-type]
    if isinstance(status, int | None):
        _exit((status or 0) & 0xFF)
    print(status, file=sys.stderr, flush=True)
    _exit(1)


def _run_python() -> Any:
    """Do what Python does with its arguments: `-c`, `-m` or a file, and what those are given."""
    del sys.argv[0], sys.path[0]
    option = sys.argv[0]
    if option in ("-c", "-m"):
        sys.path.insert(0, str(Path.cwd()) if option == "-m" else "")
        source = sys.argv.pop(1)
    if option == "-m":
        runpy.run_module(source, run_name="__main__", alter_sys=True)
    elif option == "-c":
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(source, "<string>", "exec"), module.__dict__)
    else:
        sys.path.insert(0, str(Path(option).parent))
        runpy.run_path(option, run_name="__main__")


def _request(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What client.py's main puts together, and the three standard streams."""
    length, streams, _flags, _address = _recv_fds(connection, _client.LENGTH, 3)
    data = b""
    while len(data) < int.from_bytes(length, "big"):
        more = connection.recv(_LARGEST)
        if not more:
            _exit(1)
        data += more
    return marshal.loads(data), streams


def _hold_together(connection: socket.socket, child: int) -> NoReturn:
    """Pass signals on to the child and its end back; when nobody listens any more, its session is killed."""
    ended = os.pidfd_open(child)
    look = _poll()
    look.register(connection, select.POLLIN)
    look.register(ended, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _event in look.poll()}
        if ended in ready:
            _pid, status = waitpid(child, 0)
            with contextlib.suppress(OSError):
                connection.sendall(b"%d" % os.waitstatus_to_exitcode(status))
            _exit(0)
        numbers = b""
        with contextlib.suppress(OSError):
            numbers = connection.recv(64)
        if not numbers:
            _kill_session(child)
            _exit(0)
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                killpg(child, number)


def _kill_session(leader: int) -> None:
    for process in [leader, *(int(entry.name) for entry in Path("/proc").glob("[0-9]*"))]:
        with contextlib.suppress(OSError):
            if os.getsid(process) == leader:
                kill(process, signal.SIGKILL)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Take on all that tells one run of the program from another."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    os.umask(request["umask"])
    os.chdir(request["directory"])
    environ.clear()
    environ.update(request["environment"])
    tempfile.tempdir = None
    sys.argv[:] = request["argv"]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    _prctl(_PR_SET_NAME, Path(sys.argv[0]).name.encode())
    for number in request["ignored"]:
        _signal(number, signal.SIG_IGN)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        before = getattr(sys, name)
        reopened: Any = open(  # noqa: SIM115  (lives as long as we)
            before.fileno(), mode, encoding=before.encoding, errors=before.errors, closefd=False
        )
        reopened.reconfigure(line_buffering=before.line_buffering, write_through=before.write_through)
        setattr(sys, name, reopened)
        setattr(sys, f"__{name}__", reopened)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], *sys.argv[3:])
