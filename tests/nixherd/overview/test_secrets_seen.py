"""Whether the files that a host is to decrypt name it: by the rules, and by what hosts declare."""

from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.fleet.models import Fleet, Host
from nixherd.overview.document import Kind, Mend
from nixherd.overview.secrets import Readers, SecretsSeen, look_at_secrets
from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.reading import SecretFile
from nixherd.trust.secrets.rules import parse_rules
from nixherd.trust.secrets.store import Secrets, Store
from tests.nixherd.trust.secrets.keys import key

ADMIN, DOC1, DEV, OTHER = (key(name) for name in ("admin", "doc1", "dev", "other"))
RULES = f"""keys:
- &admin {ADMIN.recipient}
creation_rules:
- path_regex: ^doc1
  age: {ADMIN.recipient},{DOC1.recipient}
- path_regex: ^dev
  age: {ADMIN.recipient},{DEV.recipient}
- path_regex: ^admin
  age: {ADMIN.recipient}
"""


def encrypted(*names: str) -> Encrypted:
    return Encrypted((tuple(key(name).age for name in names),))


def look(*files: SecretFile, rules: str = RULES, declared: dict[str, list[str] | None] | None = None) -> SecretsSeen:
    store = Store(Path("/fleet"), "secrets", rules, parse_rules(rules), files, {})
    names = {"doc1": DOC1.public, "dev": DEV.public}
    hosts = {id: Host(id, id, None, "alice", None, public, (), "x", None) for id, public in names.items()}
    return look_at_secrets(Fleet("/fleet", "fleet", hosts), Secrets(Path("/fleet"), (store,)), declared or {})


def wrong(seen: SecretsSeen, host: str) -> list[str]:
    return [what for what, _ in seen.of(host).wrong]


OURS = SecretFile("doc1.yaml", encrypted("admin", "doc1"))
DEVS = SecretFile("dev.yaml", encrypted("admin", "dev"))
ADMINS = SecretFile("admin.yaml", encrypted("admin"))


def test_files_that_are_as_their_rules_say() -> None:
    seen = look(OURS, DEVS, ADMINS, declared={"doc1": ["secrets/doc1.yaml"], "dev": None})
    assert (seen.differences, seen.problem) == ((), None)
    assert seen.of("doc1") == Readers(rules=("secrets/.sops.yaml:1",))
    assert seen.of("dev") == Readers(rules=("secrets/.sops.yaml:2",))


def test_a_host_that_is_missing_and_one_that_is_too_many() -> None:
    seen = look(OURS, replace(DEVS, encrypted=encrypted("admin", "doc1")), ADMINS)
    assert wrong(seen, "dev") == wrong(seen, "doc1") == ["secrets/dev.yaml: +dev, -doc1"]
    assert seen.of("dev").wrong[0][1] is Mend.REKEY


def test_somebody_who_was_removed_and_is_still_there_is_a_difference_of_no_host() -> None:
    seen = look(OURS, DEVS, replace(ADMINS, encrypted=encrypted("admin", "other")))
    assert wrong(seen, "dev") == wrong(seen, "doc1") == []
    [difference] = seen.differences
    assert (difference.kind, difference.mend) == (Kind.RECIPIENTS, Mend.REKEY)
    assert difference.what.startswith("secrets/admin.yaml: -")


@pytest.mark.parametrize(
    ("file", "word"),
    [("secrets/dev.yaml", "does not name it"), ("secrets/gone.yaml", "not there"), ("../x.yaml", "not there")],
)
def test_what_a_host_declares_and_no_rule_gives_it(file: str, word: str) -> None:
    seen = look(OURS, DEVS, ADMINS, declared={"doc1": [file], "dev": ["secrets/dev.yaml"]})
    assert [word in each for each in wrong(seen, "doc1")] == [True]
    assert wrong(seen, "dev") == []


def test_a_file_that_cannot_be_judged_is_unknown_of_its_readers_and_no_difference() -> None:
    rules = RULES.replace("^dev", "\\p{Cn}|^dev")
    seen = look(OURS, DEVS, ADMINS, rules=rules)
    assert seen.of("dev").unknown
    assert wrong(seen, "dev") == []
    assert not any("unknown" in each.what for each in seen.differences)


def test_where_the_rules_cannot_be_read_nothing_is_known() -> None:
    seen = SecretsSeen(problem="line 3: is not UTF-8")
    assert seen.of("dev").unknown == "line 3: is not UTF-8"


def test_a_fleet_without_secrets() -> None:
    names = {"dev": Host("dev", "dev", None, "alice", None, DEV.public, (), "x", None)}
    assert look_at_secrets(Fleet("/fleet", "fleet", names), Secrets(Path("/fleet")), {"dev": []}) == SecretsSeen(
        {"dev": Readers()}
    )
