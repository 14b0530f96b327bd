"""`nixherd init`: what it finds, what it writes, and that it asks Nix for names alone."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import click
import pytest

from nixherd.cli import output
from nixherd.cli.main import run
from nixherd.fleet.load import load_fleet
from tests.conftest import MASTER_KEY
from tests.nix_cli import nix_json, stand_ins
from tests.nixherd.cli.conftest import Ended
from tests.nixherd.fleet.test_any_fleet import FLAKE, Counted, flake  # noqa: F401  (fixture)
from tests.nixherd.proxmox.conftest import Emulator, emulator  # noqa: F401  (fixture)
from tests.nixherd.trust.secrets.keys import key

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("init")]
Init = Callable[..., Ended]
KEY = key("caddy").public
OTHERS = """
    colmena = { meta = { }; defaults = { }; web = throw "not looked at"; };
    colmenaHive = { nodes.db = throw "not looked at"; };
    deploy.nodes = { web = throw "not looked at"; cache = 5; };
"""


@pytest.fixture
def init(
    flake: Counted,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Init:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FLEET", raising=False)
    monkeypatch.setenv("PROXMOX_TOKEN_FILE", str(tmp_path / "token"))
    (tmp_path / "me.pub").write_text(f"{MASTER_KEY}\n")

    def call(directory: Path, *words: str) -> Ended:
        capfd.readouterr()
        status = run(["init", str(directory), *words])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Ended(status, out, err)

    return call


def contents(directory: Path) -> Mapping[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_a_flake_needs_nothing(init: Init, flake: Counted) -> None:  # noqa: F811
    flake.file("flake.nix", FLAKE.replace("    darwinConf", f"{OTHERS}    darwinConf"))
    flake.file("keys/.sops.yaml", "creation_rules: []\n")
    before = contents(flake.directory)
    done = init(flake.directory, "--json")
    assert done.status == 0, done.err
    assert done.json["outputs"] == {
        "nixosConfigurations": ["broken", "db", "not a name", "web"],
        "homeConfigurations": ["al@web", "db"],
        "darwinConfigurations": ["mac"],
        "colmena": ["web"],
        "colmenaHive": ["db"],
        "deploy.nodes": ["cache", "web"],
    }
    assert (done.json["sops"], done.json["files"], done.json["changed"]) == (["keys/.sops.yaml"], [], False)
    assert done.json["hosts"] == ["al@web", "broken", "db", "db-home", "web"]
    command = f"nixherd --fleet {flake.directory}"
    assert done.json["next"] == [f"{command} hosts", f"{command} trust al@web", f"{command} plan al@web"]
    assert contents(flake.directory) == before
    assert (flake.asked, flake.evaluated) == ([".", "."], [])
    shown = init(flake.directory, "--table")
    assert "all is there; nothing needs to be written" in shown.out
    assert "deploy.nodes: cache, web" in shown.err
    assert "not a host: darwinConfigurations.mac" in shown.err


@pytest.mark.parametrize(
    ("hosts", "fields", "notes"),
    [
        (
            f'{{ web = {{ ip = "10.0.0.5"; user = "al"; tags = [ "a" ]; rack = 1; ssh.hostKey = "{KEY}"; }};'
            f' db = {{ ip = "10.0.0.6"; user = "al"; tags = [ ]; }}; }}',
            {"addresses": "ip", "publicKey": "ssh.hostKey"},
            ["rack"],
        ),
        (
            f'{{ web = {{ sshHostName = "w.example"; sshUser = "al"; pubkey = "{KEY}"; sshPort = 2222; }}; }}',
            {"addresses": "sshHostName", "user": "sshUser", "port": "sshPort", "publicKey": "pubkey"},
            [],
        ),
        (
            '{ web = { deployment = { targetHost = "10.0.0.5"; targetUser = "al"; tags = [ "a" ]; }; };'
            ' db = { deployment.targetHost = "10.0.0.6"; deployment.targetUser = "al"; }; }',
            {"addresses": "deployment.targetHost", "user": "deployment.targetUser", "tags": "deployment.tags"},
            [],
        ),
        (
            '{ web = { ip = "10.0.0.5/24"; address = "10.0.0.5"; username = "al"; tags = { a = 1; }; }; }',
            {"addresses": "address", "user": "username", "tags": None},
            ["ip is not read", "tags is not read"],
        ),
    ],
)  # fmt: skip
def test_a_hosts_nix_of_another_shape_is_translated(
    init: Init,
    flake: Counted,  # noqa: F811
    hosts: str,
    fields: dict[str, str | None],
    notes: list[str],
) -> None:
    flake.file("hosts.nix", hosts)
    before = contents(flake.directory)
    planned = init(flake.directory, "--dry-run", "--json")
    assert planned.status == 0, planned.err
    assert (planned.json["fields"], planned.json["files"], planned.json["changed"]) == (fields, ["nixherd.nix"], False)
    assert contents(flake.directory) == before
    done = init(flake.directory, "--json")
    assert done.status == 0, done.err
    assert done.json["changed"]
    assert planned.json["contents"] == {"nixherd.nix": (flake.directory / "nixherd.nix").read_text()}
    for note in notes:
        assert note in " ".join(done.json["notes"])
    web = load_fleet(flake.directory).hosts["web"]
    assert web.user == "al"
    assert web.addresses in (("10.0.0.5",), ("w.example",))
    after = contents(flake.directory)
    again = init(flake.directory, "--json")
    assert (again.status, again.json["changed"], again.json["files"]) == (0, False, [])
    assert contents(flake.directory) == after
    assert flake.evaluated == []


@pytest.mark.parametrize(
    "hosts",
    [
        '{ pkgs }: { web = { ip = "10.0.0.5"; }; }',
        '[ { name = "web"; ip = "10.0.0.5"; } ]',
        '{ web = "10.0.0.5"; }',
        '{ router = { ip = "10.0.0.1"; user = "al"; }; }',
        '{ web = { system = "x86_64-linux"; }; }',
        'import <nixpkgs> { }',
    ],
)  # fmt: skip
def test_a_hosts_nix_that_is_something_else_is_left_to_the_flake(
    init: Init,
    flake: Counted,  # noqa: F811
    hosts: str,
) -> None:
    flake.file("hosts.nix", hosts)
    done = init(flake.directory, "--json")
    assert done.status == 0, done.err
    assert "useHostsFile = false;" in (flake.directory / "nixherd.nix").read_text()
    assert sorted(load_fleet(flake.directory).hosts) == done.json["hosts"]
    again = init(flake.directory, "--json")
    assert (again.status, again.json["changed"]) == (0, False), again.err
    assert flake.evaluated == []


@pytest.mark.parametrize(
    ("files", "words", "line"),
    [
        ({"hosts.nix": '{ web = { ip = "10.0.0.5"; }; }'}, (), "--user: hosts.nix does not say who logs in on web; "),
        ({"hosts.nix": "{ web = { user = 5; }; }"}, (), "--user: hosts.nix does not say who logs in on web; "),
        ({"nixherd.nix": "{ fields.ip = 5; }"}, (), "nixherd.nix is there, and is not overwritten: correct it by hand"),
        ({"flake.nix": "{ outputs = _: { }; }"}, (), "it has neither nixosConfigurations nor homeConfigurations"),
        ({"flake.nix": None, "hive.nix": "{ }"}, (), "it has hive.nix and neither flake.nix nor hosts.nix"),
        ({"flake.nix": None, "nixherd.nix": "{ }"}, (), "it has nixherd.nix and neither flake.nix nor hosts.nix"),
        ({"flake.nix": None}, (), "--host: missing"),
        ({"flake.nix": None, "nixos/flake.nix": "{ }"}, (), "nixos has a flake; name "),
        ({"flake.nix": None}, ("--host", "a b"), "a b: is not a DNS name"),
        ({"flake.nix": None}, ("--host", "web"), "--device: missing"),
        ({"flake.nix": None}, ("--host", "web", "--key-file", "FLEET/me.pub"), "--key-file FLEET/me.pub: cannot be"),
        ({"flake.nix": None}, ("--host", "web", "--device", "x"), "--device x: is not a disk's device"),
        ({"flake.nix": None}, ("--host", "web", "--device", "/dev/sda", "--user", "-x"), "--user"),
        ({"flake.nix": None}, ("--host", "web", "--device", "/dev/sda", "--key-file", "/nowhere"), "cannot be read"),
        ({"flake.nix": None}, ("--host", "web", "--device", "/dev/sda", "--time-zone", "a b"), "--time-zone a b"),
        ({"flake.nix": None}, ("--host", "web", "--storage", "x"), "--storage: is for a VM; add --vm"),
        ({"flake.nix": None}, ("--host", "web", "--vm"), "--proxmox: missing"),
        ({"flake.nix": None, "hosts/web": "x"}, ("--host", "web", "--device", "/dev/sda"), "web: is in the way"),
        ({"flake.nix": None, "common.nix": "x"}, ("--host", "web", "--device", "/dev/sda"), "nothing is overwritten"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_changes_nothing(
    init: Init,
    flake: Counted,  # noqa: F811
    tmp_path: Path,
    files: dict[str, str | None],
    words: tuple[str, ...],
    line: str,
) -> None:
    for name, text in files.items():
        if text is None:
            (flake.directory / name).unlink()
        else:
            flake.file(name, text)
    if "--host" in words and "--key-file" not in words:
        words = (*words, "--key-file", str(tmp_path / "me.pub"))
    before = contents(flake.directory)
    refused = init(flake.directory, *words)
    assert refused.status == 2 or (refused.status == 4 and not words), refused
    assert line in refused.err.splitlines()[-1]
    assert contents(flake.directory) == before


@pytest.fixture(scope="module")
def parts() -> dict[str, Path]:
    """The stand-ins of the inputs, before a test has a cache of its own."""
    return {name: stand_ins() / place / name for name, place in (
        ("nixpkgs", ""), ("disko", "inputs"), ("sops-nix", "inputs"), ("nixos-images", "inputs")
    )}  # fmt: skip


@pytest.mark.parametrize("kind", ["metal", "vm"])
def test_an_empty_directory_becomes_a_small_fleet(
    parts: dict[str, Path], init: Init, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """It evaluates with the lab's stand-in of nixpkgs, and takes further hosts."""
    fleet = tmp_path / "my fleet"
    more = {"metal": ("--device", "/dev/nvme0n1", "--system", "aarch64-linux", "--user", "root"), "vm": (
        *("--vm", "--proxmox", "pve.example", "--node", "pve", "--storage", "tank", "--user", "al"),
    )}[kind]  # fmt: skip
    words = ("--host", "web", "--key-file", str(tmp_path / "me.pub"), "--time-zone", "Europe/Berlin", *more)
    planned = init(fleet, *words, "--dry-run", "--json")
    assert planned.status == 0, planned.err
    assert not fleet.exists()
    done = init(fleet, *words, "--json")
    assert done.status == 0, done.err
    assert (done.json["changed"], done.json["hosts"]) == (True, ["web"])
    assert done.json["next"][0].startswith(f"cd '{fleet}' && git init && git add . && nix flake lock && ")
    then = {"metal": ["install web --dry-run", "install web"], "vm": ["token add", "provision web --dry-run"]}[kind]
    assert done.json["next"][1:] == [f"nixherd --fleet '{fleet}' {each}" for each in then]
    assert contents(fleet) == {f"{fleet}/{name}": text.encode() for name, text in planned.json["contents"].items()}
    text = b"".join(contents(fleet).values()).decode().lower()
    assert not [word for word in ("perth", "abl030@", "homelab", "prom\"", "nixherd.") if word in text.replace(
        MASTER_KEY.lower(), ""
    )]  # fmt: skip
    web = load_fleet(fleet).hosts["web"]
    assert (web.authorized_keys, web.user) == ((MASTER_KEY,), more[-1])
    again = init(fleet, *words, "--json")
    assert (again.status, again.json["changed"]) == (0, False), again.err
    if kind == "vm":
        assert load_fleet(fleet).vms["web"].vmid == 100
        new = ("--vmid", "101", "--offline", "--no-eval", "--yes", "--json")
        assert run(["--fleet", str(fleet), "new", "db", *new]) == 0, capfd.readouterr().err
    overrides = [word for name, path in parts.items() for word in ("--override-input", name, f"path:{path}")]
    seen = nix_json(
        *(
            "eval",
            "--json",
            "--no-write-lock-file",
            *overrides,
            f"path:{quote(str(fleet))}#nixosConfigurations",
            "--apply",
        ),
        """builtins.mapAttrs (_: c: {
          inherit (c.config.networking) hostName;
          inherit (c.config.nixpkgs.hostPlatform) system;
          drv = c.config.system.build.toplevel.drvPath;
          root = c.config.users.users.root.openssh.authorizedKeys.keys;
          sudo = c.config.security.sudo.wheelNeedsPassword;
        })""",
    )
    assert sorted(seen) == sorted({"web", *(["db"] if kind == "vm" else [])})
    for name, each in seen.items():
        assert (each["hostName"], each["root"]) == (name, [MASTER_KEY])
    assert seen["web"]["system"] == ("x86_64-linux" if kind == "vm" else "aarch64-linux")
    assert seen["web"]["sudo"] is (kind == "metal")


def test_a_run_that_was_killed_is_finished_by_the_next(init: Init, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet"
    words = ("--host", "web", "--device", "/dev/sda", "--key-file", str(tmp_path / "me.pub"), "--json")
    assert init(fleet, *words).status == 0
    whole = contents(fleet)
    for name in ("flake.nix", "hosts.nix"):
        (fleet / name).unlink()
    assert init(fleet, *words).json["files"] != []
    assert contents(fleet) == whole


def test_the_tokens_server_is_asked_for_its_guests(
    init: Init,
    flake: Counted,  # noqa: F811
    emulator: Emulator,  # noqa: F811
    tmp_path: Path,
) -> None:
    token = tmp_path / "token"
    token.write_text(emulator.token.to_toml())
    token.chmod(0o600)
    done = init(flake.directory, "--json")
    assert done.status == 0, done.err
    assert {104, 109} <= {guest["vmid"] for guest in done.json["guests"]}
    assert done.json["unknown"] == []
    token.chmod(0o644)
    done = init(flake.directory, "--json")
    assert (done.status, done.json["guests"]) == (0, None)
    [unknown] = done.json["unknown"]
    assert unknown.startswith("the hypervisor: token file ")


def test_a_flake_that_cannot_be_read_is_unknown(init: Init, flake: Counted) -> None:  # noqa: F811
    """Its hosts.nix says all that there is to say."""
    flake.file("flake.nix", '{ inputs.a.url = "path:/nowhere/at/all"; outputs = _: { }; }')
    flake.file("c.nix", "{ }")
    flake.file("hosts.nix", '{ web = { user = "al"; configurationFile = ./c.nix; }; }')
    done = init(flake.directory, "--json")
    assert done.status == 0, done.err
    assert (done.json["hosts"], done.json["changed"]) == (["web"], False)
    assert "/nowhere/at/all" in done.json["unknown"][0]


def test_the_current_directory_is_meant(
    init: Init,
    flake: Counted,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(flake.directory)
    monkeypatch.setenv("FLEET", "/nowhere")
    assert run(["init", "--table"]) == 0
    assert "next: nixherd trust al@web" in capfd.readouterr().out
    assert subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True).stdout.split()[::2] == ["A"]
    assert not os.path.lexists("nixherd.nix")


def test_a_person_is_asked_and_shown_the_files(init: Init, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the public key below ~/.ssh, if there is one alone, as what is offered."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519.pub").write_text(f"{MASTER_KEY}\n")
    answers = {"The name of its first host": "web", "Its admin user": "al", "The disk to install on": "/dev/sda"}
    questions: list[str] = []

    def prompt(question: str, default: str | None = None, **options: object) -> str | None:
        questions.append(question)
        return next((answer for words, answer in answers.items() if question.startswith(words)), default)

    monkeypatch.setattr(output, "is_terminal", lambda stream: stream is sys.stdin)
    monkeypatch.setattr(click, "prompt", prompt)
    fleet = tmp_path / "fleet"
    for answer, status in ((False, 2), (True, 0)):
        monkeypatch.setattr(click, "confirm", lambda *words, answer=answer, **options: answer)
        done = init(fleet, "--json")
        assert (done.status, fleet.exists()) == (status, answer), done.err
        assert "flake.nix:\n  {\n    description" in done.err
    assert load_fleet(fleet).hosts["web"].authorized_keys == (MASTER_KEY,)
    assert [question.split(" (")[0] for question in questions[:4]] == [
        *("The name of its first host", "Its admin user", "Its time zone"),
        "The public key of who may log in",
    ]
    assert init(tmp_path / "other", "--yes", "--host", "web", "--device", "/dev/sda", "--json").status == 0
