"""What others say is shown, not obeyed: by every command, every operation, and in what both leave behind."""

import contextlib
import importlib
import inspect
import io
import json
import os
import pkgutil
import pty
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd import operations
from nixherd.base.errors import ApiError
from nixherd.base.terminal import one_line, say, visible, visible_values
from nixherd.cli.main import cli, run
from nixherd.deploy.report import Journal, entries
from nixherd.proxmox import wire
from nixherd.trust import enrol
from tests.nixherd.cli.conftest import fleet  # noqa: F401  (fixture)
from tests.nixherd.proxmox.conftest import Emulator, dev, emulator, started  # noqa: F401  (fixtures)
from tests.nixherd.proxmox.fleets import FLEET
from tests.preloaded.programs import Programs
from tests.security.hostile import STRINGS, TEXT, obeyed

ROOT = Path(__file__).parents[2]


# the function


@given(st.text())
def test_nothing_hidden_is_left(text: str) -> None:
    assert obeyed(visible(text)) == []
    assert "\n" not in one_line(text)
    visible(text).encode()  # halves of characters cannot be written


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_text_is_left_alone(text: str) -> None:
    assert visible(text) == text


def test_the_strings_would_be_found() -> None:
    assert obeyed(TEXT)
    assert obeyed(visible(TEXT)) == []
    assert len(STRINGS) == len(set(STRINGS)) == 1000


def test_documents_are_shown_in_every_depth() -> None:
    document = {TEXT: [{"a": (TEXT, 1, None, True)}]}
    assert obeyed(json.dumps(visible_values(document), ensure_ascii=False)) == []
    assert visible_values({"a": (1, None, True, 0.5)}) == {"a": [1, None, True, 0.5]}


def test_a_journal_holds_any_word(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    for each in STRINGS:
        journal.note("said", "dev", text=each)
    journal.close()
    assert [entry["text"] for entry in entries(tmp_path / "run")] == STRINGS


@pytest.mark.process
def test_pages_hold_no_more_than_what_may_be_shown(tmp_path: Path) -> None:
    (tmp_path / "own.j2").write_text("{% for vm in vms %}{{ vm.name }}: {{ vm.extra.purpose }}{% endfor %}\n")
    guest = replace(next(iter(FLEET.vms.values())), name=TEXT, extra={"purpose": TEXT, "services": [TEXT]})
    hostile = replace(FLEET, path=str(tmp_path), vms={"dev": guest})
    for page in (enrol.render_overview(hostile), enrol.render_overview(hostile, "own.j2")):
        assert obeyed(page) == []
        assert visible(STRINGS[0]) in page


# every command


class Terminal:
    """A terminal as stdout and stderr; `shown` is all that was written to it."""

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.stream = os.fdopen(self._slave, "w", encoding="utf-8")

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(self._master, 65536):
                self._parts.append(part)

    def close(self) -> str:
        self.stream.close()
        self._reader.join()
        os.close(self._master)
        return b"".join(self._parts).decode(errors="surrogateescape")


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of the tree that is not a group."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, (*path, name))


LEAVES = dict(leaves(cli))
# What can be typed at all.
ARGUMENT = " ".join(each for each in STRINGS if not re.search("[\0\ud800]", each))
# What an argument of that name may be, so that the hypervisor is asked.
ARGUMENTS = {
    "guest": "dev", "guests": "dev", "hosts": "dev", "host": "dev", "disk": "scsi0", "size": "80G", "storage": "tank",
    "target": "prom", "vmid": "110", "archive": "local:backup/vzdump-qemu-110-2026_01_01-00_00_00.vma.zst",
    "shell": "bash", "range": "production", "file": "a.yaml", "directory": "/nonexistent",
    "snapname": "clean", "paths": "hosts.nix", "only": "nixpkgs", "names": "dev", "attribute": "networking.hostName",
    "number": "1", "words": "deploy", "place": "/nonexistent",
    "upid": "UPID:prom:0002A2CB:00052A4E:6B03F0ED:qmclone:9002:nixherd@pve!lab:",
}  # fmt: skip
# Who waits for a machine does not do so for long.
OPTIONS: dict[tuple[str, ...], list[str]] = {
    ("fix",): ["--only", "apply", "--yes"],
    ("install",): ["--data", "boot_deadline=1"],
    ("init",): ["--dry-run"],
    ("page",): ["--from", "/nonexistent"],
    ("serve",): ["--listen", "0.0.0.0:1"],  # refused for want of a token
    ("overview",): ["--from", "/nonexistent"],  # as it asks all of them
}


def words_of(path: tuple[str, ...], hostile: str | None) -> list[str]:
    """The command line: with what its arguments may be, or with this in the place of each."""
    arguments = [each for each in LEAVES[path].params if isinstance(each, click.Argument)]
    name = "name" if path[1:2] in (("snapshot",), ("rollback",)) else None
    values = ARGUMENTS | {"name": "clean" if name else "nvmeprom"}
    assert {str(each.name) for each in arguments} <= values.keys(), "say in ARGUMENTS what the new argument may be"
    return [*path, *OPTIONS.get(path, ()), "--", *(hostile or values[str(each.name)] for each in arguments)]


@pytest.fixture
def shown(
    fleet: Path,  # noqa: F811
    dev: Emulator,  # noqa: F811
    tmp_path: Path,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[list[str]], str]:
    """Runs `nixherd WORDS` on a terminal: what is on it in the end."""
    if forked := shutil.which("pyinfra-python", path=programs(dict(os.environ))["PATH"]):
        monkeypatch.setattr(sys, "executable", forked)  # beside which pyinfra is looked for
    token = tmp_path / "token"
    token.write_text(dev.token.to_toml())
    token.chmod(0o600)
    for name, value in {"FLEET": fleet, "PROXMOX_TOKEN_FILE": token, "HOME": tmp_path, "EDITOR": "true"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr("nixherd.proxmox.guest.apply.PAUSE", 0.05)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    def call(words: list[str]) -> str:
        terminal = Terminal()
        try:
            with monkeypatch.context() as patched:
                patched.setattr(sys, "stdout", terminal.stream)
                patched.setattr(sys, "stderr", terminal.stream)
                status = run(words)
        finally:
            output = terminal.close()
        assert "Traceback" not in output, output
        assert status in (0, 1, 2, 3, 4, 5), output
        return output

    return call


def words_in_place(value: Any, key: str = "") -> Any:
    """An answer of the hypervisor whose free texts are the thousand strings."""
    if isinstance(value, dict):
        return {name: words_in_place(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [words_in_place(each, key) for each in value]
    free = {"t", "comment", "notes", "user", "lock", "release", "cputype", "ostype", "saved", "plugintype"}
    return f"{value} {TEXT}" if key in free and isinstance(value, str) else value


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command(
    path: tuple[str, ...], shown: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is typed, by what the hypervisor answers, and by why it refuses."""
    output = shown(words_of(path, ARGUMENT))
    data_of = wire.data_of
    monkeypatch.setattr(wire, "data_of", lambda *what: words_in_place(data_of(*what)))
    output += shown(words_of(path, None))

    def refuse(method: str, where: str, body: bytes) -> Any:
        raise ApiError(f"{method} {where}: {TEXT}", 500)

    monkeypatch.setattr(wire, "data_of", refuse)
    output += shown(words_of(path, None))
    assert obeyed(output) == []


def test_a_word_makes_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    say("dev: failed: no\ndev2: deployed")
    assert capsys.readouterr().out == "dev: failed: no ⏎ dev2: deployed\n"


# every operation

# In the place of SSH: each command's answer is the thousand strings, on both streams, and half of them fail.
STUB = """
import itertools, sys
import pyinfra_cli
from pyinfra.connectors.util import CommandOutput, OutputLine
from nixherd.pyinfra_glue.fleet import FleetConnector
sys.path.insert(0, {root!r})
from pyinfra.api.output import echo
from tests.security.hostile import STRINGS
turn = itertools.count()

def answer(self, command, print_output=False, print_input=False, **arguments):
    lines = [OutputLine(("stdout", "stderr")[n % 2], each) for n, each in enumerate(STRINGS)]
    if print_output:
        for line in lines:
            echo(f"{{self.host.print_prefix}}{{line.line}}", err=True)
    return next(turn) % 2 == 0, CommandOutput(lines)

FleetConnector.connect = lambda self: None
FleetConnector.run_shell_command = FleetConnector.send = answer
from pyinfra_cli.main import main
sys.argv[0] = "pyinfra"
main()
"""


def found_operations() -> dict[str, Callable[..., Any]]:
    """Every operation of `operations/`, by its dotted name."""
    found = {}
    for module in pkgutil.walk_packages(operations.__path__, "nixherd.operations."):
        for name, each in vars(importlib.import_module(module.name)).items():
            if hasattr(each, "_inner") and each.__module__ == module.name:
                found[f"{module.name}.{name}"] = each
    return found


def arguments_of(operation: Any) -> dict[str, Any]:
    """Something for each argument that it needs: of what it is annotated to be."""
    of_type: dict[Any, Any] = {str: "x", int: 1, bool: True}
    given = {}
    for name, parameter in inspect.signature(operation._inner).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            kind = parameter.annotation
            kind = kind if isinstance(kind, type) else {"str": str, "int": int}.get(str(kind), kind)
            given[name] = of_type.get(kind, ["x"])
    return given


@pytest.mark.slow
def test_every_operation(tmp_path: Path, make_fleet: Callable[..., Path]) -> None:
    every = found_operations()
    assert len(every) > 50
    # what works on what the one before has found is done in its order, on one host
    steps = {"nixherd.operations.deployment": "deploy", "nixherd.operations.rebooting": "reboot"}
    hosts_of = {name: steps.get(name.rpartition(".")[0], f"op{number}") for number, name in enumerate(every)}
    entry = 'hostname = "{0}"; user = "root"; publicKey = "placeholder"; homeFile = ./hosts/caddy/home.nix;'
    hosts = (
        "{\n"
        + "\n".join(f"  {host} = {{ {entry.format(host)} }};" for host in dict.fromkeys(hosts_of.values()))
        + "\n}\n"
    )
    where = make_fleet()
    (where / "hosts.nix").write_text(hosts)
    (where / "vms" / "definitions.nix").write_text("{ }\n")
    deploy = tmp_path / "deploy.py"
    lines = [
        "import importlib",
        "from pyinfra import host",
        "from pyinfra.operations import server",
        f"TEXT = {TEXT!r}",
    ]
    lines += ["host.log(TEXT)", "host.noop(TEXT)", 'server.shell(name=TEXT, commands=["true"], _ignore_errors=True)']
    for name, host in hosts_of.items():
        module, _, function = name.rpartition(".")
        lines.append(f"if host.data.host_id == {host!r}:")
        arguments = ", ".join(f"{key}={value!r}" for key, value in arguments_of(every[name]).items())
        lines.append(f"    importlib.import_module({module!r}).{function}(name={name!r}, {arguments})")
    deploy.write_text("\n".join(lines) + "\n")
    (tmp_path / "stub.py").write_text(STUB.format(root=str(ROOT)))
    env = {**os.environ, "HOME": str(tmp_path), "FLEET": str(where), "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    terminal = Terminal()
    subprocess.run(
        [sys.executable, tmp_path / "stub.py", "-y", "-vvv", "--data", "boot_deadline=1", "inventory.py", deploy],
        cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=terminal.stream, stderr=terminal.stream,
        timeout=250, check=False,
    )  # fmt: skip
    output = terminal.close()
    assert "Traceback" not in output, output[-3000:]
    assert all(name in output for name in every)
    assert visible(STRINGS[0]) in output
    assert obeyed(output) == []
    assert "\x1b[" in output  # pyinfra's own colours
