"""A name that protects nothing: misspelled attributes, values that nobody obeys, and what is found in both.

Each case loaded without a word before, and whoever wrote it believed to be safe.
"""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nixherd.cli.main import run
from nixherd.errors import FleetInvalid
from nixherd.findings import Finding, Severity
from nixherd.fleet.load import load_fleet
from nixherd.fleet.near_names import STRONGEST, judge, near_option, normal
from nixherd.fleet.schema import COMMON, FIELDS, Place, fields_of
from nixherd.fleet.validate import find
from tests.fuzz.names import fleet

pytestmark = pytest.mark.unit

MakeFleet = Callable[..., Path]
Edit = tuple[str, str]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """An attribute put into a small sound fleet, at a path of its two files; `instead` of another one."""

    path: tuple[str, ...]
    name: str
    value: Any = True
    instead: str | None = None

    def findings(self) -> list[Finding]:
        files = fleet()
        files["definitions"]["vmidRanges"] = {"production": {"start": 100, "end": 199}}
        target: Any = files
        for part in self.path:
            target = target[part]
        target[self.name] = target.pop(self.instead) if self.instead else self.value
        return find(files["hosts"], files["definitions"])


def host(name: str, value: Any = True, instead: str | None = None) -> Case:
    return Case(("hosts", "dev"), name, value, instead)


def guest(name: str, value: Any = True, instead: str | None = None) -> Case:
    return Case(("definitions", "managed", "dev"), name, value, instead)


def imported(name: str, value: Any = True) -> Case:
    return Case(("definitions", "imported", "doc"), name, value)


def top(name: str, value: Any = True, instead: str | None = None) -> Case:
    return Case(("definitions",), name, value, instead)


def proxmox(name: str, value: Any = True) -> Case:
    return Case(("definitions", "proxmox"), name, value)


def template(name: str, value: Any = True) -> Case:
    return Case(("definitions", "template"), name, value)


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
    (imported("tags", "a;b"), "imported.doc.tags: is no list of tags, and is left out"),
    (imported("type", "LXC"), "imported.doc.type: is neither qemu nor lxc, and is left out"),
    (imported("node", 3), "imported.doc.node: is an integer, not a string, and is left out"),
    (proxmox("defaultstorage", "x"), "proxmox.defaultstorage: is obeyed by nobody"),
    (template("Name", "x"), "template.Name: is obeyed by nobody: the name is name"),
    (ranges("ende", 1), "vmidRanges.production.ende: is obeyed by nobody"),
]

# Values that were dropped, ended the run for all hosts in its midst, or were tracebacks.
VALUES: list[tuple[Case, str]] = [
    (host("addresses", "10.0.0.3"), "dev.addresses: is a string, not a list"),
    (host("addresses", ["bad host"]), "dev.addresses[0]: 'bad host' is no name or address"),
    (host("addresses", ["10.0.0.3", "10.0.0.3:22"]), "dev.addresses[1]: '10.0.0.3:22' is no name or address"),
    (host("addresses", [3]), "dev.addresses[0]: is an integer, not a string"),
    (host("addresses", []), "dev.addresses: is an empty list"),
    (host("access", "triger"), "dev.access: 'triger' is no way in"),
    (host("healthChecks", {"a": {"unt": "x"}}), "dev.healthChecks.a.unt: no such check"),
    (host("healthChecks", {"a": {"http": "http://x:y/"}}), "dev.healthChecks.a.http: 'http://x:y/' is no http:// URL"),
    (host("healthChecks", []), "dev.healthChecks: is no set of checks by name"),
    (host("wave", "2"), "dev.wave: is a string, not an integer"),
    (host("wave", 0), "dev.wave: 0 is less than 1"),
    (host("canary", "yes"), "dev.canary: is a string, not a boolean"),
    (host("max_fail", "many"), "dev.max_fail: 'many' is neither a number of hosts nor a percentage"),
    (host("build_on", "dev2"), "dev.build_on: 'dev2' is neither local, target nor a host of the fleet; did you mean"),
    (host("soak", 120), "dev.soak: 120 leaves no time to confirm"),
    (host("goal", "swich"), "dev.goal: 'swich' is no goal"),
    (host("engine", "mine"), "dev.engine: 'mine' is no engine"),
    (host("tags", "a"), "dev.tags: is no list of tags"),
    (host("role", []), "dev.role: is a list, not a string"),
    (proxmox("host", "10.77.0.1:8006"), "proxmox.host: '10.77.0.1:8006' is no name or address"),
    (proxmox("host", "::1%lo"), "proxmox.host: '::1%lo' is no name or address"),
    (proxmox("host", "1:2"), "proxmox.host: '1:2' is no name or address"),
    (proxmox("host", "10.0.0.256"), "proxmox.host: '10.0.0.256' is no name or address"),
    (template("node", "a b"), "template.node: 'a b' is no node name"),
]


# What people call their own, in Nix, and the first names of the issue: by the whole way from the files.
def on_host(text: str) -> Edit:
    return ('hostname = "dev";', f'hostname = "dev"; {text}')


def on_guest(text: str) -> Edit:
    return ("vmid = 110;", f"vmid = 110; {text}")


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
    said = "--data requre_signed: nobody asks for it; write require_signed, or another name\n"
    assert capfd.readouterr().err == said


def test_what_our_code_asks_for_is_near_no_option() -> None:
    files = [file for name in ("nixherd", "operations", "facts", "deploys") for file in (ROOT / name).rglob("*.py")]
    texts = "\n".join(file.read_text() for file in [*files, ROOT / "group_data/all.py"])
    asked = {*re.findall(r'data(?:\.get\(|\[)"([a-z_]+)"', texts), *re.findall(r"^# ?([a-z_]+) =", texts, re.MULTILINE)}
    assert {"boot_deadline", "docs_template", "secrets_rules"} <= asked
    assert {name: near_option(name) for name in asked if near_option(name)} == {}


# The fleet that this was made for

MISSION_HOST = ("configurationFile", "homeFile", "user", "homeDirectory", "hostname", "sshAlias", "sshKeyName",
                "publicKey", "authorizedKeys")  # fmt: skip
MISSION_GUESTS = {
    "imported": ("vmid", "hostname", "sshAlias", "status", "specs", "purpose", "services", "notes", "readonly",
                 "hardware", "monitoring"),
    "managed": ("vmid", "cores", "memory", "disk", "storage", "nixosConfig", "purpose", "services"),
}  # fmt: skip
MISSION_REST = {
    Place.PROXMOX: ("host", "node", "user", "defaultStorage"),
    Place.TEMPLATE: ("vmid", "name", "description", "specs", "notes"),
    Place.RANGE: ("start", "end", "description"),
    Place.TOP: ("proxmox", "imported", "managed", "template", "vmidRanges"),
}


def test_the_names_of_the_fleet_that_this_was_made_for_are_silent() -> None:
    """The attributes of abl030/nixosconfig at f51256da."""
    names = {Place.HOST: MISSION_HOST, Place.IMPORTED: MISSION_GUESTS["imported"],
             Place.MANAGED: MISSION_GUESTS["managed"], **MISSION_REST}  # fmt: skip
    assert set(names) == set(Place)
    assert [(place, name) for place, each in names.items() for name in each if judge(place, name, True)] == []
    files = fleet()
    files["definitions"]["imported"]["doc"] |= {
        name: ["free"] for name in ("purpose", "services", "notes", "monitoring")
    }
    files["definitions"]["imported"]["doc"] |= {"specs": {"disk": "passthrough"}, "hardware": {"notes": []}}
    assert find(files["hosts"], files["definitions"]) == []


def test_the_reference_fleet_is_sound() -> None:
    assert load_fleet(ROOT / "fleet").warnings == ()


# Where it is said

WARNING = "warning: hosts.nix: dev.canery: is obeyed by nobody, and is close to canary"


@pytest.fixture
def warned(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    nobody = ("sudoPasswordless = true;", 'sudoPasswordless = true; addresses = [ "127.0.0.9" ];')
    directory = make_fleet(on_host("canery = true;"), nobody)
    monkeypatch.setenv("FLEET", str(directory))
    monkeypatch.setenv("HOME", str(tmp_path))
    return directory


@pytest.mark.parametrize(
    ("says", "line"),
    [
        ("sshKeyName = x: x;", "dev.sshKeyName: is a function, not a string"),
        ("initialHashedPassword = DRV;", "dev.initialHashedPassword: is a derivation, not a string"),
        (
            "healthChecks.a.command = DRV;",
            "dev.healthChecks.a.command: '<derivation>' is no text; write a string in quotes",
        ),
        ("healthChecks.a.command = ./hosts.nix;", "hosts.nix' is no text; write a string in quotes that is not empty"),
        ("tags = [ (x: x) ];", "dev.tags: is no list of tags"),
        ("wave = x: x;", "dev.wave: is a function, not an integer"),
    ],
)
def test_what_json_has_no_word_for_is_no_string(make_fleet: MakeFleet, says: str, line: str) -> None:
    """It was obeyed as the word for it: a password, a key's name, a command."""
    says = says.replace("DRV", 'derivation { name = "a"; system = "b"; builder = "c"; }')
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(make_fleet(on_host(says)))
    assert line in str(caught.value)


def test_check_fails_for_it(warned: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--only", "definitions", "--table"]) == 1
    out, err = capfd.readouterr()
    file, _, rest = WARNING.rstrip().partition(": dev.")
    assert re.search(rf"^  {re.escape(file)}:\d+: dev\.{re.escape(rest)}", out, re.MULTILINE)
    assert (out.count("canery"), err) == (1, "")
    assert run(["check", "--only", "definitions", "--json"]) == 1
    document = json.loads(capfd.readouterr().out)
    [row] = document["findings"]
    assert (document["fleet"], document["ok"]) == (str(warned), False)
    assert (row["severity"], row["file"], row["attribute"]) == ("warning", "hosts.nix", "dev.canery")
    assert "canery" in (warned / "hosts.nix").read_text().splitlines()[row["line"] - 1]
    assert WARNING.endswith(row["what"])
    assert row["remedy"].startswith("write canary")


def test_check_says_errors_and_warnings(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET", str(make_fleet(on_host("canery = true;"), on_guest("readOnly = true;"))))
    assert run(["check", "--only", "definitions", "--json"]) == 1
    rows = json.loads(capfd.readouterr().out)["findings"]
    assert [row["severity"] for row in rows] == ["error", "warning"]


def test_check_says_what_cannot_be_evaluated(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET", str(make_fleet(('sshAlias = "cad";', "sshAlias = cad;"))))
    assert run(["check", "--only", "definitions", "--json"]) == 1
    [row] = json.loads(capfd.readouterr().out)["findings"]
    assert (row["severity"], row["file"], row["line"], row["column"]) == ("error", "hosts.nix", 29, 16)
    assert row["what"] == "undefined variable 'cad'"


def test_check_says_what_is_wrong_where_nothing_is_to_be_said_of_a_remedy(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    edit = ('sshAlias = "cad";', 'sshAlias = abort "builtins.none: so it is";')
    monkeypatch.setenv("FLEET", str(make_fleet(edit)))
    assert run(["check", "--only", "definitions", "--json"]) == 1
    [row] = json.loads(capfd.readouterr().out)["findings"]
    assert row["what"].endswith("builtins.none: so it is")


def test_check_is_content_with_a_sound_fleet(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET", str(make_fleet()))
    assert run(["check", "--only", "definitions", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["findings"] == []


def test_a_command_says_it_once_on_stderr(warned: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(["vm", "status", "nobody"])
    out, err = capfd.readouterr()
    assert (out, err.count("canery")) == ("", 1)
    assert err.startswith(WARNING)


def test_pyinfra_says_it_once(warned: Path) -> None:
    pyinfra = Path(sys.executable).with_name("pyinfra")
    done = subprocess.run(
        [pyinfra, "inventory.py", "debug-inventory", "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.count("canery") == 1
    assert WARNING in done.stderr
    assert "canery" not in done.stdout


def test_a_report_has_it(warned: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a deployment whose one host cannot be reached; what its hosts' processes say goes to its log."""
    run(["deploy", "proxmox-vm", "--allow-dirty", "--json"])
    out, err = capfd.readouterr()
    [said] = json.loads(out)["warnings"]
    assert said.startswith(WARNING)
    assert err.count("canery") == 1
