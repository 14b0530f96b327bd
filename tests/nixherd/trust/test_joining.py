"""What a host joins follows from what it declares; nothing else is a reason."""

from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError, Usage
from nixherd.nix.declared import Declared, DeclaredSecret, Identity
from nixherd.trust.joining import Admission, Joined, called, joined, named, require_covered
from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.people import People
from nixherd.trust.secrets.reading import SecretFile
from nixherd.trust.secrets.rules import Rules, parse_rules
from nixherd.trust.secrets.store import Secrets, Store
from tests.nixherd.trust.secrets.keys import key

ADMIN, BOB, DOC1, IGP = (key(name).recipient for name in ("admin", "bob", "doc1", "igp"))
PEOPLE = People({key("doc1").age: "doc1", key("igp").age: "igp"}, {ADMIN: "admin", BOB: "bob"})
SYSTEM = Identity(None, age_ssh_keys=("/etc/ssh/ssh_host_ed25519_key",))


def rules(*each: tuple[str, str]) -> str:
    entries = "".join(f"  - path_regex: {pattern}\n    age: {keys}\n" for pattern, keys in each)
    return f"creation_rules:\n{entries}"


# One host's and another's private files, and what both may read.
TEXT = rules(("^common", f"{ADMIN},{DOC1}"), (r"^doc1\.yaml$", f"{ADMIN},{DOC1}"), (r"^dev\.yaml$", ADMIN))


def secrets(text: str = TEXT, *files: str, directory: str = "secrets") -> Secrets:
    readers = Encrypted(((key("admin").age,),))
    store = Store(
        Path("/fleet"), directory, text, parse_rules(text), tuple(SecretFile(each, readers) for each in files), {}
    )
    return Secrets(Path("/fleet"), (store,))


def declares(*files: str, problem: str | None = None, user: str | None = None) -> Declared:
    each = tuple(DeclaredSecret(f"s{at}", "", file, "yaml", "k", user=user) for at, file in enumerate(files))
    return Declared("dev", each, identities=(SYSTEM,), problem=problem)


def of(declared: Declared, secrets: Secrets | None = None, host_id: str = "dev", **more: object) -> Joined:
    stores = secrets or globals()["secrets"](TEXT, "common.yaml", "dev.yaml", "doc1.yaml")
    all_rules: dict[str, Rules] = {store.config: store.rules for store in stores.stores}
    return joined(stores, PEOPLE, all_rules, host_id, Admission(declared, **more))  # type: ignore[arg-type]


def numbers(result: Joined) -> list[int]:
    return [rule.number for each in result.rules.values() for rule in each]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), []),
        (("secrets/dev.yaml",), [3]),
        (("secrets/common.yaml", "secrets/dev.yaml"), [1, 3]),
        (("secrets/common.yaml", "secrets/common.env"), [1]),
        (("secrets/doc1.yaml",), [2]),
    ],
)
def test_a_second_host_joins_what_it_declares_and_nothing_of_the_firsts(
    files: tuple[str, ...], expected: list[int]
) -> None:
    assert numbers(of(declares(*files))) == expected


def test_the_first_host_joins_what_it_declares() -> None:
    alone = secrets(rules(("^common", ADMIN), ("", ADMIN)), "common.yaml")
    assert numbers(of(declares("secrets/common.yaml"), alone)) == [1]
    assert numbers(of(declares("secrets/x.yaml"), alone)) == [2]


def test_a_host_that_declares_nothing_is_told_so() -> None:
    assert of(declares()).notes == ("dev declares no secrets: it joins no rule; --rule (data secrets_rules) names one",)
    assert of(declares(), rules=[1]).notes == ()


@pytest.mark.parametrize("host_id", ["dev", "common"])
def test_a_rule_with_its_name_is_not_joined_for_that(host_id: str) -> None:
    assert numbers(of(declares(), host_id=host_id)) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [([1], [1]), (["3"], [3]), (["^common"], [1]), (["doc1"], [2]), (["^common", 3, "dev"], [1, 3]), ([], [])],
)
def test_rules_are_named_by_number_expression_or_a_part(given: list[str | int], expected: list[int]) -> None:
    assert numbers(of(declares(problem="no flake"), rules=given or [1])) == (expected or [1])
    assert numbers(of(declares("secrets/dev.yaml"), rules=given)) == sorted({*expected, 3})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nosuch", r".sops.yaml has no rule nosuch; there are secrets/.sops.yaml: rule 1 \(\^common\)"),
        (9, ".sops.yaml has no rule 9"),
        ("", "'' names no rule; write its number"),
        (" ", "' ' names no rule; write its number"),
        ("yaml", r"rule yaml is several: secrets/.sops.yaml: rule 2 .*; secrets/.sops.yaml: rule 3 .*; name it by its"),
    ],
)
def test_what_is_none_or_several_is_refused_with_all_of_them(given: str | int, words: str) -> None:
    with pytest.raises(Usage, match=words):
        of(declares(), rules=[given])


def test_blanks_name_no_rule_that_has_one() -> None:
    text = rules(("'my secrets/'", ADMIN), ("''", ADMIN))
    for given in ("", " ", "secrets/.sops.yaml:", "secrets/.sops.yaml: "):
        with pytest.raises(Usage, match=f"'{given}' names no rule; write its number or a part of its path_regex"):
            named({"secrets/.sops.yaml": parse_rules(text)}, [given])


def test_in_several_files_a_number_needs_the_file() -> None:
    two = {"secrets/.sops.yaml": parse_rules(TEXT), ".sops.yaml": parse_rules(rules(("^top", ADMIN)))}
    assert [(config, rule.number) for config, rule in named(two, [".sops.yaml:1", "secrets/.sops.yaml:dev"])] == [
        (".sops.yaml", 1),
        ("secrets/.sops.yaml", 3),
    ]
    with pytest.raises(Usage, match="rule 1 is several"):
        named(two, [1])


def test_what_a_specialisation_declares_is_declared() -> None:
    special = declares("secrets/dev.yaml")
    assert numbers(of(replace(declares(), specialisations={"travel": special}))) == [3]
    unknown = replace(declares("secrets/common.yaml"), problem="specialisation travel cannot be evaluated")
    with pytest.raises(Usage, match="which secrets it declares is not known: specialisation travel cannot be eval"):
        of(unknown)


def test_containers_have_keys_of_their_own_and_that_is_said() -> None:
    found = of(replace(declares("secrets/common.yaml"), containers={"db": declares("secrets/dev.yaml")}))
    assert numbers(found) == [1]
    [note] = [note for note in found.notes if "containers" in note]
    assert note.startswith("dev: containers.db: who decrypts its secrets is unknown: ")


def test_what_is_not_known_is_not_guessed() -> None:
    with pytest.raises(
        Usage, match=r"dev: which secrets it declares is not known: it is broken; correct that, or name"
    ):
        of(declares("secrets/dev.yaml", problem="it is broken"))
    result = of(declares("secrets/dev.yaml", problem="it is broken"), rules=[1])
    assert numbers(result) == [1]
    assert result.notes == ("dev: which secrets it declares is not known: it is broken",)


def test_what_no_rule_is_for_is_said_with_the_line_to_add_and_that_line_is_what_helps() -> None:
    text = rules((r"^doc1\.yaml$", f"{ADMIN},{DOC1}"))
    declared = declares("secrets/more than/b+c.yaml")
    result = of(declared, secrets(text))
    assert numbers(result) == []
    with pytest.raises(Usage) as caught:
        require_covered(result, PEOPLE, "dev", Admission(declared))
    line = rf"- {{path_regex: '^more\ than/b\+c\.yaml$', age: '{ADMIN}'}}"
    start = "dev: secrets/more than/b+c.yaml: no rule of secrets/.sops.yaml is for it; add "
    assert str(caught.value) == f"{start}`{line}` to its creation_rules, or --create (data secrets_create)"
    again = of(declared, secrets(f"{text}  {line}\n"))
    assert numbers(again) == [2]
    require_covered(again, PEOPLE, "dev", Admission(declared))
    [missing] = again.missing
    assert "does not exist: `nixherd secrets edit 'secrets/more than/b+c.yaml'` makes it" in missing.remedy(PEOPLE)
    require_covered(result, PEOPLE, "dev", Admission(declared, creates=True))
    require_covered(result, PEOPLE, "dev", Admission(declared, rules=[1]))


def test_who_is_to_read_it_is_not_guessed() -> None:
    text = rules((r"^a\.yaml$", f"{ADMIN},{DOC1}"), (r"^b\.yaml$", f"{BOB},{IGP}"))
    result = of(declares("secrets/dev.yaml"), secrets(text))
    with pytest.raises(FleetError, match="the rules there are not for the same people: admin, bob"):
        require_covered(result, PEOPLE, "dev", Admission(declares(), creates=True))
    assert result.missing[0].readers == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            rules(("^all", f"{ADMIN},{BOB}"), (r"^a\.yaml$", f"{ADMIN},{DOC1}"), ("^k", ADMIN)),
            [ADMIN],
        ),  # as its neighbour
        (rules(("^all", f"{ADMIN},{BOB},{DOC1},{IGP}"), ("^k", f"{ADMIN},{BOB}")), [ADMIN, BOB]),
        (rules(("^all", ADMIN), ("^k", BOB)), []),
    ],
)
def test_readers_are_those_of_the_neighbouring_rule_or_everybody(text: str, expected: list[str]) -> None:
    [missing] = of(declares("secrets/dev.yaml"), secrets(text)).missing
    assert [reader.value for reader in missing.readers] == expected


def test_a_file_without_a_rule_keeps_its_readers() -> None:
    [missing] = of(declares("secrets/dev.yaml"), secrets(rules(("^all", BOB)), "dev.yaml")).missing
    assert ([reader.value for reader in missing.readers], missing.exists) == ([ADMIN], True)


def test_secrets_of_homes_are_peoples() -> None:
    result = of(declares("secrets/common.yaml", "secrets/common.env", "secrets/else.yaml", user="ann"))
    assert numbers(result) == []
    assert result.notes == (
        "secrets/common.env, which ann's home declares, does not exist",
        "secrets/else.yaml, which ann's home declares: no rule is for it; people's keys decrypt it",
    )
    assert result.missing == ()


def test_what_comes_from_elsewhere_is_not_ours() -> None:
    secret = DeclaredSecret("a", "", None, "yaml", "a", origin="x.yaml of the flake's input private")
    result = of(Declared("dev", (secret,), identities=(SYSTEM,)))
    assert (numbers(result), len(result.notes)) == ([], 1)
    assert "x.yaml of the flake's input private" in result.notes[0]


def test_a_machine_with_another_identity_is_said_to_have_it() -> None:
    declared = Declared("dev", declares("secrets/dev.yaml").secrets, identities=(Identity(None, "/var/key.txt"),))
    assert of(declared).notes == (
        "dev decrypts with /var/key.txt, not with its host key, says sops.age of its configuration",
    )


def test_where_no_configuration_is_found() -> None:
    declared = declares("elsewhere/x.yaml")
    with pytest.raises(
        Usage, match=r"dev declares elsewhere/x\.yaml, no \.sops\.yaml is found from there upwards, .*; make one"
    ):
        require_covered(of(declared), PEOPLE, "dev", Admission(declared, creates=True))
    require_covered(of(declared), PEOPLE, "dev", Admission(declared, rules=[1]))


def test_a_key_by_name() -> None:
    text = f"keys:\n  - &framework {ADMIN}\n  - &bob {BOB}\n" + rules(("^a", f"{ADMIN},{DOC1}"))
    all_rules = {".sops.yaml": parse_rules(text)}
    people = People({key("doc1").age: "doc1"}, all_rules[".sops.yaml"].names)
    assert called(people, all_rules, "framework").value == ADMIN
    assert called(people, all_rules, ADMIN).value == ADMIN
    assert called(people, all_rules, "doc1").value == DOC1
    with pytest.raises(Usage, match=r"nobody is called x in .sops.yaml; there are framework, doc1, bob"):
        called(people, all_rules, "x")
