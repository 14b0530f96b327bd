"""What configurations say of their hosts, as Nix would have it, becomes part of them or a line."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.completing import completed, entry_of
from nixherd.fleet.models import Fleet, Host
from nixherd.fleet.outputs import Outputs
from nixherd.nix.evaluator import Evaluator
from tests.nixherd.fleet.test_from_flake import KEY, fleet

NOTHING: dict[str, Any] = {
    "options": {}, "hostname": None, "ports": [], "logins": ["root"], "user": None, "homeDirectory": None
}  # fmt: skip
HOME = {**NOTHING, "logins": [], "user": "al", "homeDirectory": "/home/al"}


@dataclass
class Answers:
    """An evaluator that says this of hosts, and what it was asked."""

    answers: dict[str, Any]
    source: Any = None
    together: tuple[str, ...] = ()
    asked: list[tuple[tuple[str, ...], str]] = field(default_factory=list)

    def details(self, host_ids: Sequence[str], host_id: str) -> Any:
        self.asked.append((tuple(host_ids), host_id))
        answer = self.answers.get(host_id, NOTHING)
        if isinstance(answer, FleetError):
            raise answer
        return answer


def read(made: Fleet, *host_ids: str, **answers: Any) -> Fleet:
    answers = {name.replace("_at_", "@"): answer for name, answer in answers.items()}
    return completed(made, host_ids, cast(Evaluator, Answers(answers)), whole=False)


def read_web(beside: Any = None, **details: Any) -> Host:
    """The host `web` of a fleet of two, whose configuration says this."""
    made = fleet(Outputs(("db", "web"), hosts={}), beside)
    return read(made, "web", web={**NOTHING, **details}).hosts["web"]


def test_what_a_configuration_says() -> None:
    options = {"address": "10.0.0.5", "publicKey": KEY, "tags": ["x"], "wave": 2, "buildOn": "db", "role": None}
    web = read_web(options=options, hostname="www", ports=[2222, 23])
    assert (web.addresses, web.public_key, web.tags, web.port) == (("10.0.0.5",), KEY, ("x",), 2222)
    assert (web.hostname, web.user, web.unread) == ("www", "root", None)
    assert web.deployment == {"wave": 2, "build_on": "db"}


def test_what_others_are_reached_through_is_read_too() -> None:
    """However many there are on the way, also of a home's machine; no other host is."""
    made = fleet(Outputs(("db", "gate", "outer", "web"), ("al@web",), hosts={}))
    answers: dict[str, Any] = {
        "web": {**NOTHING, "options": {"jump": ["gate", "somebody@else:22"]}},
        "gate": {**NOTHING, "options": {"jump": "outer"}},
        "outer": {**NOTHING, "options": {"publicKey": KEY}},
        "al@web": HOME,
    }
    hosts = completed(made, ["al@web"], cast(Evaluator, Answers(answers)), whole=False).hosts
    assert (hosts["al@web"].jump, hosts["gate"].jump) == (("gate", "somebody@else:22"), ("outer",))
    assert hosts["outer"].public_key
    assert hosts["db"].unread
    answers |= {"gate": FleetError("it is broken")}
    hosts = completed(made, ["web"], cast(Evaluator, Answers(answers)), whole=False).hosts
    assert (hosts["gate"].unread, hosts["web"].unread) == ("it is broken", None)


def test_guests_are_those_of_the_definitions_alone() -> None:
    made = fleet(Outputs(("db", "web"), hosts={}))
    options = {"readonly": False, "vmid": 100, "proxmox": {}, "managed": {}}
    details = {**NOTHING, "options": options}
    after = read(made, "web", web=details)
    assert (after.vms, after.endpoint, after.ranges, after.id) == (made.vms, made.endpoint, made.ranges, made.id)


@pytest.mark.parametrize(
    ("details", "user"),
    [
        ({"options": {"user": "al"}, "logins": ["root", "bob"]}, "al"),
        ({"logins": ["bob", "root"]}, "root"),
        ({"logins": ["bob"]}, "bob"),
        ({"logins": [], "user": "eve"}, "eve"),
        ({"options": {"access": "trigger"}, "logins": ["bob"]}, "root"),
    ],
)
def test_who_logs_in(details: dict[str, Any], user: str) -> None:
    assert read_web(**details).user == user


@pytest.mark.parametrize("ports", [[], [22], [2222, 22]])
def test_a_usual_port_is_not_said(ports: list[int]) -> None:
    assert read_web(ports=ports).port is None


@pytest.mark.parametrize(
    ("details", "why"),
    [
        ({"logins": []}, "web: who logs in there is not known: "),
        ({"logins": ["a", "b"]}, "web: who logs in there is not known: "),
        ({"options": {"port": 0}}, "flake.nix: nixosConfigurations.web.config.nixherd.port: 0 is less than 1; "),
        ({"options": {"publicKey": "x"}}, "flake.nix: nixosConfigurations.web.config.nixherd.publicKey: no SSH public"),
        ({"options": {"buildOn": "dc"}}, "flake.nix: nixosConfigurations.web.config.nixherd.build_on: 'dc' is neither"),
        (
            {"options": {"jump": "web"}},
            "flake.nix: nixosConfigurations.web.config.nixherd.jump: web is reached ",
        ),
        ({"options": {"jump": [5]}}, "flake.nix: nixosConfigurations.web.config.nixherd.jump[0]: is an integer, not"),
        ({"options": {"user": "-oX"}}, "flake.nix: nixosConfigurations.web.config.nixherd.user: '-oX' is not a user"),
        ({"options": {"address": "10.0.0.5:22"}}, "flake.nix: nixosConfigurations.web.config.nixherd.addresses[0]: "),
        ({"hostname": "-x"}, "flake.nix: nixosConfigurations.web.config.nixherd.hostname: '-x' is not a hostname; "),
        ({"options": []}, "what a configuration says came out as something unexpected"),
        ({"logins": 5}, "what a configuration says came out as something unexpected"),
    ],
)
def test_what_is_wrong_stops_this_host_alone(details: dict[str, Any], why: str) -> None:
    web = read_web(**details)
    assert web.unread
    assert web.unread.startswith(why)
    with pytest.raises(FleetError, match=r"^web: "):
        web.require_read()


def test_one_that_cannot_be_evaluated_says_why() -> None:
    made = fleet(Outputs(("db", "web"), hosts={}))
    hosts = read(made, "db", "web", web=FleetError("flake.nix:3:1: it is broken; correct it")).hosts
    assert (hosts["web"].unread, hosts["db"].unread) == ("flake.nix:3:1: it is broken; correct it", None)


def test_nobody_is_asked_for_more_than_the_hosts_named() -> None:
    answers = Answers({})
    made = fleet(Outputs(("a", "b", "c"), hosts={}))
    hosts = completed(made, ["c", "a"], cast(Evaluator, answers), whole=False).hosts
    assert {asked for asked, _ in answers.asked} == {("a", "c")}
    assert [host.id for host in hosts.values() if host.unread is None] == ["a", "c"]


def test_a_home_is_reached_as_its_machine_says() -> None:
    made = fleet(Outputs(("web",), ("al@web", "al@pc"), hosts={}))
    web = {**NOTHING, "options": {"publicKey": KEY, "address": "10.0.0.5"}, "ports": [23]}
    hosts = read(made, "al@web", al_at_web=HOME, web=web).hosts
    home = hosts["al@web"]
    assert (home.public_key, home.addresses, home.port) == (KEY, ("10.0.0.5",), 23)
    assert (home.user, home.home_directory) == ("al", "/home/al")
    assert hosts["al@pc"].unread


def test_what_the_files_say_goes_before_what_a_configuration_says() -> None:
    made = replace(
        fleet(Outputs(("db", "web"), hosts={})),
        entries={"web": {"port": 24}}, defaults={"role": "r", "wave": 3},
    )  # fmt: skip
    details = {**NOTHING, "options": {"port": 25, "wave": 2}}
    web = read(made, "web", web=details).hosts["web"]
    assert (web.port, web.deployment) == (24, {"role": "r", "wave": 2})


def test_a_guest_that_only_a_configuration_names_stops_its_host(tmp_path: Path) -> None:
    """Else a machine that is documented as readonly would be none here."""
    from nixherd.fleet.from_flake import UNREAD, listed
    from nixherd.fleet.parse import fleet_of

    hosts = listed(Outputs(("db", "web")))
    definitions = {"imported": {"doc": {"vmid": 104, "hostname": "Www"}}}
    made = fleet_of(tmp_path, {"db": {}, "web": {}}, definitions, [], hosts.configurations, UNREAD)
    web = read(made, "web", web={**NOTHING, "hostname": "www"}).hosts["web"]
    assert web.unread == (
        "vms/definitions.nix: imported.doc is called as web calls itself, www; "
        'write hostname = "web" there, or rename one of them'
    )


@pytest.mark.parametrize("details", [None, [], {}, {**NOTHING, "options": None}, {**NOTHING, "ports": {"a": 1}}])
def test_anything_else_than_an_answer_is_an_error(details: Any) -> None:
    with pytest.raises(FleetError, match="something unexpected"):
        entry_of(details)
