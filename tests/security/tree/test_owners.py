"""Whose the tree is decides whether it is read."""

import grp
import os
import pwd
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import FleetInvalid, Refused
from nixherd.fleet import world
from nixherd.fleet.load import load_fleet
from nixherd.fleet.world import look
from nixherd.nix.flakes import lock_flake
from nixherd.proxmox.hypervisor import Definitions
from tests.security.tree.conftest import MakeFleet, say

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to somebody else")


# Whose it is


@pytest.fixture
def somebody() -> int:
    """A user that is not root."""
    return pwd.getpwnam("nobody").pw_uid


@NEEDS_ROOT
@pytest.mark.parametrize("what", [".", "hosts.nix", "vms", "vms/definitions.nix", ".git"])
def test_a_tree_of_somebody_else_is_refused(
    repository: Path, somebody: int, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    os.chown(repository / what, somebody, -1)
    place = (repository / what).resolve()
    with pytest.raises(Refused) as caught:
        load_fleet(repository)
    assert str(caught.value) == (
        f"{place}: belongs to nobody, who could decide what is done here; chown it, or set "
        f"NIXHERD_SAFE_DIRECTORY={repository} to allow it"
    )
    monkeypatch.setenv("NIXHERD_SAFE_DIRECTORY", "/elsewhere")
    with pytest.raises(Refused):
        load_fleet(repository)
    for word in (str(repository), f"/elsewhere:{repository}/", "*"):
        monkeypatch.setenv("NIXHERD_SAFE_DIRECTORY", word)
        assert load_fleet(repository).hosts


@NEEDS_ROOT
def test_it_is_refused_in_the_middle_of_a_run_too(repository: Path, somebody: int) -> None:
    loaded = Definitions.load(repository)
    os.chown(repository, somebody, -1)
    with pytest.raises(Refused, match=r"belongs to nobody.*; refusing any change"):
        loaded.policy()
    os.chown(repository, 0, -1)
    assert loaded.policy().may_change(110)


@NEEDS_ROOT
def test_whoever_called_sudo_may_have_it(repository: Path, somebody: int, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["chown", "-R", str(somebody), repository], check=True)
    monkeypatch.setenv("SUDO_UID", str(somebody))
    assert load_fleet(repository).hosts
    monkeypatch.setenv("SUDO_UID", str(somebody - 1))
    with pytest.raises(Refused, match="belongs to nobody"):
        load_fleet(repository)


@pytest.mark.parametrize("what", [".", "hosts.nix", "vms", "vms/definitions.nix"])
def test_a_tree_that_everybody_may_write_is_refused(repository: Path, what: str) -> None:
    place = (repository / what).resolve()
    place.chmod(place.stat().st_mode | 0o002)
    with pytest.raises(
        Refused, match=rf"^{place}: can be written by everybody, .*; chmod go-w it, or set NIXHERD_SAFE"
    ):
        load_fleet(repository)


def test_a_repository_around_it_counts(make_fleet: MakeFleet) -> None:
    directory = make_fleet(name="repository/way/fleet")
    (directory.parents[1] / ".git").mkdir()
    for place in directory.parents[:2]:
        place.chmod(0o757)
        with pytest.raises(Refused, match=rf"^{place}: can be written by everybody"):
            load_fleet(directory)
        place.chmod(0o755)
    assert load_fleet(directory).hosts


@NEEDS_ROOT
def test_a_group_counts_when_somebody_else_is_in_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = grp.getgrnam("mail").gr_gid
    os.chown(repository, -1, group)
    repository.chmod(0o775)
    monkeypatch.setattr(world, "_members", lambda gid: frozenset({os.geteuid(), 0}))
    assert load_fleet(repository).hosts
    monkeypatch.setattr(world, "_members", lambda gid: frozenset({os.geteuid(), 65534}))
    with pytest.raises(Refused, match="can be written by the group mail, which nobody is in"):
        load_fleet(repository)


def test_who_is_in_a_group() -> None:
    for group in grp.getgrall():
        names = {pwd.getpwuid(uid).pw_name for uid in world._members(group.gr_gid)}
        known = {name for name in group.gr_mem if name in {user.pw_name for user in pwd.getpwall()}}
        assert known <= names
    assert pwd.getpwnam("nobody").pw_uid in world._members(pwd.getpwnam("nobody").pw_gid)
    assert world._members(987_654) == frozenset()


@NEEDS_ROOT
def test_a_file_of_somebody_else_in_our_tree_cannot_be_read(repository: Path, somebody: int) -> None:
    (repository / "theirs.nix").write_text("1")
    assert load_fleet(repository).hosts
    os.chown(repository / "theirs.nix", somebody, -1)
    assert load_fleet(repository).hosts  # nobody reads it
    for expression in ("import ./theirs.nix", "builtins.readFile ./theirs.nix"):
        say(repository, expression)
        with pytest.raises(
            FleetInvalid, match=r"hosts\.nix:7:\d+: builtins\.\w+: theirs\.nix belongs to nobody; chown it$"
        ):
            load_fleet(repository)


def test_a_path_of_the_store_is_roots(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    directory = make_fleet()
    (directory / "flake.nix").write_text("{ outputs = _: { }; }")
    found = lock_flake(f"path:{directory}").path
    assert look(found).root == str(found)
    assert load_fleet(found).hosts
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert look(found).fingerprint


def test_what_we_may_not_enter_is_not_seen(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "data").mkdir()
    scandir = os.scandir

    def denied(path: str) -> Any:
        if path == f"{repository}/data":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert load_fleet(repository).hosts
    say(repository, "builtins.pathExists ./data/x")
    with pytest.raises(FleetInvalid, match=r"hosts\.nix:7:\d+: .*data cannot be read; see to its rights$"):
        load_fleet(repository)


def test_gits_own_directory_is_no_fleet(make_fleet: MakeFleet) -> None:
    directory = make_fleet(name="repository/.git/fleet")
    with pytest.raises(Refused, match="lies in git's own directory"):
        load_fleet(directory)


def test_many_files_are_looked_at_in_little_time(repository: Path) -> None:
    for number in range(30):
        directory = repository / "data" / str(number)
        directory.mkdir(parents=True)
        for each in range(100):
            (directory / f"{each}.txt").touch()
    began = time.process_time()
    assert len(look(repository).fingerprint) > 3000
    assert time.process_time() - began < 1  # 15 ms by itself
