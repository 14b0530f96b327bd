"""Enrolment: all of it or nothing, one commit, whenever it is killed; and what it refuses."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.changeset import changing
from nixherd.fleet.load import load_fleet, require_exactly
from nixherd.nix.edit import NixText
from nixherd.trust.enrol import Wanted, documented, protected, publish
from nixherd.trust.joining import Admission
from nixherd.trust.recipients import trusted
from nixherd.trust.secrets.sops import operator
from nixherd.trust.secrets.store import Secrets
from tests.nix_cli import environment
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import (
    BEFORE,
    SECRETS,
    WITH_DEV,
    admission,
    contents,
    git,
    identity_of,
    nobodys,
    recipients,
    repository,
    sops,
)
from tests.preloaded.programs import Programs
from tests.shared import Shared

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]

ROOT = Path(__file__).parents[3]
CHANGED = ["docs/machines.md", "hosts.nix", "secrets/.sops.yaml"]
CHANGED += [f"secrets/{name}" for name in sorted(SECRETS) if name != "ssh_key_admin"] + ["vms/definitions.nix"]


Enrol = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def enrol(programs: Programs) -> Enrol:
    """Enrols in a process of its own, whose last effect is the one of this number."""

    def run(fleet: Path, last: int | None = None) -> subprocess.CompletedProcess[str]:
        words: list[str | Path] = ["nixherd-python", "-m", "tests.nixherd.trust.secrets.enrolling"]
        words += [fleet, identity_of(fleet.parent), fleet.parent / "state", *([str(last)] if last else [])]
        env = programs({**os.environ, **environment()})
        return subprocess.run(words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    return run


def as_it_should_be(fleet: Path) -> None:
    assert recipients(fleet) == WITH_DEV
    for name in WITH_DEV:
        if "dev" in WITH_DEV[name]:
            assert sops(fleet / "secrets", "decrypt", name, identity="dev").stdout
    loaded = load_fleet(fleet)
    assert loaded.hosts["dev"].public_key == key("dev").public
    assert loaded.vms["dev"].readonly
    assert git(fleet, "log", "--format=%s").splitlines() == ["fleet: dev joins", "the fleet"]
    assert git(fleet, "show", "--format=", "--name-only").split() == CHANGED
    assert git(fleet, "status", "--porcelain") == ""
    assert not [path for path in fleet.rglob(".nixherd*") if ".git" not in path.parts]
    assert [each.name for each in fleet.parent.glob("state/nixherd/.trees/*/*")] == ["lock"]


def test_everything_in_one_commit(enrol: Enrol, tmp_path: Path) -> None:
    fleet = repository(tmp_path / "fleet")
    done = enrol(fleet)
    assert done.returncode == 0, done.stderr
    as_it_should_be(fleet)
    again = enrol(fleet)
    assert again.returncode == 0
    as_it_should_be(fleet)
    assert sops(fleet / "secrets", "decrypt", "dev.yaml", identity="doc1", check=False).returncode != 0
    before = repository(tmp_path / "before")
    for name in SECRETS:
        assert sops(fleet / "secrets", "decrypt", name).stdout == sops(before / "secrets", "decrypt", name).stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_effect_it_is_finished_by_the_next_run(enrol: Enrol, tmp_path: Path) -> None:
    """All old or all new by the journal, every file whole at every moment, and one commit in the end."""
    whole = repository(tmp_path / "whole" / "fleet")
    effects = int(enrol(whole).stdout.split()[-1])
    assert effects > 60
    old, new = contents(repository(tmp_path / "old")), contents(whole)
    points = sorted({1 + round(at * (effects - 1) / 13) for at in range(14)})
    for point in points:
        fleet = repository(tmp_path / str(point) / "fleet")
        killed = enrol(fleet, point)
        assert killed.returncode == -9, f"{point}: {killed.stderr}"
        _nothing_is_torn(fleet, old, new)
        done = enrol(fleet)
        assert done.returncode == 0, f"killed at effect {point} of {effects}, then: {done.stderr}"
        as_it_should_be(fleet)


def _nothing_is_torn(fleet: Path, old: dict[str, bytes], new: dict[str, bytes]) -> None:
    for name, content in contents(fleet).items():
        if name.startswith("secrets/") and not name.endswith(".sops.yaml"):
            assert recipients(fleet)[name.removeprefix("secrets/")] in (
                BEFORE[name.removeprefix("secrets/")],
                WITH_DEV[name.removeprefix("secrets/")],
            )
        else:
            assert content in (old.get(name), new.get(name)), name
    load_fleet(fleet)


# What is refused leaves everything as it was


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nobodys(monkeypatch, tmp_path)
    return repository(tmp_path / "fleet")


def attempt(
    fleet: Path,
    *,
    public: str | None = None,
    identity: str = "admin",
    how: Admission | None = None,
    place: Path | None = None,
    **options: Any,
) -> None:
    shared = Shared(load_fleet(fleet), Path("/nonexistent"))
    with changing(fleet) as changes:
        about = load_fleet(fleet)
        wanted = trusted(
            Wanted(about, Secrets.load(fleet)), about.hosts["dev"], public or key("dev").public, how or admission()
        )
        wanted = documented(protected(wanted, "dev"), "docs/machines.md")
        path = identity_of(place or fleet.parent, identity)
        publish(changes, wanted, "x", sops=lambda: operator(shared.run, path), say=lambda line: None, **options)
    shared.run.close()


def refused(fleet: Path, words: str, act: Callable[[], None]) -> None:
    before = contents(fleet), git(fleet, "rev-parse", "HEAD"), git(fleet, "status", "--porcelain")
    with pytest.raises(FleetError, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert (contents(fleet), git(fleet, "rev-parse", "HEAD"), git(fleet, "status", "--porcelain")) == before


RSA = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAgCA"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"public": key("doc1").public}, "dev: this is the host key of doc1; each machine needs its own"),
        (
            {"public": "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAgCA"},
            "dev: its host key: it cannot become an age key: it is an ssh-rsa",
        ),
        ({"identity": "igp"}, r"(dev\.yaml|common|settings|sub/).*: this identity is not one of its recipients"),
        ({"identity": "other"}, "this identity is not one of its recipients"),
        ({"how": admission(rules=["nosuch"])}, ".sops.yaml has no rule nosuch; there are secrets/.sops.yaml: rule 1"),
        ({"how": admission(rules=[9])}, ".sops.yaml has no rule 9"),
        ({"how": admission(problem="no")}, "dev: which secrets it declares is not known: no; correct that, or name"),
        ({"how": admission("secrets/x.yaml")}, "dev: secrets/x.yaml: no rule of secrets/.sops.yaml is for it; add"),
        ({"how": admission(replaces=["doc1"])}, "--replace doc1: that is the host key of doc1; take doc1 out first"),
        ({"how": admission(replaces=["nobody"])}, "nobody is called nobody in secrets/.sops.yaml; there are admin"),
    ],
)
def test_wrong_keys_are_refused(fleet: Path, options: dict[str, object], words: str) -> None:
    refused(fleet, words, lambda: attempt(fleet, **options))  # type: ignore[arg-type]


def change(fleet: Path, name: str, old: str, new: str, *, commit: bool = True) -> None:
    text = (fleet / name).read_text()
    assert old in text
    (fleet / name).write_text(text.replace(old, new))
    if commit:
        git(fleet, "commit", "-qam", "changed")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("secrets/common.yaml", "sops:", "<<<<<<< HEAD\nsops:", "a merge was left unfinished there"),
        ("secrets/.sops.yaml", "*igp", "*nobody", "undefined alias"),
        ("secrets/.sops.yaml", "&igp", "&dev", "undefined alias"),
        ("secrets/.sops.yaml", "creation_rules:", "rules:", "the list creation_rules is missing"),
        ("secrets/.sops.yaml", "^dev", "(^dev", "not a regular expression"),
        ("hosts.nix", "placeholder", '" + "placeholder', None),
        ("hosts.nix", 'publicKey = "placeholder";', "inherit (import ./key.nix) publicKey;", "not written here by"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_edited_are_refused(fleet: Path, name: str, old: str, new: str, words: str | None) -> None:
    (fleet / "key.nix").write_text('{ publicKey = "placeholder"; }\n')
    git(fleet, "add", "-A")
    change(fleet, name, old, new)
    if words is None:
        attempt(fleet)
        assert load_fleet(fleet).hosts["dev"].public_key == key("dev").public
        return
    refused(fleet, words, lambda: attempt(fleet))


@pytest.mark.parametrize("name", ["hosts.nix", "secrets/common.yaml", "vms/definitions.nix", "secrets/.sops.yaml"])
def test_a_dirty_file_is_never_changed(fleet: Path, name: str) -> None:
    with (fleet / name).open("a") as file:
        file.write("# mine\n")
    refused(fleet, f"{name}: has changes that are not committed; commit or undo them first", lambda: attempt(fleet))


def test_others_may_be_dirty_and_staged_and_stay_so(fleet: Path) -> None:
    (fleet / "hosts" / "igp.nix").write_text("{ } # mine\n")
    (fleet / "note").write_text("x")
    git(fleet, "add", "note")
    attempt(fleet)
    assert sorted(git(fleet, "status", "--porcelain").splitlines()) == [" M hosts/igp.nix", "A  note"]
    assert git(fleet, "show", "--format=", "--name-only").split() == CHANGED


def test_a_hook_that_refuses_leaves_everything_as_it_was(fleet: Path) -> None:
    hook = fleet / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'not on a Friday' >&2\nexit 1\n")
    hook.chmod(0o755)
    refused(fleet, "git commit: not on a Friday; every file was put back as it was", lambda: attempt(fleet))
    hook.unlink()
    attempt(fleet)


def test_a_merge_that_is_going_on_is_waited_out(fleet: Path) -> None:
    (fleet / ".git" / "MERGE_HEAD").write_text(git(fleet, "rev-parse", "HEAD"))
    with pytest.raises(FleetError, match="a merge is going on; finish or abort it first"):
        attempt(fleet)
    assert recipients(fleet) == BEFORE


def test_without_a_repository_nothing_is_committed_and_that_is_said(fleet: Path) -> None:
    (fleet / ".git").rename(fleet.parent / "git")
    before = contents(fleet)
    with pytest.raises(FleetError, match="is not in a git repository"):
        attempt(fleet)
    assert contents(fleet) == before
    attempt(fleet, commit=False)
    assert recipients(fleet) == WITH_DEV


def test_without_a_commit_new_files_are_known_to_git(fleet: Path) -> None:
    attempt(fleet, commit=False)
    assert git(fleet, "log", "--format=%s").splitlines() == ["the fleet"]
    assert "docs/machines.md" in git(fleet, "ls-files")
    assert recipients(fleet) == WITH_DEV


def test_who_commits_must_be_known(fleet: Path) -> None:
    git(fleet, "config", "user.useConfigOnly", "true")
    git(fleet, "config", "--unset", "user.email")
    refused(fleet, "git does not know who commits", lambda: attempt(fleet))


def test_two_runs_do_not_meet(fleet: Path) -> None:
    with changing(fleet), pytest.raises(FleetError, match="another run is changing this fleet's files"):
        attempt(fleet)


def test_a_file_that_was_tampered_with_is_refused(enrol: Enrol, fleet: Path) -> None:
    text = (fleet / "secrets" / "dev.yaml").read_text()
    at = text.index("data:") + 5
    (fleet / "secrets" / "dev.yaml").write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])
    git(fleet, "commit", "-qam", "tampered")
    before = contents(fleet)
    done = enrol(fleet)
    assert done.returncode != 0
    assert "dev.yaml: it was changed without sops, its MAC does not match; restore it from git" in done.stderr
    assert contents(fleet) == before


def test_an_edit_that_means_something_else_is_refused(fleet: Path, tmp_path: Path) -> None:
    text = NixText("hosts.nix", (fleet / "hosts.nix").read_bytes()).set(("dev", "user"), '"root"')
    with pytest.raises(FleetError, match=r"the edit would change dev\.user to 'root', not to 'admin'"):
        require_exactly(fleet, {"hosts.nix": text}, {}, tmp_path / "scratch")


def test_a_machine_with_a_new_key_takes_its_old_place(fleet: Path) -> None:
    attempt(fleet)
    git(fleet, "tag", "first")
    text = (fleet / "vms/definitions.nix").read_text()
    assert "readonly = true" in text
    attempt(fleet, public=key("other").public)
    assert recipients(fleet) == {
        name: {"other" if each == "dev" else each for each in who} for name, who in WITH_DEV.items()
    }
    config = (fleet / "secrets" / ".sops.yaml").read_text()
    assert f"&dev {key('other').recipient}" in config
    assert key("dev").recipient not in config


# Disks


@pytest.fixture
def mounted(fleet: Path) -> Iterator[Path]:
    """The same fleet on a small file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = fleet.parent / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield repository(place / "fleet")
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_full_disk_changes_nothing(mounted: Path) -> None:
    """Whatever the moment at which the disk is full: before anything is staged, while it is, and for git's objects."""
    before, head = contents(mounted), git(mounted, "rev-parse", "HEAD")
    filler, ended = mounted.parent / "filler", []
    for left in (0, 8, 16, 24, 32, 48, 64, 96, 128, 256):
        free = os.statvfs(mounted).f_bavail * os.statvfs(mounted).f_frsize
        filler.write_bytes(b"\0" * max(free - left * 1024, 0))
        try:
            attempt(mounted, place=mounted.parents[1])
        except (FleetError, OSError):
            ended.append(left)
            filler.unlink()
            assert contents(mounted) == before, f"{left} KiB were left"
            assert git(mounted, "rev-parse", "HEAD") == head
            assert git(mounted, "status", "--porcelain") == ""
        else:
            filler.unlink()
            break
    assert len(ended) > 2, "the disk was never full"
    assert recipients(mounted) == WITH_DEV


@pytest.mark.parametrize("part", ["", "secrets", "vms"])
def test_a_read_only_directory_changes_nothing(fleet: Path, part: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = fleet / part
    for options in (["--bind", place], ["-o", "remount,ro,bind"]):
        done = subprocess.run(["mount", *options, place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        refused(fleet, "cannot be written|is on another file system", lambda: attempt(fleet))
    finally:
        subprocess.run(["umount", place], check=True)
