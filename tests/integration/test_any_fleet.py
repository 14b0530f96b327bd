"""A flake without a hosts.nix of ours, in the lab: its hosts are its configurations, which say how they are reached."""

import json

import pytest

from tests.integration.deployed import Fleet, outcomes

pytestmark = pytest.mark.slow

# The flake of the lab goes on to read hosts.nix, which is its own file then. Its keys are all that is not in
# configurations.
KEYS = """{
  useHostsFile = false;
  hosts = builtins.mapAttrs (_: host: { inherit (host) publicKey; }) (import ./hosts.nix);
}
"""


def test_hosts_of_the_flake_are_deployed_to_as_their_configurations_say(fleet: Fleet) -> None:
    beside = fleet.lab.places.fleet / "nixherd.nix"
    beside.write_text(KEYS)
    try:
        fleet.change("dev", "by the flake alone")
        fleet.commit()
        listed = json.loads(fleet.lab.run("sh", "-c", "nixherd hosts dev dev2 --json 2>/dev/null").output)
        assert [(row["host"], row["user"], row["guest"]) for row in listed] == [
            ("dev", None, "dev"),
            ("dev2", None, "dev2"),
        ]
        ended, document = fleet.deploy("dev", "dev2")
        assert (ended.status, outcomes(document)["dev"]) == (0, "deployed")
        assert fleet.machine("dev").marker == "by the flake alone"
        assert document["hosts"][0]["revision"] == fleet.head
        answer = json.loads(fleet.lab.run("sh", "-c", "nixherd exec dev --json -- whoami 2>/dev/null").output)
        assert answer["hosts"][0]["stdout"].strip() == "root"  # who has a key there, too
    finally:
        beside.unlink()
        fleet.commit()
