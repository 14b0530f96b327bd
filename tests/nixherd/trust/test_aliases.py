"""An ssh_config for other programs, as OpenSSH reads it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from nixherd.base.errors import Usage
from nixherd.trust.aliases import Alias, config, known_hosts

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmYpLuvHGp/0z8vlqMpElZ7JGPnGpx1e0S3m7pL7s7J root@a"
DEV, NEW = (
    Alias(("Dev", "d"), "fe80::1%eth0", "me", KEY, jump="gate,al@[fe80::2]:23"),
    Alias(("new",), "new.lan", "me", None),
)


def test_who_has_no_key_is_only_mentioned(tmp_path: Path) -> None:
    assert config([NEW], tmp_path) == "# new: no key is pinned for it\n"
    assert known_hosts([NEW, DEV]) == {"dev": f"dev {' '.join(KEY.split()[:2])}\n"}


def test_a_path_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(Usage):
        config([DEV], Path("/a/${b}"))


@pytest.mark.lab  # OpenSSH
@pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh")
@pytest.mark.parametrize("name", ["Dev", "d"])
def test_openssh_takes_it(tmp_path: Path, name: str) -> None:
    place, file = tmp_path / "a b", tmp_path / "config"
    file.write_text(config([DEV, NEW], place))
    done = subprocess.run(["ssh", "-G", "-F", file, name], capture_output=True, text=True, check=True)
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert (told["hostname"], told["user"], told["hostkeyalias"]) == ("fe80::1%eth0", "me", "dev")
    assert told["userknownhostsfile"].endswith("a b/dev")
    assert told["proxyjump"] == "gate,al@[fe80::2]:23"
    assert told["stricthostkeychecking"] in ("true", "yes")
