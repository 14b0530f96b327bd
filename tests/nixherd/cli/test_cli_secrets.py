"""`nixherd secrets` as it is typed: its tables, JSON, statuses, and the files that it leaves."""

from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.main import run
from nixherd.deploy.history import all_lines
from nixherd.fleet.git import Repository
from tests.nixherd.cli.conftest import Ended
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.places import below
from tests.nixherd.trust.secrets.repositories import (
    BEFORE,
    COMMON,
    WITH_DEV,
    administered,
    contents,
    git,
    hosts,
    recipients,
    sops,
)

JOINED = "secrets/.sops.yaml:1"

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return administered(monkeypatch, tmp_path)


def rule(fleet: Path, old: str, new: str) -> None:
    path = fleet / "secrets" / ".sops.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    git(fleet, "commit", "-qam", "rules")


def test_all_is_well(secrets: Any, fleet: Path) -> None:
    found = secrets("status", "--json")
    assert found.status == 0
    assert not found.json["drift"]
    assert {row["file"].removeprefix("secrets/"): set(row["recipients"]) for row in found.json["files"]} == BEFORE
    assert {row["host"]: row["rules"] for row in found.json["hosts"]} == {"doc1": [JOINED], "igp": [JOINED], "dev": []}
    table = secrets("status", "--table")
    assert "admin,doc1,igp" in table.out
    nothing = {"steps": [], "files": [], "notes": [], "offered": [], "changed": False, "commit": None}
    assert secrets("apply", "--json").json == nothing
    assert git(fleet, "log", "--format=%s").split("\n")[:-1] == ["the fleet"]


def test_a_rule_that_changed_is_planned_and_applied(secrets: Any, fleet: Path) -> None:
    rule(fleet, "          - *igp\n", "")
    status = secrets("status", "--json")
    assert (status.status, status.json["drift"]) == (1, True)
    assert [row["state"] for row in status.json["files"] if row["file"] == "secrets/common.env"] == ["-igp"]
    before = contents(fleet)
    planned = secrets("plan", "--table")
    assert "would encrypt secrets/common.env: -igp" in planned.out
    assert planned.status == 0
    dry = secrets("apply", "--dry-run", "--table")
    assert "would encrypt secrets/common.env: -igp" in dry.out
    assert contents(fleet) == before
    done = secrets("apply", "--json")
    assert done.status == 0, done.err
    assert done.json["changed"]
    assert sorted(done.json["files"]) == [f"secrets/{name}" for name in sorted(COMMON)]
    advice = done.err.partition("may have kept what the files held")[2]
    assert "`sops rotate --in-place FILE`" in advice  # as apply and remove-host find nothing more to do
    assert recipients(fleet) == {name: who - {"igp"} for name, who in BEFORE.items()}
    assert git(fleet, "log", "-1", "--format=%s%n%b").splitlines()[0] == "secrets: as .sops.yaml says"
    assert secrets("status", "--json").status == 0


def test_what_an_interrupted_run_began_is_a_change_of_the_run_that_finishes_it(
    secrets: Any, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*words: Any) -> None:
        raise KeyboardInterrupt

    rule(fleet, "          - *igp\n", "")
    with monkeypatch.context() as patched:
        patched.setattr(Repository, "commit", interrupted)
        assert secrets("apply", "--json").status == 130
    done = secrets("apply", "--json")
    assert (done.status, done.json["changed"], done.json["steps"]) == (0, True, []), done.err
    assert git(fleet, "status", "--porcelain") == ""


def data_key_changed(fleet: Path, name: str) -> bool:
    """Whether the values are encrypted anew."""
    before, after = git(fleet, "show", f"HEAD~1:secrets/{name}"), (fleet / "secrets" / name).read_text()
    return before.partition("sops:")[0] != after.partition("sops:")[0]


@pytest.mark.parametrize("rotate", [True, False])
def test_a_host_leaves(secrets: Any, fleet: Path, rotate: bool) -> None:
    done = secrets("remove-host", "igp", *(["--rotate"] if rotate else []), "--json")
    assert done.status == 0, done.err
    assert recipients(fleet) == {name: who - {"igp"} for name, who in BEFORE.items()}
    assert key("igp").recipient not in (fleet / "secrets" / ".sops.yaml").read_text()
    assert data_key_changed(fleet, "common.yaml") == rotate
    assert ("may have kept" in done.err) != rotate
    assert sops(fleet / "secrets", "decrypt", "common.yaml", identity="doc1").stdout
    assert secrets("status", "--json").status == 0
    assert [(line.host, line.command, line.changed) for line in all_lines()] == [("igp", "secrets remove-host", True)]


def test_a_host_joins_the_rules_that_are_named(secrets: Any, fleet: Path) -> None:
    text = (fleet / "hosts.nix").read_text().replace("placeholder", key("dev").public)
    (fleet / "hosts.nix").write_text(text)
    git(fleet, "commit", "-qam", "key")
    done = secrets("add-host", "dev", "--rule", "^ssh_key_", "--rule", "2", "--no-commit", "--json")
    assert done.status == 0, done.err
    assert recipients(fleet) == {**WITH_DEV, "ssh_key_admin": {"admin", "dev"}}
    assert done.json["commit"] is None
    assert [(line.host, line.command, line.changed) for line in all_lines()] == [("dev", "secrets add-host", True)]
    changed = [f"secrets/{name}" for name in (".sops.yaml", *COMMON, "dev.yaml", "ssh_key_admin")]
    assert sorted(git(fleet, "status", "--porcelain").split()[1::2]) == sorted(changed)


def pinned(fleet: Path, *replacements: tuple[str, str]) -> None:
    """Let hosts.nix have dev's key, and `.sops.yaml` and the flake these changes, in a commit."""
    text = (fleet / "hosts.nix").read_text().replace("placeholder", key("dev").public)
    (fleet / "hosts.nix").write_text(text)
    for old, new in replacements:
        found = [path for path in (fleet / "secrets/.sops.yaml", fleet / "flake.nix") if old in path.read_text()]
        assert found, old
        for path in found:
            path.write_text(path.read_text().replace(old, new))
    git(fleet, "commit", "-qam", "changed")


def test_what_is_said_is_what_helps(secrets: Any, fleet: Path) -> None:
    """A declared file for which there is no rule, by hand as the line says, and then made; each advice once."""
    pinned(fleet, ('"dev.yaml"', '"dev-own.yaml"'))
    refused = secrets("add-host", "dev")
    assert refused.status == 2
    line = refused.err.partition("add `")[2].partition("`")[0]
    assert line == rf"- {{path_regex: '^dev-own\.yaml$', age: '{key('admin').recipient}'}}"
    with (fleet / "secrets" / ".sops.yaml").open("a") as file:
        file.write(f"  {line}\n")
    git(fleet, "commit", "-qam", "as it says")
    done = secrets("add-host", "dev", "--json")
    assert done.status == 0, done.err
    assert done.json["notes"][0].startswith(
        "dev: secrets/dev-own.yaml does not exist: `nixherd secrets edit secrets/dev-"
    )
    made = secrets("add-host", "dev", "--create", "--json")
    assert made.json["files"] == ["secrets/dev-own.yaml"]
    assert sops(fleet / "secrets", "decrypt", "dev-own.yaml", identity="dev").stdout.startswith("api_token: ")
    again = secrets("add-host", "dev", "--json")
    assert (again.json["steps"], again.json["notes"]) == ([], [])


def test_what_is_planned_is_shown_and_not_done(secrets: Any, fleet: Path) -> None:
    pinned(fleet, ('"dev.yaml"', '"dev-own.yaml"'))
    before = contents(fleet)
    planned = secrets("add-host", "dev", "--create", "--dry-run", "--json")
    rule, made, *rest = planned.json["steps"]
    assert rule.endswith("and has a rule for secrets/dev-own.yaml, which admin can read as well")
    assert made == (
        "make secrets/dev-own.yaml: new, encrypted for admin and dev, with a random text in place of api_token"
    )
    assert len(rest) == len(COMMON)
    assert contents(fleet) == before


def test_a_person_who_has_the_hosts_name_is_not_replaced_without_a_word(secrets: Any, fleet: Path) -> None:
    pinned(fleet, ("&admin", "&dev"), ("*admin", "*dev"))
    before = contents(fleet)
    refused = secrets("add-host", "dev")
    assert (refused.status, contents(fleet)) == (2, before)
    assert f"dev is what another key is called there: {key('admin').recipient}; nothing says that" in refused.err
    left = secrets("remove-host", "dev")
    assert (left.status, contents(fleet)) == (2, before)
    assert "which is called so, is the host's key; name the key to remove it" in left.err


def test_a_secret_is_edited_as_its_rule_says(secrets: Any, fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = fleet.parent / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/xyzzy/plugh/ "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    assert secrets("edit", "dev.yaml").status == 0
    assert "plugh" in sops(fleet / "secrets", "decrypt", "dev.yaml").stdout
    assert secrets("edit", "secrets/dev.yaml").status == 0  # nothing was changed


def test_findings_are_lines_and_a_status(secrets: Any, fleet: Path) -> None:
    (fleet / "secrets" / "plain.env").write_text("A=1\n")
    (fleet / "secrets" / "common-new.yaml").write_text("a: 1\n")
    (fleet / "secrets" / "notes.md").write_text("not a secret\n")
    (fleet / "secrets" / "dev.yaml").write_text("a: [\n")
    (fleet / "secrets" / "common-link.yaml").symlink_to("/etc/hostname")
    found = secrets("status", "--json")
    assert found.status == 1
    words = " | ".join(found.json["findings"])
    for each in (
        "secrets/plain.env: no creation rule matches it",
        "secrets/common-new.yaml: is not encrypted",
        "secrets/dev.yaml: cannot be read: line 2",
        "secrets/common-link.yaml: cannot be read: it is a link that leads out of the fleet's directory",
    ):
        assert each in words
    assert "notes.md" not in words


@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        (["add-host", "nobody"], "hosts.nix has no host nobody; it has dev, doc1, igp", 2),
        (["add-host", "dev"], "hosts.nix: dev.publicKey is a placeholder", 2),
        (["add-host", "doc1", "--rule", "nine"], ".sops.yaml has no rule nine", 2),
        (["remove-host", "nobody"], "nobody is not a recipient in secrets/.sops.yaml; there are admin, doc1, igp", 2),
        (["remove-host", "admin"], "nobody but admin can decrypt what rule 2 (^dev", 4),
        (["edit", "/etc/passwd"], "/etc/passwd: is outside of", 2),
        (["edit", "nosuch.yaml"], "secrets/nosuch.yaml: no creation rule matches it", 4),
        (["--directory", "nosuch", "status"], "nosuch/.sops.yaml: missing", 4),
        (["remove-host", "igp", "--identity", "/no/such/file"], "/no/such/file: no age identity there", 4),
        (["remove-host", "igp", "--identity", "/etc/hostname"], "others may read this identity", 4),
    ],
)
def test_wrong_input_is_one_line_and_nothing_changes(
    secrets: Any, fleet: Path, words: list[str], said: str, status: int
) -> None:
    before = contents(fleet)
    found = secrets(*words)
    assert said in found.err
    lines = [line for line in found.err.splitlines() if not line.startswith("secrets: ")]
    assert len(lines) == 1, found.err
    assert found.status == status
    assert contents(fleet) == before
    assert git(fleet, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no age identity"),
        ("age1qqqq\n", "holds no age identity"),
        (f"{key('other').identity}\n", "this identity is not one of its recipients"),
        pytest.param(key("other").private_openssh, "this identity is not one of its recipients", id="an SSH key"),
    ],
)
def test_wrong_identities(secrets: Any, fleet: Path, text: str, said: str) -> None:
    identity = fleet.parent / "wrong"
    identity.touch(0o600)
    identity.write_text(text)
    before = contents(fleet)
    found = secrets("remove-host", "igp", "--identity", str(identity))
    assert said in found.err.splitlines()[-1]
    assert found.status == 4
    assert contents(fleet) == before


def test_an_ssh_key_is_an_identity_as_well(secrets: Any, fleet: Path) -> None:
    identity = fleet.parent / "id_ed25519"
    identity.touch(0o600)
    identity.write_text(key("doc1").private_openssh)
    done = secrets("remove-host", "igp", "--identity", str(identity), "--json")
    assert done.status == 0, done.err
    assert not list((fleet.parent / "state").rglob("identity"))


def test_a_plan_does_not_contradict_itself(secrets: Any, fleet: Path) -> None:
    assert "nothing to do: every file is encrypted" in secrets("plan", "--table").err
    (fleet / "secrets" / "plain.env").write_text("A=1\n")
    found = secrets("plan", "--table")
    assert (found.status, found.out) == (1, "")
    assert "secrets/plain.env: no creation rule matches it" in found.err
    assert "every file" not in found.err
    applied = secrets("apply", "--table")
    assert applied.status == 0
    assert "nothing to encrypt anew" in applied.out
    assert "every file" not in applied.out


def test_one_file_is_one_file(secrets: Any, fleet: Path) -> None:
    rule(fleet, "  - path_regex: ^ssh_key_\n    age: ", f"  - path_regex: ^ssh_key_\n    age: {key('doc1').recipient},")
    status = secrets("status", "--table")
    assert "1 file differs; `nixherd secrets apply` encrypts it anew" in status.err
    done = secrets("apply", "--table")
    assert ": 1 file\n" in done.out
    assert "1 files" not in done.out + done.err + status.err


def test_without_any_configuration_it_is_said(secrets: Any, fleet: Path) -> None:
    git(fleet, "mv", "secrets/.sops.yaml", "secrets/.sops.yml")
    found = secrets("status")
    assert "no .sops.yaml is there" in found.err
    assert "secrets/.sops.yml: sops does not read it; call it .sops.yaml" in found.err
    assert found.status == 4


def test_a_fleet_below_its_repositorys_top(secrets: Any, fleet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Named as it is, by a link, and from inside of it."""
    below_top = below(fleet.parent / "whole")
    config = below_top.parent / ".sops.yaml"
    config.write_text(config.read_text().replace("          - *igp\n", ""))
    git(below_top, "commit", "-qam", "rules")
    (fleet.parent / "link").symlink_to(below_top)
    for given in (below_top, fleet.parent / "link"):
        assert run(["--fleet", str(given), "secrets", "plan", "--json"]) == 0
        assert [each["file"] for each in Ended(0, *capfd.readouterr()).json["rekeys"]] == [
            f"secrets/{name}" for name in sorted(COMMON)
        ]
    assert run(["--fleet", str(fleet.parent / "link"), "secrets", "apply", "--json"]) == 0
    assert Ended(0, *capfd.readouterr()).json["changed"]
    assert recipients(below_top) == {name: who - {"igp"} for name, who in BEFORE.items()}
    assert run(["--fleet", str(below_top), "secrets", "status", "--json"]) == 0
    status = Ended(0, *capfd.readouterr()).json
    assert {row["config"] for row in status["files"]} == {"../.sops.yaml"}
    assert run(["--fleet", str(below_top), "secrets", "--directory", "..", "remove-host", "doc1", "--json"]) == 0
    assert "../.sops.yaml" in Ended(0, *capfd.readouterr()).json["files"]
    assert git(below_top, "status", "--porcelain") == ""


def test_what_apply_refuses_is_not_promised(secrets: Any, fleet: Path) -> None:
    """Whoever is out of a rule could not decrypt any more: dry run and plan say so as well."""
    rule(fleet, "          - *admin\n", "")
    before = contents(fleet)
    refused = secrets("apply")
    assert refused.status == 4
    dry, planned = secrets("apply", "--dry-run"), secrets("plan", "--json")
    assert (dry.status, planned.status) == (4, 1)
    for text in (refused.err, dry.err, "; ".join(planned.json["findings"])):
        assert "you could no longer decrypt what you can decrypt now" in text
    assert contents(fleet) == before
    assert secrets("apply", "--dry-run", "--give-up").status == 0


def test_files_that_apply_cannot_mend_are_no_success(secrets: Any, fleet: Path) -> None:
    (fleet / "secrets" / "dev.yaml").write_text("api_token: plain\n")
    git(fleet, "commit", "-qam", "plain")
    done = secrets("apply", "--json")
    assert (done.status, done.json["changed"]) == (1, False)
    assert any("secrets/dev.yaml: is not known to be as its rule says" in note for note in done.json["notes"])


@pytest.mark.parametrize("creates", [False, True])
def test_a_declared_file_in_plain_text_is_not_one_that_the_host_is_given(
    secrets: Any, fleet: Path, creates: bool
) -> None:
    if creates:
        rule(fleet, r"^dev\.yaml$", "^other")
    (fleet / "secrets" / "dev.yaml").write_text("api_token: xyzzy\n")
    (fleet / "hosts.nix").write_text(hosts(key("dev").public))
    git(fleet, "commit", "-qam", "by mistake")
    before = contents(fleet)
    done = secrets("add-host", "dev", *(["--create"] if creates else []))
    helps = "move it away" if creates else "`sops encrypt --in-place` it"
    assert done.status == 2
    assert f"dev declares secrets/dev.yaml, which is not encrypted; {helps}" in done.err
    assert contents(fleet) == before


def test_a_declared_link_is_the_secret_that_it_leads_to(secrets: Any, fleet: Path) -> None:
    (fleet / "secrets" / "dev.yaml").rename(fleet / "secrets" / "ssh_key_dev.yaml")
    (fleet / "secrets" / "dev.yaml").symlink_to("ssh_key_dev.yaml")
    (fleet / "hosts.nix").write_text(hosts(key("dev").public))
    git(fleet, "add", "-A")
    git(fleet, "commit", "-qm", "a link")
    done = secrets("add-host", "dev", "--json")
    assert done.status == 0, done.err
    assert "encrypt secrets/ssh_key_dev.yaml: +dev" in done.json["steps"]
    assert sops(fleet / "secrets", "decrypt", "dev.yaml", identity="dev").stdout == "api_token: xyzzy\n"


def test_rules_that_nobody_committed_are_said_to_be_missing_from_the_commit(secrets: Any, fleet: Path) -> None:
    path = fleet / "secrets" / ".sops.yaml"
    path.write_text(path.read_text().replace("          - *igp\n", ""))
    note = "secrets/.sops.yaml: has changes that are not committed; commit it as well"
    assert note in secrets("apply", "--dry-run", "--table").err
    done = secrets("apply", "--table")
    assert (done.status, done.err.count(note)) == (0, 1)
    assert git(fleet, "status", "--porcelain") == " M secrets/.sops.yaml\n"
    rule(fleet, "    age: ", "    age:  ")
    assert note not in secrets("apply", "--table").err
