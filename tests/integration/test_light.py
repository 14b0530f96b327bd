"""Many hosts at once, by root, without systemd: the machine's guard is a plain process there."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.deployed import DEADLINES, outcomes, run_deploy
from tests.integration.lab_driver import Lab, edit, until

pytestmark = pytest.mark.slow

COUNT = 20
HOSTS = tuple(f"light{number:03}" for number in range(1, COUNT + 1))


@pytest.fixture
def many(lab: Lab) -> Iterator[Lab]:
    lab("fleet", str(COUNT), "--light")
    yield lab
    lab("fleet", "0", "--light")


def configure(lab: Lab, text: str) -> None:
    """Give all of them this module, beside their own; `hostname` is which one it is."""
    directory = lab.places.fleet / "hosts/light"
    (directory / "more.nix").write_text(f"{{lib, hostname, ...}}: {{ {text} }}\n")
    if "more.nix" not in (directory / "configuration.nix").read_text():
        edit(directory / "configuration.nix", "  system.state", "  imports = [./more.nix];\n  system.state")
    lab.run("sh", "-c", "cd $FLEET && git add -A && git commit -q --no-verify --allow-empty -m change")


def read(lab: Lab, host: str) -> list[str]:
    """What one runs and boots, and its marker, asked by OpenSSH."""
    key = (lab.state / "light" / host / "ssh_host_ed25519_key.pub").read_text()
    address = f"10.78.0.{int(host[-3:]) + 1}"
    known = lab.state / "known-light"
    known.write_text(f"{address} {key}")
    options = ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    command = "readlink -f /run/current-system /nix/var/nix/profiles/system; cat /etc/marker"
    return lab.run("ssh", *options, f"root@{address}", command).output.split()


def why(document: dict[str, Any], host: str) -> str:
    return next(str(row["why"]) for row in document["hosts"] if row["host"] == host)


def test_all_of_them_twice_and_some_that_are_broken(many: Lab) -> None:
    configure(many, 'environment.etc.marker.text = "one";')
    ended, document = run_deploy(many, "light*")
    assert (ended.status, outcomes(document)) == (0, dict.fromkeys(HOSTS, "deployed"))
    systems = {row["host"]: row["new"] for row in document["hosts"]}
    assert len(set(systems.values())) == COUNT
    for host in (HOSTS[0], HOSTS[-1]):
        assert read(many, host) == [systems[host], systems[host], "one"]
    ended, document = run_deploy(many, "light*")
    assert (ended.status, outcomes(document)) == (0, dict.fromkeys(HOSTS, "unchanged"))

    configure(
        many,
        """
      environment.etc.marker.text = "two";
      system.activationScripts.fault = lib.optionalString (hostname == "light003") "false"
        + lib.optionalString (hostname == "light007") "sleep 1000";
    """,
    )
    ended, document = run_deploy(many, "light*", *DEADLINES, check=False)
    expected = dict.fromkeys(HOSTS, "deployed") | {"light003": "rolled back", "light007": "rolled back"}
    assert (ended.status, outcomes(document)) == (1, expected)
    assert "the activation ended with status 2" in why(document, "light003")
    assert "the activation did not end within 8 s" in why(document, "light007")
    for host in ("light003", "light007"):
        assert read(many, host) == [systems[host], systems[host], "one"]
    assert read(many, HOSTS[0])[2] == "two"


def test_a_killed_run_is_taken_back_without_systemd(many: Lab) -> None:
    configure(many, 'environment.etc.marker.text = "one";')
    run_deploy(many, "light001")
    before = read(many, "light001")
    configure(many, 'environment.etc.marker.text = "two";')
    with many.under_way("nixherd", "deploy", "light001", *DEADLINES) as run:
        run.until(lambda line: line.startswith("light001: prove"))
    until(lambda: read(many, "light001") == before, 40, "it goes back")
    ended = many.run("sh", "-c", "nixherd deploy light001 --json 2>/dev/null")
    assert outcomes(json.loads(ended.output)) == {"light001": "deployed"}
