"""For the programs that tests/security/one_thing/ starts, and for them alone: faults planted by an import hook,
and in the place of SSH two machines that answer as machine.sh does.

PLANTED is JSON: `place` (file:function:number of its guarded `try`), `host`, an expression over the variables
there, and `errors` by what it may come to. A place's first statement then raises. Nothing of this is in the programs.

A program that is forked from one that has imported the library already (tests/preloaded) calls `begin` too: there the
functions of the place's file get their code anew.
"""

import ast
import builtins
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import resource
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

ERRORS: dict[str, Exception] = {
    "ValueError": ValueError("planted"),
    "KeyError": KeyError("planted"),
    "UnicodeError": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "planted"),
}


Guarded = ast.Try | ast.With


def guarded(tree: ast.AST, file: str) -> Iterator[tuple[str, Guarded]]:
    """Every `try` that catches FAILURES, and every `with` that suppresses them, by its place."""

    def inside(node: ast.AST, name: str) -> Iterator[tuple[str, Guarded]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield from numbered(child, f"{name}.{child.name}" if name else child.name)
            else:
                if isinstance(child, ast.Try) and any(catches(each.type) for each in child.handlers):
                    yield name, child
                if isinstance(child, ast.With) and any(catches(each.context_expr) for each in child.items):
                    yield name, child
                yield from inside(child, name)

    def numbered(node: ast.AST, name: str) -> Iterator[tuple[str, Guarded]]:
        frames = 0
        for where, found in inside(node, name):
            frames += where == name
            yield (f"{name}:{frames}" if where == name else where), found

    for where, found in numbered(tree, ""):
        yield f"{file}:{where}", found


def catches(caught: ast.expr | None) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "FAILURES" for each in ast.walk(caught)) if caught else False


class Planter(importlib.machinery.SourceFileLoader):
    """Compiles one file anew, with a call as the first statement of one `try`."""

    def get_code(self, fullname: str) -> CodeType | None:
        return self.source_to_code(self.get_data(self.path), self.path)

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:  # type: ignore[override]
        tree = ast.parse(data)
        file = re.sub(r".*/(?=(nixherd|operations|facts|deploys)/)", "", str(path))
        for place, found in guarded(tree, file):
            if place == PLANTED["place"]:
                call = ast.parse("__plant__()").body[0]
                found.body.insert(0, ast.copy_location(call, found.body[0]))
        return compile(ast.fix_missing_locations(tree), path, "exec")


functions: dict[str, list[FunctionType]] = {}
"""by file: those of a server, as what is imported defines them"""


def imported() -> None:
    """Know the functions that a server has imported; a child would copy what is shared to look for them."""
    functions.clear()
    for each in gc.get_objects():
        if isinstance(each, FunctionType):
            functions.setdefault(each.__code__.co_filename, []).append(each)


def replant(module: ModuleType) -> None:
    """Give the functions of an imported module the code that its file has with the fault."""

    def inside(code: CodeType) -> Iterator[CodeType]:
        yield code
        for each in code.co_consts:
            if isinstance(each, CodeType):
                yield from inside(each)

    file = str(module.__file__)
    planted = inside(Planter(module.__name__, file).source_to_code(Path(file).read_bytes(), file))
    codes = {(code.co_qualname, code.co_firstlineno): code for code in planted}
    for function in functions[file]:
        code = function.__code__
        function.__code__ = codes.get((code.co_qualname, code.co_firstlineno), code)


def plant() -> None:
    frame = sys._getframe(1)
    error = PLANTED["errors"].get(eval(PLANTED["host"], frame.f_globals, dict(frame.f_locals)))
    if error:
        raise ERRORS[error]


def is_place(name: str) -> bool:
    place: str = PLANTED["place"]
    file = re.sub(r"^nixherd/(?=(operations|facts)/)", "", name.replace(".", "/"))  # which are links there
    return place.startswith(f"{file}.py:")


class Hook(importlib.abc.MetaPathFinder):
    busy = threading.local()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if name.partition(".")[0] not in ("nixherd", "operations", "facts") or getattr(self.busy, "now", False):
            return None
        self.busy.now = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.busy.now = False
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            if is_place(name):
                spec.loader = Planter(name, spec.loader.path)
            if name in STUBS:
                spec.loader = Stubbed(spec.loader, STUBS[name])
        return spec


class Stubbed(importlib.abc.Loader):
    def __init__(self, loader: Any, stub: Any) -> None:
        self.loader, self.stub = loader, stub

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: Any) -> Any:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        self.stub(module)


# machines

OLD = "/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-old"
machines: dict[str, dict[str, str]] = {}


def standing(name: str) -> dict[str, str]:
    """What one machine says of itself."""
    return machines.setdefault(
        name, {"state": "none", "current": OLD, "profile": OLD, "hostname": name, "boot_id": "1"}
    )


def what_runs(report: dict[str, str]) -> list[str]:
    kernel = {"part.kernel": f"/k{report['boot_id']}", "next.kernel": "/k2"}
    names = {name: report[name] for name in ("current", "profile", "hostname", "boot_id")}
    return [f"{key}={value}" for key, value in {**names, "booted": OLD, "sudo": "root", **kernel}.items()]


def arrive(link: Any, how: Any) -> Any:
    from nixherd.locate.reach import Epoch, Place

    link.place = Place("127.0.0.1", Epoch.FINAL, "", "root")
    link.data["ssh_user"] = "root"
    return link.place


def stand_in_for_looks(module: Any) -> None:
    """The same machines, for who only asks them."""
    from nixherd.base.process import Completed
    from nixherd.link.machine import LinkedMachine

    def run(machine: Any, script: str, **options: Any) -> Completed:
        return Completed("\n".join(what_runs(standing(machine.id))), "", 0)

    machine_of: Any = LinkedMachine
    module.PlainLink.try_once, machine_of.run = arrive, run


def stand_in(module: Any) -> None:
    """Machines instead of SSH: those that take forced commands, and those that need a reboot."""
    from pyinfra.connectors.util import CommandOutput, OutputLine

    def machine(connector: Any) -> dict[str, str]:
        return standing(connector.fleet_host.id)

    def answer(words: list[str]) -> tuple[bool, Any]:
        return True, CommandOutput([OutputLine("stdout", word) for word in words])

    def forced(connector: Any, words: str, timeout: float) -> tuple[bool, Any]:
        report, verb = machine(connector), words.split()[1]
        fill(verb)
        if verb == "begin":
            [system] = re.findall(r"/nix/store/\S+", words)
            [run] = re.findall(r"\b\d{8}T\d{6}-\S+", words)
            report |= {"state": "activating", "id": run, "current": system, "left": "6"}
        elif verb == "look" and report["state"] == "activating":
            report["state"] = "proving"
        elif verb == "say" and words.split()[3] == "keep":
            report |= {"state": "kept", "profile": report["current"]}
        elif verb == "say" or (verb == "look" and report["state"] == "proving" and words.split()[3] == "proving"):
            # no word has come: it goes back by itself
            report |= {
                "state": "reverted",
                "current": OLD,
                "old": OLD,
                "why": "it was told to" if verb == "say" else "no word came",
            }
        from nixherd.deploy import protocol as activation

        return answer([f"protocol={getattr(activation, 'PROTOCOL', 1)}", *(f"{k}={v}" for k, v in report.items())])

    def run(connector: Any, command: Any, *args: Any, **arguments: Any) -> tuple[bool, Any]:
        if isinstance(command, module.ApiQuery):
            result: tuple[bool, Any] = connector._ask(command)
            return result
        report, text = machine(connector), str(command)
        if "systemctl reboot" in text:
            report["boot_id"] = "2"
        if "is-system-running" in text:
            return answer(["running"])
        return answer(what_runs(report) if "say sudo " in text else [])

    connector = module.FleetConnector
    connector.try_once, connector.forced = arrive, forced
    connector.send = connector.run_shell_command = run
    connector.connected = property(lambda self: self.place is not None)


def copy_nothing(module: Any) -> None:
    module.copy_closure = lambda *args, **arguments: fill("copy")


def fill(moment: str) -> None:
    """The journal's disk is full from this moment on, where the test is about that."""
    if PLANTED.get("fill") == moment:
        [journal] = Path(os.environ["XDG_STATE_HOME"]).glob("nixherd/.deployments/*/journal.jsonl")
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size, resource.RLIM_INFINITY))


def rebuild_nothing(module: Any) -> None:
    """In the place of nixos-rebuild."""

    def rebuilt(evaluator: Any, rollout: Any, host_run: Any, request: Any) -> None:
        toplevel = host_run.value.config.toplevel
        machines[host_run.id] |= {"current": toplevel, "profile": toplevel}

    module._run = rebuilt


STUBS = {
    "nixherd.link.plain": stand_in_for_looks,
    "nixherd.pyinfra_glue.fleet": stand_in,
    "nixherd.deploy.copy": copy_nothing,
    "nixherd.deploy.build": rebuild_nothing,
}

PLANTED: dict[str, Any] = {}


def begin() -> None:
    """Plant it, in what is imported and in what will be."""
    PLANTED.update(json.loads(os.environ["PLANTED"]))
    builtins.__plant__ = plant  # type: ignore[attr-defined]
    for name, module in [*sys.modules.items()]:
        if is_place(name):
            replant(module)
        if name in STUBS:
            STUBS[name](module)
    sys.meta_path.insert(0, Hook())


if "PLANTED" in os.environ:
    begin()
