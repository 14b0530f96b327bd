"""One evaluation for all hosts of a run, and what becomes of one that is wrong."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.revisions import Tree
from nixherd.nix import evaluator as evaluation
from nixherd.nix.flakes import Flake
from tests.nixherd.nix.conftest import FakeNix
from tests.shared import Shared


def test_one_evaluation_for_all(shared: Shared, nix: Callable[..., FakeNix]) -> None:
    fake = nix()
    for host_id in ("a", "b", "a"):
        assert shared.evaluator.evaluate(("a", "b"), host_id).host_id == host_id
    assert fake.verbs() == ["eval"]


def test_what_is_evaluated_is_of_the_trees_revision_unless_that_moved_on_meanwhile(
    shared: Shared, nix: Callable[..., FakeNix], monkeypatch: pytest.MonkeyPatch
) -> None:
    nix()
    said = ["4f2c" * 10] * 2 + ["4f2c" * 10, "9ab1" * 10]
    monkeypatch.setattr(Tree, "revision", property(lambda self: said.pop(0)))
    assert shared.evaluator.evaluate(("a",), "a").revision == "4f2c" * 10
    shared.evaluator.forget()
    assert shared.evaluator.evaluate(("a",), "a").revision is None
    assert said == []


def test_a_locked_flake_is_of_the_revision_that_it_is_locked_to(
    shared: Shared, nix: Callable[..., FakeNix], tmp_path: Path
) -> None:
    assert shared.evaluator.source.revision is None
    fake = nix()
    shared.evaluator.source = Flake("git+file:///x?rev=1", tmp_path, "4f2c" * 10)
    assert shared.evaluator.evaluate(("a",), "a").revision == "4f2c" * 10
    assert any("git+file:///x?rev=1" in word for word in fake.calls[0])


def test_a_host_that_is_wrong_leaves_the_others_going(shared: Shared, nix: Callable[..., FakeNix]) -> None:
    fake = nix("bad")
    hosts = ("a", "bad", "none")
    assert shared.evaluator.evaluate(hosts, "a").host_id == "a"
    with pytest.raises(FleetError, match=r"^/fleet: Nix cannot evaluate the fleet: broken$"):
        shared.evaluator.evaluate(hosts, "bad")
    with pytest.raises(FleetError, match=r"^/fleet/flake.nix: it has no nixosConfigurations.none; add it$"):
        shared.evaluator.evaluate(hosts, "none")
    assert len(fake.calls) == 5  # together, by halves, and each of the wrong half; however often it is asked for
    assert shared.evaluator.evaluate(hosts, "a").host_id == "a"
    assert len(fake.calls) == 5


@pytest.mark.parametrize(
    ("cpus", "gib", "calls"),
    [(4, 1024, 4), (2, 1024, 2), (64, 1024, 12), (4, 25, 10), (4, 5, 13), (4, 1, 100)],
)
def test_many_are_evaluated_side_by_side_as_memory_has_room(
    shared: Shared, nix: Callable[..., FakeNix], monkeypatch: pytest.MonkeyPatch, cpus: int, gib: int, calls: int
) -> None:
    fake = nix()
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    monkeypatch.setattr(evaluation, "_available", lambda: gib << 30)
    hosts = tuple(f"h{number:03}" for number in range(100))
    assert {shared.evaluator.evaluate(hosts, host_id).host_id for host_id in hosts} == set(hosts)
    assert len(fake.calls) == calls


@pytest.mark.parametrize("wrong", [0, 41, 99])
def test_one_of_a_hundred_is_found_by_halves(shared: Shared, nix: Callable[..., FakeNix], wrong: int) -> None:
    hosts = tuple(f"h{number:03}" for number in range(100))
    fake = nix(hosts[wrong])
    for host_id in hosts:
        if host_id == hosts[wrong]:
            with pytest.raises(FleetError, match="broken"):
                shared.evaluator.evaluate(hosts, host_id)
        else:
            assert shared.evaluator.evaluate(hosts, host_id).host_id == host_id
    assert len(fake.calls) <= 15


def test_a_flake_that_is_wrong_itself_is_not_looked_through(shared: Shared, nix: Callable[..., FakeNix]) -> None:
    hosts = tuple(f"h{number:03}" for number in range(100))
    fake = nix("h")
    for host_id in hosts:
        with pytest.raises(FleetError, match="broken"):
            shared.evaluator.evaluate(hosts, host_id)
    assert len(fake.calls) == 3


def test_no_more_are_evaluated_at_a_time_than_memory_has_room_for(
    shared: Shared, nix: Callable[..., FakeNix], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = nix()
    monkeypatch.setattr(evaluation, "_available", lambda: 2 << 30)
    hosts = ("a", "b", "c", "d", "e", "f", "g")
    assert [shared.evaluator.evaluate(hosts, host_id).host_id for host_id in hosts] == list(hosts)
    assert len(fake.calls) == 3
    monkeypatch.setattr(evaluation, "_available", lambda: 0)
    assert shared.evaluator.evaluate(("x", "y"), "y").host_id == "y"
    assert len(fake.calls) == 5


def test_a_nix_that_is_not_there_says_so_itself(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(FleetError, match=r"^nix: no such program on PATH; install it, or put it on PATH$"):
        shared.evaluator.evaluate(("a",), "a")


def test_what_is_evaluated_ahead_is_not_evaluated_again(shared: Shared, nix: Callable[..., FakeNix]) -> None:
    """Also for a host less than it began with: one that listens, and then lets nobody in."""
    fake = nix()
    shared.evaluator.ahead(("a", "b", "c"))
    assert shared.evaluator.evaluate(("a", "b"), "a").host_id == "a"
    assert shared.evaluator.evaluate(("a", "b"), "b").host_id == "b"
    assert fake.verbs() == ["eval"]
    assert shared.evaluator.evaluate(("a", "d"), "d").host_id == "d"
    assert fake.verbs() == ["eval", "eval"]
