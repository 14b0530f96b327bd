"""What a run keeps, holds and gives back."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.base.run import Run
from tests.nixherd.proxmox.fleets import FLEET

# A run of its own: holds a place, a lock and a half-written file, says so, and goes on until it is killed.
OTHER_RUN = """
import sys, time, os
from nixherd.base.run import Run
from tests.nixherd.proxmox.fleets import FLEET
run = Run(FLEET.id)
(run.directory / ".half").write_text("")
run.claim("dev")
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def run() -> Iterator[Run]:
    run = Run(FLEET.id)
    yield run
    run.close()


@contextmanager
def other_run(*, claim: bool = True) -> Iterator[int]:
    """The PID of another run that goes on meanwhile, and is killed then."""
    script = OTHER_RUN if claim else OTHER_RUN.replace('run.claim("dev")', "")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


@pytest.mark.process
def test_two_runs_do_not_change_one_host(run: Run) -> None:
    with other_run() as pid:
        with pytest.raises(FleetError, match=rf"^dev: another run \(pid {pid}\) works on it; wait for it$"):
            run.claim("dev")
        run.claim("web")
    with run_after() as after:
        after.claim("dev")  # killed: the kernel has given it back
        after.claim("dev")


@contextmanager
def run_after() -> Iterator[Run]:
    run = Run(FLEET.id)
    yield run
    run.close()


def test_the_end_of_a_run_gives_its_hosts_back(run: Run) -> None:
    with run_after() as before:
        before.claim("dev")
        with pytest.raises(FleetError, match="another run"):
            Run(FLEET.id).claim("dev")
    run.claim("dev")


def test_a_lock_whose_holder_cannot_be_read_is_held_all_the_same(run: Run) -> None:
    with run_after() as before:
        before.claim("dev")
        (run.state_directory / ".runs" / "dev.lock").write_bytes(b"\xff")
        with pytest.raises(FleetError, match=r"^dev: another run \(pid unknown\) works on it; wait for it$"):
            run.claim("dev")


@pytest.mark.process
def test_only_the_places_of_dead_runs_are_removed() -> None:
    runs = Run(FLEET.id).state_directory / ".runs"
    with other_run() as pid:
        with run_after() as run:
            assert run.gc_roots.is_dir()
            assert {each.name.partition("-")[0] for each in runs.glob("*/")} > {str(pid)}
        [left] = runs.glob("*/")
        assert (left / ".half").exists()
    assert left.exists()
    with run_after() as run:
        assert [run.directory] == [*runs.glob("*/")]
    assert [*runs.glob("*/")] == []


def test_half_written_files_are_not_left_among_those_that_are_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a temporary file is made when we are killed before it has its name."""
    seen: list[Path] = []

    def rename(path: Path, target: Path) -> Path:
        seen.append(path.parent)
        return path.rename(target)

    monkeypatch.setattr(Path, "replace", rename)
    run.state_of("dev").note("installed", "x")
    assert seen == [run.directory]
    assert run.state_of("dev").noted("installed") == "x"


@pytest.mark.process
def test_places_are_taken_by_many_at_once() -> None:
    """Nobody takes the place of one that is just being made for an abandoned one."""
    with ExitStack() as stack:
        alive = [stack.enter_context(other_run(claim=False)) for _ in range(4)]
        runs = Run(FLEET.id).state_directory / ".runs"
        assert {int(each.parent.name.partition("-")[0]) for each in runs.glob("*/.half")} == set(alive)
