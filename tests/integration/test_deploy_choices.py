"""Deployments in the lab: what an operator chooses, and what is refused."""

import re
from pathlib import Path

import pytest

from tests.integration.deployed import Fleet, outcomes

pytestmark = pytest.mark.slow


def test_what_is_not_committed_is_not_deployed_unless_said(fleet: Fleet) -> None:
    marker: Path = fleet.lab.places.fleet / "hosts/dev/marker"
    fleet.change("dev", "committed")
    marker.write_text("not committed")
    ended, document = fleet.deploy("dev", check=False)
    assert (ended.status, outcomes(document)) == (4, {"dev": "failed"})
    assert "hosts/dev/marker: has changes that are not committed" in document["hosts"][0]["why"]
    ended, document = fleet.deploy("dev", "--allow-dirty")
    assert (ended.status, document["dirty"]) == (0, ["hosts/dev/marker"])
    assert fleet.machine("dev").marker == "not committed"
    fleet.change("dev", "committed again")


def test_who_does_not_answer_stops_nobody(fleet: Fleet) -> None:
    fleet.change("dev2", "without dev3")
    fleet.lab.api_task("/nodes/prom/qemu/112/status/stop")
    try:
        ended, document = fleet.deploy("dev2", "dev3", check=False)
    finally:
        fleet.lab.api_task("/nodes/prom/qemu/112/status/start")
    assert (ended.status, outcomes(document)) == (1, {"dev2": "deployed", "dev3": "unreachable"})
    assert "vm 112 (dev3) is stopped" in next(row["why"] for row in document["hosts"] if row["host"] == "dev3")


def test_a_host_that_cannot_be_evaluated_or_built_fails_alone(fleet: Fleet) -> None:
    fleet.change("dev2", "beside a broken one")
    hosts = fleet.lab.places.fleet / "hosts"
    for text, output in (
        ('{ environment.etc.x.text = throw "no such thing"; }', "no such thing"),
        ('{ system.systemBuilderCommands = "echo it cannot be built; exit 3"; }', "it cannot be built"),
    ):
        fleet.lab("break", "dev", "unit-fails")
        (hosts / "dev/faults/unit-fails.nix").write_text(text + "\n")
        fleet.change("dev2", output)
        ended, document = fleet.deploy("dev", "dev2", check=False)
        assert (ended.status, outcomes(document)) == (1, {"dev": "failed", "dev2": "deployed"}), document
        assert output in document["hosts"][0]["why"]


@pytest.mark.parametrize("goal", ["test", "boot"])
def test_goals(fleet: Fleet, goal: str) -> None:
    fleet.change("dev", f"goal {goal}")
    before = fleet.machine("dev")
    ended, document = fleet.deploy("dev", "--goal", goal)
    now, new = fleet.machine("dev"), document["hosts"][0]["new"]
    if goal == "test":
        assert outcomes(document) == {"dev": "deployed"}
        assert (now.current, now.profile, now.default) == (new, before.profile, before.default)
    else:
        assert outcomes(document) == {"dev": "pending reboot"}
        assert (now.current, now.profile) == (before.current, new)
        assert now.default != before.default
    ended, document = fleet.deploy("dev")
    assert (ended.status, outcomes(document)) == (0, {"dev": "deployed"})
    now = fleet.machine("dev")
    assert now.current == now.profile == new


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--goal", "nothing"), "'nothing' is not one of 'switch', 'boot', 'test', 'dry-activate'"),
        (("--soak", "500"), "soak=500 leaves no time to confirm: confirm_deadline=120 has to be longer"),
        (("--activation-deadline", "-1"), "-1 is not a number of seconds from 1 to"),
        (("--goal", "boot", "--specialisation", "x"), "specialisation=x: with goal=boot it is chosen at the boot"),
        (("--exclude", "dev"), "no host is left to work on"),
        (("nosuch",), "--limit nosuch: no host or group has this name"),
    ],
)
def test_wrong_input_is_said_and_nothing_is_done(fleet: Fleet, words: tuple[str, ...], message: str) -> None:
    ended = fleet.lab.run("nixherd", "deploy", "dev", *words, "--table", check=False)
    assert ended.status == 2, ended.output
    assert message in ended.output
    assert "Traceback" not in ended.output


def test_a_specialisation_is_switched_to_and_left(fleet: Fleet) -> None:
    other = 'specialisation.other.configuration.environment.etc.variant.text = "other";'
    fleet.broken_by("dev", f"{{lib, ...}}: {{ {other} }}")
    before = fleet.machine("dev")
    ended, document = fleet.deploy("dev", "--specialisation", "other")
    assert (ended.status, outcomes(document)) == (0, {"dev": "deployed"})
    now, new = fleet.machine("dev"), document["hosts"][0]["new"]
    assert now.profile == new != before.profile
    assert fleet.on("dev", "cat /etc/variant").output == "other"
    assert now.current == fleet.on("dev", f"readlink -f {new}/specialisation/other").output.strip() != new
    ended, document = fleet.deploy("dev", "--specialisation", "other")
    assert (ended.status, outcomes(document)) == (0, {"dev": "unchanged"})
    ended, document = fleet.deploy("dev", "--specialisation", "nosuch", check=False)
    assert (ended.status, outcomes(document)) == (4, {"dev": "failed"})
    assert "specialisation/nosuch" in document["hosts"][0]["why"]
    assert fleet.machine("dev") == now
    ended, document = fleet.deploy("dev")
    assert (ended.status, outcomes(document)) == (0, {"dev": "deployed"})
    assert fleet.machine("dev").current == new
    assert fleet.on("dev", "test -e /etc/variant", check=False).status == 1


def test_on_a_terminal_the_stages_are_a_table_that_lives(fleet: Fleet) -> None:
    fleet.change("dev", "on a terminal")
    command = "stty cols 120 rows 40; TERM=xterm nixherd deploy dev"
    output = fleet.lab.run("script", "-qefc", command, "/dev/null").output
    # each is erased before the next one
    frames = [re.sub(r"\x1b\[[0-9;?]*\w", "", frame) for frame in output.split("\x1b[2K\x1b[1A")]
    stages = ("evaluate", "copy", "activate", "prove")
    shown = [stage for stage in stages if any(re.search(rf"dev +{stage} +\d s", frame) for frame in frames)]
    assert "activate" in shown
    assert len(shown) > 1
    assert re.search(r"dev  deployed \(\d+\.\d s\)", frames[-1])
    assert "1 deployed" in frames[-1]
