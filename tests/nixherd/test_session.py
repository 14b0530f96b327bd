"""What a run keeps, holds and gives back."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.errors import FleetError
from nixherd.session import HostState, Session
from nixherd.ssh.keys import KeyPair, generate_ed25519, parse_public_key
from tests.nixherd.proxmox.fleets import FLEET, HOST

# A run of its own: holds a place, a lock and a half-written file, says so, and goes on until it is killed.
OTHER_RUN = """
import sys, time, os
from nixherd.session import Session
from tests.nixherd.proxmox.fleets import FLEET
session = Session(FLEET, None)
(session.directory / ".half").write_text("")
session.claim("dev")
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def session_with(public_key: str | None = None) -> Session:
    hosts = {"dev": replace(HOST, id="dev", public_key=public_key), "web": replace(HOST, id="web")}
    return Session(replace(FLEET, hosts=hosts), Path("token"))


def test_a_fleet_by_a_link_is_a_flake_all_the_same(tmp_path: Path) -> None:
    """Nix says of a link that it is no flake; what broke by a change would then have been broken before."""
    (tmp_path / "link").symlink_to(tmp_path / "fleet")
    assert Session(replace(FLEET, path=str(tmp_path / "link")), Path("token")).flake == str(tmp_path / "fleet")


@pytest.fixture
def session() -> Iterator[Session]:
    session = session_with()
    yield session
    session.close()


@contextmanager
def other_run(*, claim: bool = True) -> Iterator[int]:
    """The PID of another run that goes on meanwhile, and is killed then."""
    script = OTHER_RUN if claim else OTHER_RUN.replace('session.claim("dev")', "")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def put(state: HostState, private: str, mode: int = 0o600) -> Path:
    """As an operator does it: the private half alone."""
    state.directory.mkdir(parents=True)
    state.private_key_file.write_text(private)
    state.private_key_file.chmod(mode)
    return state.private_key_file


# The host key


def test_a_private_half_alone_is_a_host_key(session: Session) -> None:
    pair = generate_ed25519("somebody's")
    put(session.state_of("dev"), pair.private_openssh)
    held = session.state_of("dev").host_key()
    assert held == KeyPair(pair.private_openssh, f"{parse_public_key(pair.public).bare} root@{HOST.hostname}")
    assert session_with(pair.public).key_problem("dev") is None
    assert session_with(generate_ed25519("another").public).key_problem("dev") is not None


def test_an_operators_key_is_never_overwritten(session: Session) -> None:
    pair = generate_ed25519("")
    path = put(session.state_of("dev"), pair.private_openssh)
    assert session.key_to_install("dev").private_openssh == pair.private_openssh
    assert path.read_text() == pair.private_openssh


def test_a_public_half_of_another_key_is_not_believed(session: Session) -> None:
    """As two runs at once could leave it."""
    made = session.state_of("dev").ensure_host_key()
    session.state_of("dev").private_key_file.with_suffix(".pub").write_text(generate_ed25519("").public)
    assert session.state_of("dev").host_key() == made


@pytest.mark.parametrize(
    ("private", "mode", "reason"),
    [
        ("", 0o600, "it is no private key in OpenSSH's form, or damaged; "),
        (generate_ed25519("").private_openssh[:200], 0o600, "it is no private key in OpenSSH's form, or damaged; "),
        (generate_ed25519("").public, 0o600, "it is no private key in OpenSSH's form, or damaged; "),
        (generate_ed25519("").private_openssh, 0o644, "others may read this private key (mode 0644); chmod 600 it"),
    ],
    ids=["empty", "cut off", "public", "open"],
)
def test_a_key_that_cannot_be_used_is_one_clear_line(session: Session, private: str, mode: int, reason: str) -> None:
    path = put(session.state_of("dev"), private, mode)
    with pytest.raises(FleetError) as caught:
        session.key_to_install("dev")
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)
    assert session.key_problem("dev") == str(caught.value)
    assert path.read_text() == private
    # what hosts.nix says is enough to reach the machine
    assert session_with("ssh-ed25519 AAAA").pinned_key("dev") == "ssh-ed25519 AAAA"


# What a run holds


@pytest.mark.process
def test_two_runs_do_not_change_one_host(session: Session) -> None:
    with other_run() as pid:
        with pytest.raises(FleetError, match=rf"^dev: another run \(pid {pid}\) works on it; wait for it$"):
            session.claim("dev")
        session.claim("web")
    with session_after() as after:
        after.claim("dev")  # killed: the kernel has given it back
        after.claim("dev")


@contextmanager
def session_after() -> Iterator[Session]:
    session = session_with()
    yield session
    session.close()


def test_the_end_of_a_run_gives_its_hosts_back(session: Session) -> None:
    with session_after() as before:
        before.claim("dev")
        with pytest.raises(FleetError, match="another run"):
            session_with().claim("dev")
    session.claim("dev")


@pytest.mark.process
def test_only_the_places_of_dead_runs_are_removed() -> None:
    runs = session_with().state_directory / ".runs"
    with other_run() as pid:
        with session_after() as session:
            assert session.gc_roots.is_dir()
            assert {each.name.partition("-")[0] for each in runs.glob("*/")} > {str(pid)}
        [left] = runs.glob("*/")
        assert (left / ".half").exists()
    assert left.exists()
    with session_after() as session:
        assert [session.directory] == [*runs.glob("*/")]
    assert [*runs.glob("*/")] == []


def test_half_written_files_are_not_left_among_those_that_are_kept(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a temporary file is made when we are killed before it has its name."""
    seen: list[Path] = []

    def rename(path: Path, target: Path) -> Path:
        seen.append(path.parent)
        return path.rename(target)

    monkeypatch.setattr(Path, "replace", rename)
    session.state_of("dev").note("installed", "x")
    assert seen == [session.directory]
    assert session.state_of("dev").noted("installed") == "x"


@pytest.mark.process
def test_places_are_taken_by_many_at_once() -> None:
    """Nobody takes the place of one that is just being made for an abandoned one."""
    with ExitStack() as stack:
        alive = [stack.enter_context(other_run(claim=False)) for _ in range(4)]
        runs = session_with().state_directory / ".runs"
        assert {int(each.parent.name.partition("-")[0]) for each in runs.glob("*/.half")} == set(alive)
