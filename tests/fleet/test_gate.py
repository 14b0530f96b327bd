"""The quality gate over the lab's copy of the reference fleet, with real Nix: what is planted there is found.

Many defects are planted at once, in a copy each for those that keep each other from being seen.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.main import run
from nixherd.gate.tools import TOOLS
from tests import fleet_copy
from tests.gate_programs import path, programs, stand_in
from tests.nix_cli import environment

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("gate")]

Edit = Callable[[Path], None]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmYpLuvHGp/0z8vlqMpElZ7JGPnGpx1e0S3m7pL7s7J root@other"
NOBODY = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


def new(file: str, text: str) -> Edit:
    def edit(fleet: Path) -> None:
        (fleet / file).parent.mkdir(parents=True, exist_ok=True)
        (fleet / file).write_text(text)

    return edit


def change(file: str, pattern: str, to: str) -> Edit:
    def edit(fleet: Path) -> None:
        text, count = re.subn(pattern, to, (fleet / file).read_text(), count=1, flags=re.MULTILINE | re.DOTALL)
        assert count == 1, f"{file} has no {pattern}"
        (fleet / file).write_text(text)

    return edit


def module(host: str, text: str) -> Edit:
    """One more module of a host, a line each."""

    def edit(fleet: Path) -> None:
        new(f"hosts/{host}/planted.nix", text)(fleet)
        change(f"hosts/{host}/configuration.nix", r"imports = \[", "imports = [./planted.nix ")(fleet)

    return edit


def host(name: str, attribute: str) -> Edit:
    """One more attribute of a host in hosts.nix, on the line after its name."""
    return change("hosts.nix", rf"^  {name} = \{{\n", rf"\g<0>    {attribute}\n")


def value(name: str, attribute: str, to: str) -> Edit:
    return change("hosts.nix", rf"(^  {name} = \{{\n.*?{attribute} = )[^\n]*;", rf"\g<1>{to};")


def guest(attribute: str, to: str) -> Edit:
    return change("vms/definitions.nix", rf"(^    dev = \{{\n.*?{attribute} = )[^\n]*;", rf"\g<1>{to};")


@dataclass(frozen=True)
class Plant:
    """`line` is what the line has in it that is told, None where the tool tells none."""

    group: str
    name: str
    edit: Edit
    tool: str
    file: str
    line: str | None
    what: str


def plant(*fields: Any) -> Plant:
    return Plant(*fields)


BROKEN = '{name = "broken"; system = "x86_64-linux"; builder = "/bin/sh"; args = ["-c" "echo why; exit 1"];}'
UNUSED = "{lib}: let\n  unused = 1;\nin\n  lib\n"
PLANTS = [
    plant("files", "not formatted", new("m/a.nix", "{a=1;}\n"), "alejandra", "m/a.nix", None, "is not formatted"),
    plant("files", "not formatted, odd name", new("m/a b.nix", "[  ]\n"), "alejandra", "m/a b.nix", None, "formatted"),
    plant("files", "unused let", new("m/b.nix", UNUSED), "deadnix", "m/b.nix", "unused = 1", "unused let binding"),
    plant(
        "files", "unused pattern", new("m/c.nix", "{\n  pkgs,\n  lib,\n}:\nlib\n"), "deadnix", "m/c.nix", "pkgs", "pkgs"
    ),
    plant("files", "unused argument", new("m/d.nix", "pkgs: 1\n"), "deadnix", "m/d.nix", "pkgs", "lambda argument"),
    plant("files", "lint", new("m/e.nix", "x: {\n  y = x == true;\n}\n"), "statix", "m/e.nix", "y = x", "comparing"),
    plant("files", "another lint", new("m/f.nix", "[\n  (let\n  in 1)\n]\n"), "statix", "m/f.nix", "let", "no entries"),
    plant("files", "does not parse", new("m/g.nix", "{\n  a = 1\n}\n"), "alejandra", "m/g.nix", "}", "does not parse"),
    plant("files", "not looked at", new("m/h.nix", "{\n"), "deadnix", "m/h.nix", None, "could not be looked at"),
    plant(
        *("files", "conflict", new("m/i.nix", "{\n<<<<<<< HEAD\n  a = 1;\n=======\n>>>>>>> x\n}\n")),
        *("merge", "m/i.nix", "<<<<<<< HEAD", "not resolved"),
    ),
    plant(
        *("files", "conflict in a document", new("NOTES.md", "# x\n\n<<<<<<< HEAD\n=======\ny\n>>>>>>> x\n")),
        *("merge", "NOTES.md", "<<<<<<< HEAD", "not resolved"),
    ),
    plant(
        *("files", "not encrypted", new("secrets/common.env", "PASSWORD=hunter2\n")),
        *("secrets", "secrets/common.env", None, "is not encrypted"),
    ),
    plant(
        *("files", "no rule", new("secrets/odd.json", "{}\n"), "secrets", "secrets/odd.json", None),
        "no creation rule matches it",
    ),
    plant(
        *(
            "files",
            "recipient missing",
            change("secrets/.sops.yaml", r"(- path_regex: \^dev.*?- age:\n)", rf"\1          - {NOBODY} # new\n"),
        ),
        *("secrets", "secrets/dev.yaml", None, "its recipients are not those"),
    ),
    plant(
        *("files", "nobody's key", change("secrets/.sops.yaml", r"\Z", f"  - path_regex: ^no$\n    age: {NOBODY}\n")),
        *("secrets", "secrets/.sops.yaml", None, "matches no file"),
    ),
    plant(
        *("files", "damaged secret", new("secrets/stacks.yaml", "a: ENC[AES256_GCM,data:x]\nsops: 3\n")),
        *("secrets", "secrets/stacks.yaml", None, ""),
    ),
    plant("hosts", "wrong type", host("dev", "wave = true;"), "definitions", "hosts.nix", "wave", "dev.wave"),
    plant(
        "hosts", "no key", value("igpu", "publicKey", '"ssh-rsa x"'), "definitions", "hosts.nix", "publicKey", "igpu"
    ),
    plant("hosts", "clash", value("wsl", "hostname", '"dev"'), "definitions", "hosts.nix", "hostname", "is also"),
    plant("hosts", "misspelt", host("dev", "canery = true;"), "definitions", "hosts.nix", "canery", "dev.canery"),
    plant("hosts", "access", host("igpu", 'access = "triger";'), "definitions", "hosts.nix", "access", "is not a way in"),
    plant("hosts", "no user", value("caddy", "user", "3"), "definitions", "hosts.nix", "user", "caddy.user"),
    plant(
        *("hosts", "no such file", value("framework", "homeFile", "./no/home.nix"), "definitions", "hosts.nix"),
        *("homeFile", "framework.homeFile"),
    ),
    plant(
        "hosts", "no builder", host("wsl", 'build_on = "dve";'), "definitions", "hosts.nix", "build_on", "did you mean"
    ),
    plant("hosts", "vmid twice", guest("vmid", "104"), "definitions", "vms/definitions.nix", "vmid", "104 is also"),
    plant("hosts", "memory", guest("memory", '"8G"'), "definitions", "vms/definitions.nix", "memory", "dev.memory"),
    plant("hosts", "disk", guest("disk", '"64"'), "definitions", "vms/definitions.nix", "disk", "dev.disk"),
    plant("hosts", "no such host", guest("nixosConfig", '"dve"'), "definitions", "vms/definitions.nix", "dve", "dev?"),
    plant(
        *("hosts", "readonly misspelt"),
        change("vms/definitions.nix", r"(^    doc1 = \{\n.*?)readonly = true;", r"\1readOnly = true;"),
        *("definitions", "vms/definitions.nix", "readOnly", "readonly"),
    ),
    plant(
        "syntax",
        "hosts.nix",
        change("hosts.nix", r"^  dev = \{\n", r"\g<0>    wave = 1\n"),
        "definitions",
        "hosts.nix",
        "",
        "",
    ),
    plant(
        "one",
        "undefined",
        module("epimetheus", "{\n  a = nothing;\n}\n"),
        "flake",
        "hosts/epimetheus/planted.nix",
        "nothing",
        "undefined variable",
    ),
    plant(
        *("one", "throwing toplevel", module("framework", '{\n  system.build.toplevel = throw "never";\n}\n')),
        *("flake", "hosts/framework/planted.nix", "throw", "never"),
    ),
    plant(
        *("one", "assertion", module("wsl", '{assertions = [\n{assertion = false; message = "no way";}];}\n')),
        *("builds", "hosts/wsl/configuration.nix", None, "no way"),
    ),
    plant(
        *("one", "no such option", module("proxmox-vm", "{\n  services.openssh.setings = {};\n}\n")),
        *("flake", "hosts/proxmox-vm/planted.nix", None, "services.openssh.setings"),
    ),
    plant(
        *("one", "option of another type", module("igpu", "{\n  networking.hostName = 3;\n}\n")),
        *("builds", "hosts/igpu/planted.nix", None, "networking.hostName"),
    ),
    plant(
        "one",
        "no such import",
        module("dev", "{imports = [./nowhere.nix];}\n"),
        "builds",
        "hosts/dev/nowhere.nix",
        None,
        "does not exist",
    ),
    plant(
        *("one", "throwing home", new("hosts/caddy/home.nix", '{\n  home.packages = throw "no home";\n}\n')),
        *("builds", "hosts/caddy/home.nix", "throw", "no home"),
    ),
    plant(
        *("two", "thrown when it is built", module("dev", '{\n  environment.etc.x.text = throw "lazy";\n}\n')),
        *("builds", "hosts/dev/planted.nix", "throw", "lazy"),
    ),
    plant(
        "two",
        "argument",
        module("wsl", "{nosuch, ...}: {\n  environment.etc.x.text = nosuch;\n}\n"),
        "builds",
        "hosts/wsl",
        None,
        "nosuch",
    ),
    plant(
        *(
            "two",
            "recursion",
            module("igpu", "{config, ...}: {\n  environment.etc.x.text = config.environment.etc.x.text;\n}\n"),
        ),
        *("builds", "hosts/igpu/planted.nix", "", "infinite recursion"),
    ),
    plant(
        *(
            "two",
            "does not build",
            module(
                "framework",
                "{environment.etc.x.source = derivation BROKEN;}\n".replace("BROKEN", BROKEN),
            ),
        ),
        *("builds", "hosts/framework/configuration.nix", None, "why"),
    ),
    plant(
        *("two", "lockout"),
        module(
            "proxmox-vm",
            "{lib, ...}: {\n  users.users.root.openssh.authorizedKeys.keys = lib.mkForce [];\n"
            "  security.sudo.wheelNeedsPassword = lib.mkForce true;\n}\n",
        ),
        *("lockout", "hosts/proxmox-vm/configuration.nix", None, "no way to root"),
    ),
    plant(
        *(
            "two",
            "tree",
            module("epimetheus", '{flake-root, ...}: {\n  environment.etc.x.text = "${flake-root}/scripts";\n}\n'),
        ),
        *("closures", "hosts/epimetheus/planted.nix", "flake-root}", "the fleet's own tree"),
    ),
    plant(
        *("two", "not added", new("hosts/caddy/home.nix", "{imports = [./new.nix];}\n")),
        *("builds", "hosts/caddy/new.nix", None, "`git add hosts/caddy/new.nix`"),
    ),
    plant(
        *(
            "lock",
            "lock behind",
            change("flake.nix", r"inputs = \{\n", r'\g<0>    more = {url = "path:./docker"; flake = false;};\n'),
        ),
        *("flake", "flake.lock", None, "names not all inputs"),
    ),
]
ONLY = {"files": (), "hosts": ("definitions",), "syntax": ("definitions",), "lock": ("flake",)}


def git(fleet: Path, *words: str) -> None:
    argv = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.hooksPath=/dev/null", *words)
    subprocess.run(argv, cwd=fleet, check=True, capture_output=True)


@dataclass
class Gate:
    """Runs of it in this process; the reference, and a copy for each group of plants, which is judged once."""

    directory: Path
    known: dict[str, dict[str, Any]]

    def fleet(self, name: str) -> Path:
        if not (self.directory / name).exists():
            fleet_copy.make(self.directory / name)
        return self.directory / name

    def check(self, fleet: Path, *words: str) -> tuple[int, dict[str, Any]]:
        with redirect_stdout(StringIO()) as out:
            status = run(["--fleet", str(fleet), "check", "--json", *words])
        return status, json.loads(out.getvalue())

    def planted(self, group: str) -> dict[str, Any]:
        if group not in self.known:
            fleet = self.fleet(group)
            for each in PLANTS:
                if each.group == group:
                    each.edit(fleet)
            git(fleet, "add", "-A")
            if group == "two":  # there, and named by the home, but not known to git
                (fleet / "hosts/caddy/new.nix").write_text("{}\n")
            quick = ("alejandra", "deadnix", "statix", "merge", "secrets")
            tools = ONLY.get(group) or (quick if group == "files" else ())
            status, self.known[group] = self.check(fleet, *(word for tool in tools for word in ("--only", tool)))
            assert status == 1
        return self.known[group]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    directory = tmp_path_factory.mktemp("gate")
    found, built = environment(), programs()
    with pytest.MonkeyPatch.context() as patch:
        for name, each in found.items():
            patch.setenv(name, each)
        patch.setenv("PATH", path(built, stand_in(directory / "bin"), rest=found["PATH"]))
        patch.setenv("XDG_STATE_HOME", str(directory / "state"))
        patch.delenv("GITHUB_ACTIONS", raising=False)
        yield Gate(directory, {})


@pytest.mark.parametrize(
    "planted",
    [  # what fails when it is built is built first
        pytest.param(each, marks=[pytest.mark.slow] if each.group == "two" else [], id=f"{each.group}: {each.name}")
        for each in PLANTS
    ],
)
def test_a_planted_defect_is_found(gate: Gate, planted: Plant) -> None:
    document = gate.planted(planted.group)
    ours = [each for each in document["findings"] if each["tool"] == planted.tool]
    found = [
        each
        for each in ours
        if each["file"].startswith(planted.file)
        and planted.what in f"{each['attribute']}: {each['what']}; {each['remedy']}"
    ]
    assert found, [f"{each['file']}:{each['line']}: {each['attribute']}: {each['what']}" for each in ours]
    if planted.line is not None:
        lines = (gate.fleet(planted.group) / found[0]["file"]).read_text().splitlines()
        assert planted.line in lines[found[0]["line"] - 1]


def test_there_are_forty_of_them() -> None:
    assert len({(each.group, each.name) for each in PLANTS}) >= 40


@pytest.mark.slow
def test_the_reference_passes(gate: Gate, tmp_path: Path) -> None:
    junit, sarif = tmp_path / "out/junit.xml", tmp_path / "gate.sarif"
    status, document = gate.check(gate.fleet("reference"), "--junit", str(junit), "--sarif", str(sarif))
    assert (status, document["ok"], document["findings"]) == (0, True, [])
    assert {each["name"]: each["status"] for each in document["tools"]} == dict.fromkeys(TOOLS, "ok")
    notes = {each["name"]: each["note"] for each in document["tools"]}
    assert notes["builds"] == "6 systems, 1 home, 1 disko script built"
    assert (notes["lockout"], notes["closures"]) == ("6 machines", "7 closures")
    assert junit.stat().st_mode & 0o777 == 0o644
    assert len(json.loads(sarif.read_text())["runs"]) == len(TOOLS)


def test_a_tool_that_is_missing_is_said_with_how_to_get_it(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path(programs(), rest=environment()["PATH"]))
    fleet, quick = gate.fleet("reference"), ("--only", "statix", "--only", "deadnix")
    status, document = gate.check(fleet, *quick)
    [statix] = [each for each in document["tools"] if each["name"] == "statix"]
    assert (status, document["ok"], statix["status"]) == (1, False, "missing")
    assert "nix develop" in statix["reason"]
    assert "nixpkgs#statix" in statix["reason"]
    assert "--without statix" in statix["reason"]
    status, document = gate.check(fleet, *quick, "--without", "statix")
    [statix] = [each for each in document["tools"] if each["name"] == "statix"]
    assert (status, document["ok"], statix["status"], statix["note"]) == (0, True, "not run", "--without")
