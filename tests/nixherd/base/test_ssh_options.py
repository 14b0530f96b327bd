"""Which options of OpenSSH's command line a flake may name."""

import pytest

from nixherd.base.ssh_options import HopName, SshOptions


@pytest.mark.parametrize(
    "words",
    [
        ["-p", "2222"],
        ["-p2222"],
        ["-p 2222"],
        ["-o", "Port=2222"],
        ["-oport=2222"],
        ["-o", "Port 2222"],
        ["-o", 'Port = "2222"'],
        ["-Tp", "2222"],
        ["-p", "2222", "-p", "23"],
    ],
    ids=" ".join,
)
def test_the_port_is_kept(words: list[str]) -> None:
    assert SshOptions.parse(words) == SshOptions("2222")


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "ProxyCommand=touch /tmp/x"],
        ["-oProxyCommand=touch /tmp/x"],
        ["-o", "proxycommand touch /tmp/x"],
        ["-i", "/home/al/.ssh/id"],
        ["-o", "StrictHostKeyChecking=no"],
        ["-o", "StrictHostKeyChecking=accept-new"],
        ["-o", "UserKnownHostsFile=/dev/null"],
        ["-o", "LocalCommand=touch /tmp/x"],
        ["-o", "PermitLocalCommand=yes"],
        ["-o", "Include=/tmp/x"],
        ["-o", "HostName=10.0.0.6"],
        ["-F", "/tmp/config"],
        ["-l", "al"],
        ["-A"],
        ["-4"],
        ["-o"],
        ["10.0.0.6"],
        ["--", "x"],
        ["-"],
        [""],
    ],
    ids=repr,
)
def test_what_else_there_is_is_left(words: list[str]) -> None:
    options = SshOptions.parse(words)
    assert options.left


def test_hops_are_kept() -> None:
    for words in (["-J", "a,b"], ["-Ja,b"], ["-oProxyJump=a,b"], ["-o", "proxyjump a,b", "-J", "c"]):
        assert SshOptions.parse(words) == SshOptions(jump="a,b")


def test_what_is_not_a_number_is_kept_as_it_is() -> None:
    """Whoever makes a port or hops of it refuses it."""
    assert SshOptions.parse(["-p22\nProxyCommand x", "-J", "-x"]) == SshOptions("22\nProxyCommand x", jump="-x")


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("gate", HopName("gate")),
        ("al@gate:2222", HopName("gate", "al", 2222)),
        ("ssh://al@gate:2222/", HopName("gate", "al", 2222)),
        ("fe80::1%eth0", HopName("fe80::1%eth0")),
        ("al@fe80::1", HopName("fe80::1", "al")),
        ("[fe80::1%eth0]:22", HopName("fe80::1%eth0", None, 22)),
        ("-oProxyCommand=x", None),
        ("a;b@gate", None),
        ("gate:0", None),
        ("gate:70000", None),
        ("gate two", None),
        ("", None),
    ],
)
def test_a_hop_is_a_name_with_a_user_and_a_port(text: str, hop: HopName | None) -> None:
    if hop is None:
        with pytest.raises(ValueError, match="is not a"):
            HopName.parse(text)
        return
    assert HopName.parse(text) == hop == HopName.parse(str(hop))


def test_what_is_so_anyway_needs_no_word() -> None:
    words = ["-o", "StrictHostKeyChecking=yes", "-T", "-o", "BatchMode yes", "-oForwardAgent=no", "-q"]
    assert SshOptions.parse(words) == SshOptions()


def test_each_option_is_left_as_it_was_written() -> None:
    options = SshOptions.parse(["-AC", "-p", "22", "-o", "User=x"])
    assert options == SshOptions("22", (("-A",), ("-C",), ("-o", "User=x")))
