"""Machines whose root has a login shell that prints, is not POSIX, or runs nothing: asked, and deployed to."""

import shlex
from collections.abc import Iterator

import pytest

from tests.integration.deployed import DEADLINES, outcomes, run_deploy
from tests.integration.lab_driver import Ended, Lab
from tests.integration.test_light import configure, why

pytestmark = pytest.mark.slow

NOISE = "current=/nix/store/evil"
SHELLS = {  # by host: the login shell, and the file that prints
    "light001": ("bash", ".bashrc"),
    "light002": ("fish", ".config/fish/config.fish"),
    "light003": ("tcsh", ".cshrc"),
}
MUTE = "light004"  # runs no command


@pytest.fixture
def shells(lab: Lab) -> Iterator[Lab]:
    lab("fleet", "4", "--light")
    configure(lab, 'environment.etc.marker.text = "one";')
    for host in (*SHELLS, MUTE):
        on(lab, host, 'usermod -s "/usr/$1" root', f"bin/{SHELLS[host][0]}" if host in SHELLS else "sbin/nologin")
    print_on(lab, "")
    yield lab
    lab("fleet", "0", "--light")


def on(lab: Lab, host: str, script: str, *words: str) -> Ended:
    """A script in the host's own root, past its sshd."""
    command = f'exec nsenter --target "$(pgrep --parent $(cat {lab.state}/light/{host}/pid))" --mount --pid "$@"'
    path = "PATH=/usr/bin:/usr/sbin"
    return lab.run("sh", "-c", command, "sh", "env", path, "sh", "-ec", script, "sh", *words)


def print_on(lab: Lab, where: str) -> None:
    for host, (_, file) in SHELLS.items():
        line = f"/bin/sh -c {shlex.quote(f'echo {NOISE} {where}')}\n"
        on(lab, host, 'mkdir -p "${1%/*}"; printf %s "$2" >"$1"', f"/root/{file}", line)


def test_what_a_login_shell_prints_is_nothing_but_named(shells: Lab) -> None:
    # ad hoc: the output that a person expects, and the noise beside it
    ended = shells.pyinfra("-y", "inventory.py", "--limit", "light*", "exec", "--", "echo here", check=False)
    for host, (shell, file) in SHELLS.items():
        lines = ended.says(host)
        assert "here" in lines
        assert NOISE not in lines
        [warning] = [line for line in lines if "the login shell there prints" in line]
        assert warning.startswith(f'the login shell there prints "{NOISE}", which was set aside; /root/')
        assert file in warning or shell == "tcsh"
    assert ended.status != 0
    assert any("the login shell of root runs no command there" in line for line in ended.says(MUTE))

    # facts: what the machine says, and nothing else
    limits = [word for host in SHELLS for word in ("--limit", host)]
    ended = shells.pyinfra("inventory.py", *limits, "fact", "facts.nixos.CurrentSystem")
    for host in SHELLS:
        assert f'"hostname": "{host}"' in ended.output
        assert f'"path": "{on(shells, host, "readlink -f /run/current-system").output.strip()}"' in ended.output
    assert '"/nix/store/evil"' not in ended.output

    # what Nix speaks with the machine goes by stdout, and that is lines
    ended, document = run_deploy(shells, "light*", *DEADLINES, check=False)
    assert ended.status != 0
    rows = {row["host"]: row for row in document["hosts"]}
    for host in SHELLS:
        assert rows[host]["outcome"] == "failed"
        assert f'the login shell there prints "{NOISE}" on stdout, which breaks Nix\'s protocol; ' in why(
            document, host
        )
        assert rows[host]["login_shell"].startswith("the login shell there prints")
        assert "protocol mismatch" in "".join(rows[host]["output"])
    assert "the login shell of root runs no command there" in why(document, MUTE)

    # on stderr it breaks nothing
    print_on(shells, ">&2")
    ended, document = run_deploy(shells, *SHELLS, *DEADLINES, check=False)
    assert (ended.status, outcomes(document)) == (0, dict.fromkeys(SHELLS, "deployed"))
    for host in SHELLS:
        assert on(shells, host, "cat /etc/marker").output == "one"
