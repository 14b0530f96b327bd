"""A name that protects nothing: misspelled attributes, values that nobody obeys, and what is found in both."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nixherd.cli.main import run
from nixherd.errors import FleetInvalid, Severity
from nixherd.fleet.load import load_fleet
from nixherd.fleet.near_names import STRONGEST, judge, near_option, normal
from nixherd.fleet.schema import COMMON, FIELDS, Place, fields_of
from tests.security.names.conftest import (
    ROOT,
    Case,
    Edit,
    MakeFleet,
    host,
    imported,
    on_guest,
    on_host,
    proxmox,
    template,
)


def guest(name: str, value: Any = True, instead: str | None = None) -> Case:
    return Case(("definitions", "managed", "dev"), name, value, instead)


def top(name: str, value: Any = True, instead: str | None = None) -> Case:
    return Case(("definitions",), name, value, instead)


def ranges(name: str, value: Any = True) -> Case:
    return Case(("definitions", "vmidRanges", "production"), name, value)


CHECK = {"a": {"unit": "x.service"}}
REFUSED: list[tuple[Case, str]] = [
    (guest("readOnly"), "managed.dev.readOnly: protects nothing: the name is readonly"),
    (guest("read-only"), "managed.dev.read-only: protects nothing: the name is readonly"),
    (guest("Readonly"), "managed.dev.Readonly: protects nothing: the name is readonly"),
    (guest("read_only"), "managed.dev.read_only: protects nothing: the name is readonly"),
    (guest("read only"), "managed.dev.read only: protects nothing: the name is readonly"),
    (guest("ｒｅａｄｏｎｌｙ"), "managed.dev.ｒｅａｄｏｎｌｙ: protects nothing: the name is readonly"),
    (guest("readnoly"), "managed.dev.readnoly: protects nothing, and is close to readonly"),
    (guest("redonly"), "managed.dev.redonly: protects nothing, and is close to readonly"),
    (guest("isReadonly"), "managed.dev.isReadonly: protects nothing, and is close to readonly"),
    (guest("re\u0430donly"), "managed.dev.re\u0430donly: protects nothing, and is close to readonly"),
    (guest("readonly\u200b"), "managed.dev.'readonly\\u200b': protects nothing: the name is readonly"),
    (guest("readonly", None), "managed.dev.readonly: is null, not a boolean"),
    (guest("vmId", 111), "managed.dev.vmId: protects nothing: the name is vmid"),
    (guest("Node", "other"), "managed.dev.Node: protects nothing: the name is node"),
    (guest("healthChecks", CHECK), "managed.dev.healthChecks: protects nothing here"),
    (guest("access", "trigger"), "managed.dev.access: protects nothing here"),
    (imported("readOnly", False), "imported.doc.readOnly: protects nothing: the name is readonly"),
    (imported("readonyl"), "imported.doc.readonyl: protects nothing, and is close to readonly"),
    (host("acces", "trigger"), "dev.acces: protects nothing, and is close to access"),
    (host("Access", "trigger"), "dev.Access: protects nothing: the name is access"),
    (host("healthCheck", CHECK), "dev.healthCheck: protects nothing, and is close to healthChecks"),
    (host("health_checks", CHECK), "dev.health_checks: protects nothing: the name is healthChecks"),
    (host("publickey", instead="publicKey"), "dev.publickey: protects nothing: the name is publicKey"),
    (host("Wave", 2), "dev.Wave: protects nothing: the name is wave"),
    (host("readonly"), "dev.readonly: protects nothing here: readonly is obeyed in the guest's entry"),
    (host("readOnly"), "dev.readOnly: protects nothing here: readonly is obeyed in the guest's entry"),
    (host("requireSigned"), "dev.requireSigned: protects nothing: the name is require_signed"),
    (top("readonly"), "readonly: protects nothing here: readonly is obeyed in the guest's entry"),
    (proxmox("readOnly"), "proxmox.readOnly: protects nothing here"),
    (proxmox("fingerPrint", "x"), "proxmox.fingerPrint: protects nothing: the name is fingerprint"),
    (proxmox("Node", "x"), "proxmox.Node: protects nothing: the name is node"),
    (ranges("readonly"), "vmidRanges.production.readonly: protects nothing here"),
    (template("Node", "x"), "template.Node: protects nothing: the name is node"),
]

WARNED: list[tuple[Case, str]] = [
    (top("managd", instead="managed"), "managd: is obeyed by nobody, and is close to managed"),
    (top("Imported", instead="imported"), "Imported: is obeyed by nobody: the name is imported"),
    (top("vmidRange", {}), "vmidRange: is obeyed by nobody, and is close to vmidRanges"),
    (host("canery"), "dev.canery: is obeyed by nobody, and is close to canary"),
    (host("waves", 2), "dev.waves: is obeyed by nobody, and is close to wave"),
    (host("adresses", ["10.0.0.3"]), "dev.adresses: is obeyed by nobody, and is close to addresses"),
    (host("address", "10.0.0.3"), "dev.address: is obeyed by nobody, and is close to addresses"),
    (host("sshalias", "d"), "dev.sshalias: is obeyed by nobody: the name is sshAlias"),
    (host("maxFail", 2), "dev.maxFail: is obeyed by nobody: the name is max_fail"),
    (host("require_sign"), "dev.require_sign: is obeyed by nobody, and is close to require_signed"),
    (host("allow_dirty"), "dev.allow_dirty: is obeyed by nobody here"),
    (guest("onBoot"), "managed.dev.onBoot: is obeyed by nobody: the name is onboot"),
    (guest("tag", []), "managed.dev.tag: is obeyed by nobody, and is close to tags"),
    (guest("nodee", 1), "managed.dev.nodee: is obeyed by nobody, and is close to node"),
    (guest("protected"), "managed.dev.protected: protects nothing: the flag that does is readonly"),
    (guest("readonlyForNow"), "managed.dev.readonlyForNow: protects nothing: the flag that does is readonly"),
    (guest("wave", 2), "managed.dev.wave: protects nothing here: wave is obeyed in the host's entry"),
    (imported("access", "by web"), "imported.doc.access: protects nothing here"),
    (imported("tags", "a;b"), "imported.doc.tags: is not a list of tags, and is left out"),
    (imported("type", "LXC"), "imported.doc.type: is neither qemu nor lxc, and is left out"),
    (imported("node", 3), "imported.doc.node: is an integer, not a string, and is left out"),
    (proxmox("defaultstorage", "x"), "proxmox.defaultstorage: is obeyed by nobody"),
    (template("Name", "x"), "template.Name: is obeyed by nobody: the name is name"),
    (ranges("ende", 1), "vmidRanges.production.ende: is obeyed by nobody"),
]

# Values that were dropped, ended the run for all hosts in its midst, or were tracebacks.
VALUES: list[tuple[Case, str]] = [
    (host("addresses", "10.0.0.3"), "dev.addresses: is a string, not a list"),
    (host("addresses", ["bad host"]), "dev.addresses[0]: 'bad host' is not a name or address"),
    (host("addresses", ["10.0.0.3", "10.0.0.3:22"]), "dev.addresses[1]: '10.0.0.3:22' is not a name or address"),
    (host("addresses", [3]), "dev.addresses[0]: is an integer, not a string"),
    (host("addresses", []), "dev.addresses: is an empty list"),
    (host("access", "triger"), "dev.access: 'triger' is not a way in"),
    (host("healthChecks", {"a": {"unt": "x"}}), "dev.healthChecks.a.unt: no such check"),
    (
        host("healthChecks", {"a": {"http": "http://x:y/"}}),
        "dev.healthChecks.a.http: 'http://x:y/' is not an http:// URL",
    ),
    (host("healthChecks", []), "dev.healthChecks: is not a set of checks by name"),
    (host("wave", "2"), "dev.wave: is a string, not an integer"),
    (host("wave", 0), "dev.wave: 0 is less than 1"),
    (host("canary", "yes"), "dev.canary: is a string, not a boolean"),
    (host("max_fail", "many"), "dev.max_fail: 'many' is neither a number of hosts nor a percentage"),
    (host("build_on", "dev2"), "dev.build_on: 'dev2' is neither local, target nor a host of the fleet; did you mean"),
    (host("soak", 120), "dev.soak: 120 leaves no time to confirm"),
    (host("goal", "swich"), "dev.goal: 'swich' is not a goal"),
    (host("engine", "mine"), "dev.engine: 'mine' is not an engine"),
    (host("tags", "a"), "dev.tags: is not a list of tags"),
    (host("role", []), "dev.role: is a list, not a string"),
    (proxmox("host", "10.77.0.1:8006"), "proxmox.host: '10.77.0.1:8006' is not a name or address"),
    (proxmox("host", "::1%lo"), "proxmox.host: '::1%lo' is not a name or address"),
    (proxmox("host", "1:2"), "proxmox.host: '1:2' is not a name or address"),
    (proxmox("host", "10.0.0.256"), "proxmox.host: '10.0.0.256' is not a name or address"),
    (template("node", "a b"), "template.node: 'a b' is not a node name"),
]


FREE: list[Edit] = [
    on_host(
        'owner = { room = 3; }; roles = [ ]; gpu = "x"; note = 1; ports = [ ]; users = [ ]; vmid = 9; x = x: x; '
        "_readonly = true; _acces = 1; _ = 2;"
    ),
    on_guest(
        'notes = [ ]; mode = 1; nodes = 2; status = "x"; specs.readOnly = true; service = 1; gpu = 2; roles = 3; '
        "_readOnly = true; _vmId = 3; docs = null; monitoring = [ ]; hardware.readOnly = true;"
    ),
    ("vmid = 104;", 'vmid = 104; note = 1; stage = 2; state = 3; hardware = "x"; cores = "many"; disk = 0;'),
    ("proxmox = {", "helper = x: x; note = 3; hosts = { }; _managd = { }; nodes = [ ]; proxmox = {"),
    ('node = "prom";', 'node = "prom"; note = 1; datacenter = "d"; nodes = [ ]; hosts = 1;'),
    ('name = "base";', 'name = "base"; notes = [ ]; purpose = "x";'),
    ("start = 100;", 'start = 100; notes = "x"; purpose = 1;'),
    ("caddy = {", "_own = { readonly = true; }; _note = 3; caddy = {"),
]


def one(case: tuple[Case, str]) -> Any:
    return pytest.param(*case, id=case[1].partition(": ")[0])


@pytest.mark.parametrize(("case", "line"), [*map(one, REFUSED), *map(one, VALUES)])
def test_it_is_refused(case: Case, line: str) -> None:
    [finding] = case.findings()
    assert finding.severity is Severity.ERROR
    assert line in finding
    assert finding == f"{finding.file}: {finding.attribute}: {finding.what}; {finding.remedy}"
    assert copy.deepcopy(finding).to_json() == finding.to_json()


@pytest.mark.parametrize(("case", "line"), [*map(one, WARNED)])
def test_it_is_a_warning(case: Case, line: str) -> None:
    [finding] = case.findings()
    assert finding.is_warning
    assert line in finding
    assert finding.startswith("warning: ")


def test_people_may_call_their_own_what_they_like(make_fleet: MakeFleet) -> None:
    found = load_fleet(make_fleet(*FREE))
    assert (found.warnings, len(found.hosts), len(found.vms)) == ((), 3, 2)


def test_the_whole_way_from_the_files(make_fleet: MakeFleet) -> None:
    """Errors refuse the fleet, and are told with the warnings; warnings alone do not."""
    edits = [on_host('canery = true; addresses = "10.0.0.3";'), on_guest("readOnly = true;")]
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(make_fleet(*edits))
    assert [str(each).partition(";")[0] for each in caught.value.findings] == [
        "hosts.nix: dev.addresses: is a string, not a list",
        "vms/definitions.nix: managed.dev.readOnly: protects nothing: the name is readonly",
        "warning: hosts.nix: dev.canery: is obeyed by nobody, and is close to canary",
    ]
    fleet = load_fleet(make_fleet(on_host("canery = true;"), name="other"))
    assert (len(fleet.hosts), len(fleet.warnings)) == (3, 1)


def test_a_fleet_that_is_refused_says_its_warnings_too(make_fleet: MakeFleet) -> None:
    """A misspelled name is often why another one is missing."""
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(make_fleet(("nixosConfig", "nixosConfg")))
    first, second = str(caught.value).splitlines()
    assert first.startswith("vms/definitions.nix: managed.dev.nixosConfig: missing")
    assert second.startswith("warning: vms/definitions.nix: managed.dev.nixosConfg: is obeyed by nobody")


# Names that somebody might make up

_between = st.sampled_from(["", "-", "_", "--"])


@st.composite
def _respelled(draw: st.DrawFn, names: st.SearchStrategy[str]) -> str:
    pieces = [(draw(st.sampled_from([each.lower(), each.upper()])), draw(_between)) for each in draw(names)]
    return "".join(letter + between for letter, between in pieces)


def _protecting() -> Iterator[tuple[Place, str]]:
    yield from ((place, field.name) for place in Place for field in FIELDS[place] if field.protects)


@given(st.data())
def test_no_spelling_of_a_name_that_protects_is_silent(data: st.DataObject) -> None:
    place, known = data.draw(st.sampled_from(sorted(_protecting())))
    name = data.draw(_respelled(st.just(known)))
    judgement = judge(place, name)
    assert (judgement is None) == (name == known)
    assert judgement is None or judgement.severity is Severity.ERROR


@given(st.data(), st.sampled_from(STRONGEST), st.sampled_from("abcdefghijklmnopqrstuvwxyz0"))
def test_no_letter_away_from_the_strongest_is_anything_but_an_error(
    data: st.DataObject, known: str, letter: str
) -> None:
    at = data.draw(st.integers(0, len(known) - 1))
    places = [place for place in Place if known in fields_of(place)] + [Place.MANAGED]
    for name in (known[:at] + letter + known[at + 1 :], known[:at] + letter + known[at:], known[:at] + known[at + 1 :]):
        for place in places:
            judgement = judge(place, name)
            if name not in fields_of(place):
                assert judgement is not None
                assert judgement.severity is Severity.ERROR


@given(st.sampled_from(list(Place)), st.text(min_size=1, max_size=20))
def test_what_begins_with_a_line_is_its_owners_own(place: Place, name: str) -> None:
    assert judge(place, f"_{name}", True) is None


@pytest.mark.parametrize("name", ["accent", "accents", "accel", "accept", "success", "process"])
def test_words_of_a_desktop_are_not_taken_for_access(name: str) -> None:
    """Two letters away, and what people of Home Manager and of GPUs write."""
    assert not any(judge(place, name) for place in Place)


@given(st.sampled_from(list(Place)), st.sampled_from(COMMON))
def test_common_names_are_silent(place: Place, name: str) -> None:
    assume(name not in fields_of(place))
    assert judge(place, name, "a value") is None


@given(st.sampled_from(list(Place)), st.text(max_size=300), st.booleans() | st.none())
def test_any_name_is_judged_in_one_line(place: Place, name: str, value: Any) -> None:
    judgement = judge(place, name, value)
    if judgement is not None:
        assert judgement.what.isprintable()
        assert judgement.remedy.isprintable()
    assert normal(name) == normal(name.swapcase()) or not name.isascii()


@pytest.mark.parametrize(
    ("name", "option"),
    [("requre_signed", "require_signed"), ("require-signed", "require_signed"), ("canery", "canary"),
     ("maxfail", "max_fail"), ("Wave", "wave"), ("confirm_dedline", "confirm_deadline"), ("alow_dirty", "allow_dirty"),
     ("max_fail", None), ("roles", None), ("_wave", None), ("anything", None), ("boot_deadline", None)],
)  # fmt: skip
def test_a_datum_that_is_near_an_option(name: str, option: str | None) -> None:
    assert near_option(name) == option


def test_a_datum_that_nobody_asks_for_is_refused(warned: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It was as silent as an attribute: `--data requre_signed=true` deployed what nobody had signed."""
    assert run(["deploy", "dev", "--data", "requre_signed=true"]) == 2
    message = "--data requre_signed: nobody asks for it; write require_signed, or another name\n"
    assert capfd.readouterr().err == message


def test_what_our_code_asks_for_is_near_no_option() -> None:
    files = [file for name in ("nixherd", "operations", "facts", "deploys") for file in (ROOT / name).rglob("*.py")]
    texts = "\n".join(file.read_text() for file in [*files, ROOT / "group_data/all.py"])
    requested = {
        *re.findall(r'data(?:\.get\(|\[)"([a-z_]+)"', texts),
        *re.findall(r"^# ?([a-z_]+) =", texts, re.MULTILINE),
    }
    assert {"boot_deadline", "docs_template", "secrets_rules"} <= requested
    assert {name: near_option(name) for name in requested if near_option(name)} == {}
