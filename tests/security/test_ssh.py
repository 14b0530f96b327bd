"""SSH says what we say: nothing of the operator's or the system's ssh_config has a part in a pinned connection, but
for the closed list in `nixherd.ssh.ssh_config`; hops are verified; a copy that does not get on ends."""

import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paramiko import SSHClient, SSHException
from pyinfra.api.host import Host

from nixherd.deploy import stalls
from nixherd.deploy.stalls import Stalled
from nixherd.fleet import models
from nixherd.locate import reach
from nixherd.pyinfra_glue.fleet import FleetConnector
from nixherd.session import Session
from nixherd.ssh.destination import Destination, Identities, Jump, Route
from nixherd.ssh.keys import KeyPair, generate_ed25519, known_hosts_line
from operations import remote
from tests.nixherd.conftest import base_root, operator_key, sshd  # noqa: F401  (fixtures)
from tests.nixherd.proxmox.conftest import Emulator, emulator, started  # noqa: F401  (fixtures)
from tests.runs import connected, executing, session_at, vm
from tests.sshd import Sshd

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("emulator")]

# What others have in their files, or may have put there; {tmp} is a directory that others write to.
HOSTILE = {
    "agent": "ForwardAgent yes\nAddKeysToAgent yes",
    "agent at a path": "ForwardAgent {tmp}/agent.sock",
    "x11": "ForwardX11 yes\nForwardX11Trusted yes\nXAuthLocation {tmp}/xauth",
    "localhost": "NoHostAuthenticationForLocalhost yes\nCheckHostIP no",
    "gssapi": "GSSAPIAuthentication yes\nGSSAPIKeyExchange yes\nGSSAPIDelegateCredentials yes\nGSSAPITrustDns yes",
    "forwards": "RemoteForward 9999 127.0.0.1:22\nLocalForward 9998 127.0.0.1:22\nDynamicForward 9997",
    "environment": "SendEnv *\nSetEnv LD_PRELOAD={tmp}/evil.so\nSendEnv AWS_*",
    "local command": "PermitLocalCommand yes\nLocalCommand touch {tmp}/local-command",
    "terminal": "RequestTTY force\nEscapeChar ~",
    "remote command": "RemoteCommand touch /evil\nRequestTTY yes",
    "nothing to read": "StdinNull yes\nForkAfterAuthentication yes\nSessionType none",
    "subsystem": "SessionType subsystem",
    "noise": "LogLevel DEBUG3\nVisualHostKey yes\nLogVerbose *",
    "silence": "LogLevel QUIET\nSyslogFacility AUTH",
    "tunnel": "Tunnel yes\nTunnelDevice any:any\nExitOnForwardFailure yes",
    "other names": "CanonicalizeHostname always\nCanonicalDomains evil.example\nCanonicalizeMaxDots 9",
    "other key": "HostKeyAlias evil\nHostKeyAlgorithms ssh-rsa\nRevokedHostKeys {tmp}/revoked",
    "key from a command": "KnownHostsCommand {tmp}/keys %H",
    "key from dns": "VerifyHostKeyDNS yes\nUpdateHostKeys yes\nFingerprintHash md5",
    "any key": "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nGlobalKnownHostsFile {tmp}/known",
    "new keys": "StrictHostKeyChecking accept-new\nHashKnownHosts yes\nUserKnownHostsFile none",
    "a master of somebody's": "ControlMaster auto\nControlPath {tmp}/%C\nControlPersist yes",
    "weak": "Ciphers 3des-cbc\nMACs hmac-md5\nKexAlgorithms diffie-hellman-group1-sha1\nCompression yes",
    "tokens": "SecurityKeyProvider {tmp}/evil.so\nPKCS11Provider {tmp}/evil.so",
    "questions": "BatchMode no\nNumberOfPasswordPrompts 9\nPreferredAuthentications password,keyboard-interactive",
    "hosts": "HostbasedAuthentication yes\nEnableSSHKeysign yes\nPubkeyAuthentication no",
    "patience": "ConnectTimeout 9999\nConnectionAttempts 99\nServerAliveInterval 0\nTCPKeepAlive no\nRekeyLimit 1K",
    "another user": "User mallory\nIPQoS none\nStreamLocalBindUnlink yes\nProxyUseFdpass yes",
    "an include": "Include {tmp}/included",
    "a match": 'Match exec "true"\n  ForwardAgent yes\n  StrictHostKeyChecking no',
}


GATE = generate_ed25519("a hop that is a host of the fleet")


def written(text: str, tmp: Path) -> str:
    (tmp / "included").write_text("ForwardAgent yes\nStrictHostKeyChecking no\n")
    return text.replace("{tmp}", str(tmp)) + "\n"


def _not_nixos(session: Session) -> models.Host:
    """The host that this very machine stands for, which runs another system: what answers is what is meant."""
    return replace(session.fleet.hosts["metal"], configuration_file=None)


@pytest.fixture
def session(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:  # noqa: F811
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "home" / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(reach, "address_of", lambda config, interfaces: interfaces[0].addresses[0])
    session = session_at(emulator, tmp_path)
    metal = replace(_not_nixos(session), ssh_alias=None, hostname="metal")
    gate = replace(metal, id="Gate", hostname="gate", public_key=GATE.public, addresses=None)
    session.fleet = replace(session.fleet, hosts={**session.fleet.hosts, "metal": metal, "Gate": gate})
    yield session
    session.close()


@pytest.fixture
def run(session: Session, sshd: Sshd) -> Callable[..., Host]:  # noqa: F811
    def start(host_id: str = "metal", **data: Any) -> Host:
        return connected(session, host_id, **{"ssh_port": sshd.port, "ssh_key": str(sshd.key), **data})

    return start


def connector_of(host: Host) -> FleetConnector:
    assert isinstance(host.connector, FleetConnector)
    return host.connector


def configure(text: str) -> None:
    file = Path.home() / ".ssh" / "config"
    file.write_text(text)
    file.chmod(0o600)


def new_key(name: str = "host") -> KeyPair:
    return generate_ed25519(name)


# OpenSSH

# $1 is the operator's configuration, $2 the system's
OVER = 'mount --bind "$1" "$HOME/.ssh" && mount --bind "$2" /etc/ssh && shift 2 && exec "$@"'


def effective(argv: list[str], text: str, directory: Path) -> dict[str, list[str]]:
    """What OpenSSH goes by when the operator's and the system's files say this."""
    user, system = directory / "user", directory / "system"
    for each, name in ((user, "config"), (system, "ssh_config")):
        shutil.rmtree(each, ignore_errors=True)
        each.mkdir(mode=0o700)
        (each / name).write_text(text)
        (each / name).chmod(0o600)
    over: list[str | Path] = ["unshare", "--mount", "sh", "-ec", OVER, "sh", user, system, *argv]
    home = os.path.expanduser(f"~{os.environ.get('USER') or 'root'}")  # noqa: PTH111  the password database's
    done = subprocess.run(over, capture_output=True, text=True, check=True, env={**os.environ, "HOME": home})
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="putting files over ~/.ssh and /etc/ssh needs root")


@needs_root
def test_openssh_goes_by_the_same_options_whatever_stands_in_its_files(tmp_path: Path) -> None:
    """Each way that we tell OpenSSH of a connection, under each configuration."""
    to = Destination("127.0.0.1", "root", Path("/state/known"), port=2222, identity=Path("/k"))
    config = tmp_path / "config"
    hop = Jump("bastion", "192.0.2.1", 22, "me", (Path("/known"),), identities=Identities((Path("/k"),)))
    there = replace(to, route=Route(jumps=(hop,)), config=config)
    config.write_text(there.text)
    assert there.carrier
    ways = {
        "argv": to.argv("true")[1:-1],
        "NIX_SSHOPTS": [*shlex.split(to.nix_sshopts), "--", to.target],
        "a file": there.argv("true")[1:-1],
        "the hop": [word for word in there.carrier[1:] if word not in ("-W", "127.0.0.1:2222")],
    }
    for way, words in ways.items():
        clean = effective(["ssh", "-G", *words], "", tmp_path)
        assert clean["identityfile"] == ["/k"]
        for name, text in HOSTILE.items():
            found = effective(["ssh", "-G", *words], f"Host *\n{written(text, tmp_path)}", tmp_path)
            changed = {keyword for keyword in clean.keys() | found.keys() if clean.get(keyword) != found.get(keyword)}
            assert not changed, f"{way}: {name}"


@pytest.mark.parametrize("name", ["192.0.2.7", "2001:db8::7", "[2001:db8::7]", "alias"])
def test_whatever_name_a_program_has_for_it_the_key_is_the_pinned_one(tmp_path: Path, name: str) -> None:
    """Nix has brackets around an address of its own choosing; a name that none of two is has no key at all."""
    one = Destination("2001:db8::7", "root", Path("/known"), port=7)
    for to, known in ((one, "/known"), (one.along_with(Destination("192.0.2.7", "u", Path("/x")), Path("/b")), "/b")):
        (tmp_path / "config").write_text(to.text)
        argv = ["ssh", "-G", "-F", str(tmp_path / "config"), name]
        found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
        assert f"userknownhostsfile {'/dev/null' if (name, known) == ('alias', '/b') else known}" in found
        assert {"stricthostkeychecking true", "globalknownhostsfile /dev/null"} < set(found)


def test_the_file_and_the_words_say_the_same(tmp_path: Path) -> None:
    to = Destination("127.0.0.1", "root", Path("/state/known"), port=2222, offered=(Path("/a b"), Path("/c%d")))
    file = tmp_path / "config"
    file.write_text(to.text)
    said = [
        subprocess.run(["ssh", "-G", *words, to.target], capture_output=True, text=True, check=True).stdout
        for words in (to.options, ["-F", str(file)])
    ]
    assert said[0] == said[1]


# paramiko, and what is found out for both


def test_neither_connection_differs_under_any_of_them(
    run: Callable[..., Host],
    sshd: Sshd,  # noqa: F811
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What paramiko is told, and what OpenSSH would be: by the whole of our connector."""
    key = new_key()
    sshd.start(key)
    told: list[Any] = []

    def connect(self: SSHClient, hostname: str, **arguments: Any) -> None:
        keys = arguments.get("auth_strategy")
        left_out = {"transport_factory", "sock", "auth_strategy", "pkey"}
        peer = arguments["sock"].getpeername() if arguments.get("sock") else None
        told.append(
            (
                hostname,
                {name: value for name, value in arguments.items() if name not in left_out},
                type(self._policy).__name__,  # type: ignore[attr-defined]
                getattr(keys, "identities", None),
                sorted(self.get_host_keys().keys()),
                peer,
                os.environ.get("SSH_AUTH_SOCK"),
            )
        )
        raise SSHException("enough seen")

    monkeypatch.setattr(SSHClient, "connect", connect)

    def see(text: str) -> object:
        told.clear()
        configure(text)
        shutil.rmtree(session.known_hosts_of("metal"), ignore_errors=True)
        session.forget("ssh_config")
        host = run("metal", host_key=key.public, ssh_hostname="127.0.0.1")
        place = reach.Place("127.0.0.1", reach.Epoch.FINAL, key.public, "root")
        to = connector_of(host)._destination(place)
        return list(told), to

    clean = see("")
    assert clean[0]  # type: ignore[index]
    for name, text in HOSTILE.items():
        assert see(f"Host *\n{written(text, tmp_path)}") == clean, name
    # and of the closed list each thing is seen
    for text in ("BindAddress 127.0.0.9", "AddressFamily inet", "IdentityAgent /a", "CertificateFile /c", "Port 9"):
        assert see(text) != clean or text == "Port 9", text  # --data ssh_port goes before


def test_an_agent_is_never_forwarded_and_nothing_of_it_runs(
    run: Callable[..., Host],
    sshd: Sshd,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Really, by both programs, under all of them that can stand together."""
    key = new_key()
    sshd.start(key)
    together = "\n".join(HOSTILE[name] for name in ("agent", "x11", "forwards", "local command", "remote command"))
    configure(f"Host *\n{written(together, tmp_path)}")
    host = run("metal", host_key=key.public)
    assert host.connected
    ok, output = executing(host).run_shell_command("echo ${SSH_AUTH_SOCK-none} ${DISPLAY-none}; ls /evil || true")
    assert (ok, output.stdout_lines) == (True, ["none none"])
    to = connector_of(host).destination()
    done = subprocess.run(to.argv("echo there; ls /evil"), capture_output=True, text=True, timeout=20)
    assert (done.stdout, list(tmp_path.glob("local-command"))) == ("there\n", []), done.stderr


def test_a_configuration_that_cannot_be_read_is_one_line(
    run: Callable[..., Host],
    sshd: Sshd,  # noqa: F811
    session: Session,
    emulator: Emulator,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    """For a machine that the hypervisor knows and for one that it does not; nobody is asked anything then."""
    pair = session.state_of("dev").ensure_host_key()
    vm(emulator, "127.0.0.1", key=pair.public, system="ID=nixos")
    sshd.start(pair, system="ID=nixos")
    configure("Nonsense yes\n")
    for host_id in ("dev", "metal"):
        assert not run(host_id, **({"host_key": new_key().public} if host_id == "metal" else {})).connected
    said = [record.getMessage() for record in caplog.records if record.name == "pyinfra"]
    assert ["your ssh_config cannot be read: " in line for line in said] == [True, False]
    assert said[1].endswith("not connected, for the same reason as dev")
    assert not sshd.asked


# Hops

HOP = "127.0.0.2"


def through(sshd: Sshd, *more: str) -> None:  # noqa: F811
    """A configuration that leads to 127.0.0.1 through the hop."""
    lines = [f"HostName {HOP}", f"Port {sshd.port}", "User root", f"IdentityFile {sshd.key}", *more]
    configure("Host 127.0.0.1\n  ProxyJump bastion\nHost bastion\n" + "".join(f"  {line}\n" for line in lines))


@pytest.mark.parametrize("careless", ["no", "accept-new", "ask"])
def test_a_hop_that_nobody_knows_is_refused(
    run: Callable[..., Host],
    sshd: Sshd,  # noqa: F811
    careless: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever its entry says; nobody logs in to it, and nothing is asked of a terminal."""
    key, hop = new_key(), new_key("hop")
    sshd.start(key)
    sshd.start(hop, address=HOP)
    through(sshd, f"StrictHostKeyChecking {careless}", "UserKnownHostsFile /dev/null")
    host = run("metal", host_key=key.public, ssh_hostname="127.0.0.1")
    assert not host.connected
    assert f"no SSH at 127.0.0.1 through bastion ({HOP}): Host key verification failed" in caplog.text
    assert sshd.logins == 0


def test_a_hop_is_known_by_the_operators_file_or_by_the_fleet(
    run: Callable[..., Host],
    sshd: Sshd,  # noqa: F811
    session: Session,
    emulator: Emulator,  # noqa: F811
) -> None:
    key, hop = new_key(), new_key("hop")
    sshd.start(key)
    sshd.start(hop, address=HOP)
    through(sshd, "ForwardAgent yes", "StrictHostKeyChecking no")
    known = Path.home() / ".ssh" / "known_hosts"
    known.write_text(known_hosts_line(HOP, hop.public, port=sshd.port) + "\n")
    assert_both_go_through(run("metal", host_key=key.public, ssh_hostname="127.0.0.1"))
    # a host of the fleet is known by its key there, and by no other one
    configure((Path.home() / ".ssh" / "config").read_text().replace("bastion", "Gate"))
    session.forget("ssh_config")
    assert not run("metal", host_key=key.public, ssh_hostname="127.0.0.1").connected
    known.write_text("")
    sshd.kill()
    sshd.start(key)
    sshd.start(GATE, address=HOP)
    assert_both_go_through(run("metal", host_key=key.public, ssh_hostname="127.0.0.1"))


def assert_both_go_through(host: Host) -> None:
    """The machine sees the hop: we come from our own address, it from the one that the kernel gives it."""
    assert host.connected
    to = connector_of(host).destination()
    assert [str(jump).split()[0] for jump in to.route.jumps]
    ok, output = executing(host).run_shell_command("echo there")
    assert (ok, output.stdout) == (True, "there")
    done = subprocess.run(to.argv("echo there"), capture_output=True, text=True, timeout=20)
    assert done.stdout == "there\n", done.stderr
    nix = subprocess.run(["sh", "-c", f"ssh {to.nix_sshopts} {to.target} echo there"], capture_output=True, text=True)
    assert nix.stdout == "there\n", nix.stderr


def test_two_hops_and_a_command_before_them(
    run: Callable[..., Host],
    sshd: Sshd,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Each is verified; the machine's own key is still the pinned one."""
    key, first, second = new_key(), new_key("first"), new_key("second")
    sshd.start(key)
    sshd.start(first, address="127.0.0.2")
    sshd.start(second, address="127.0.0.3")
    known = Path.home() / ".ssh" / "known_hosts"
    hops = [("127.0.0.2", first), ("127.0.0.3", second)]
    known.write_text("".join(known_hosts_line(at, pair.public, port=sshd.port) + "\n" for at, pair in hops))
    common = f"  User root\n  Port {sshd.port}\n  IdentityFile {sshd.key}\n"
    (tmp_path / "carry.py").write_text(CARRY)
    command = f"  ProxyCommand {shutil.which('python3')} {tmp_path}/carry.py %h %p {tmp_path}/began\n"
    configure(
        "Host 127.0.0.1\n  ProxyJump first,root@second\n"
        f"Host first\n  HostName 127.0.0.2\n{common}{command}"
        f"Host second\n  HostName 127.0.0.3\n{common}"
    )
    host = run("metal", host_key=key.public, ssh_hostname="127.0.0.1")
    assert_both_go_through(host)
    assert [jump.name for jump in connector_of(host).destination().route.jumps] == ["first", "second"]
    assert (tmp_path / "began").exists()
    assert not run("metal", host_key=new_key("another").public, ssh_hostname="127.0.0.1").connected


def test_a_command_of_the_operators_leads_to_the_machine(
    run: Callable[..., Host],
    sshd: Sshd,  # noqa: F811
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As OpenSSH runs it: by a shell, tokens replaced; ended with the connection. Its last words are the reason."""
    key = new_key()
    sshd.start(key)
    pipe = tmp_path / "carry.py"
    pipe.write_text(CARRY)
    began = f"{tmp_path}/$UNSET'began 100%%'"
    configure(f"Host 127.0.0.1\n  ProxyCommand {shutil.which('python3')} {pipe} %h %p {began} %n %r\n")
    host = run("metal", host_key=key.public, ssh_hostname="127.0.0.1")
    assert host.connected
    said = (tmp_path / "began 100%").read_text().split()
    assert said[1:] == ["127.0.0.1", "root"]
    assert Path(f"/proc/{said[0]}").exists()
    to = connector_of(host).destination()
    done = subprocess.run(to.argv("echo there"), capture_output=True, text=True, timeout=20)
    assert done.stdout == "there\n", done.stderr
    host.disconnect()
    assert not Path(f"/proc/{said[0]}").exists()
    configure("Host 127.0.0.1\n  ProxyCommand echo the door is shut >&2; exit 1\n")
    connector_of(host).session.forget("ssh_config")
    assert not run("metal", host_key=key.public, ssh_hostname="127.0.0.1").connected
    assert "no SSH at 127.0.0.1 through the ProxyCommand of your ssh_config: the door is shut" in caplog.text


FAILS = """\
from pathlib import Path
from nixherd.pyinfra_glue.ssh_client import Keys, PinnedClient
from nixherd.ssh.destination import Destination, Identities, Route
from paramiko import Transport
to = Destination("192.0.2.1", "root", Path("/dev/null"), route=Route(command="echo no way >&2; exit 1"))
client = PinnedClient()
try:
    client.open(to, Keys("root", Identities()), Transport, 5)
except Exception as error:
    print(client.why(error))
client.close()
"""


@pytest.mark.process
def test_what_fails_on_the_way_is_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", FAILS], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("no way\n", "")


CARRY = """\
import os, socket, sys, threading
with open(sys.argv[3], "w") as began:
    print(os.getpid(), *sys.argv[4:], file=began)
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        there.sendall(data)
    os._exit(0)
threading.Thread(target=up).start()
while data := there.recv(65536):
    os.write(1, data)
os._exit(0)
"""


# Paths

ODD = "a b %h $x ${HOME} \"q'"


def test_paths_are_taken_as_they_are(
    emulator: Emulator,  # noqa: F811
    sshd: Sshd,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """State in a directory with blanks, percent and dollar signs: both programs, and those that split at blanks."""
    odd = tmp_path / ODD
    monkeypatch.setenv("XDG_STATE_HOME", str(odd))
    home = tmp_path / "home with %d and $y"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    shutil.copy(sshd.key, home / ".ssh" / "id_ed25519")
    key = new_key()
    sshd.start(key)
    session = session_at(emulator, tmp_path)
    session.fleet = replace(session.fleet, hosts={**session.fleet.hosts, "metal": _not_nixos(session)})
    host = connected(session, "metal", ssh_port=sshd.port, host_key=key.public, ssh_hostname="127.0.0.1")
    assert host.connected
    to = connector_of(host).destination()
    for command in (
        to.argv("echo there"),
        ["sh", "-c", f"ssh {to.nix_sshopts} {to.target} echo there"],
        ["sh", "-c", 'exec ssh $NIX_SSHOPTS "$0" echo there', to.target],  # as nixos-rebuild does it
    ):
        env = {**os.environ, "NIX_SSHOPTS": to.nix_sshopts}
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=env)
        assert done.stdout == "there\n", done.stderr
    used = session.known_hosts_of("metal")
    host.disconnect()
    session.close()
    assert not used.exists()
    assert not used.parent.parent.exists()


@pytest.mark.parametrize("name", ["a b", "%h%%", "$x$", "a'b", 'a"b', "back\\slash", "#c", "~", "=x", "%d"])
def test_a_known_hosts_file_of_any_name_is_read(sshd: Sshd, tmp_path: Path, name: str) -> None:  # noqa: F811
    key = new_key()
    sshd.start(key)
    known = tmp_path / name
    known.write_text(known_hosts_line("127.0.0.1", key.public, port=sshd.port) + "\n")
    to = Destination("127.0.0.1", "root", known, port=sshd.port, identity=sshd.key)
    done = subprocess.run(to.argv("echo there"), capture_output=True, text=True, timeout=20)
    assert done.stdout == "there\n", done.stderr


# Copies

WATCH: dict[str, Any] = stalls.Watch.__init__.__kwdefaults__ or {}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(stalls.Watch.__init__, "__kwdefaults__", {**WATCH, "patience": 1.5})
    return 1.5


@pytest.fixture
def machine(run: Callable[..., Host], sshd: Sshd) -> Host:  # noqa: F811
    key = new_key()
    sshd.start(key)
    return executing(run("metal", host_key=key.public, ssh_hostname="127.0.0.1"))


def test_a_copy_that_does_not_get_on_ends_with_a_sentence(machine: Host, impatient: float) -> None:
    began = time.monotonic()
    with pytest.raises(
        Stalled, match=r"^metal: copying to it: no progress for 1.5 s, so it was ended; run it again; it"
    ):
        remote.copy_towards(machine, lambda to: (to.argv("echo copying path x >&2; sleep 60"), {}), 60)
    assert time.monotonic() - began < 10


SLOW = {
    "a lock": "echo 'waiting for the big Nix store lock...' >&2; sleep 3",
    "another lock": "echo 'waiting for lock on \"/nix/store/x.lock\"' >&2; sleep 3",
    "words": "for i in 1 2 3 4 5 6; do sleep 0.5; echo $i >&2; done",
    "bytes": "for i in 1 2 3 4 5 6; do sleep 0.5; head -c 40000 /dev/urandom; done",
}
BUSY = "cp /bin/sh /tmp/nix-busy; timeout 3 /tmp/nix-busy -c 'while :; do :; done' || true"


def test_a_copy_that_gets_on_however_slowly_is_left_alone(machine: Host, impatient: float) -> None:
    """Side by side, each with a patience of its own; and one where nothing but the machine gets on."""

    def copy(script: str) -> int:
        return remote.copy_towards(machine, lambda to: (to.argv(script), {}), 60).status

    with ThreadPoolExecutor(len(SLOW)) as pool:
        assert list(pool.map(copy, SLOW.values())) == [0] * len(SLOW)
    assert copy(BUSY) == 0


def test_what_is_sent_slowly_is_progress(machine: Host, impatient: float, tmp_path: Path) -> None:
    """As the installer is sent: by ssh itself, from a file."""
    send = 'for i in 1 2 3 4 5; do sleep 0.6; head -c 40000 /dev/urandom; done | "$@"'
    sent = remote.copy_towards(machine, lambda to: (["sh", "-c", send, "sh", *to.argv("wc -c")], {}), 60)
    assert sent.stdout.strip() == "200000"


def test_nix_itself_at_a_machine_whose_store_hangs(
    run: Callable[..., Host],
    sshd: Sshd,  # noqa: F811
    impatient: float,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nix names the lock that the machine's store waits for; one that says nothing is ended."""
    if not shutil.which("nix"):
        pytest.skip("there is no nix")
    key = new_key()
    hang = (
        "printf '#!/bin/sh\\n%s\\nsleep 30\\n' \"$WORDS\" >/usr/local/bin/nix-store; chmod +x /usr/local/bin/nix-store"
    )
    sshd.start(key, setup=f"WORDS=:; {hang}")
    host = executing(run("metal", host_key=key.public, ssh_hostname="127.0.0.1"))
    caplog.set_level(logging.INFO, logger="pyinfra")
    (tmp_path / "file").write_text(str(time.time()))
    add = ["nix", "--extra-experimental-features", "nix-command", "store", "add", str(tmp_path / "file")]
    path = subprocess.run(add, capture_output=True, text=True, check=True).stdout.strip()
    with pytest.raises(Stalled, match=r"no progress for 1\.5 s"):
        remote.copy_closure(host, [path])
    assert "copying again, without the machine's own caches: metal: copying to it: no progress" in caplog.text


def test_a_vms_connection_is_the_same(
    run: Callable[..., Host],
    sshd: Sshd,  # noqa: F811
    session: Session,
    emulator: Emulator,  # noqa: F811
) -> None:
    """Its address is the hypervisor's word, whatever HostName and Port stand beside its name; ProxyJump is followed."""
    pair, hop = session.state_of("dev").ensure_host_key(), new_key("hop")
    vm(emulator, "127.0.0.1", key=pair.public, system="ID=nixos")
    sshd.start(pair, system="ID=nixos")
    sshd.start(hop, address=HOP)
    known = Path.home() / ".ssh" / "known_hosts"
    known.write_text(known_hosts_line(HOP, hop.public, port=sshd.port) + "\n")
    through(sshd)
    config = Path.home() / ".ssh" / "config"
    configure(config.read_text().replace("Host 127.0.0.1\n", f"Host dev\n  HostName 192.0.2.9\n  Port {sshd.port}\n"))
    host = connected(session, "dev", ssh_key=str(sshd.key))
    assert host.connected
    to = connector_of(host).destination()
    assert (to.address, to.port, [jump.name for jump in to.route.jumps]) == ("127.0.0.1", sshd.port, ["bastion"])
    assert_both_go_through(host)


# Logging in


@pytest.fixture
def agent(tmp_path: Path, sshd: Sshd) -> Iterator[Path]:  # noqa: F811
    """A real agent at a path of its own, which holds our key among others."""
    path = tmp_path / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    while not path.exists():
        time.sleep(0.01)
    env = {**os.environ, "SSH_AUTH_SOCK": str(path)}
    for number in range(6):  # as many as a server takes, and more than that with ours
        other = tmp_path / f"other{number}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
        subprocess.run(["ssh-add", "-q", other], env=env, check=True)
    subprocess.run(["ssh-add", "-q", sshd.key], env=env, check=True)
    yield path
    process.terminate()
    process.wait()


def test_the_agent_and_the_key_that_the_file_names_are_used_by_both(
    session: Session,
    sshd: Sshd,  # noqa: F811
    agent: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The agent's socket is no business of the process' environment; only the named key is offered."""
    key = new_key()
    sshd.start(key)
    public = tmp_path / "mine.pub"
    shutil.copy(f"{sshd.key}.pub", public)

    def attempt(text: str) -> Host:
        configure(f"Host 127.0.0.1\n  IdentityAgent {agent}\n{text}")
        session.forget("ssh_config")
        return connected(session, "metal", ssh_port=sshd.port, host_key=key.public, ssh_hostname="127.0.0.1")

    assert not attempt("").connected
    assert "it hung up before all of our keys were offered; name the right one" in caplog.text
    for text in (f"  IdentityFile {tmp_path}/mine\n  IdentitiesOnly yes\n", f"  IdentityFile {public}\n"):
        host = attempt(text)
        assert host.connected, text
        assert "SSH_AUTH_SOCK" not in os.environ
        done = subprocess.run(connector_of(host).destination().argv("echo there"), capture_output=True, text=True)
        assert done.stdout == "there\n", done.stderr
    assert not attempt(f"  IdentityFile {tmp_path}/other1\n  IdentitiesOnly yes\n").connected


def test_a_certificate_that_the_file_names_is_used_by_both(
    session: Session,
    sshd: Sshd,  # noqa: F811
    tmp_path: Path,
) -> None:
    key, mine, ca = new_key(), tmp_path / "mine", tmp_path / "ca"
    for each in (mine, ca):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", each], check=True)
    subprocess.run(["ssh-keygen", "-q", "-s", ca, "-I", "us", "-n", "root", f"{mine}.pub"], check=True)
    elsewhere = tmp_path / "certificate of ours.pub"
    (tmp_path / "mine-cert.pub").rename(elsewhere)
    authority = f"cert-authority {Path(f'{ca}.pub').read_text().strip()}"
    sshd.start(key, setup=f"echo {shlex.quote(authority)} >/run/test/authorized_keys")
    configure(f'Host 127.0.0.1\n  IdentityFile {mine}\n  CertificateFile "{elsewhere}"\n')
    host = connected(session, "metal", ssh_port=sshd.port, host_key=key.public, ssh_hostname="127.0.0.1")
    assert host.connected
    done = subprocess.run(connector_of(host).destination().argv("echo there"), capture_output=True, text=True)
    assert done.stdout == "there\n", done.stderr
