"""What is read here of rules and files is what the real sops reads: which rule, which keys, what it would change."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nixherd.trust.secrets.files import read_file
from nixherd.trust.secrets.people import People
from nixherd.trust.secrets.plan import compare
from nixherd.trust.secrets.rules import Rule, Unknown, parse_rules
from tests.nix_cli import environment
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.kinds import token
from tests.properties import examples

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("kinds")]

PEOPLE = ("admin", "doc1", "igp", "dev")


def sops(place: Path, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
    env = {**environment(), "SOPS_DISABLE_VERSION_CHECK": "1", "HOME": str(place), "XDG_CONFIG_HOME": str(place)}
    return subprocess.run(["sops", *words], cwd=place, env=env, input=input, capture_output=True, text=True)


# Which rule

ATOMS = (
    *("a", "b", "/", r"\.", ".", "ya?ml", "secrets", "[ab]", "[^/]", r"\d", r"\w", r"\pL", r"\p{Lu}", r"\p{Greek}"),
    *("é", "(a|b)", "(?:x)?", "(?i:A)", r"\b", "^", "$", r"\z", r"\A", "[[:alpha:]]", r"\x61", r"\x{e9}", r"\Qa.b\E"),
    # what sops refuses, or what RE2 alone does
    *(
        r"\C",
        "(?=a)",
        "(?P<n>a)",
        "(?<n>a)",
        r"\1",
        r"\Z",
        "a**",
        "(",
        "[b-a]",
        "a{1001}",
        r"\p{Cn}",
        r"\p{Letter}",
        "+",
    ),
)
PATHS = ("a.yaml", "b/a.yml", "secrets/é.yaml", "A.env", "x", "b/Ω.json", "1.ini", "a\nb")


@pytest.mark.slow
@examples(80)
@given(
    st.lists(st.lists(st.sampled_from(ATOMS), min_size=1, max_size=4).map("".join), min_size=1, max_size=3),
    st.sampled_from(PATHS),
)
def test_the_same_rule_is_chosen_and_the_same_expressions_refused(
    tmp_path_factory: pytest.TempPathFactory, expressions: list[str], path: str
) -> None:
    place = tmp_path_factory.mktemp("rules")
    rules = [{"path_regex": each, "age": key(PEOPLE[n]).recipient} for n, each in enumerate(expressions)]
    text = yaml.safe_dump({"creation_rules": [*rules, {"age": key("other").recipient}]}, allow_unicode=True)
    (place / ".sops.yaml").write_text(text)
    options = ["--filename-override", str(place / path), "--input-type", "yaml", "--output-type", "yaml"]
    done = sops(place, "--config", str(place / ".sops.yaml"), "encrypt", *options, "/dev/stdin", input="a: 1\n")
    try:
        rule = parse_rules(text).rule_of(path)
    except ValueError as error:
        refused = re.fullmatch(r"rule (\d+): path_regex .* is not a regular expression: .*", str(error))
    else:
        refused = None
    if refused:
        reached = int(refused[1])  # sops compiles only those that it comes to
        if done.returncode == 0:
            earlier = parse_rules(yaml.safe_dump({"creation_rules": rules[: reached - 1]})).rule_of(path)
            assert earlier is not None  # it may be one that cannot be judged here
        else:
            assert "can not compile regexp" in done.stderr
        return
    if isinstance(rule, Unknown):
        return
    assert done.returncode == 0, (text, done.stderr)
    found = read_file("a.yaml", done.stdout.encode())
    assert rule is not None
    assert found is not None
    assert found.recipients == rule.recipients


# What sops takes no rule from

RULE = f"creation_rules:\n- path_regex: ^a\n  age: {key('admin').recipient}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{RULE}creation_rules: []\n", "line 4: creation_rules is there twice in one mapping"),
        (f"{RULE}  age: {key('doc1').recipient}\n", "line 4: age is there twice"),
        (f"x: 1\n{RULE}x: 2\n", "line 5: x is there twice"),
        (f"{RULE}- path_regex: ^b\n  foo: 1\n  foo: 2\n", "line 6: foo is there twice"),
        (f"x: &x {{a: 1}}\n{RULE}  <<: *x\n  <<: *x\n", "line 6: << is there twice"),
        (f"{RULE}  mac_only_encrypted: maybe\n", "line 4: mac_only_encrypted is not true or false"),
        (f'{RULE}  mac_only_encrypted: "true"\n', "line 4: mac_only_encrypted is not"),
        (f'{RULE}  shamir_threshold: "2"\n', "line 4: shamir_threshold is a text"),
        (f"{RULE}stores: 3\n", "line 4: stores is not a mapping"),
        (f"{RULE}destination_rules: x\n", "line 4: destination_rules is not a list"),
        (f"{RULE}  mac_only_encrypted: on\nstores:\ndestination_rules: ~\n", None),
        (f"{RULE}  unencrypted_suffix: ''\n  encrypted_regex: ^x\nx: {{a: 1, a: 2}}\n", None),
        (f"{RULE}  unencrypted_suffix: _u\n  encrypted_regex: ^x\n", "rule 1"),
    ],
)
def test_a_file_that_sops_refuses_is_not_one_whose_secrets_are_right(
    text: str, words: str | None, tmp_path: Path
) -> None:
    (tmp_path / ".sops.yaml").write_text(text)
    done = sops(
        tmp_path, "--config", ".sops.yaml", "encrypt", "--filename-override", "a.yaml", "/dev/stdin", input="a: 1\n"
    )
    assert (done.returncode == 0) == (words is None), done.stderr
    if words is not None and words.startswith("line"):
        with pytest.raises(ValueError, match=f"^{words}"):
            parse_rules(text)
        return
    rule = parse_rules(text).rule_of("a.yaml")
    assert isinstance(rule, Rule)
    assert (rule.problem is None) == (words is None)


# What differs

KEYS: dict[str, list[Any]] = {
    "age": [key("admin").recipient, key("doc1").recipient, token("alice").recipient, key("igp").public],
    "pgp": ["85E42D1B3C6C3E6A5E5D3C6E0C9BB1D0DEADBEEF", "85E4 2D1B 3C6C", "0xdeadbeef", "deadbeef"],
    "gcp_kms": [{"resource_id": "projects/p/locations/global/keyRings/r/cryptoKeys/k"}],
    "hc_vault": ["https://vault.example:8200/v1/sops/keys/first", "https://vault.example/v1/a/b/keys/k2"],
    "azure_keyvault": [{"vaultUrl": "https://v.vault.azure.net", "key": "k", "version": "1"}],
    "kms": [
        {"arn": "arn:aws:kms:eu-west-1:1:key/a"},
        {"arn": "arn:aws:kms:eu-west-1:1:key/a", "role": "arn:aws:iam::1:role/r"},
        {"arn": "arn:aws:kms:eu-west-1:1:key/a", "context": {"b": "2", "a": "1"}},
        {"arn": "arn:aws:kms:eu-west-1:1:key/a", "aws_profile": "prod"},
    ],
}


@st.composite
def groups(draw: st.DrawFn) -> dict[str, Any]:
    """A rule, as sops takes it."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        pairs = [(kind, each) for kind, entries in KEYS.items() for each in entries]
        chosen = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=4, unique_by=str))
        found.append({kind: [each for name, each in chosen if name == kind] for kind, _ in chosen})
    threshold = draw(st.integers(2, len(found))) if len(found) > 1 else 0
    return {"key_groups": found, **({"shamir_threshold": threshold} if threshold else {})}


def metadata(rule: Rule) -> dict[str, object]:
    """A file's, as sops would write it for a rule; nobody could decrypt it."""
    date, written = "2026-01-01T00:00:00Z", []
    for group in rule.groups:
        entries: dict[str, list[dict[str, object]]] = {}
        for each in group:
            entry, word = _entry(str(each.kind), each.value)
            entries.setdefault(word, []).append({**entry, "enc": "x", "created_at": date})
        written.append(entries)
    sops = {"lastmodified": date, "mac": "ENC[AES256_GCM,x]", "version": "3.11.0"}
    if len(written) == 1:
        return {**sops, **written[0]}
    return {**sops, "shamir_threshold": rule.threshold, "key_groups": written}


def _entry(kind: str, value: str) -> tuple[dict[str, object], str]:
    match kind:
        case "age":
            return {"recipient": value}, "age"
        case "pgp":
            return {"fp": value}, "pgp"
        case "gcp_kms":
            return {"resource_id": value}, "gcp_kms"
        case "azure_keyvault":
            vault, _, name, version = value.rsplit("/", 3)
            return {"vault_url": vault, "name": name, "version": version}, "azure_kv"
        case "hc_vault":
            address, rest = value.split("/v1/")
            engine, name = rest.split("/keys/")
            return {"vault_address": address, "engine_path": engine, "key_name": name}, "hc_vault"
    first, *others = value.split("|")
    arn, _, role = first.partition("+")
    context = dict(pair.split(":", 1) for pair in others[0].split(",")) if others and others[0] else {}
    profile = others[1] if len(others) > 1 else ""
    return {"arn": arn, "role": role, "context": context, "aws_profile": profile}, "kms"


@st.composite
def changes(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A rule, and what it was before: another one, the same, or the same in another order or with another threshold."""
    old = draw(groups())
    match draw(st.sampled_from(["other", "same", "order", "threshold"])):
        case "other":
            return old, draw(groups())
        case "order":
            return old, {**old, "key_groups": draw(st.permutations(old["key_groups"]))}
        case "threshold" if len(old["key_groups"]) > 1:
            return old, {**old, "shamir_threshold": draw(st.integers(2, len(old["key_groups"])))}
    return old, old


@pytest.mark.slow
@examples(80)
@given(changes())
def test_the_same_differs(
    tmp_path_factory: pytest.TempPathFactory, change: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    old, new = change
    place = tmp_path_factory.mktemp("files")
    before, after = (parse_rules(yaml.safe_dump({"creation_rules": [each]})).rules[0] for each in (old, new))
    (place / ".sops.yaml").write_text(yaml.safe_dump({"creation_rules": [new]}))
    (place / "a.yaml").write_text(yaml.safe_dump({"a": "ENC[AES256_GCM,y]", "sops": metadata(before)}))
    file = read_file("a.yaml", (place / "a.yaml").read_bytes())
    assert file is not None
    assert (file.groups_are(before.groups), file.threshold) == (True, before.threshold)
    rekey = compare("a.yaml", ".sops.yaml", file, after, People({}))
    # without a key service it asks no cloud, and fails after it has said what it would change
    done = sops(place, "updatekeys", "--enable-local-keyservice=false", "--yes", "a.yaml")
    is_up_to_date = "already up to date" in done.stderr
    # sops leaves a threshold as it is where the number of key groups allows that
    least = min(before.threshold, len(after.groups)) if len(before.groups) > 1 else 0
    is_only_threshold = rekey is not None and file.groups_are(after.groups) and before.threshold != after.threshold
    assert (rekey is None or (is_only_threshold and least == before.threshold)) == is_up_to_date, done
    if rekey is None or is_up_to_date:
        return
    shown = [line.strip() for line in done.stdout.splitlines()]
    added = {line.removeprefix("+++ ") for line in shown if line.startswith("+++ ") and "shamir" not in line}
    removed = {line.removeprefix("--- ") for line in shown if line.startswith("--- ") and "shamir" not in line}
    pairs = [
        (
            set(after.groups[n]) if n < len(after.groups) else set(),
            set(file.groups[n]) if n < len(file.groups) else set(),
        )
        for n in range(max(len(after.groups), len(file.groups)))
    ]
    assert added == {each.value for one, other in pairs for each in one - other}
    assert removed == {each.value for one, other in pairs for each in other - one}
