"""`nixherd init --vm`: where a new fleet's guests are made, by what the token sees, and what it says to do next."""

from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.main import run
from nixherd.fleet.load import load_fleet
from tests.nixherd.cli.test_cli_init import Init, contents, init  # noqa: F401  (fixture)
from tests.nixherd.fleet.test_any_fleet import Counted, flake  # noqa: F401  (fixture)
from tests.nixherd.proxmox.conftest import Emulator, emulator  # noqa: F401  (fixture)

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("init")]
BEGIN = "git init && git add . && nix flake lock && git add . && git commit -m 'A fleet'"
OTHER = {"type": "lvmthin", "content": "images", "total": 9 << 30, "used": 0, "avail": 9 << 30, "volumes": {}}


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """What is said beside the hypervisor, in an empty directory that is the current one."""
    directory = tmp_path / "My fleet für alle"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return (".", "--host", "web", "--vm", "--key-file", str(tmp_path / "me.pub"), "--time-zone", "UTC", "--user", "al")


@pytest.fixture
def token(emulator: Emulator, tmp_path: Path) -> Emulator:  # noqa: F811
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text(emulator.token.to_toml())
    return emulator


def asked(init: Init, words: tuple[str, ...], *more: str) -> Any:  # noqa: F811
    done = init(Path(words[0]), *words[1:], *more, "--json")
    assert done.status == 0, done.err
    return done.json


def test_what_the_token_sees_is_taken(init: Init, token: Emulator, words: tuple[str, ...]) -> None:  # noqa: F811
    """A second storage does not matter: the template is on the first one."""
    token.control("reset", patch={"storages": {"aa": OTHER}})
    done = asked(init, words)
    fleet = load_fleet(Path())
    assert fleet.id == "my-fleet-fur-alle"
    assert fleet.endpoint is not None
    assert (fleet.endpoint.node, fleet.endpoint.default_storage) == ("prom", "nvmeprom")
    assert fleet.endpoint.fingerprint == token.fingerprint
    assert fleet.template is not None
    assert (fleet.template.vmid, fleet.template.node) == (9002, None)
    assert [(vm.vmid, vm.settings.pool) for vm in fleet.vms.values()] == [(100, "nixherd")]
    assert done["next"] == [BEGIN, "nixherd provision web --dry-run", "nixherd provision web"]
    again = asked(init, words)
    assert (again["changed"], again["next"]) == (
        False,
        ["nixherd hosts", "nixherd provision web --dry-run", "nixherd provision web"],
    )


@pytest.mark.parametrize(
    ("patch", "more", "line"),
    [
        (
            {"vms": {"9003": {"type": "qemu", "node": "prom", "status": "stopped", "config": {"template": 1}}}},
            (),
            "--template: missing (the template to clone from: 9002, 9003), and it cannot ask without a terminal",
        ),
        (
            {"storages": {"nvmeprom": {"content": "rootdir"}, "aa": OTHER, "bb": OTHER}},
            (),
            "--storage: missing (the storage for their disks: aa, bb), and it cannot ask without a terminal",
        ),
        ({}, ("--fingerprint", "AB:CD"), "--fingerprint AB:CD: it is not a SHA-256 fingerprint; `pvenode cert info`"),
        ({}, ("--proxmox", "a b"), "--proxmox: 'a b' is not HOST:PORT; write its name or address"),
        ({}, ("--template", "5"), "5 is not in the range"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_asked(
    init: Init,  # noqa: F811
    token: Emulator,
    words: tuple[str, ...],
    patch: dict[str, Any],
    more: tuple[str, ...],
    line: str,
) -> None:
    token.control("reset", patch=patch)
    refused = init(Path(words[0]), *words[1:], *more)
    assert (refused.status, contents(Path())) == (2, {}), refused
    assert line in refused.err.splitlines()[-1]


def test_options_come_first(init: Init, token: Emulator, words: tuple[str, ...]) -> None:  # noqa: F811
    asked(init, words, "--template", "104", "--storage", "xx", "--pool", "p", "--node", "n")
    fleet = load_fleet(Path())
    assert fleet.endpoint is not None
    assert fleet.template is not None
    assert (fleet.endpoint.node, fleet.endpoint.default_storage, fleet.template.vmid) == ("n", "xx", 104)
    assert fleet.vms["web"].settings.pool == "p"


def test_without_a_template_one_can_be_made(
    init: Init,  # noqa: F811
    token: Emulator,
    words: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What is written suffices for the command that it names."""
    token.control("reset", patch={"vms": {"9002": None}})
    done = asked(init, words)
    assert done["next"] == [
        BEGIN,
        "nixherd template create --from IMAGE.qcow2",
        "nixherd provision web --dry-run",
    ]
    capfd.readouterr()
    run(["template", "create", "--image", "nvmeprom:import/none.qcow2", "--dry-run"])
    assert "vmidRanges" not in (said := capfd.readouterr().err)
    assert "nvmeprom" in said


def test_without_a_token_it_is_what_people_say(init: Init, words: tuple[str, ...]) -> None:  # noqa: F811
    fingerprint = "AB:CD:" * 15 + "AB:CD"
    done = asked(init, words, "--proxmox", "pve.example", "--fingerprint", fingerprint)
    fleet = load_fleet(Path())
    assert fleet.endpoint is not None
    assert fleet.endpoint.fingerprint == "abcd" * 16
    assert (fleet.endpoint.node, fleet.endpoint.default_storage) == ("pve", "local-lvm")
    assert done["next"] == [BEGIN, "nixherd token add", "nixherd provision web --dry-run"]
    assert not [note for note in done["notes"] if "certificate" in note]


def test_a_certificate_that_nobody_named_is_said(init: Init, words: tuple[str, ...]) -> None:  # noqa: F811
    (Path() / ".git").mkdir()
    done = asked(init, words, "--proxmox", "pve.example")
    [note] = [note for note in done["notes"] if "certificate" in note]
    assert "pve.example:8006: its certificate has to be one that this system trusts; for Proxmox's own, say" in note
    assert done["next"][0] == BEGIN.removeprefix("git init && ")
