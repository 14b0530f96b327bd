"""`nixherd retire` as it is typed: the guest, the secrets, every file, one commit; what it refuses before all that."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.files import state_home
from nixherd.cli.main import run
from nixherd.fleet.load import load_fleet
from nixherd.proxmox.guest import apply
from tests.nixherd.cli.conftest import Ended, planted_hook
from tests.nixherd.proxmox.conftest import Emulator, emulator, started  # noqa: F401  (fixtures)
from tests.nixherd.proxmox.dev import begin
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import (
    COMMON,
    administered,
    contents,
    git,
    recipients,
    sops,
)

pytestmark = pytest.mark.xdist_group("emulator")

DESTROY = ("--destroy", "110", "--stop")


@pytest.fixture
def fleet(tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """Three hosts; dev is in service, in VM 110, which runs on the emulator."""
    begin(emulator)
    place = administered(monkeypatch, tmp_path, enrolled=True)
    monkeypatch.setattr(apply, "PAUSE", 0.05)
    token = tmp_path / "token"
    token.write_text(emulator.token.to_toml())
    token.chmod(0o600)
    monkeypatch.setenv("PROXMOX_TOKEN_FILE", str(token))
    there = f'host = "127.0.0.1"; port = {emulator.port}; fingerprint = "{emulator.fingerprint}"'
    change(place, "vms/definitions.nix", 'host = "192.0.2.1"', there)
    change(place, "vms/definitions.nix", "{\n", '{\n  fleet = "homelab";\n')
    return place


def change(fleet: Path, name: str, old: str, new: str) -> None:
    path = fleet / name
    text = path.read_text() if path.exists() else ""
    assert old in text
    path.parent.mkdir(exist_ok=True)
    path.write_text(text.replace(old, new, 1) if text else new)
    git(fleet, "add", "-A")
    git(fleet, "commit", "-qm", "a change")


@pytest.fixture
def retire(fleet: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    def one(*words: str) -> Ended:
        capfd.readouterr()
        status = run(["--fleet", str(fleet), "retire", *words])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Ended(status, out, err)

    return one


def commits(fleet: Path) -> int:
    return int(git(fleet, "rev-list", "--count", "HEAD"))


def data_key_changed(fleet: Path, name: str) -> bool:
    """Whether the values are encrypted anew."""
    before, after = git(fleet, "show", f"HEAD~1:secrets/{name}"), (fleet / "secrets" / name).read_text()
    values = [text.partition("sops")[0] for text in (before, after)]
    return values[0] != values[1]


@pytest.mark.slow
def test_a_host_leaves_with_all_that_was_its(retire: Any, fleet: Path, emulator: Emulator) -> None:  # noqa: F811
    kept = state_home() / "homelab" / "dev" / "ssh_host_ed25519_key"
    kept.parent.mkdir(parents=True)
    kept.touch(0o600)
    ways = [state_home() / "homelab/ssh" / name for name in ("dev/config", "pinned/dev", "dev2/config", "pinned/dev2")]
    for way in ways:  # `nixherd ssh`, and `nixherd ssh-config`
        way.parent.mkdir(parents=True, exist_ok=True)
        way.touch()
    change(fleet, "hosts.nix", "# The fleet.", "# The fleet. But for dev2, web")
    before, count = contents(fleet), commits(fleet)

    planned = retire("dev", *DESTROY, "--remove-secrets", "--dry-run", "--table")
    assert planned.status == 0, planned.err
    for step in ("would shut vm 110", "would back vm 110", "would destroy vm 110 (dev), net0 bc:24:11:00:01:10, with "):
        assert f"dev: {step}" in planned.out
    for step in ("hosts.nix: dev goes", "vms/definitions.nix: managed.dev goes", "remove hosts/dev.nix"):
        assert f"dev: would {step}\n" in planned.out
    assert "would encrypt secrets/common.env: -dev" in planned.out
    assert contents(fleet) == before
    assert emulator.changes() == []
    unasked = retire("dev", *DESTROY)
    assert unasked.status == 2
    assert "without a terminal to ask on, say --yes" in unasked.err
    assert emulator.changes() == []

    done = retire("dev", *DESTROY, "--remove-secrets", "--yes", "--json")
    assert done.status == 0, done.err
    assert emulator.client().is_free(110)
    [backup] = emulator.root().volumes("prom", "local", content="backup", vmid=110)
    assert done.json["guests"] == [{"name": "dev", "vmid": 110, "fate": "destroyed", "backups": [backup.volid]}]
    assert done.json["known"] == [f"secrets/{name}" for name in COMMON]
    assert [way.exists() for way in (kept, *ways)] == [False, False, False, True, True]
    assert commits(fleet) == count + 1
    assert git(fleet, "log", "-1", "--format=%s") == "fleet: dev retires\n"
    assert git(fleet, "status", "--porcelain") == ""
    after = load_fleet(fleet)
    assert (set(after.hosts), dict(after.vms)) == ({"doc1", "igp"}, {})
    gone = {"hosts/dev.nix", "secrets/dev.yaml"}
    assert contents(fleet).keys() == before.keys() - gone
    assert not kept.parent.exists()
    for name in COMMON:
        assert data_key_changed(fleet, name), name
        assert sops(fleet / "secrets", "decrypt", name, identity="dev", check=False).returncode != 0, name
        assert sops(fleet / "secrets", "decrypt", name, identity="doc1").stdout, name
    assert "dev" not in (fleet / "secrets" / ".sops.yaml").read_text()
    assert key("dev").recipient not in (fleet / "secrets" / ".sops.yaml").read_text()
    text = before["hosts.nix"].decode()
    entry = re.search(r"\n  # dev, a machine\n  dev = \{.*?\n  \};\n", text, re.DOTALL)
    assert entry is not None
    assert (fleet / "hosts.nix").read_text() == text.replace(entry[0], "")

    again = retire("dev", *DESTROY, "--remove-secrets", "--yes", "--json")
    assert again.status == 0, again.err
    assert again.json == {"host": "dev", "steps": [], "changed": False, "commit": done.json["commit"]}
    unknown = retire("devv", "--yes")
    assert unknown.status == 2
    assert unknown.err == "hosts.nix has no host devv; it has doc1, igp\n"


def other_needs_it(fleet: Path) -> None:
    change(fleet, "hosts/doc1.nix", '"1"\n', "(import ../hosts.nix).dev.hostname\n")


def output_needs_it(fleet: Path) -> None:
    change(fleet, "flake.nix", "outputs = _: {", "outputs = self: { checks.x86_64-linux.dev = self.nosuch;")
    change(
        fleet,
        "flake.nix",
        "outputs = self: { checks.x86_64-linux.dev = self.nosuch;",
        "outputs = {self}: { checks.x86_64-linux.dev = self.nixosConfigurations.dev.config.system.build.toplevel;",
    )


def readonly(fleet: Path) -> None:
    change(fleet, "vms/definitions.nix", "vmid = 110;", "vmid = 110; readonly = true;")


def imported(fleet: Path) -> None:
    old = 'managed.dev = { vmid = 110; cores = 1; memory = 512; disk = "8G"; nixosConfig = "dev"; };'
    change(fleet, "vms/definitions.nix", old, 'imported.dev = { vmid = 110; hostname = "dev"; readonly = false; };')


def dirty(fleet: Path) -> None:
    (fleet / "hosts.nix").write_text((fleet / "hosts.nix").read_text() + "# more\n")


def alone(fleet: Path) -> None:
    change(fleet, "secrets/.sops.yaml", f"age: {key('admin').recipient},{key('dev').recipient}", "age: *dev")


def neighbour(fleet: Path) -> None:
    change(fleet, "vms/definitions.nix", 'node = "prom";', 'node = "prom"; neighbours = ["dev"];')


def same_key(fleet: Path) -> None:
    change(fleet, "hosts.nix", key("doc1").public, key("dev").public)


def inherited(fleet: Path) -> None:
    change(fleet, "hosts.nix", "{\n", "{\n  inherit (import ./more.nix) web;\n")


def nowhere(fleet: Path) -> None:
    """No server listens there."""
    text, token = (fleet / "vms" / "definitions.nix").read_text(), fleet.parent / "token"
    port = re.search(r"port = (\d+)", text)
    assert port is not None
    change(fleet, "vms/definitions.nix", port[0], "port = 1")
    token.write_text(token.read_text().replace(port[1], "1"))


def readonly_and_nowhere(fleet: Path) -> None:
    readonly(fleet)
    nowhere(fleet)


def nothing(fleet: Path) -> None: ...


@pytest.mark.parametrize(
    ("prepare", "words", "status", "said"),
    [
        (nothing, (), 2, "vm 110 (dev) is there; say what is to become of it: --destroy 110, after a backup, or --ke"),
        (nothing, ("--destroy", "111"), 2, "--destroy 111: the host has vm 110 (dev) in vms/definitions.nix"),
        (nothing, ("--destroy", "110"), 2, "vm 110 (dev) runs; shut it down first, or say that it may be stopped"),
        (nothing, ("--destroy", "110", "--keep-vm"), 2, "--destroy and --keep-vm exclude each other"),
        (nothing, ("--keep-vm", "--stop"), 2, "--stop, --no-backup, --discard, --storage and --purge belong to"),
        (nothing, ("--keep-vm", "--identity", "/no/such"), 4, "/no/such: no age identity there"),
        (readonly, DESTROY, 3, "vm 110 (dev) is readonly in vms/definitions.nix; refusing to destroy it (edit the de"),
        (readonly, (), 2, "--keep-vm leaves it; it is readonly in vms/definitions.nix, which must let it be destroyed"),
        (readonly_and_nowhere, DESTROY, 3, "vm 110 (dev) is readonly in vms/definitions.nix; refusing to destroy it"),
        (imported, DESTROY, 3, "documented, never changed; refusing to destroy it"),
        (nowhere, DESTROY, 4, "whether vm 110 (dev) is there is not known: "),
        (nowhere, (), 4, "whether vm 110 (dev) is there is not known: "),
        (other_needs_it, DESTROY, 4, "doc1: would not evaluate any more: hosts/doc1.nix:1:1: attribute 'dev' missing"),
        (output_needs_it, DESTROY, 4, "nix flake check: would not evaluate any more: flake.nix:2:"),
        (dirty, DESTROY, 4, "hosts.nix: has changes that are not committed"),
        (alone, DESTROY, 4, "nobody but dev can decrypt what rule 2 (^dev\\.yaml$) is for"),
        (neighbour, DESTROY, 2, "after that, vms/definitions.nix: proxmox.neighbours: hosts.nix has no host 'dev'"),
        (same_key, DESTROY, 4, "doc1 has the host key of dev, and would lose its secrets with it"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(
    retire: Any,
    fleet: Path,
    emulator: Emulator,  # noqa: F811
    prepare: Callable[[Path], None],
    words: tuple[str, ...],
    status: int,
    said: str,
) -> None:
    prepare(fleet)
    before = contents(fleet), git(fleet, "rev-parse", "HEAD"), git(fleet, "status", "--porcelain")
    ended = retire("dev", *words, "--yes")
    assert said in " ".join(ended.err.split()), ended.err
    assert ended.status == status, ended.err
    assert emulator.changes() == []
    assert (contents(fleet), git(fleet, "rev-parse", "HEAD"), git(fleet, "status", "--porcelain")) == before


def test_a_guest_that_was_kept_is_no_destroyed_one(retire: Any, fleet: Path, emulator: Emulator) -> None:  # noqa: F811
    """The history says that the host was retired; what is there now is looked at."""
    assert retire("dev", "--keep-vm", "--yes").status == 0
    again = retire("dev", *DESTROY, "--yes")
    assert again.status == 3, again.err
    assert "VMID 110 (dev) is there, and no definition declares it" in again.err
    assert retire("dev", "--keep-vm", "--yes").status == 0
    assert "rule 2 (^dev\\.yaml$) stayed in secrets/.sops.yaml" in retire("dev", "--remove-secrets", "--yes").err
    change(
        fleet,
        "vms/definitions.nix",
        "{\n",
        "{\n  imported.dev = { vmid = 110; };\n",
    )
    assert "is there again: vms/definitions.nix: imported.dev" in retire("dev", "--keep-vm", "--yes").err
    git(fleet, "reset", "-q", "--hard", "HEAD~1")
    emulator.control("reset")
    assert retire("dev", *DESTROY, "--yes", "--json").json["changed"] is False
    change(fleet, "vms/definitions.nix", f"port = {emulator.port}", "port = 9")
    unknown = retire("dev", *DESTROY, "--yes")
    assert unknown.status != 0
    assert "whether VMID 110 is there is not known" in unknown.err


def test_a_guest_is_left_alone_where_the_hypervisor_is_away(retire: Any, fleet: Path) -> None:
    """Its rule stays where nobody said otherwise, and what else needs a look is named."""
    nowhere(fleet)
    readonly(fleet)
    change(fleet, "hosts/igp.nix", '"1"\n', '(import ./dev.nix) + "ssh://dev"\n')
    change(fleet, "vms/definitions.nix", "vmid = 110;", 'vmid = 110; purpose = "keeps the clock";')
    change(fleet, "docs.yml", "", "run: nix build .#nixosConfigurations.dev.x\nwhere: /dev/null\n")
    done = retire("dev", "--keep-vm", "--yes", "--table")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    for line in (
        "dev: vm 110 (dev) is left alone and was not looked at; nixherd changes it no more",
        "dev: warning: managed.dev.purpose in the definitions: keeps the clock",
        'dev: hosts/dev.nix stays: hosts/igp.nix:1: (import ./dev.nix) + "ssh://dev"',
        'dev: still named in hosts/igp.nix:1: (import ./dev.nix) + "ssh://dev"',
        "dev: still named in docs.yml:1: run: nix build .#nixosConfigurations.dev.x",
        "dev: rule 2 (^dev\\.yaml$) with secrets/dev.yaml, which beside it admin can decrypt, stays; --remove-secrets "
        "has it go",
    ):
        assert line in lines
    assert not [line for line in lines if "docs.yml:2" in line]
    assert recipients(fleet)["dev.yaml"] == {"admin"}
    assert (fleet / "hosts" / "dev.nix").exists()
    assert load_fleet(fleet).vms == {}


@pytest.mark.parametrize("is_known", [True, False])
def test_a_secret_file_that_another_host_declares_does_not_go(retire: Any, fleet: Path, is_known: bool) -> None:
    """Its name is put together: no text says so."""
    secret = '{ name = "x"; format = "yaml"; key = "x"; mode = "0400"; sopsFile = ./secrets + "/${"d" + "ev"}.yaml"; }'
    what = secret if is_known else 'throw "the input was not fetched"'
    change(fleet, "flake.nix", 'if id != "dev"', f'if id == "igp" then {{ x = {what}; }} else if id != "dev"')
    before = contents(fleet)
    done = retire("dev", *DESTROY, "--remove-secrets", "--yes", "--table")
    if is_known:
        assert "secrets/dev.yaml: igp declares it, and it was to go; correct that first" in done.err
        assert contents(fleet) == before
    else:
        stays = (
            "secrets/.sops.yaml: rule 2 (^dev\\.yaml$) with secrets/dev.yaml stays: what igp declares is not known: "
        )
        assert stays in done.out
        assert "--remove-secrets has it go" not in done.out
        assert recipients(fleet)["dev.yaml"] == {"admin"}


def test_one_that_is_not_there_needs_no_word(retire: Any, fleet: Path, emulator: Emulator) -> None:  # noqa: F811
    emulator.control("reset")
    done = retire("dev", "--yes", "--json")
    assert done.status == 0, done.err
    assert [(each["fate"], each["backups"]) for each in done.json["guests"]] == [("absent", [])]
    assert emulator.changes() == []


def test_what_fails_after_the_guest_is_gone_is_finished_by_the_next_run(
    retire: Any,
    fleet: Path,
    emulator: Emulator,  # noqa: F811
) -> None:
    hook = fleet / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not on a Monday >&2; exit 1\n")
    hook.chmod(0o755)
    before = contents(fleet)
    failed = retire("dev", *DESTROY, "--yes")
    [backup] = emulator.root().volumes("prom", "local", content="backup", vmid=110)
    assert failed.status == 1
    assert "not on a Monday; every file was put back as it was; before that, vm 110 (dev) is destroyed; " in failed.err
    assert f"backup: {backup.volid}: run it again" in failed.err
    assert contents(fleet) == before
    assert git(fleet, "status", "--porcelain") == ""
    hook.unlink()
    done = retire("dev", *DESTROY, "--yes", "--table")
    assert done.status == 0, done.err
    assert f"dev: vm 110 (dev) is not there; backup: {backup.volid}" in done.out
    assert git(fleet, "log", "-1", "--format=%s") == "fleet: dev retires\n"
    assert json.loads(retire("dev", "--json").out)["changed"] is False


def test_what_was_scaffolded_and_retired_has_left_no_byte(retire: Any, fleet: Path) -> None:
    before, me = contents(fleet), fleet.parent / "me.pub"
    me.write_text(key("admin").public + "\n")
    how = ("--size", "small", "--key-file", str(me), "--state-version", "25.11", "--no-eval", "--vmid", "120", "--yes")
    assert run(["--fleet", str(fleet), "new", "web", "--offline", *how, "--secret", "api_token", "--commit"]) == 0
    assert contents(fleet).keys() - before.keys() >= {"secrets/web.yaml", "hosts/web/configuration.nix"}
    done = retire("web", "--keep-vm", "--remove-secrets", "--yes", "--json")
    assert done.status == 0, done.err
    assert contents(fleet) == before
    assert not (fleet / "hosts" / "web").exists()
    assert done.json["mentions"] == []


@pytest.mark.usefixtures("commit_not_read_back")
@pytest.mark.parametrize(
    ("does", "left"),
    [
        ("git show HEAD:hosts.nix > hosts.nix", "the fleet's files do not load now: "),
        ("git checkout -q HEAD -- hosts.nix hosts/dev.nix", "is still in hosts.nix: dev; correct that by hand"),
        ("git show HEAD:secrets/dev.yaml > secrets/dev.yaml", "is still in secrets/dev.yaml; correct that by hand"),
    ],
    ids=["files that do not load", "hosts.nix", "a secret file"],
)
def test_files_that_hold_it_again_are_read_back(retire: Any, fleet: Path, does: str, left: str) -> None:
    planted_hook(fleet, does)
    done = retire("dev", *DESTROY, "--yes", "--table")
    assert done.status == 1
    assert f"dev was retired, but {left}" in done.err
    assert "have new data keys" not in done.out
