"""`nixherd status` of machines on which something differs, one of each kind: it is seen, said, and nothing else is."""

import json
import re
from typing import Any

import jsonschema
import pytest

from nixherd.overview.schema import schema
from tests.integration.deployed import OURS, Fleet
from tests.integration.lab_driver import edit

pytestmark = pytest.mark.slow

ANOTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBLttgCC207xe2/VdjJgUJmLQMgJ3lvL9AeIfsob+Gyo"


def look(fleet: Fleet, *words: str, status: int) -> dict[str, Any]:
    """The document of `nixherd status`, valid, and its exit status both ways."""
    ended = fleet.lab.run("sh", "-c", 'exec "$0" "$@" 2>/dev/null', "nixherd", "status", *words, "--json", check=False)
    assert ended.status == status, ended.output
    document: dict[str, Any] = json.loads(ended.output)
    jsonschema.validate(document, schema())
    assert document["exit"] == status
    return document


def hosts(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["host"]: row for row in document["hosts"]}


def kinds(row: dict[str, Any]) -> set[str]:
    return {each["kind"] for each in row["differences"]}


def as_they_should_be(fleet: Fleet) -> None:
    """The machines run, and have booted, what the files say: others have worked on them."""
    fleet.deploy(*OURS, "--reboot")
    fleet.lab.run("nixherd", "reboot", *OURS)


def test_machines_that_are_as_they_should_be(fleet: Fleet) -> None:
    as_they_should_be(fleet)
    fleet.lab.run("sh", "-c", "for each in dev dev2 dev3; do nixherd vm backup $each --newer-than 86400 || exit; done")
    document = look(fleet, *OURS, status=0)
    for host, row in hosts(document).items():
        assert (row["state"], row["unknown"]) == ("same", {}), row
        machine = fleet.machine(host)
        assert row["system"]["running"] == row["system"]["desired"] == machine.current
        assert row["revision"] == {"desired": fleet.head, "running": fleet.head, "behind": 0}
        assert fleet.on(host, "cat /proc/sys/kernel/osrelease").output.strip() == row["reboot"]["kernel"]
        assert (row["secrets"]["recipients"], row["secrets"]["decrypted"]) == (True, True)
        assert row["secrets"]["declared"] > 0
        assert (row["guest"]["power"], row["guest"]["drift"], row["guest"]["backups"]) == ("running", [], 1)
        assert row["update"]["mode"] == "pushed"
        assert row["deployment"]["revision"] == fleet.head
        assert row["disks"][0]["total"] > row["disks"][0]["used"] > 0
    assert document["hypervisor"]["state"] == "answered"


def test_what_differs_is_told_of_each_and_of_no_other(fleet: Fleet) -> None:
    lab = fleet.lab
    as_they_should_be(fleet)
    # dev: what it runs was not committed, and since then there is a commit more; a unit has failed
    (lab.places.fleet / "hosts/dev/marker").write_text("not committed")
    fleet.deploy("dev", "--data", "allow_dirty=true")
    fleet.commit()
    fleet.on("dev", "sudo systemd-run --quiet --unit=planted false; sleep 0.5", check=False)
    # dev2: it runs the new one for a test, and boots another; its guest was changed by hand
    fleet.change("dev2", "for a test")
    fleet.deploy("dev2", "--goal", "test")
    lab.api("/nodes/prom/qemu/111/config", "PUT", cores=1)
    # dev3: it waits for a boot
    fleet.change("dev3", "for the next boot")
    fleet.deploy("dev3", "--goal", "boot")
    try:
        found = hosts(look(fleet, *OURS, "doc1", status=1))
        assert {host: kinds(row) for host, row in found.items()} == {
            "dev": {"dirty", "units"},
            "dev2": {"generation", "guest"},
            "dev3": {"system", "reboot"},
            "proxmox-vm": set(),
        }
        assert found["proxmox-vm"]["state"] == "unreachable"
        assert found["dev"]["units"]["failed"] == ["planted.service"]
        assert found["dev"]["revision"]["running"].endswith("-dirty")
        assert found["dev3"]["reboot"]["why"] == ["system"]
        assert "cores" in "; ".join(found["dev2"]["guest"]["drift"])
        shown = {row["host"] for row in look(fleet, *OURS, "--needs", "reboot", "--no-vm", status=1)["hosts"]}
        assert shown == {"dev3"}
        assert set(hosts(look(fleet, *OURS, "--failed", "--no-eval", "--no-vm", status=1))) == {"dev"}
    finally:
        lab.api("/nodes/prom/qemu/111/config", "PUT", cores=4)
        as_they_should_be(fleet)


def test_another_key_a_missing_recipient_and_a_host_in_no_update_mode(fleet: Fleet) -> None:
    files, before = fleet.lab.places.fleet, look(fleet, "dev3", "--no-vm", status=0)
    texts = {name: (files / name).read_text() for name in ("hosts.nix", "secrets/.sops.yaml")}
    pinned = hosts(before)["dev3"]["key"]["pinned"]
    keys = dict(re.findall(r'^  (\S+) = \{.*?publicKey = "([^"]+)"', texts["hosts.nix"], re.DOTALL | re.MULTILINE))
    edit(files / "hosts.nix", keys["dev3"], ANOTHER_KEY)
    edit(files / "hosts.nix", keys["epimetheus"], "PLACEHOLDER")
    edit(files / "secrets/.sops.yaml", "          - *dev2\n", "")
    try:
        found = hosts(look(fleet, "dev2", "dev3", "epi", "--no-vm", status=1))
        by_pyinfra = hosts(look(fleet, "dev2", "dev3", "epi", "--no-vm", "--data", "boot_deadline=300", status=1))
    finally:
        for name, text in texts.items():
            (files / name).write_text(text)
    same = ("state", "key", "system", "revision", "units", "secrets", "differences", "unknown")
    for host, row in found.items():  # asked in the command's own process, and in a run of pyinfra
        assert {each: row[each] for each in same} == {each: by_pyinfra[host][each] for each in same}
        reach = [each[host]["reach"] for each in (found, by_pyinfra)]
        assert len({(each["answered"], each["address"], each["why"]) for each in reach}) == 1, reach
    assert "key" in kinds(found["dev3"])
    assert found["dev3"]["key"]["shown"] == pinned
    assert found["dev3"]["reach"]["at"] is not None
    assert found["dev3"]["system"]["running"] == hosts(before)["dev3"]["system"]["running"]
    assert "recipients" in kinds(found["dev2"])
    assert {"key", "update"} <= kinds(found["epimetheus"])


def test_nothing_is_asked_of_the_hypervisor_unless_it_may(fleet: Fleet) -> None:
    before = len(fleet.lab.requests())
    document = look(fleet, *OURS, "--no-vm", status=0)
    assert document["hypervisor"]["state"] == "not asked"
    assert len(fleet.lab.requests()) == before
    look(fleet, *OURS, status=0)
    asked = [entry["path"] for entry in fleet.lab.requests()[before:]]
    assert len([path for path in asked if path.endswith("/cluster/resources")]) == 1
    assert len(asked) <= 1 + 2 * len(OURS) + 2, asked
    assert {entry["method"] for entry in fleet.lab.requests()[before:]} == {"GET"}


def test_a_hypervisor_that_does_not_answer_is_said_and_the_machines_are_seen(fleet: Fleet) -> None:
    fleet.lab.fault("refused", method="GET", path="cluster/resources", count=9)
    try:
        document = look(fleet, *OURS, status=4)
    finally:
        fleet.lab.fault("refused", on=False)
    assert document["hypervisor"]["state"] == "unreachable"
    for row in document["hosts"]:
        assert row["system"]["same"] is True
        assert "guest" in row["unknown"]
