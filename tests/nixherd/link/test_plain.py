"""Machines that are asked without a run of pyinfra."""

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.base.errors import NotSent, Usage
from nixherd.base.ssh_keys import KeyPair, generate_ed25519
from nixherd.fleet.place import personal_data
from nixherd.link.failures import NoShell, Stranger, Unwelcome
from nixherd.link.link import Surroundings
from nixherd.link.machine import LinkedMachine
from nixherd.link.plain import Login, PlainLink
from nixherd.locate.reach import Epoch
from tests.nixherd.proxmox.conftest import Emulator
from tests.runs import shared_at
from tests.shared import Shared
from tests.sshd import Sshd

pytestmark = pytest.mark.xdist_group("emulator")

PINNED = generate_ed25519("metal")


@pytest.fixture
def shared(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = shared_at(emulator, tmp_path)
    metal = replace(made.fleet.hosts["metal"], public_key=PINNED.public)
    made.fleet = replace(made.fleet, hosts={**made.fleet.hosts, "metal": metal})
    return made


@pytest.fixture
def link(shared: Shared, sshd: Sshd, tmp_path: Path) -> PlainLink:
    data = tmp_path / "data"
    data.mkdir()
    (data / "all.py").write_text(f"ssh_port = {sshd.port}\nssh_key = {str(sshd.key)!r}\nssh_config_file = 'none'\n")
    login = Login.said_in([data])
    assert login is not None
    around = Surroundings(shared.fleet, shared.run, shared.keys, shared.context.hypervisor)
    return PlainLink(around, shared.fleet.hosts["metal"], login)


Start = Callable[..., None]


@pytest.fixture
def start(sshd: Sshd) -> Start:
    def begin(key: KeyPair = PINNED, setup: str = ":") -> None:
        sshd.start(key, system="ID=nixos", setup=setup)

    return begin


def test_it_says_what_it_is_asked(link: PlainLink, start: Start) -> None:
    start()
    machine = LinkedMachine(link)
    with pytest.raises(NotSent, match="metal: not connected"):
        machine.run("true")
    place = link.answering()
    assert (place.address, place.epoch) == ("127.0.0.1", Epoch.FINAL)  # not the first one, where nobody is
    done = machine.run("echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.status) == ("out", "err", 3)
    assert machine.run_forced("echo as it is").stdout == "as it is"
    link.drop()
    assert link.place is None
    assert link.client is None


def test_one_that_ends_without_reading_has_said_why(link: PlainLink, start: Start) -> None:
    """Whoever writes then finds the way closed, which is not the end of the connection."""
    start()
    link.answering()
    assert link.client is not None
    stdin, stdout, stderr = link.client.exec_command("echo no >&2; exit 3")
    while not stdout.channel.channel.closed:
        time.sleep(0.02)
    stdin.write("a secret")
    stdin.close()
    assert [*stdout] == []
    assert [*stderr] == ["no"]
    assert stdout.channel.recv_exit_status() == 3


def test_another_key_is_a_stranger_and_is_told_nothing(link: PlainLink, start: Start, sshd: Sshd) -> None:
    other = generate_ed25519("other")
    start(other)
    with pytest.raises(Stranger, match="shows another host key than the pinned one") as caught:
        link.answering()
    assert caught.value.shown.split() == other.public.split()[:2]
    assert not sshd.contacted


def test_one_that_listens_and_says_nothing(link: PlainLink, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where sshd hangs: the kernel still connects."""
    monkeypatch.setattr("nixherd.link.link.CONNECT_TIMEOUT", 0.5)
    with (
        socket.create_server(("127.0.0.1", sshd.port)),
        pytest.raises(OSError, match=r"no SSH at 127\.0\.0\.1: what listens there speaks no SSH, or not in time"),
    ):
        link.answering()


def test_one_that_takes_none_of_our_keys(link: PlainLink, start: Start) -> None:
    start(setup=": >/run/test/authorized_keys")
    with pytest.raises(Unwelcome, match=r"root@127\.0\.0\.1 accepts none of our keys"):
        link.answering()


def test_a_login_shell_that_runs_nothing(link: PlainLink, start: Start) -> None:
    start(setup="usermod -s /usr/sbin/nologin root")
    link.answering()
    with pytest.raises(NoShell, match="metal: "):
        LinkedMachine(link).run("echo it ran")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exec head -c 9000000 /dev/zero", "more than 4 MiB"),
        ("exec head -c 9000000 /dev/zero >&2", "did not answer within 1 s|more than 4 MiB"),
        ("sleep 30", "did not answer within 1 s"),
        ("while :; do echo; sleep 0.1; done", "did not answer within 1 s"),
        ("exec >&- 2>&-; sleep 30", "did not answer within 1 s|went on, before it told its exit status"),
    ],
)
def test_an_answer_without_an_end_is_given_up(link: PlainLink, start: Start, script: str, words: str) -> None:
    start()
    link.answering()
    machine, deadline = LinkedMachine(link), 1 if "1 s" in words else 60
    for tell in (machine.run, machine.run_forced):
        with pytest.raises(OSError, match=words):
            tell(script, deadline=deadline)


@pytest.mark.parametrize(
    ("file", "text", "is_ours"),
    [
        ("all.py", "ssh_user = 'admin'\nssh_port = 2222\n", True),
        ("all.py", "boot_deadline = 5\n", True),
        ("web.py", "boot_deadline = 5\n", True),
        ("web.py", "ssh_user = 'admin'\n", False),
        ("all.py", "local = True\n", False),
        ("all.py", "ssh_key = '/nonexistent'\n", False),
    ],
)
def test_what_is_said_of_some_hosts_alone_is_pyinfras(tmp_path: Path, file: str, text: str, *, is_ours: bool) -> None:
    (tmp_path / file).write_text(text)
    login = Login.said_in([tmp_path])
    assert (login is not None) == is_ours
    if login and "2222" in text:
        assert (login.data["ssh_user"], login.data["ssh_port"], login.data["ssh_allow_agent"]) == ("admin", 2222, True)


def test_beside_what_is_for_all_nothing_of_the_operators_own_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by pyinfra."""
    monkeypatch.setenv("HOME", str(tmp_path))
    personal = personal_data()
    personal.mkdir(parents=True)
    (personal / "web.py").write_text("raise SystemExit(9)\n")
    assert Login.said_in([personal]) is not None
    (personal / "all.py").write_text("ssh_port = 2222\n")
    login = Login.said_in([tmp_path, personal])
    assert login is not None
    assert login.data["ssh_port"] == 2222


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("boot_dedline = 5", "all.py: boot_dedline: nobody asks for it; write boot_deadline, or another name"),
        ("ssh_port = '22'", "all.py: ssh_port = '22': that is not a port; write a number up to 65535"),
        ("ssh_port = 70000", "all.py: ssh_port = 70000: that is not a port; write a number up to 65535"),
        ("ssh_allow_agent = 'no'", "all.py: ssh_allow_agent = 'no': write True or False"),
        ("ssh_user = 'no body'", "all.py: ssh_user = 'no body': that is not a user's name"),
        ("ssh_key = 3", "all.py: ssh_key = 3: write a text"),
        ("ssh_port = (", "all.py:1: cannot be run: SyntaxError: '(' was never closed; correct it"),
        ("raise SystemExit(3)", "all.py: cannot be run: SystemExit: 3; correct it"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "all.py").write_text(f"{text}\n")
    with pytest.raises(Usage) as caught:
        Login.said_in([tmp_path])
    assert str(caught.value) == f"{tmp_path}/{words}"
