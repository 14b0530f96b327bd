"""The connector against users whose login shell prints, is not POSIX, or is not there: one sshd with all of them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.host import Host

from nixherd.base.ssh_keys import KeyPair, generate_ed25519
from nixherd.deploy.report import Journal, entries
from nixherd.facts.nixos import BootedSystem, CurrentSystem, Generations
from nixherd.link.failures import NoShell
from nixherd.pyinfra_glue.fleet import FleetConnector
from tests.nixherd.proxmox.conftest import Emulator
from tests.runs import Said, connected, executing, said_by, shared_at
from tests.shared import Shared
from tests.sshd import Sshd, free_port

pytestmark = pytest.mark.xdist_group("emulator")

NOISY = {
    "bash": (".bashrc", "echo path=/nix/store/evil; echo mind the gap >&2; trap 'echo bye' EXIT", ".bashrc"),
    "zsh": (".zshenv", "printf 'no newline'", ".zshenv"),
    "fish": (".config/fish/config.fish", "echo hello\necho oh >&2", ".config/fish/config.fish"),
    "tcsh": (".cshrc", "echo 'hello there'", ".tcshrc or .cshrc"),
}
BROKEN = {
    "nologin": ("/usr/sbin/nologin", 'runs no command there, and says "This account is currently not available."'),
    "noscript": ("/home/noscript/shell", "/home/noscript/shell, cannot be started there (No such file or directory)"),
    "true": ("/usr/bin/true", "runs no command there, and says nothing"),
}
SETUP = """\
n=1000
user() {
  n=$((n + 1)); mkdir -p "/home/$1"
  echo "$1:x:$n:$n::/home/$1:$2" >>/etc/passwd; echo "$1:*:1::::::" >>/etc/shadow
}
user tidy /usr/bin/sh; user gone /usr/bin/gone; touch /usr/bin/gone; chmod +x /usr/bin/gone
mkdir -p /home/fish/.config/fish /home/noscript
printf '#!/usr/bin/no-such-shell\n' >/home/noscript/shell; chmod +x /home/noscript/shell
""" + "\n".join(
    [
        *(f"user {name} /usr/bin/{name}" for name in NOISY),
        *(f"user {name} {shell}" for name, (shell, _) in BROKEN.items()),
        *(f"cat >/home/{name}/{file} <<'END'\n{text}\nEND" for name, (file, text, _) in NOISY.items()),
        "rm /usr/bin/gone",
    ]
)


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return generate_ed25519("host")


@pytest.fixture(scope="module")
def machine(
    base_root: Path, operator_key: Path, pair: KeyPair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sshd]:
    machine = Sshd(base_root, tmp_path_factory.mktemp("sshd"), free_port(), operator_key)
    machine.start(pair, system="ID=nixos", setup=SETUP)
    yield machine
    machine.kill()


@pytest.fixture
def shared(emulator: Emulator, pair: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shared = shared_at(emulator, tmp_path)
    metal = replace(shared.host("metal"), public_key=pair.public, addresses=("127.0.0.1",))
    shared.fleet = replace(shared.fleet, hosts={"metal": metal})
    shared.run.journal = Journal(tmp_path / "journal")
    return shared


Login = Callable[[str], Host]


@pytest.fixture
def login(shared: Shared, machine: Sshd) -> Login:
    def login(user: str) -> Host:
        data: dict[str, Any] = {"ssh_port": machine.port, "ssh_key": str(machine.key), "ssh_user": user}
        return executing(connected(shared, "metal", **data))

    return login


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Said:
    return said_by(caplog)


@pytest.mark.parametrize("shell", NOISY)
def test_an_answer_is_what_was_asked_and_the_noise_is_named_once(
    login: Login, shared: Shared, logged: Said, shell: str
) -> None:
    host = login(shell)
    for _ in range(2):
        ok, output = host.run_shell_command("printf '%s\\n' \"it's\" 'a!b' 'two\nlines'; echo wrong >&2; exit 3")
        assert (ok, output.stdout_lines, output.stderr_lines) == (False, ["it's", "a!b", "two", "lines"], ["wrong"])
    ok, output = host.run_shell_command("cat; id -un", _stdin=["given"], _shell_executable="bash")
    assert (ok, output.stdout_lines) == (True, ["given", shell])
    [warning] = [line for line in logged() if "the login shell there prints" in line]
    printed, file = NOISY[shell][1:]
    assert warning.startswith('the login shell there prints "')
    assert f"; /home/{shell}/{file}, or what it reads, prints it in every command: " in warning
    assert warning.partition('"')[2].partition('"')[0].split(" ⏎ ")[0] in printed
    assert isinstance(shared.run.journal, Journal)
    [found] = [entry for entry in entries(shared.run.journal.directory) if entry["event"] == "found"]
    assert (found["host"], found["login_shell"]) == ("metal", warning)


def test_facts_do_not_take_noise_for_an_answer(login: Login) -> None:
    host = login("bash")
    assert host.get_fact(CurrentSystem) is None
    assert host.get_fact(Generations) == []
    assert host.get_fact(BootedSystem) is None


@pytest.mark.parametrize("user", BROKEN)
def test_a_shell_that_runs_nothing_is_an_error_of_its_own(login: Login, user: str) -> None:
    host = login(user)
    with pytest.raises(NoShell) as error:
        host.run_shell_command("true")
    assert str(error.value).startswith(f"metal: the login shell of {user}")
    assert BROKEN[user][1] in str(error.value)
    assert f"users.users.{user}.shell" in str(error.value)


def test_a_user_whose_shell_is_gone_is_let_in_nowhere(login: Login, logged: Said) -> None:
    assert not login("gone").connected
    assert "look whether the login shell of gone exists there" in "\n".join(logged())


@pytest.mark.parametrize("protocol", ["sftp", "scp"])
def test_files_cannot_be_sent_past_a_shell_that_prints(login: Login, protocol: str) -> None:
    host = login("bash")
    connector = host.connector
    assert isinstance(connector, FleetConnector)
    connector.data["ssh_file_transfer_protocol"] = protocol
    host.run_shell_command("true")
    with pytest.raises(OSError, match=f"metal: no files can be sent there by {protocol}: the login shell there prints"):
        host.put_file(StringIO("text"), "/tmp/file")
    with pytest.raises(OSError, match=r"which breaks .*; /home/bash/\.bashrc, or what it reads"):
        host.get_file("/etc/passwd", StringIO())
    assert login("tidy").put_file(StringIO("text"), "/tmp/file")
