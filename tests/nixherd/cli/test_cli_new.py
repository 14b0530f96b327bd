"""`nixherd new`: asked or told, shown, all or nothing; who has it already; what the hypervisor knows of VMIDs."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from nixherd.cli import new as new_module
from nixherd.cli import output
from nixherd.cli.main import run
from nixherd.errors import FleetError
from nixherd.fleet.git import Repository
from nixherd.fleet.load import load_fleet
from nixherd.fleet.tree import Tree
from nixherd.nix.commands import Evaluated
from nixherd.trust.new import scaffold
from nixherd.trust.secrets import files
from tests.conftest import DEFINITIONS_NIX
from tests.nix_cli import environment
from tests.nixherd.cli.conftest import Ended
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.trust.new.hosts import VM
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import contents, git, nobodys, repository, sops

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("cli-new")]

ROOT = Path(__file__).parents[3]
TOLD = ("--size", "small", "--key-file", "KEY", "--state-version", "25.11", "--no-eval")
NEW = ["hosts/web/configuration.nix", "hosts/web/disko.nix", "hosts/web/hardware-configuration.nix"]


class Fleet:
    """A fleet in a repository, and the command run on it as its operator would."""

    def __init__(self, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.root, self._capfd = root, capfd

    def new(self, *words: str, told: bool = True) -> Ended:
        self._capfd.readouterr()
        key_file = self.root.parent / "me.pub"
        key_file.write_text(f"# mine\n{key('admin').public}\n")
        more = [str(key_file) if word == "KEY" else word for word in TOLD] if told else []
        status = run(
            ["--fleet", str(self.root), "--token-file", str(self.root.parent / "no-token"), "new", *words, *more]
        )
        out, err = self._capfd.readouterr()
        assert "Traceback" not in out + err
        return Ended(status, out, err)

    def state(self) -> tuple[dict[str, bytes], str, str, list[str]]:
        directories = sorted(str(path) for path in self.root.rglob("*") if path.is_dir() and ".git" not in path.parts)
        return contents(self.root), git(self.root, "status", "--porcelain"), git(self.root, "log"), directories


def evaluated(hostname: str, toplevel: str) -> Evaluated:
    return Evaluated(
        host_id=hostname,
        toplevel=toplevel,
        toplevel_drv=f"{toplevel}.drv",
        hostname=hostname,
        disko_script=None,
        disko_drv=None,
        configuration_revision=None,
        devices=("/dev/sda",),
        boot_loader="systemd-boot",
        grub_efi=False,
        guest_agent=True,
        ssh=True,
        root_access=True,
    )


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Fleet:
    """With the secrets of the tests', doc1, igp and dev (110)."""
    nobodys(monkeypatch, tmp_path)
    return Fleet(repository(tmp_path / "fleet"), capfd)


def test_all_of_it_is_there_and_known_to_git(fleet: Fleet) -> None:
    done = fleet.new(
        "web", "--secret", "api_token", "--secret", "wifi/password", "--range", "100-199", "--yes", "--json"
    )
    assert done.status == 0, done.err
    found = done.json
    assert found["files"] == sorted(
        [*NEW, "hosts.nix", "secrets/.sops.yaml", "secrets/web.yaml", "vms/definitions.nix"]
    )
    about = {
        name: found[name] for name in ("name", "kind", "vmid", "vmid_free", "size", "evaluated", "system", "commit")
    }
    assert about == {
        **{"name": "web", "kind": "vm", "vmid": 100, "vmid_free": None, "size": "small"},
        **{"evaluated": False, "system": None, "commit": None},
    }
    assert any("not evaluated" in line for line in found["findings"])
    assert any("VMID 100 is from the definitions alone" in line for line in found["findings"])
    loaded = load_fleet(fleet.root)
    host, vm = loaded.hosts["web"], loaded.vms["web"]
    assert (host.user, host.ssh_alias, host.public_key) == ("admin", "web", None)
    assert host.authorized_keys == (key("admin").public.strip(),)
    assert (vm.vmid, vm.host_id, vm.memory, vm.may_change) == (100, "web", 2048, True)
    status = git(fleet.root, "status", "--porcelain").splitlines()
    assert sorted(status) == sorted(
        [*(f" A {path}" for path in (*NEW, "secrets/web.yaml"))]
        + [f" M {path}" for path in ("hosts.nix", "secrets/.sops.yaml", "vms/definitions.nix")]
    )
    encrypted = files.read("web.yaml", (fleet.root / "secrets/web.yaml").read_bytes())
    assert encrypted is not None
    assert encrypted.recipients == (key("admin").recipient,)
    plain = sops(fleet.root / "secrets", "decrypt", "web.yaml").stdout
    token, password = re.fullmatch(r"api_token: (\S+)\nwifi:\n +password: (\S+)\n", plain).groups()  # type: ignore[union-attr]
    assert len({token, password}) == 2
    assert min(len(token), len(password)) > 40
    assert not any(word in done.out + done.err for word in (token, password))
    # a second one beside it, whose VMID is the next
    again = fleet.new("web2", "--range", "100-199", "--yes", "--json")
    assert (again.status, again.json["vmid"]) == (0, 101)
    assert "hosts.nix: has changes that nobody committed; they stay, beside ours" in again.err


def test_a_person_is_shown_what_changes_and_asked(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fleet.state()
    refused = fleet.new("web", "--vmid", "150", "--secret", "a", "--table")
    assert (refused.status, refused.err.splitlines()[-1]) == (
        2,
        "web was not written: without a terminal to ask on, say --yes",
    )
    assert "vmid = 150;" in refused.out
    assert "secrets/web.yaml: new, encrypted for admin: a" in refused.out
    assert "ENC[" not in refused.out
    planned = fleet.new("web", "--vmid", "150", "--dry-run", "--json")
    assert (planned.status, planned.json["planned"]) == (0, True)
    assert "+++ b/hosts/web/disko.nix" in planned.json["diff"]
    asked: list[tuple[str, Any]] = []
    answers = {"Its size": "docker", "What it is for": "Stacks", "From which": "150-160"}

    def prompt(question: str, default: Any = None, **options: Any) -> Any:
        asked.append((question.split(" (")[0], default))
        return next((answer for words, answer in answers.items() if question.startswith(words)), default)

    for module in (new_module, output):
        monkeypatch.setattr(module, "is_terminal", lambda stream: True)
    monkeypatch.setattr(click, "prompt", prompt)
    for answer, status in ((False, 2), (True, 0)):
        assert fleet.state() == before
        monkeypatch.setattr(click, "confirm", lambda *words, answer=answer, **options: answer)
        assert fleet.new("web", *TOLD[2:]).status == 2  # KEY is no file: nothing is asked
        done = fleet.new("web", "--key-file", str(fleet.root.parent / "me.pub"), *TOLD[4:], "--table", told=False)
        assert done.status == status
    assert [question for question, _ in asked[:5]] == [
        *(
            "Its size",
            "What it is for",
            "Its admin user",
            "Its short name for ssh",
            "From which VMIDs, such as 100-199",
        ),
    ]
    assert dict(asked)["Its short name for ssh"] == "web"
    assert "# web: Stacks, VMID 150." in (fleet.root / "hosts.nix").read_text()


def test_in_a_pipe_what_is_missing_is_one_line_with_the_flag(fleet: Fleet) -> None:
    before = fleet.state()
    own = str(fleet.root.parent / "me.pub")
    for words, option in (
        (("--key-file", own, "--state-version", "25.11"), "--range: missing"),
        (("--state-version", "25.11", "--vmid", "150"), "--key-file: who may log in?"),
        (("--key-file", own, "--vmid", "150"), "--state-version: missing"),
        (("--key-file", own, "--vmid", "150", "--size", "gpu"), "--pci: missing"),
        (("--key-file", own, "--vmid", "250", "--size", "lxc"), "--archive: missing"),
        (("--key-file", own, "--no-vm"), "--device: missing"),
    ):
        fleet.new("web", "--no-vm", "--home-only")  # writes the key
        done = fleet.new("web", "--no-eval", "--yes", *words, told=False)
        assert done.status == 2, (words, done.err)
        [line] = [line for line in done.err.splitlines() if not line.startswith("web:")]
        assert line.startswith(option), (words, line)
    assert fleet.state() == before


IMPOSSIBLE = (
    (("dev",), "dev: is the id of dev"),
    (("web", "--ssh-alias", "doc1"), "--ssh-alias doc1: is the id of doc1"),
    (("web", "--vmid", "110"), "--vmid 110: is managed.dev.vmid"),
    (("Web",), "Web: DNS does not tell capitals apart"),
    (("nixos",), "nixos: is the name of the group"),
    (("web", "--vmid", "50"), "Error: Invalid value for '--vmid': 50"),
    (("web", "--vmid", "150", "--range", "100-199"), "--vmid and --range"),
    (("web", "--vmid", "150", "--disk", "64"), "--disk: "),
    (("web", "--vmid", "150", "--cores", "0"), "Error: Invalid value for '--cores': 0"),
    (("web", "--vmid", "150", "--memory", "512"), "--memory 512: the installer lives in memory"),
    (("web", "--vmid", "150", "--user", "a b"), "--user: "),
    (("web", "--vmid", "150", "--pool", ""), "--pool: is empty"),
    (("web", "--vmid", "150", "--device", "/dev/sda"), "--device: a VM's disk is its template's"),
    (("web", "--vmid", "150", "--archive", "x"), "--archive: is for a container"),
    (("web", "--vmid", "150", "--purpose", "a\nb"), "--purpose: is to be one line"),
    (("web", "--vmid", "150", "--secret", "../x"), "--secret ../x: is no name"),
    (("web", "--vmid", "150", "--secret", "x", "--recipient", "doc1"), "--recipient doc1: is a host"),
    (("web", "--vmid", "150", "--secret", "x", "--recipient", "you"), "--recipient you: secrets/.sops.yaml knows"),
    (("web", "--vmid", "150", "--keys-of", "nobody", "--key-file", "/nowhere"), "--key-file /nowhere: cannot be read"),
    (("web", "--vmid", "150", "--keys-of", "doc1"), "--keys-of and --key-file"),
    (("web", "--no-vm", "--vmid", "150"), "--size: is a guest's, and with --no-vm there is none"),
    (("common",), "hosts/common: is there already"),
    (("web", "--vmid", "150", "--recipient", "admin"), "--recipient: says who reads a secret, and none is declared"),
    (("web", "--vmid", "150", "--pool", 'a"b'), "--pool: 'a\"b' is no pool's name"),
)  # fmt: skip


def test_what_cannot_be_is_one_line_and_nothing_is_changed(fleet: Fleet) -> None:
    (fleet.root / "hosts" / "common").mkdir()
    (fleet.root / "hosts" / "common" / "home.nix").write_text("{ }\n")
    before = fleet.state()
    for words, line in IMPOSSIBLE:
        span = () if "--vmid" in words or "--no-vm" in words else ("--range", "100-199")
        done = fleet.new(*words, *span, "--yes")
        assert done.status == 2, (words, done.err)
        said = [each for each in done.err.splitlines() if not each.startswith(f"{words[0]}: e")]
        assert len(said) == 1, (words, said)
        assert said[0].startswith(line), (words, said)
    assert fleet.state() == before


def test_who_had_its_name_is_not_given_its_secrets(fleet: Fleet) -> None:
    config = fleet.root / "secrets" / ".sops.yaml"
    named = config.read_text().replace("&igp", "&web").replace("*igp", "*web")
    config.write_text(named)
    done = fleet.new("web", "--vmid", "150", "--secret", "x", "--yes")
    assert done.status == 2
    assert "secrets/.sops.yaml: web is a recipient already" in done.err
    other = (
        named.replace("&web", "&igp").replace("*web", "*igp")
        + f"  - path_regex: ^web.y\n    age: {key('admin').recipient},{key('doc1').recipient}\n"
    )
    config.write_text(other)
    done = fleet.new("web", "--vmid", "150", "--secret", "x", "--yes")
    assert "rule 4 (^web.y) is there for web already, for others than admin" in done.err
    assert config.read_text() == other


def test_what_cannot_be_edited_is_said_with_the_lines(fleet: Fleet) -> None:
    hosts = fleet.root / "hosts.nix"
    hosts.rename(fleet.root / "all.nix")
    hosts.write_text("import ./all.nix\n")
    before = fleet.state()
    done = fleet.new("web", "--vmid", "150", "--yes")
    assert done.status == 4
    assert 'add to hosts.nix:\n  web = {\n    hostname = "web";\n' in done.err
    assert done.err.endswith("nothing was changed, add the lines above by hand\n")
    assert fleet.state() == before


def test_a_commit_is_of_these_files_alone_or_not_at_all(fleet: Fleet) -> None:
    (fleet.root / "notes").write_text("mine\n")
    git(fleet.root, "add", "notes")
    done = fleet.new("web", "--vmid", "150", "--purpose", "A web server", "--commit", "--yes", "--json")
    assert done.status == 0, done.err
    assert git(fleet.root, "show", "--format=%s", "--name-only").split("\n\n")[0] == "fleet: web is new"
    changed = git(fleet.root, "show", "--format=", "--name-only").split()
    assert changed == ["hosts.nix", *NEW, "vms/definitions.nix"]
    assert git(fleet.root, "status", "--porcelain") == "A  notes\n"
    hosts = fleet.root / "hosts.nix"
    hosts.write_text(hosts.read_text() + "# mine\n")
    before = fleet.state()
    refused = fleet.new("web2", "--vmid", "151", "--commit", "--yes")
    assert "hosts.nix: has changes that are not committed" in refused.err
    assert fleet.state() == before
    kept = fleet.new("web2", "--vmid", "151", "--yes")
    assert kept.status == 0
    assert hosts.read_text().endswith("}\n# mine\n")


@pytest.mark.parametrize("fails", ["add", "replace"])
def test_when_it_fails_half_way_nothing_is_left(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """Neither files nor directories, and what somebody had staged is staged still."""
    hosts = fleet.root / "hosts.nix"
    hosts.write_text(hosts.read_text() + "# staged\n")
    git(fleet.root, "add", "hosts.nix")
    hosts.write_text(hosts.read_text() + "# not staged\n")
    before = fleet.state()

    def broken(*words: Any, **options: Any) -> None:
        raise FleetError("the disk is full")

    if fails == "add":
        monkeypatch.setattr(Repository, "add", broken)
    else:
        monkeypatch.setattr(Tree, "sync", broken)
    done = fleet.new("web", "--vmid", "150", "--secret", "x", "--yes")
    assert done.status == 4
    assert "the disk is full; every file was put back as it was" in done.err
    assert fleet.state() == before
    assert "# staged" in git(fleet.root, "diff", "--cached")


def test_interrupted_before_the_first_file_the_next_run_begins_anew(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the directory that was made for nothing gone."""

    def interrupted(*words: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Tree, "move", interrupted)
        assert fleet.new("web", "--vmid", "150", "--yes").status == 130
    assert (fleet.root / "hosts" / "web").is_dir()
    assert fleet.new("web2", "--vmid", "151", "--yes").status == 0
    assert not (fleet.root / "hosts" / "web").exists()
    assert set(load_fleet(fleet.root).hosts) == {"doc1", "igp", "dev", "web2"}


def test_ignored_files_and_a_tree_without_git(fleet: Fleet) -> None:
    (fleet.root / ".gitignore").write_text("hosts/web/\n")
    ignored = fleet.new("web", "--vmid", "150", "--yes")
    assert "hosts/web/configuration.nix: git ignores it" in ignored.err
    (fleet.root / ".git").rename(fleet.root.parent / "git")
    done = fleet.new("web", "--vmid", "150", "--yes", "--json")
    assert (done.status, load_fleet(fleet.root).vms["web"].vmid) == (0, 150)


def test_what_git_does_not_know_the_flake_would_not_see(fleet: Fleet) -> None:
    git(fleet.root, "rm", "-q", "--cached", "hosts.nix")
    before = fleet.state()
    done = fleet.new("web", "--vmid", "150", "--yes")
    assert (done.status, fleet.state()) == (4, before)
    assert "hosts.nix: git does not know it, and a flake has what git knows; git add it first" in done.err


def test_a_hook_that_takes_it_out_again_is_found_out(fleet: Fleet) -> None:
    hook = fleet.root / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    for number, (does, said) in enumerate(
        (
            (
                "sed -i s/admin/root/ hosts.nix; rm hosts/web0/disko.nix",
                "hosts.nix: web0, hosts/web0/disko.nix: was writ",
            ),
            ("git show HEAD:hosts.nix > hosts.nix", "web1 was written, but the fleet's files do not load now: vms/def"),
        )
    ):
        hook.write_text(f"#!/bin/sh\n{does}\n")
        hook.chmod(0o755)
        done = fleet.new(f"web{number}", "--vmid", f"15{number}", "--yes", "--commit")
        assert done.status != 0
        assert said in done.err, done.err
        assert "did a git hook change them?" in done.err
        git(fleet.root, "reset", "-q", "--hard", "HEAD~1")


def scaffolded(fleet: Path, last: int | None = None) -> subprocess.CompletedProcess[str]:
    words: list[str | Path] = [
        sys.executable,
        "-m",
        "tests.nixherd.trust.new.scaffolded",
        fleet,
        *([str(last)] if last else []),
    ]
    env = {**os.environ, **environment(), "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(fleet.parent / "state")}
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_has_all_of_it(tmp_path: Path) -> None:
    """Before its journal is written nothing is there; from then on the next run finishes what was begun."""
    whole = repository(tmp_path / "whole" / "fleet")
    old = contents(whole)
    done = scaffolded(whole)
    assert done.returncode == 0, done.stderr
    effects, new, status = int(done.stdout.split()[-1]), contents(whole), git(whole, "status", "--porcelain")
    assert effects > 40
    halves = 0
    for point in (round(effects * share) for share in (0.54, 0.6)):
        fleet = repository(tmp_path / str(point) / "fleet")
        killed = scaffolded(fleet, point)
        assert killed.returncode == -9, f"{point}: {killed.stderr}"
        for name, content in contents(fleet).items():
            random = name == "secrets/web.yaml"
            assert random or content in (old.get(name), new.get(name)), (point, name)
        halves += (
            contents(fleet).keys() != old.keys()
            and contents(fleet)["vms/definitions.nix"] == old["vms/definitions.nix"]
        )
        load_fleet(fleet)
        after = scaffolded(fleet)
        if "web: is the id of web" not in after.stderr:  # where nothing was left to do but to say so
            assert after.returncode == 0, f"killed at effect {point} of {effects}, then: {after.stderr}"
        assert {**contents(fleet), "secrets/web.yaml": b""} == {**new, "secrets/web.yaml": b""}
        assert git(fleet, "status", "--porcelain") == status
        assert [each.name for each in fleet.parent.glob("state/nixherd/.trees/*/*")] == ["lock"]
    assert halves  # some were killed while it was published


# The hypervisor


@pytest.fixture
def online(
    make_fleet: Callable[..., Path],
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Callable[..., Ended]:
    nobodys(monkeypatch, tmp_path)
    there = f'host = "127.0.0.1"; port = {emulator.port}; fingerprint = "{emulator.fingerprint}"'
    root = make_fleet(definitions=DEFINITIONS_NIX.replace('host = "127.0.0.1"', there))
    token = tmp_path / "token"
    token.write_text(emulator.token.to_toml())
    token.chmod(0o600)

    def call(*words: str, token: Path = token) -> Ended:
        capfd.readouterr()
        more = ("--state-version", "25.11", "--no-eval")
        status = run(["--fleet", str(root), "--token-file", str(token), "new", *words, *more])
        return Ended(status, *capfd.readouterr())

    return call


@pytest.mark.xdist_group("emulator")
def test_the_hypervisor_knows_who_has_which_vmid(online: Callable[..., Ended], emulator: Emulator) -> None:
    taken = {row.vmid for row in emulator.root().resources()}
    free = next(vmid for vmid in range(100, 200) if vmid not in taken | {104, 110})
    planned = online("web", "--dry-run", "--json")
    assert planned.status == 0, planned.err
    found = planned.json
    assert (found["vmid"], found["vmid_free"], found["firmware"]) == (free, True, "ovmf")
    assert not any("unknown" in line for line in found["findings"])
    somebody = next(vmid for vmid in taken if 100 <= vmid < 200 and vmid not in (104, 110))
    refused = online("web", "--vmid", str(somebody), "--dry-run")
    assert refused.status == 2
    assert re.match(rf"--vmid {somebody}: .* has it; take another one", refused.err)
    offline = online("web", "--offline", "--dry-run", "--json")
    assert offline.json["vmid_free"] is None
    assert emulator.changes() == []


def test_a_hypervisor_that_does_not_answer_is_no_reason_to_guess(
    online: Callable[..., Ended], emulator: Emulator, tmp_path: Path
) -> None:
    other = tmp_path / "other-token"
    other.write_text(emulator.token.to_toml().replace("=", "= #", 1))
    other.chmod(0o600)
    done = online("web", "--dry-run", token=other)
    assert done.status != 0
    assert "--offline does without it" in done.err


@pytest.mark.xdist_group("emulator")
def test_what_would_keep_it_from_being_provisioned_is_said(
    make_fleet: Callable[..., Path], emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the judgement that provisioning begins with; what could not be asked is unknown."""
    nobodys(monkeypatch, tmp_path)
    there = f'host = "127.0.0.1"; port = {emulator.port}; fingerprint = "{emulator.fingerprint}"'
    named = DEFINITIONS_NIX.replace('host = "127.0.0.1"', there).replace("vmid = 110;", 'vmid = 110; pool = "nixherd";')
    fleet = load_fleet(make_fleet(definitions=named))
    token = tmp_path / "token"
    token.write_text(emulator.token.to_toml())
    token.chmod(0o600)
    system = evaluated("dev", "/nix/store/x")
    host = replace(VM, id="dev")
    assert scaffold.obstacles_of(token, fleet, host, system) == ()
    [line] = scaffold.obstacles_of(token, fleet, host, replace(system, boot_loader="grub"))
    assert line.startswith("dev: provisioning would be refused now: dev: its configuration installs grub")
    [line] = scaffold.obstacles_of(tmp_path / "none", fleet, host, system)
    assert line.startswith("dev: whether it could be provisioned now is unknown: token file")
    assert emulator.changes() == []
