"""`python -m bench.trace_child OUTPUT WORD…`: run pyinfra with these words and record it as JSON lines.

It records which functions of which of our files are called, and where in our code each effect begins: a command or a
file for a machine, a local program, an API request to the hypervisor, a write to the fleet's files. It hooks code
outside of ours (paramiko, requests, subprocess, the interpreter's audit events), so our code may be reorganised. Lines:
`{"file": PATH}`, each file once; `{"effect": KIND, "what": TEXT, "row": NAME or null, "stack": [[PATH, FUNCTION]…]}`:
the row is the operation that executes, the stack our frames from the outside in.
"""

import importlib
import inspect
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR
NOT_OURS = ("bench", "lab", "tests", "build")

Told = Callable[..., str]


class Recorder:
    """Records from `start` to the end of the process. `root` is the checkout, `fleet` the fleet's directory."""

    def __init__(self, output: Path, root: Path, fleet: Path | None) -> None:
        self._lines = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._root = root
        self._fleet = fleet.resolve() if fleet else None
        self._ours: dict[str, str | None] = {}
        self._codes: set[CodeType] = set()
        self._files: set[str] = set()
        self._process = os.getpid()
        self._writing = False

    def start(self) -> None:
        """Start recording. Raises SystemExit if a function to hook no longer exists."""
        self._wrap("paramiko.channel", "Channel", "exec_command", "command", lambda channel, command, *_: str(command))
        self._wrap("paramiko.sftp_client", "SFTPClient", "open", "transfer", lambda sftp, name, *_: str(name))
        self._wrap(
            "requests.adapters", "HTTPAdapter", "send", "request", lambda adapter, sent, *_: f"{sent.method} {sent.url}"
        )
        self._wrap("subprocess", "Popen", "__init__", "program", lambda process, words, *_: shown(words))
        sys.addaudithook(self._audit)
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def effect(self, kind: str, what: str) -> None:
        stack = self.stack(sys._getframe(1))
        self._write({"effect": kind, "what": what[:200], "row": row(), "stack": stack})

    def stack(self, frame: FrameType | None) -> list[tuple[str, str]]:
        frames = []
        while frame is not None:
            if name := self.ours(frame.f_code.co_filename):
                frames.append((name, frame.f_code.co_qualname))
            frame = frame.f_back
        return frames[::-1]

    def ours(self, filename: str) -> str | None:
        """Return the path of one of our files below the checkout, None for any other."""
        if filename not in self._ours:
            path = Path(os.path.normpath(self._root / filename))
            inside = path.relative_to(self._root) if path.is_relative_to(self._root) else None
            is_ours = inside and path.suffix == ".py" and inside.parts[0] not in NOT_OURS and inside.parts[0][0] != "."
            self._ours[filename] = str(inside) if is_ours else None
        return self._ours[filename]

    def _wrap(self, module: str, owner: str, name: str, kind: str, settings: Told) -> None:
        cls = getattr(importlib.import_module(module), owner, None)
        original = getattr(cls, name, None)
        if original is None:
            raise SystemExit(
                f"trace: {module}.{owner}.{name} is gone; say in bench/trace_child.py what to watch instead"
            )

        def watched(*args: Any, **arguments: Any) -> Any:
            self.effect(kind, settings(*args, *arguments.values()))
            return original(*args, **arguments)

        setattr(cls, name, watched)

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call" or code in self._codes:
            return
        self._codes.add(code)
        name = self.ours(code.co_filename)
        # the body of a module or class runs when it is imported
        if name and name not in self._files and code.co_flags & inspect.CO_OPTIMIZED:
            self._files.add(name)
            self._write({"file": name})

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._fleet is None or self._writing or event not in ("open", "os.rename"):
            return
        path, flags = (arguments[0], arguments[2]) if event == "open" else (arguments[1], WRITES)
        if isinstance(path, str) and isinstance(flags, int) and flags & WRITES:
            absolute = Path(os.path.normpath(Path.cwd() / path))
            if absolute.is_relative_to(self._fleet):
                self.effect("write", str(absolute.relative_to(self._fleet)))

    def _write(self, value: dict[str, object]) -> None:
        if os.getpid() != self._process:
            return  # between fork and exec
        self._writing = True
        try:
            os.write(self._lines, json.dumps(value).encode() + b"\n")
        finally:
            self._writing = False


def shown(words: object) -> str:
    return words if isinstance(words, str) else " ".join(map(os.fsdecode, words))  # type: ignore[call-overload]


def row() -> str | None:
    """Return the name of the operation that pyinfra executes."""
    context = sys.modules.get("pyinfra.context")
    state: Any = context.state if context and context.ctx_state.isset() else None
    if not hasattr(state, "inventory"):
        return None  # it is being loaded
    rows = [host.executing_op_hash for host in state.inventory if host.executing_op_hash]
    return min(state.get_op_meta(rows[0]).names) if rows else None


def main() -> None:
    output, words = Path(sys.argv[1]), sys.argv[2:]
    pyinfra_cli: Any = importlib.import_module("pyinfra_cli.main")  # first: it lets gevent replace what is hooked
    fleet = os.environ.get("FLEET")
    Recorder(output.absolute(), Path.cwd(), Path(fleet) if fleet else None).start()
    sys.argv = ["pyinfra", *words]
    sys.exit(pyinfra_cli.main())


if __name__ == "__main__":
    main()
