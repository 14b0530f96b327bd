"""`nixherd secrets remove-host`: several at once, what was theirs alone, and those whom hosts.nix no longer has."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.main import run
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import BEFORE, administered, contents, git, identity_of, recipients, sops

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return administered(monkeypatch, tmp_path)


def per_host(fleet: Path) -> None:
    """A rule and a file for each host, as many fleets have; igp's is named by its configuration."""
    path = fleet / "secrets" / ".sops.yaml"
    text = path.read_text()
    for name in ("doc1", "igp"):
        who = f"{key('admin').recipient},{key(name).recipient}"
        text += f"  # {name}'s own\n  - path_regex: ^{name}\\.yaml$\n    age: {who}\n"
    path.write_text(text)
    for name in ("doc1", "igp"):
        (fleet / "secrets" / f"{name}.yaml").write_text("own: 1\n")
        sops(fleet / "secrets", "encrypt", "--in-place", f"{name}.yaml")
    git(fleet, "add", "-A")
    git(fleet, "commit", "-qm", "each its own")


def test_several_hosts_leave_with_one_commit(secrets: Any, fleet: Path) -> None:
    per_host(fleet)
    planned = secrets("remove-host", "igp", "doc1", "--dry-run", "--json")
    assert planned.status == 0, planned.err
    assert len(planned.json["offered"]) == 2
    assert (
        "rule 4 (^doc1\\.yaml$) with secrets/doc1.yaml, which beside it admin can decrypt, stays"
        in planned.json["offered"][0]
    )
    done = secrets("remove-host", "igp", "doc1", "--json")
    assert done.status == 0, done.err
    assert git(fleet, "log", "-1", "--format=%s").strip() == "secrets: igp, doc1 leave"
    assert git(fleet, "rev-list", "--count", "HEAD").strip() == "3"
    assert set.union(*recipients(fleet).values()) == {"admin"}
    assert (fleet / "secrets" / "igp.yaml").exists()
    assert sops(fleet / "secrets", "decrypt", "igp.yaml", identity="igp", check=False).returncode != 0
    again = secrets("remove-host", "igp", "doc1", "--json")
    assert (again.status, again.json["steps"], again.json["changed"]) == (0, [], False)
    assert again.json["notes"] == ["igp is not a recipient", "doc1 is not a recipient"]
    assert "--remove-secrets has it go" in done.json["offered"][0]
    assert secrets("remove-host", "igp", "doc1", "--remove-secrets").status == 0
    assert not (fleet / "secrets" / "igp.yaml").exists()
    assert "nobody is not a recipient in secrets/.sops.yaml; there are admin" in secrets("remove-host", "nobody").err


def test_a_host_beside_somebody_whom_a_comment_names_comes_and_goes(secrets: Any, fleet: Path) -> None:
    path, boss = fleet / "secrets" / ".sops.yaml", key("admin").recipient
    rule = f"path_regex: ^dev\\.yaml$\n    age: {boss}"
    path.write_text(
        path.read_text().replace("  - &admin", "  #").replace("*admin", boss).replace(rule, f"{rule} # boss")
    )
    hosts = fleet / "hosts.nix"
    hosts.write_text(hosts.read_text().replace("placeholder", key("dev").public))
    git(fleet, "commit", "-qam", "named by a comment")
    before = path.read_text()
    done = secrets("add-host", "dev")
    assert done.status == 0, done.err
    assert f"    age: # one key and more\n      - {boss} # boss\n" in path.read_text()
    assert recipients(fleet)["dev.yaml"] == {"admin", "dev"}, "by sops"
    assert secrets("remove-host", "dev").status == 0
    assert path.read_text() == before
    assert recipients(fleet) == BEFORE


def test_their_rules_and_files_go_where_that_is_asked_for(secrets: Any, fleet: Path) -> None:
    before = (fleet / "secrets" / ".sops.yaml").read_text()
    per_host(fleet)
    done = secrets("remove-host", "igp", "doc1", "--remove-secrets", "--json")
    assert done.status == 0, done.err
    assert done.json["offered"] == []
    assert not (fleet / "secrets" / "igp.yaml").exists()
    assert not (fleet / "secrets" / "doc1.yaml").exists()
    after = (fleet / "secrets" / ".sops.yaml").read_text()
    assert "igp" not in after
    assert after.splitlines()[-1] == before.splitlines()[-1]
    assert git(fleet, "status", "--porcelain") == ""
    assert secrets("status", "--json").status == 0


def test_a_file_that_nix_names_does_not_go(secrets: Any, fleet: Path) -> None:
    per_host(fleet)
    (fleet / "hosts" / "igp.nix").write_text("{ sops.defaultSopsFile = ../secrets/igp.yaml; }\n")
    git(fleet, "commit", "-qam", "named")
    before = contents(fleet)
    found = secrets("remove-host", "igp", "--remove-secrets")
    assert (
        "hosts/igp.nix:1: { sops.defaultSopsFile = ../secrets/igp.yaml; }: names a secret file that was to go"
        in found.err
    )
    assert found.status == 4
    assert contents(fleet) == before


@pytest.mark.parametrize("how", ["name", "key", "unnamed key"])
def test_a_host_that_is_none_any_more_is_found_and_removed(
    secrets: Any, fleet: Path, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (fleet / "hosts.nix").read_text()
    begin = text.index("  # igp")
    (fleet / "hosts.nix").write_text(text[:begin] + text[text.index("  };\n", begin) + 5 :])
    if how == "unnamed key":
        path = fleet / "secrets" / ".sops.yaml"
        path.write_text(path.read_text().replace("&igp ", "").replace("*igp", key("igp").recipient))
    git(fleet, "commit", "-qam", "igp went")
    found = secrets("status", "--json")
    capfd.readouterr()
    assert run(["--fleet", str(fleet), "check", "--only", "secrets"]) == 1
    assert capfd.readouterr().out.count("was a host of the fleet and is none now") == 1
    given = {"name": "igp", "key": key("igp").recipient, "unnamed key": key("igp").recipient}[how]
    called = "igp" if how != "unnamed key" else given
    [finding] = [each for each in found.json["findings"] if "was a host" in each]
    assert finding.startswith("secrets/.sops.yaml: ")
    assert finding.endswith(f"was a host of the fleet and is none now; `nixherd secrets remove-host {called}`")
    assert found.status == 1
    assert "igp" in {each["name"] for each in found.json["others"]} or how == "unnamed key"
    assert secrets("remove-host", given, "--json").status == 0
    again = secrets("remove-host", given, "--json")
    assert (again.status, again.json["changed"]) == (0, False), again.err
    assert recipients(fleet) == {name: who - {"igp"} for name, who in BEFORE.items()}
    assert secrets("status", "--json").status == 0


FINGERPRINT = "85D77543B3D624B63CEA9E6DBC17301B491B3F21"
SPACED = "85D7 7543 B3D6 24B6 3CEA  9E6D BC17 301B 491B 3F21"
OTHER = "0F5C9B4C1A2D3E4F5061728394A5B6C7D8E9F001"
SAME_ID = "1111111111111111111111117C17301B491B3F21".replace("7C", "BC")


def with_pgp(fleet: Path, *written: str) -> str:
    """A rule for files to come, that these are in; return the text."""
    path = fleet / "secrets" / ".sops.yaml"
    who = "".join(f"          - {each}\n" for each in written)
    rule = "  - path_regex: ^of-tomorrow\n    key_groups:\n      - pgp:\n" + who
    path.write_text(path.read_text() + rule)
    git(fleet, "commit", "-qam", "somebody with PGP")
    return path.read_text()


@pytest.mark.parametrize("written", [FINGERPRINT, FINGERPRINT.lower(), f"0x{FINGERPRINT}!", FINGERPRINT[-16:]])
@pytest.mark.parametrize(
    "given",
    [FINGERPRINT, FINGERPRINT.lower(), SPACED, SPACED.lower(), f"0x{FINGERPRINT}", FINGERPRINT[-16:]]
    + [f"0x{FINGERPRINT[-16:].lower()}", "BC17 301B 491B 3F21"],
)
def test_a_pgp_key_is_named_by_its_fingerprint_or_its_long_id(
    secrets: Any, fleet: Path, written: str, given: str
) -> None:
    with_pgp(fleet, OTHER, written)
    done = secrets("remove-host", given, "--json")
    assert done.status == 0, done.err
    text = (fleet / "secrets" / ".sops.yaml").read_text()
    assert OTHER in text
    assert written not in text
    again = secrets("remove-host", given, "--json")
    assert (again.status, again.json["changed"]) == (0, False), again.err


def test_a_key_that_is_written_twice_goes_altogether(secrets: Any, fleet: Path) -> None:
    with_pgp(fleet, OTHER, FINGERPRINT, FINGERPRINT[-16:].lower())
    assert secrets("remove-host", FINGERPRINT).status == 0
    assert "491b3f21" not in (fleet / "secrets" / ".sops.yaml").read_text().lower()


def test_an_id_of_two_keys_is_refused_with_both(secrets: Any, fleet: Path) -> None:
    text = with_pgp(fleet, OTHER, FINGERPRINT, SAME_ID)
    refused = secrets("remove-host", FINGERPRINT[-16:].lower())
    assert refused.status == 2
    expected = f"bc17301b491b3f21 is the id of several keys: {SAME_ID}, {FINGERPRINT}; name one by its fingerprint"
    assert refused.err.splitlines()[-1].endswith(expected)
    assert (fleet / "secrets" / ".sops.yaml").read_text() == text
    assert secrets("remove-host", SAME_ID.lower()).status == 0
    assert FINGERPRINT in (fleet / "secrets" / ".sops.yaml").read_text()
    assert "is not a recipient in" in secrets("remove-host", FINGERPRINT[-8:]).err, "too short, as a word may be"


def test_hosts_with_one_key_are_found_and_what_that_says_helps(
    secrets: Any, fleet: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hosts = fleet / "hosts.nix"
    hosts.write_text(hosts.read_text().replace(key("igp").public, f"{key('doc1').public} copied"))
    git(fleet, "commit", "-qam", "igp is a clone of doc1")
    found = secrets("status", "--json")
    [finding] = [each for each in found.json["findings"] if "publicKey" in each]
    assert found.status == 1
    assert finding.startswith("hosts.nix: doc1 and igp have one publicKey, and each of them decrypts what is for anoth")
    assert run(["--fleet", str(fleet), "check", "--only", "secrets"]) == 1
    assert "doc1 and igp have one publicKey" in capfd.readouterr().out
    # what it says is done
    hosts.write_text(hosts.read_text().replace(f"{key('doc1').public} copied", key("igp").public))
    git(fleet, "commit", "-qam", "igp has a key of its own")
    flake = fleet / "flake.nix"
    flake.write_text(flake.read_text().replace('if id != "dev"', 'if id == "dev"'))
    git(fleet, "commit", "-qam", "both declare secrets")
    steps = re.findall(r"`nixherd secrets ([^`]+)`", finding)
    assert [step.split()[0] for step in steps] == ["remove-host", "add-host", "add-host"]
    for step in steps:
        done = secrets(*shlex.split(step))
        assert done.status == 0, done.err
    assert recipients(fleet)["common.yaml"] == {"admin", "doc1", "igp"}
    after = secrets("status", "--json")
    assert not [each for each in after.json["findings"] if "publicKey" in each or "was " in each]


def test_a_host_with_another_key_now_is_not_said_to_be_gone(secrets: Any, fleet: Path) -> None:
    text = (fleet / "hosts.nix").read_text()
    (fleet / "hosts.nix").write_text(text.replace(key("igp").public, key("other").public))
    git(fleet, "commit", "-qam", "igp is installed anew")
    [finding] = [each for each in secrets("status", "--json").json["findings"] if "igp" in each]
    assert "was igp's key, and hosts.nix pins another" in finding
    assert finding.endswith("; `nixherd secrets add-host igp`")


def test_the_key_of_another_host_does_not_leave_with_a_host(secrets: Any, fleet: Path) -> None:
    text = (fleet / "hosts.nix").read_text()
    (fleet / "hosts.nix").write_text(text.replace('publicKey = "placeholder"', f'publicKey = "{key("igp").public}"'))
    git(fleet, "commit", "-qam", "dev is a clone of igp")
    before = contents(fleet)
    found = secrets("remove-host", "dev")
    assert found.status == 4
    assert "hosts.nix: igp has the host key of dev, and would lose its secrets with it" in found.err
    (fleet / "hosts.nix").write_text(text.replace('publicKey = "placeholder"', f'publicKey = "{key("dev").public}"'))
    git(fleet, "commit", "-qam", "dev has a key of its own")
    assert secrets("remove-host", "dev").status == 2  # that it had before is igp's
    assert recipients(fleet) == BEFORE
    assert {**contents(fleet), "hosts.nix": b""} == {**before, "hosts.nix": b""}


def test_what_people_share_stays_when_one_of_them_leaves(secrets: Any, fleet: Path) -> None:
    path = fleet / "secrets" / ".sops.yaml"
    text = path.read_text().replace("keys:", f"keys:\n  - &bob {key('other').recipient}", 1)
    admin = key("admin").recipient
    path.write_text(text.replace(f"age: {admin}", f"age: {admin},{key('other').recipient}"))
    git(fleet, "commit", "-qam", "bob")
    assert secrets("apply").status == 0
    done = secrets("remove-host", "bob", "--remove-secrets", "--json")
    assert (done.status, done.json["offered"]) == (0, []), done.err
    assert recipients(fleet) == BEFORE


def test_a_fingerprint_is_meant_in_every_form(secrets: Any, fleet: Path) -> None:
    path, print_ = fleet / "secrets" / ".sops.yaml", "0123456789ABCDEF0123456789ABCDEF01234567"
    path.write_text(
        path.read_text() + f"  - path_regex: ^later\n    age: {key('admin').recipient}\n    pgp: {print_}\n"
    )
    git(fleet, "commit", "-qam", "a PGP key")
    for given in (print_.lower(), f"0x{print_}", " ".join(print_[at : at + 4] for at in range(0, 40, 4))):
        planned = secrets("remove-host", given, "--dry-run", "--json")
        assert planned.status == 0, planned.err
        assert planned.json["files"] == ["secrets/.sops.yaml"]


def test_an_ssh_key_is_meant_by_its_comment_as_status_has_it(secrets: Any, fleet: Path) -> None:
    path = fleet / "secrets" / ".sops.yaml"
    recipient = f"{' '.join(key('other').public.split()[:2])} me@home"
    rule = f"  - path_regex: ^later\n    age: [{key('admin').recipient}, {recipient}]\n"
    path.write_text(path.read_text() + rule)
    git(fleet, "commit", "-qam", "an SSH key")
    planned = secrets("remove-host", "me@home", "--dry-run", "--json")
    assert planned.status == 0, planned.err
    assert planned.json["files"] == ["secrets/.sops.yaml"]


def test_what_a_dry_run_promises_is_done(secrets: Any, fleet: Path) -> None:
    other = ("remove-host", "igp", "--identity", str(identity_of(fleet.parent, "other")))
    for words in (other, (*other, "--dry-run")):
        refused = secrets(*words)
        assert (refused.status, "this identity is not one of its recipients" in refused.err) == (4, True)


# A file that a host which stays declares, where no text says so: its name is put together


def declares(fleet: Path, nix: str) -> None:
    """Igp's own file is declared by another host, in `nix` of its configuration."""
    per_host(fleet)
    path = fleet / "flake.nix"
    path.write_text(path.read_text().replace('id != "dev"', 'id == "doc1" then {x = NIX;} else if id != "dev"'))
    path.write_text(path.read_text().replace("NIX", nix))
    git(fleet, "commit", "-qam", "doc1 has it as well")


COMPUTED = """{
  name = "x"; path = "/run/secrets/x"; format = "yaml"; key = "own"; mode = "0400";
  sopsFile = ./secrets + "/${"i" + "gp"}.yaml";
}"""


@pytest.mark.parametrize("file", ["igp", "igp-of-tomorrow"])
def test_a_file_that_a_host_which_stays_declares_does_not_go(secrets: Any, fleet: Path, file: str) -> None:
    declares(fleet, COMPUTED.replace('"gp"}', f'"{file[1:]}"}}'))
    rules = fleet / "secrets" / ".sops.yaml"
    rules.write_text(rules.read_text().replace("^igp\\.yaml$", "^igp[a-z-]*\\.yaml$"))
    git(fleet, "commit", "-qam", "a rule for more")
    before = contents(fleet)
    found = secrets("remove-host", "igp", "--remove-secrets")
    assert f"secrets/{file}.yaml: doc1 declares it, and it was to go; correct that first" in found.err
    assert found.status == 4
    assert contents(fleet) == before


def test_a_file_that_is_declared_by_a_link_does_not_go(secrets: Any, fleet: Path) -> None:
    (fleet / "hosts" / "x.yaml").symlink_to("../secrets/igp.yaml")
    git(fleet, "add", "-A")
    declares(fleet, COMPUTED.replace("./secrets", "./hosts").replace('${"i" + "gp"}', '${"x"}'))
    before = contents(fleet)
    found = secrets("remove-host", "igp", "--remove-secrets")
    assert (found.status, "hosts/x.yaml: doc1 declares it" in found.err) == (4, True), found.err
    assert contents(fleet) == before


def test_where_what_a_host_declares_is_not_known_its_rule_and_file_stay(secrets: Any, fleet: Path) -> None:
    declares(fleet, 'throw "the input was not fetched"')
    planned = secrets("remove-host", "igp", "--remove-secrets", "--dry-run")
    assert planned.status == 1
    assert "--remove-secrets has it go" not in planned.err
    done = secrets("remove-host", "igp", "--remove-secrets", "--json")
    why = "rule 5 (^igp\\.yaml$) with secrets/igp.yaml stays: what doc1 declares is not known: "
    assert done.status == 1, done.err
    [note] = done.json["notes"]
    assert why in note
    assert "sops.secrets.x.sopsFile cannot be evaluated" in note
    assert done.json["offered"] == []
    assert (fleet / "secrets" / "igp.yaml").exists()
    assert sops(fleet / "secrets", "decrypt", "igp.yaml", identity="igp", check=False).returncode != 0
