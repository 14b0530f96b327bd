"""How a deployment is to go."""

from typing import Any

import pytest

from nixherd.base.errors import Usage
from nixherd.deploy.options import Goal, MaxFail, Options


def options(**said: Any) -> Options:
    return Options.of("web", said.get)


def test_nothing_said() -> None:
    assert options() == Options()
    assert (Options().goal, Options().activation_deadline, Options().confirm_deadline) == (Goal.SWITCH, 600, 120)


def test_all_that_can_be_said() -> None:
    said = {"goal": "test", "activation_deadline": 8, "confirm_deadline": 30, "soak": 10, "specialisation": "debug"}
    said |= {"allow_dirty": True, "canary": True, "role": "dns", "max_fail": "10%"}
    assert options(**said) == Options(Goal.TEST, 8, 30, 10, "debug", True, 0, "dns", MaxFail(percent=10))


@pytest.mark.parametrize(
    "said",
    [
        {"goal": "swich"},
        {"activation_deadline": "soon"},
        {"activation_deadline": -1},
        {"confirm_deadline": True},
        {"soak": 120},
        {"soak": 86401},
        {"specialisation": "x", "goal": "boot"},
        {"allow_dirty": "maybe"},
        {"wave": 0},
        {"max_fail": "many"},
        {"backup_extension": "a/b"},
        {"backup_extension": ".bak"},
    ],
)
def test_what_cannot_be_meant(said: dict[str, Any]) -> None:
    with pytest.raises(Usage):
        options(**said)


def test_who_builds_is_a_host_of_the_fleet() -> None:
    data = {"build_on": "nosuch"}
    with pytest.raises(Usage, match="build_on=nosuch is neither local, target nor a host of the fleet"):
        Options.of("web", data.get, {"web", "db"})
    assert Options.of("web", {"build_on": "db"}.get, {"web", "db"}).build_on == "db"
