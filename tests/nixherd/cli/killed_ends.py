"""What `test_cli_killed` brings back before each kill, and what has to be there after it: run as a program of its own.

python -m tests.nixherd.cli.killed_ends reset|verify destroy|adopt|template PORT FINGERPRINT
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nixherd.proxmox.client import Client, connect
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guest.archive import held_inside
from nixherd.proxmox.guest.identity import mark
from tests.nixherd.cli.template import conftest as template
from tests.nixherd.proxmox.conftest import GIB, Emulator
from tests.nixherd.proxmox.dev import begin
from tests.nixherd.proxmox.fleets import DEV, FLEET

WORDS: dict[str, list[str]] = {
    "destroy": ["vm", "destroy", "dev", "110", "--discard", "unused0"],
    "adopt": ["vm", "adopt", "dev", "110", "--yes"],
    "template": ["template", "create", "--pool", template.POOL, "--image", template.IMAGE],
}
NOTES = "made by hand\n\nsee the wiki"
SLOW = {"vzdump": 0.4, "qmdestroy": 0.3, "qmcreate": 0.3, "qmclone": 0.3, "qmtemplate": 0.2, "qmstart": 0.1}


def reset(emulator: Emulator, case: str) -> None:
    if case == "template":
        template.begin(emulator, task_seconds=SLOW)
    elif case == "adopt":
        begin(emulator, description=NOTES)
    else:
        spare = {"nvmeprom:vm-110-disk-9": {"content": "images", "format": "raw", "size": GIB, "used": GIB}}
        emulator.control("reset", patch=_with_volumes(emulator, spare))


def _with_volumes(emulator: Emulator, volumes: dict[str, Any]) -> dict[str, Any]:
    """The patch of `begin`, with more volumes: a reset begins from the start state."""
    patches: list[dict[str, Any]] = []

    class Recorder(Emulator):
        def control(self, what: str, **params: Any) -> None:
            patches.append(params["patch"])

    recorder = Recorder(emulator.port, emulator.log, emulator.fingerprint)
    begin(recorder, status="stopped", task_seconds=SLOW, unused0=next(iter(volumes)))
    patches[0]["storages"]["nvmeprom"]["volumes"] |= volumes
    return patches[0]


def _destroyed(client: Client) -> None:
    assert client.is_free(110)
    left = [row.volid for name in ("nvmeprom", "tank") for row in client.volumes("prom", name, vmid=110)]
    assert left == [], left
    archives = client.volumes("prom", "local", content="backup", vmid=110)
    assert archives
    newest = max(archives, key=lambda row: row.ctime or 0)
    assert "scsi0" in dict(held_inside(client.archived_text("prom", newest.volid), DEV.type)), newest


def _adopted(client: Client) -> None:
    config = client.config("prom", 110)
    assert config is not None
    assert config.description.rstrip("\n") == f"{mark(FLEET, DEV)}\n{NOTES}", config.description
    assert (str(config.values["cores"]), config.lock) == ("4", None)


def _made(client: Client) -> None:
    config = client.config("prom", 9002)
    assert config is not None
    assert config.is_template
    assert config.lock is None
    guests = {row.vmid for row in client.resources()}
    assert guests == {104, 109, 111, 9002}, guests
    disks = [row.volid for row in client.volumes("prom", "nvmeprom") if row.vmid not in (104, None)]
    named = [each.volume for each in config.volumes.values()]
    assert sorted(disks) == sorted(named), (disks, named)


VERIFY: dict[str, Callable[[Client], None]] = {"destroy": _destroyed, "adopt": _adopted, "template": _made}


def main(words: list[str]) -> None:
    verb, case, port, fingerprint = words[0], words[1], int(words[2]), words[3]
    emulator = Emulator(port, Path("/dev/null"), fingerprint)
    if verb == "reset":
        reset(emulator, case)
        return
    token = replace(emulator.token, user="root@pam", name="all")  # nothing is hidden from it
    client = connect(emulator.endpoint, Policy.from_fleet(FLEET), token)
    while client.tasks("prom"):
        time.sleep(0.05)
    VERIFY[case](client)


if __name__ == "__main__":
    main(sys.argv[1:])
