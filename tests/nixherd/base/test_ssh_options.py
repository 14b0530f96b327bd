"""Which options of OpenSSH's command line a flake may name."""

import pytest

from nixherd.base.ssh_options import SshOptions


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
        ["-J", "bastion"],
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
        ["-p22\nProxyCommand x", "-J", "x"],
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
    assert options.port in (None, "22\nProxyCommand x")  # which is not a number


def test_what_is_so_anyway_needs_no_word() -> None:
    words = ["-o", "StrictHostKeyChecking=yes", "-T", "-o", "BatchMode yes", "-oForwardAgent=no", "-q"]
    assert SshOptions.parse(words) == SshOptions()


def test_each_option_is_left_as_it_was_written() -> None:
    options = SshOptions.parse(["-AC", "-p", "22", "-J", "a", "-o", "User=x"])
    assert options == SshOptions("22", (("-A",), ("-C",), ("-J", "a"), ("-o", "User=x")))
