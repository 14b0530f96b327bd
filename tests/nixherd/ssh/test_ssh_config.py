"""What is taken from ssh_config, by a real `ssh -G`."""

import getpass
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Usage
from nixherd.ssh import ssh_config
from nixherd.ssh.destination import Destination, Identities, Jump, Route
from nixherd.ssh.ssh_config import Answers, Configuration, Hop, Way, config_options

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh")

Ask = Callable[..., Way]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The way to a machine of these names under this configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()

    def way_to(
        text: str,
        *names: str,
        pins: dict[str, Path] | None = None,
        installed: bool = True,
        port: int | None = None,
        address: str | None = None,
        jump: tuple[str, ...] | None = None,
        hosts: dict[str, Hop] | None = None,
    ) -> Way:
        (tmp_path / "config").write_text(text)

        def pin(names: Any) -> tuple[str, Path] | None:
            return next(((name, path) for name, path in (pins or {}).items() if name in names), None)

        configuration = Configuration(("-F", str(tmp_path / "config")), Answers(), pin, (hosts or {}).get)
        names = names or ("dev", "10.0.0.5")
        return configuration.way_to(names, "admin", port, address=address, installed=installed, jump=jump)

    return way_to


def test_nothing_said_is_nothing_taken(ask: Ask) -> None:
    assert ask("") == Way("10.0.0.5")
    assert ask("Host other\n  ProxyJump x\n  Port 9\n") == Way("10.0.0.5")


def test_an_alias_that_is_tried_is_where_its_entry_says(ask: Ask) -> None:
    """It comes before the host's id, and is the address all the same."""
    config = "Host doc1\n  HostName 10.0.0.9\n  Port 2222\n"
    way = ask(config, "doc1", "proxmox-vm", address="doc1")
    assert (way.address, way.port, way.named) == ("10.0.0.9", 2222, "doc1")
    assert ask(config, "doc1", "proxmox-vm", address="proxmox-vm").address == "proxmox-vm"
    assert ask("Host other\n  Port 9\n", "doc1", "proxmox-vm", address="doc1").address == "doc1"
    assert ask("", "doc1", "proxmox-vm", address="doc1").address == "doc1"


def test_the_whole_list(ask: Ask, tmp_path: Path) -> None:
    way = ask(
        "Host dev\n  HostName 10.9.9.9\n  Port 2222\n  AddressFamily inet\n  BindAddress 10.0.0.1\n"
        '  IdentityFile ~/.ssh/%n-%r-%p-%u\n  IdentityFile "/keys/a b%%"\n  CertificateFile %d/c-%h.pub\n'
        "  IdentityAgent /run/agent\n  IdentitiesOnly yes\n  ProxyCommand nc %h %p %r %n '100%%'\n"
        "Host dev\n  User mallory\n  ForwardAgent yes\n"
    )
    files = (tmp_path / f".ssh/dev-admin-2222-{getpass.getuser()}", Path("/keys/a b%"))
    assert way == Way(
        "10.0.0.5",
        2222,
        Route("inet", "10.0.0.1", "nc 10.0.0.5 2222 admin dev '100%'"),
        Identities(files, (tmp_path / "c-10.9.9.9.pub",), "/run/agent", only=True),
        "dev",
    )


def test_the_first_name_that_it_speaks_of_counts_whole(ask: Ask) -> None:
    by_address = "Host 10.0.*\n  ProxyJump a\n  Port 7\n"
    assert (ask(by_address).named, ask(by_address).port) == ("10.0.0.5", 7)
    both_named = f"Host dev\n  Port 8\n{by_address}"
    both = ask(both_named)
    assert (both.named, both.port, both.route.jumps) == ("dev", 8, ())
    # what is said of all is not a word on anyone, and an exception from it is one
    excepted = "Host dev\n  ProxyJump none\nHost *\n  ProxyJump a\n"
    assert (ask(excepted).named, ask(excepted).route.jumps) == ("dev", ())
    others = ask("Host *\n  Port 8\n")
    assert (others.named, others.port) == (None, 8)
    assert (ask("Host *\n  Port 8\n", installed=False).port, ask(both_named, installed=False).port) == (8, 22)
    matched = ask('Match originalhost dev exec "true"\n  Port 8\n')
    assert (matched.named, matched.port) == ("dev", 8)


def test_a_name_leads_where_hostname_says_an_address_does_not(ask: Ask) -> None:
    """What the hypervisor or hosts.nix says of a place is not moved by what is said of another name."""
    text = "Host dev\n  HostName 10.9.9.9\n  Port 2222\n  ProxyCommand nc %h %p\n"
    for names, address in ((("dev",), "10.9.9.9"), (("dev", "10.0.0.5"), "10.0.0.5")):
        way = ask(text, *names)
        assert (way.address, way.port, way.route.command) == (address, 2222, f"nc {address} 2222")
    clone = ask(text, "dev", "10.0.0.5", installed=False)
    assert (clone.port, clone.route.command) == (22, "nc 10.0.0.5 22")
    assert ask(text, port=7).route.command == "nc 10.0.0.5 7"


def test_what_is_named_of_agents(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "/run/mine")
    for text, agent in (("none", "none"), ("$MINE", "/run/mine"), ("SSH_AUTH_SOCK", None), ("$THEIRS", "none")):
        assert ask(f"Host dev\n  IdentityAgent {text}\n").identities.agent == agent


def test_the_usual_keys_are_those_in_home(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / ".ssh" / "id_rsa").touch()
    assert ask("").identities.files == (tmp_path / ".ssh" / "id_rsa",)
    assert ask("IdentityFile none\n").identities.files == ()


def test_hops_are_asked_about_by_their_own_names(ask: Ask, tmp_path: Path) -> None:
    """Those before the first one included; who they are verified by; nobody's other settings."""
    known = tuple(tmp_path / ".ssh" / name for name in ("known_hosts", "known_hosts2"))
    way = ask(
        "Host dev\n  ProxyJump me@one:2200,two\n"
        "Host one\n  HostName 10.1.1.1\n  ProxyJump zero\n  ForwardAgent yes\n"
        "Host two\n  HostName 10.1.1.2\n  User you\n  ProxyJump never\n  IdentityFile /two\n"
        "Host zero\n  HostName 10.1.1.0\n  Port 2\n  User z\n  BindAddress 10.0.0.1\n  ProxyCommand carry %h %n\n"
        "Host *\n  UserKnownHostsFile /dev/null\n  StrictHostKeyChecking no\n  HostKeyAlias x\n",
        pins={"10.1.1.2": Path("/pinned")},
    )
    verified = (*known, Path("/etc/ssh/ssh_known_hosts"))
    assert way.route.jumps == (
        Jump("zero", "10.1.1.0", 2, "z", verified, bind="10.0.0.1"),
        Jump("one", "10.1.1.1", 2200, "me", verified),
        Jump("two", "10.1.1.2", 22, "you", (Path("/pinned"),), "10.1.1.2", Identities((Path("/two"),))),
    )
    assert way.route.command == "carry 10.1.1.0 zero"
    # and so it is written: each hop by the one before, the first by the command, the machine by the last
    text = Destination("10.0.0.5", "root", Path("/k"), route=way.route).text
    assert [line.split()[1] for line in text.splitlines() if "ProxyJump" in line] == [
        "nixherd-hop-3-to-10.0.0.5-22",
        "nixherd-hop-1-to-10.0.0.5-22",
        "nixherd-hop-2-to-10.0.0.5-22",
    ]
    assert text.count("ProxyCommand") == 1


def test_hops_that_the_fleet_names_take_the_place_of_others(ask: Ask, tmp_path: Path) -> None:
    """Hosts of the fleet are known by their pinned keys; of all the configuration says how they are reached."""
    text = (
        "Host dev\n  ProxyJump never\n  Port 8\nHost gate\n  Port 23\n  IdentityFile /gate\n"
        "Host other\n  HostName 10.2.2.2\n  User you\n  ProxyJump never\n"
    )
    hosts = {
        "gate": Hop("gate", ("gate", "10.1.1.1"), "root", jump=("outer",)),
        "outer": Hop("outer", ("o", "outer"), "al", 24, is_there=False),
    }
    pins = {"gate": Path("/pin/gate"), "outer": Path("/pin/outer")}
    verified = (
        *(tmp_path / ".ssh" / name for name in ("known_hosts", "known_hosts2")),
        Path("/etc/ssh/ssh_known_hosts"),
    )
    way = ask(f"{text}Host o\n  HostName 10.3.3.3\n", jump=("gate", "me@other:9"), hosts=hosts, pins=pins)
    assert (way.port, way.named) == (8, "dev")
    assert way.route == Route(
        jumps=(
            Jump("outer", "10.3.3.3", 24, "al", (Path("/pin/outer"),), "outer"),
            Jump("gate", "10.1.1.1", 23, "root", (Path("/pin/gate"),), "gate", Identities((Path("/gate"),))),
            Jump("other", "10.2.2.2", 9, "me", verified),
        )
    )
    assert ask(f"Host outer\n  ProxyCommand carry %h\n{text}", jump=("gate",), hosts=hosts, pins=pins).route == Route(
        command="carry outer",
        jumps=(
            Jump("outer", "outer", 24, "al", (Path("/pin/outer"),), "outer"),
            Jump("gate", "10.1.1.1", 23, "root", (Path("/pin/gate"),), "gate", Identities((Path("/gate"),))),
        ),
    )
    assert ask("Host dev\n  ProxyCommand x\n", jump=()).route == Route(), "directly"
    loop = {
        "gate": Hop("gate", ("gate",), "root", jump=("outer",)),
        "outer": Hop("outer", ("o",), "al", jump=("gate",)),
    }
    with pytest.raises(Usage, match="dev: jump: dev through gate through outer through gate never ends"):
        ask("", jump=("gate",), hosts=loop, pins=pins)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Nonsense yes\n", r"your ssh_config cannot be read: .*Bad configuration option: nonsense.*; correct it"),
        (
            "Host dev\n  ProxyJump a\nHost a\n  ProxyJump b\nHost b\n  ProxyJump a\n",
            "dev through a through b through a",
        ),
        ("Host dev\n  IdentityFile /k%C\n", "/k%C: %C is not understood here"),
        ("Host dev\n  IdentityFile /${NOBODY_SET_IT}\n", "the environment has no NOBODY_SET_IT"),
        ("Host dev\n  BindAddress -oProxyCommand=x\n", "BindAddress '-oProxyCommand=x' is not a host name or address"),
        ("Host dev\n  ProxyJump h\nHost h\n  User a;b\n", r"User 'a;b' of h is not a user's name"),
    ],
)
def test_what_cannot_be_followed_is_one_line(ask: Ask, text: str, says: str) -> None:
    with pytest.raises(Usage, match=says) as raised:
        ask(text, "dev")
    assert "\n" not in str(raised.value)


def test_a_match_that_takes_for_ever_is_named(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_config, "DEADLINE", 0.3)
    with pytest.raises(Usage, match=r"`ssh -G .*` took over 0.3 s; look at its `Match exec`"):
        ask('Match exec "sleep 60"\n  Port 9\n')


def test_an_address_that_is_none_is_said_before_it_is_asked(ask: Ask) -> None:
    for name in ("bad host", "-oProxyCommand=x", "a\nb", ""):
        with pytest.raises(Usage, match="is not a host name or address"):
            ask("", name)


def test_one_question_for_all_where_nothing_tells_them_apart(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run asks for each host: that must not take a process each where there is nothing to ask."""
    asked: list[tuple[str, ...]] = []
    real = ssh_config._ssh_g

    def counted(options: Any, names: Any) -> Any:
        asked.append(tuple(names))
        return real(options, names)

    monkeypatch.setattr(ssh_config, "_ssh_g", counted)
    way = ask("# Host x\nForwardAgent yes\nHost *\n  Port 9\n", "dev")
    assert (way.port, way.address, ("dev",) in asked) == (9, "dev", False)
    for text in (
        "Host d*\n",
        "Host * !x\n",
        "match all\n",
        "HostName %h.lan\n",
        "  HOST=dev\n",
        'IdentityFile "#%n"\n',
    ):
        asked.clear()
        ask(text, "dev")
        assert ("dev",) in asked, text


def test_another_home_has_its_own_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OpenSSH itself goes by the password database."""
    assert config_options("/some/file") == ["-F", "/some/file"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_options() in (["-F", "/etc/ssh/ssh_config"], ["-F", "/dev/null"])
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").touch()
    assert config_options() == ["-F", str(tmp_path / ".ssh" / "config")]
    monkeypatch.setenv("HOME", os.path.expanduser(f"~{getpass.getuser()}"))  # noqa: PTH111
    assert config_options() == []
