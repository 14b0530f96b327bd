"""One evaluation and one build for all hosts of a run, and what becomes of one that is wrong."""

import json
import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nixherd.errors import FleetError, ProcessFailed
from nixherd.nix import builder as module
from nixherd.nix import evaluator as evaluation
from nixherd.nix.builder import build, kexec_tarball, require_installer
from nixherd.nix.evaluator import evaluate, evaluate_ahead
from nixherd.process import Completed
from nixherd.session import Session, ahead
from tests.nixherd.nix.test_commands import described
from tests.nixherd.proxmox.fleets import FLEET


def about(*host_ids: str) -> str:
    """What Nix says of these hosts; None of those called `none`."""
    one = json.loads(described())["dev"]
    return json.dumps({host_id: None if host_id == "none" else one for host_id in host_ids})


class FakeNix:
    """Records how it is called; `broken` hosts cannot be evaluated or built, alone or with others."""

    def __init__(self, out: Path, *broken: str) -> None:
        self.out, self.broken, self.calls = out, broken, list[list[str]]()

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        words = list(argv)
        self.calls.append(words)
        if words[-1] == "builtins.attrNames":
            return Completed('["kexec-installer", "other"]', "", 0)
        hosts = re.search(r'fromJSON ("(?:[^"\\]|\\.)*")', words[-1])
        asked: list[str] = json.loads(json.loads(hosts[1])) if hosts else []
        if any(name in word for name in self.broken for word in asked or words[1:]):
            raise ProcessFailed("status 1", 1, "error: broken\n")
        return Completed(about(*asked) if asked else f"{self.out}\n", "", 0)

    def verbs(self) -> list[str]:
        return [next(word for word in call if word in ("eval", "build")) for call in self.calls]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Session(FLEET, tmp_path / "token")


@pytest.fixture
def nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeNix]:
    def make(*broken: str) -> FakeNix:
        fake = FakeNix(tmp_path / "out", *broken)
        for each in (module, evaluation):
            monkeypatch.setattr(each, "run", fake)
        monkeypatch.setattr(evaluation, "_available", lambda: 1 << 40)
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
        return fake

    return make


def test_one_evaluation_for_all(session: Session, nix: Callable[..., FakeNix]) -> None:
    fake = nix()
    for host_id in ("a", "b", "a"):
        assert evaluate(session, ("a", "b"), host_id).host_id == host_id
    assert fake.verbs() == ["eval"]


def test_what_is_evaluated_is_of_the_trees_revision_unless_that_moved_on_meanwhile(
    session: Session, nix: Callable[..., FakeNix], monkeypatch: pytest.MonkeyPatch
) -> None:
    nix()
    said = ["4f2c" * 10] * 2 + ["4f2c" * 10, "9ab1" * 10]
    monkeypatch.setattr(Session, "revision", property(lambda self: said.pop(0)))
    assert evaluate(session, ("a",), "a").revision == "4f2c" * 10
    session.forget("evaluate")
    assert evaluate(session, ("a",), "a").revision is None
    assert said == []


def test_a_locked_flake_is_of_the_revision_that_it_is_locked_to(session: Session) -> None:
    assert session.revision is None
    session.locked, session.locked_revision = "git+file:///x?rev=1", "4f2c" * 10
    assert session.revision == "4f2c" * 10


def test_a_host_that_is_wrong_leaves_the_others_going(session: Session, nix: Callable[..., FakeNix]) -> None:
    fake = nix("bad")
    hosts = ("a", "bad", "none")
    assert evaluate(session, hosts, "a").host_id == "a"
    with pytest.raises(FleetError, match=r"^/fleet: Nix cannot evaluate the fleet: broken$"):
        evaluate(session, hosts, "bad")
    with pytest.raises(FleetError, match=r"^/fleet/flake.nix: it has no nixosConfigurations.none; add it$"):
        evaluate(session, hosts, "none")
    assert len(fake.calls) == 5  # together, by halves, and each of the wrong half; however often it is asked for
    assert evaluate(session, hosts, "a").host_id == "a"
    assert len(fake.calls) == 5


@pytest.mark.parametrize(
    ("cpus", "gib", "calls"),
    [(4, 1024, 4), (2, 1024, 2), (64, 1024, 12), (4, 25, 10), (4, 5, 13), (4, 1, 100)],
)
def test_many_are_evaluated_side_by_side_as_memory_has_room(
    session: Session, nix: Callable[..., FakeNix], monkeypatch: pytest.MonkeyPatch, cpus: int, gib: int, calls: int
) -> None:
    fake = nix()
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    monkeypatch.setattr(evaluation, "_available", lambda: gib << 30)
    hosts = tuple(f"h{number:03}" for number in range(100))
    assert {evaluate(session, hosts, host_id).host_id for host_id in hosts} == set(hosts)
    assert len(fake.calls) == calls


@pytest.mark.parametrize("wrong", [0, 41, 99])
def test_one_of_a_hundred_is_found_by_halves(session: Session, nix: Callable[..., FakeNix], wrong: int) -> None:
    hosts = tuple(f"h{number:03}" for number in range(100))
    fake = nix(hosts[wrong])
    for host_id in hosts:
        if host_id == hosts[wrong]:
            with pytest.raises(FleetError, match="broken"):
                evaluate(session, hosts, host_id)
        else:
            assert evaluate(session, hosts, host_id).host_id == host_id
    assert len(fake.calls) <= 15


def test_a_flake_that_is_wrong_itself_is_not_looked_through(session: Session, nix: Callable[..., FakeNix]) -> None:
    hosts = tuple(f"h{number:03}" for number in range(100))
    fake = nix("h")
    for host_id in hosts:
        with pytest.raises(FleetError, match="broken"):
            evaluate(session, hosts, host_id)
    assert len(fake.calls) == 3


def test_no_more_are_evaluated_at_a_time_than_memory_has_room_for(
    session: Session, nix: Callable[..., FakeNix], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = nix()
    monkeypatch.setattr(evaluation, "_available", lambda: 2 << 30)
    hosts = ("a", "b", "c", "d", "e", "f", "g")
    assert [evaluate(session, hosts, host_id).host_id for host_id in hosts] == list(hosts)
    assert len(fake.calls) == 3
    monkeypatch.setattr(evaluation, "_available", lambda: 0)
    assert evaluate(session, ("x", "y"), "y").host_id == "y"
    assert len(fake.calls) == 5


def test_one_build_for_all_held_by_gc_roots(session: Session, nix: Callable[..., FakeNix]) -> None:
    fake = nix()
    for host_id in ("a", "b"):
        build(session, ("a", "b"), host_id)
    assert fake.verbs() == ["eval", "build"]
    link = fake.calls[-1][fake.calls[-1].index("--out-link") + 1]
    assert Path(link).is_relative_to(session.state_directory)
    assert Path(link).parent.is_dir()


def test_a_build_that_fails_fails_who_needs_it(session: Session, nix: Callable[..., FakeNix]) -> None:
    nix(".drv")
    with pytest.raises(FleetError, match=r"^/fleet: nix build failed: broken$"):
        build(session, ("a", "b"), "a")


def test_what_is_begun_ahead_is_waited_for_and_its_error_is_seen_later(
    session: Session, nix: Callable[..., FakeNix]
) -> None:
    nix("kexec-installer")
    before = threading.active_count()
    ahead(lambda: kexec_tarball(session))
    with pytest.raises(FleetError, match="nix build failed"):
        kexec_tarball(session)
    while threading.active_count() > before:
        threading.Event().wait(0.01)


def test_the_installer_is_a_tarball_of_the_flakes(session: Session, nix: Callable[..., FakeNix]) -> None:
    fake = nix()
    require_installer(session)
    fake.out.mkdir()
    with pytest.raises(FleetError, match=r"kexec-installer holds no .tar.gz; take it from nixos-images"):
        kexec_tarball(session)
    session._memo.clear()
    (fake.out / "installer.tar.gz").touch()
    assert kexec_tarball(session) == fake.out / "installer.tar.gz"


def test_a_nix_that_is_not_there_says_so_itself(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(FleetError, match=r"^nix: no such program on PATH; install it, or put it on PATH$"):
        evaluate(session, ("a",), "a")


def test_what_is_evaluated_ahead_is_not_evaluated_again(session: Session, nix: Callable[..., FakeNix]) -> None:
    """Also for a host less than it began with: one that listens, and then lets nobody in."""
    fake = nix()
    evaluate_ahead(session, ("a", "b", "c"))
    assert evaluate(session, ("a", "b"), "a").host_id == "a"
    assert evaluate(session, ("a", "b"), "b").host_id == "b"
    assert fake.verbs() == ["eval"]
    assert evaluate(session, ("a", "d"), "d").host_id == "d"
    assert fake.verbs() == ["eval", "eval"]
