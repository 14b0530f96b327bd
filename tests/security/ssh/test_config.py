"""SSH says what we say: nothing of the operator's or the system's ssh_config has a part in a pinned connection."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paramiko import SSHClient, SSHException
from pyinfra.api.host import Host

from nixherd.locate import reach
from nixherd.ssh.destination import Destination, Identities, Jump, Route
from tests.nixherd.proxmox.conftest import Emulator
from tests.runs import executing, vm
from tests.security.ssh.conftest import configure, connector_of, new_key
from tests.shared import Shared
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


def written(text: str, tmp: Path) -> str:
    (tmp / "included").write_text("ForwardAgent yes\nStrictHostKeyChecking no\n")
    return text.replace("{tmp}", str(tmp)) + "\n"


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
    messages = [
        subprocess.run(["ssh", "-G", *words, to.target], capture_output=True, text=True, check=True).stdout
        for words in (to.options, ["-F", str(file)])
    ]
    assert messages[0] == messages[1]


# paramiko, and what is found out for both


@pytest.mark.slow
def test_neither_connection_differs_under_any_of_them(
    run: Callable[..., Host],
    sshd: Sshd,
    shared: Shared,
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
            ),
        )
        raise SSHException("enough seen")

    monkeypatch.setattr(SSHClient, "connect", connect)

    def see(text: str) -> object:
        told.clear()
        configure(text)
        shutil.rmtree(shared.run.known_hosts_of("metal"), ignore_errors=True)
        shared.changed_ssh_config()
        host = run("metal", host_key=key.public, ssh_hostname="127.0.0.1")
        place = reach.Place("127.0.0.1", reach.Epoch.FINAL, key.public, "root")
        to = connector_of(host).way_to(place)
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
    sshd: Sshd,
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
    sshd: Sshd,
    shared: Shared,
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """For a machine that the hypervisor knows and for one that it does not; nobody is asked anything then."""
    pair = shared.keys.ensure("dev")
    vm(emulator, "127.0.0.1", key=pair.public, system="ID=nixos")
    sshd.start(pair, system="ID=nixos")
    configure("Nonsense yes\n")
    for host_id in ("dev", "metal"):
        assert not run(host_id, **({"host_key": new_key().public} if host_id == "metal" else {})).connected
    messages = [record.getMessage() for record in caplog.records if record.name == "pyinfra"]
    assert ["your ssh_config cannot be read: " in line for line in messages] == [True, False]
    assert messages[1].endswith("not connected, for the same reason as dev")
    assert not sshd.contacted
