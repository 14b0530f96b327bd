"""What a host does for the fleet beside being one of its hosts, as far as it is known."""

import json
import os
from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import FleetError
from nixherd.nix.evaluator import Evaluator
from nixherd.trust import rehearsal
from tests.nixherd.deploy.scripted import SHARED
from tests.nixherd.proxmox.fleets import FLEET

HOSTS = SHARED.fleet.hosts
CANARY = replace(HOSTS["dev"], deployment={"canary": True})


def of(monkeypatch: pytest.MonkeyPatch, host: Any, answer: Any, guests: Any = ()) -> list[str]:
    def ask(self: Any, argv: Any) -> str:
        if isinstance(answer, Exception):
            raise answer
        return json.dumps(answer)

    monkeypatch.setattr(Evaluator, "ask", ask)
    fleet = replace(SHARED.fleet, hosts={**HOSTS, host.id: host})
    return rehearsal.duties_of(SHARED.evaluator, fleet, host, guests)


def test_what_the_flake_says_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"a binary cache": True, "a builder": False}
    assert of(monkeypatch, HOSTS["dev"], answer) == ["it is a binary cache"]
    [line] = of(monkeypatch, HOSTS["dev"], FleetError("no network"))
    assert line == "what it does for the others is not known: no network"


def test_the_only_one_of_the_first_wave_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = of(monkeypatch, CANARY, {})
    assert line.endswith("no host is deployed to before the others then")


def test_what_its_definition_says_and_whether_we_run_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    vm = next(iter(FLEET.vms.values()))
    guest = replace(vm, extra={"purpose": "the  wiki", "services": ["nginx", "", "gitea"], "notes": None})
    lines = of(monkeypatch, replace(HOSTS["dev"], hostname=os.uname().nodename), {}, [guest])
    assert lines == [
        f"{vm.attribute}.purpose in the definitions: the wiki",
        f"{vm.attribute}.services in the definitions: nginx, gitea",
        f"the machine that this runs on is called {os.uname().nodename} as well; is it that one?",
    ]
