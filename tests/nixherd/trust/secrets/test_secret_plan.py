"""Who should be able to decrypt which file, who can, and what is wrong: pure."""

import pytest

from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.people import People
from nixherd.trust.secrets.plan import plan
from nixherd.trust.secrets.reading import SecretFile
from nixherd.trust.secrets.rules import parse_rules
from tests.nixherd.trust.secrets.keys import key

ADMIN, DOC1, OTHER = (key(name).recipient for name in ("admin", "doc1", "other"))
PEOPLE = People({key("doc1").age: "doc1", key("dev").age: "dev"}, {ADMIN: "admin"})
_TEXT = f"- path_regex: ^a\n  age: {ADMIN},{DOC1}\n- path_regex: ^b\n  age: {ADMIN}\n"
RULES = parse_rules(f"keys:\n- &admin {ADMIN}\ncreation_rules:\n{_TEXT}")


def encrypted(*names: str) -> Encrypted:
    return Encrypted((tuple(key(name).age for name in names),))


OK = SecretFile("b.yaml", encrypted("admin"))


def found(*files: SecretFile) -> tuple[list[str], tuple[str, ...]]:
    made = plan("secrets", RULES, PEOPLE, files)
    return [str(rekey) for rekey in made.rekeys], made.findings


def test_nothing_to_do() -> None:
    assert found(OK, SecretFile("a.env", encrypted("doc1", "admin"))) == ([], ())


def test_who_is_added_and_who_is_removed_by_name() -> None:
    assert found(OK, SecretFile("a.env", encrypted("admin", "dev", "other"))) == (
        [f"secrets/a.env: +doc1, -dev, -{OTHER[:12]}…"],
        (),
    )


@pytest.mark.parametrize(
    ("file", "finding"),
    [
        (SecretFile("x.yaml", encrypted("admin")), "secrets/x.yaml: no creation rule matches it"),
        (SecretFile("a.yaml"), "secrets/a.yaml: is not encrypted"),
        (SecretFile("a.yaml", problem="line 3: a merge"), "secrets/a.yaml: cannot be read: line 3: a merge"),
    ],
)
def test_files_that_no_run_can_mend(file: SecretFile, finding: str) -> None:
    rekeys, findings = found(OK, SecretFile("a", encrypted("admin", "doc1")), file)
    assert rekeys == []
    assert [each[: len(finding)] for each in findings] == [finding]


def test_rules_and_recipients_that_are_nobodys() -> None:
    rules = parse_rules(
        f"creation_rules:\n- path_regex: ^b\n  age: {ADMIN}\n- path_regex: ^c\n  age: {OTHER}\n- path_regex: d\n"
    )
    assert plan("secrets", rules, PEOPLE, [OK]).findings == (
        "secrets/.sops.yaml: rule 2 (^c) matches no file",
        "secrets/.sops.yaml: rule 3 (d) matches no file",
        "secrets/.sops.yaml: rule 3 (d) names nobody who could decrypt",
        f"secrets/.sops.yaml: {OTHER} is not a host and nobody's; give it an anchor or a comment, or remove it",
    )
