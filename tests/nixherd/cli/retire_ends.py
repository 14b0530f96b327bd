"""What `test_cli_killed` brings back before `retire` is killed, and what has to be there after it; a program.

python -m tests.nixherd.cli.retire_ends reset|verify FLEET ORIGINAL PORT FINGERPRINT
"""

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from nixherd.proxmox.client import Client, connect
from nixherd.proxmox.guard.policy import Policy
from tests.nixherd.cli import killed_ends
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.proxmox.dev import begin
from tests.nixherd.proxmox.fleets import FLEET
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import contents


def git(fleet: Path, *words: str) -> str:
    """By the PATH that we were given: HOME is the test's, where no program was ever built."""
    return subprocess.run(["git", *words], cwd=fleet, check=True, capture_output=True, text=True).stdout


def reset(emulator: Emulator, fleet: Path, original: Path) -> None:
    shutil.rmtree(fleet, ignore_errors=True)
    shutil.copytree(original, fleet)
    git(fleet, "status")
    begin(emulator, task_seconds=killed_ends.SLOW)


def verify(client: Client, fleet: Path, original: Path) -> None:
    """All of it is done, once. AssertionError where not."""
    while client.tasks("prom"):
        time.sleep(0.05)
    assert client.is_free(110)
    assert [row for row in client.volumes("prom", "nvmeprom") if row.vmid == 110] == []
    assert client.volumes("prom", "local", content="backup", vmid=110)
    subjects = git(fleet, "log", "--format=%s").splitlines()
    assert subjects[0] == "fleet: dev retires"
    assert len(subjects) == len(git(original, "log", "--format=%s").splitlines()) + 1
    assert git(fleet, "status", "--porcelain", "--ignored") == ""
    texts = contents(fleet)
    assert texts.keys() == contents(original).keys() - {"hosts/dev.nix", "secrets/dev.yaml"}
    assert not [path for path, text in texts.items() if key("dev").recipient.encode() in text]


def main(words: list[str]) -> None:
    verb, fleet, original, port, fingerprint = words[0], Path(words[1]), Path(words[2]), int(words[3]), words[4]
    emulator = Emulator(port, Path("/dev/null"), fingerprint)
    if verb == "reset":
        reset(emulator, fleet, original)
        return
    token = replace(emulator.token, user="root@pam", name="all")  # nothing is hidden from it
    verify(connect(emulator.endpoint, Policy.from_fleet(FLEET), token), fleet, original)


if __name__ == "__main__":
    main(sys.argv[1:])
