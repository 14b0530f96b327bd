"""What differs on machines is planned by `nixherd drift`, mended by `nixherd fix`, and seen to be gone."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.deployed import Fleet
from tests.integration.lab_driver import edit

pytestmark = pytest.mark.slow


def asked(fleet: Fleet, *words: str, status: int) -> Any:
    """The document of a command, without what it narrates."""
    ended = fleet.lab.run("sh", "-c", 'exec "$0" "$@" 2>/dev/null', "nixherd", *words, "--json", check=False)
    assert ended.status == status, ended.output
    return json.loads(ended.output)


def metrics(fleet: Fleet, document: Any) -> dict[str, set[str]]:
    """In which kinds hosts differ by the file for node_exporter that `nixherd metrics` makes of the document."""
    source, file = fleet.lab.state / "status.json", fleet.lab.state / "status.prom"
    source.write_text(json.dumps(document))
    fleet.lab.run("nixherd", "metrics", "--from", str(source), "--output", str(file))
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(file.read_text()):
        for sample in family.samples:
            if sample.name == "nixherd_host_differs":
                found.setdefault(sample.labels["host"], set()).add(sample.labels["kind"])
    return found


def outcomes(document: Any) -> set[tuple[str, str, str]]:
    return {(row["host"], row["mend"], row["outcome"]) for row in document["mends"]}


def test_what_differs_is_planned_mended_and_seen_to_be_gone(fleet: Fleet) -> None:
    lab, hosts = fleet.lab, ("dev2", "dev3")
    definitions = lab.places.fleet / "vms/definitions.nix"
    text = definitions.read_text()
    fleet.deploy("dev", *hosts)
    try:
        # dev2: its guest lacks a tag, and there is a system that it does not run; dev3 waits for a boot
        edit(definitions, "vmid = 111;", 'vmid = 111; tags = [ "mended" ];')
        fleet.change("dev3", "for the next boot")
        fleet.deploy("dev3", "--goal", "boot")
        fleet.change("dev2", "not deployed")
        chosen = _planned(fleet, hosts)
        _refused(fleet, "dev3", "vmid = 112;")
        before, only = fleet.machine("dev2"), ("--only", "apply,deploy,reboot")
        dry = asked(fleet, "fix", *hosts, *only, "--dry-run", status=0)
        assert fleet.machine("dev2") == before
        done = asked(fleet, "fix", *hosts, *only, "--yes", status=0)
        assert outcomes(dry) == {(host, mend, "planned") for host, mend in chosen}
        assert outcomes(done) == {(host, mend, "done") for host, mend in chosen}
        assert done["left"] == []
        # seen past our code
        assert fleet.machine("dev2").marker == "not deployed"
        assert fleet.machine("dev3").marker == "for the next boot"
        assert lab.api("/nodes/prom/qemu/111/config")["tags"] == "mended"
        assert asked(fleet, "fix", *hosts, *only, "--yes", status=0)["mends"] == []
    finally:
        definitions.write_text(text)
        fleet.commit()


def _planned(fleet: Fleet, hosts: Sequence[str]) -> set[tuple[str, str]]:
    """What `drift` plans, but for backups; status, metrics and it are of one document, and say the same."""
    status = asked(fleet, "status", *hosts, status=1)
    differs = {row["host"]: {each["kind"] for each in row["differences"]} for row in status["hosts"]}
    assert differs["dev2"] >= {"system", "guest"}
    assert differs["dev3"] >= {"reboot"}
    assert metrics(fleet, status) == differs
    plan = asked(fleet, "drift", *hosts, "--from", str(fleet.lab.state / "status.json"), status=1)
    planned = {(row["host"], row["mend"]) for row in plan["mends"]}
    assert planned >= {("dev2", "apply"), ("dev2", "deploy"), ("dev3", "reboot")}
    return {(host, mend) for host, mend in planned if mend != "backup"}


def _refused(fleet: Fleet, host: str, entry: str) -> None:
    """The guest is readonly for once: the machine is not rebooted."""
    definitions, booted = fleet.lab.places.fleet / "vms/definitions.nix", fleet.machine(host)
    edit(definitions, entry, f"{entry} readonly = true;")
    fleet.commit()
    assert outcomes(asked(fleet, "fix", host, "--only", "reboot", "--yes", status=3)) == {(host, "reboot", "refused")}
    assert fleet.machine(host) == booted
    edit(definitions, f"{entry} readonly = true;", entry)
    fleet.commit()
