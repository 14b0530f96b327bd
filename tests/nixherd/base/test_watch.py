"""When a program counts as getting on, by a clock and counters of the test's own."""

import subprocess
import time
from dataclasses import dataclass, field

import pytest

from nixherd.base import waiting
from nixherd.base.waiting import Stalled, Watch, bytes_moved


@dataclass
class World:
    """Seconds gone by, bytes that the program has moved, what the machine shows, and when it was asked."""

    now: float = 0.0
    moved: int | None = 100_000
    there: str | None = "idle"
    asked: list[float] = field(default_factory=list)

    def look(self) -> str | None:
        self.asked.append(self.now)
        return self.there

    def go(self, watch: Watch, seconds: int, *, bytes: int = 0, pid: int = 7) -> None:
        """So long, with so many bytes in each second."""
        for _ in range(seconds):
            self.now += 1.0
            self.moved = None if self.moved is None else self.moved + bytes
            watch(pid)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(time, "monotonic", lambda: world.now)
    monkeypatch.setattr(waiting, "bytes_moved", lambda pid: world.moved)
    return world


def test_two_minutes_without_anything_are_the_end(world: World) -> None:
    watch = Watch("dev: copying to it", there=world.look)
    watch.heard("copying 3 paths...")
    world.go(watch, 119)
    with pytest.raises(Stalled, match=r"^dev: copying to it: no progress for 120 s, so .*; it said last: copying 3 p"):
        world.go(watch, 5)
    assert 3 <= len(world.asked) <= 6


def test_what_keeps_the_connection_alive_is_none(world: World) -> None:
    """And it does not become any by adding up."""
    with pytest.raises(Stalled):
        world.go(Watch("x"), 130, bytes=30)
    assert world.now < 130


@pytest.mark.parametrize("bytes", [200, 100_000])
def test_any_real_line_is_slow_enough(world: World, bytes: int) -> None:
    world.go(Watch("x"), 4 * 3600, bytes=bytes)


def test_a_lock_is_waited_for_however_long_and_then_no_longer(world: World) -> None:
    watch = Watch("x", there=world.look)
    world.go(watch, 10, bytes=50_000)
    watch.heard("waiting for the big Nix store lock...")
    world.go(watch, 3 * 3600, bytes=30)
    assert world.asked == []
    world.go(watch, 5, bytes=100_000)  # it has the lock, and says nothing of it
    with pytest.raises(Stalled):
        world.go(watch, 130, bytes=30)


def test_the_line_after_a_lock_ends_it(world: World) -> None:
    watch = Watch("x")
    watch.heard("waiting for lock on '/nix/store/x.lock'")
    watch.heard("copying path '/nix/store/x' to 'ssh://y'...")
    with pytest.raises(Stalled):
        world.go(watch, 130)


@pytest.mark.parametrize(
    "line",
    [
        "waiting for lock on '/nix/store/x.lock'",
        "waiting for lock on profile '/nix/var/nix/profiles/system'...",
        "waiting for the big garbage collector lock...",
        "waiting for exclusive access to the Nix store...",
        "waiting for auto-GC to finish",
        "remote: waiting for the upload lock to 'x'",
    ],
)
def test_whatever_lock_nix_names(world: World, line: str) -> None:
    watch = Watch("x")
    watch.heard(line)
    world.go(watch, 3600)


def test_what_happens_on_the_machine_counts_and_what_nobody_knows_does_not(world: World) -> None:
    watch = Watch("x", there=world.look)
    for second in range(600):
        world.there = f"{second} ticks"
        world.go(watch, 1)
    world.there = None
    with pytest.raises(Stalled):
        world.go(watch, 150)


def test_one_that_is_begun_anew_has_its_own_two_minutes(world: World) -> None:
    watch = Watch("x")
    world.go(watch, 110)
    world.go(watch, 110, pid=8)
    with pytest.raises(Stalled):
        world.go(watch, 20, pid=8)


def test_where_nothing_is_counted_nothing_is_ended(world: World) -> None:
    world.moved = None
    world.go(Watch("x"), 3600)


def test_a_programs_children_count_with_it() -> None:
    script = "head -c 300000 /dev/zero >/dev/null & wait; head -c 200000 /dev/zero | (cat >/dev/null; sleep 60)"
    process = subprocess.Popen(["sh", "-c", script], start_new_session=True)
    try:
        seen = [0]
        while max(seen) < 400_000:
            found = bytes_moved(process.pid)
            assert found is not None
            seen.append(found)
    finally:
        subprocess.run(["kill", "--", f"-{process.pid}"], check=True)
        process.wait()
    assert bytes_moved(process.pid) is None
