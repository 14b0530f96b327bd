"""Recipients of every kind, as rules and files write them: the text that sops compares, and what people are shown."""

import pytest

from nixherd.ssh.age import is_bech32, is_recipient, recipient_of_identity, recipient_of_nobody
from nixherd.trust.secrets import keys
from nixherd.trust.secrets.files import read_file
from nixherd.trust.secrets.keys import Kind, Recipient
from nixherd.trust.secrets.rules import Rule, parse_rules
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.kinds import token

ADMIN, TOKEN = key("admin").recipient, token("alice").recipient
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHr0XQJzPKAyGJHXvWcsDGeSw3aLPLCHdTQbnrBHtmY"
FINGERPRINT = "85E42D1B3C6C3E6A5E5D3C6E0C9BB1D0DEADBEEF"
ARN, ROLE = "arn:aws:kms:eu-west-1:1:key/a", "arn:aws:iam::1:role/r"


def rule(body: str) -> Rule:
    return parse_rules(f"creation_rules:\n- {body}").rules[0]


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (f"age: {ADMIN},{TOKEN}", [ADMIN, TOKEN]),
        (f"age: >-\n    {ADMIN},\n    {TOKEN},", [ADMIN, TOKEN]),
        (f"age: ['{SSH} alice@laptop', '{SSH}']", [f"{SSH} alice@laptop", SSH]),
        (f"key_groups: [{{age: ['{ADMIN}, {TOKEN}', {ADMIN}]}}]", [ADMIN, TOKEN]),
        ("pgp: 85E4 2D1B,0xdeadbeef", ["85E42D1B", "0xdeadbeef"]),
        ("key_groups: [{pgp: [12345678, 1e100000]}]", ["12345678", "1e100000"]),
        (f"kms: {ARN}+{ROLE} , {ARN}\n  aws_profile: prod", [f"{ARN}+{ROLE}||prod", f"{ARN}||prod"]),
        (f"key_groups: [{{kms: [{{arn: {ARN}, role: {ROLE}, context: {{b: 2, a: x}}}}]}}]", [f"{ARN}+{ROLE}|a:x,b:2"]),
        ("gcp_kms: projects/a/b, projects/c", ["projects/a/b", "projects/c"]),
        ("hckms: ['tr-west-1:uuid']", ["tr-west-1:uuid"]),
        ("azure_keyvault: https://v.example/keys/k/1", ["https://v.example/keys/k/1"]),
        ("hc_vault_transit_uri: https://v.example:8200/v1/a/b/keys/k", ["https://v.example:8200/v1/a/b/keys/k"]),
    ],
)
def test_a_rules_keys_are_what_sops_compares(body: str, values: list[str]) -> None:
    assert [each.value for each in rule(body).recipients] == values


def test_merge_comes_first_and_aliases_count() -> None:
    text = f"keys: &k [{ADMIN}]\ncreation_rules:\n- key_groups:\n  - merge:\n    - pgp: [AB]\n    age: *k\n"
    assert [str(each.kind) for each in parse_rules(text).rules[0].recipients] == ["pgp", "age"]
    text = f"one: &one\n  age: [{ADMIN}]\ncreation_rules:\n- <<: *one\n  path_regex: x\n"
    assert parse_rules(text).rules[0].recipients == (key("admin").age,)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (f"age: {ADMIN[:-1]}q", "mistyped or cut off"),
        (f"age: {TOKEN[:-2]}qq", "mistyped or cut off"),
        ("age: alice", "'alice' is not an age recipient"),
        ("age: ssh-ed25519 AAAA", "is not an SSH key"),
        ("age: {a: b}", "age is neither a text nor a list of texts"),
        ("key_groups: [{age: [[x]]}]", "age is neither a text nor a list of texts"),
        ("key_groups: [{kms: [x]}]", "kms is not a list of mappings"),
        ("key_groups: x", "key_groups is not a list of mappings"),
        ("azure_keyvault: https://v", "is not https://VAULT/keys/KEY/VERSION"),
        ("hc_vault_transit_uri: https://v/keys/k", "is not https://ADDRESS/v1/ENGINE/keys/KEY"),
        ("hckms: [x]", "is not REGION:KEY"),
        ("shamir_threshold: two", "shamir_threshold 'two' is not a number"),
        ("path_regex: [a]", "path_regex is not a text"),
    ],
)
def test_what_sops_refuses_is_refused(body: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"^rule 1: ") as caught:
        rule(body)
    assert why in str(caught.value)


def test_a_file_has_all_kinds_and_groups_in_every_format() -> None:
    flat = {
        "shamir_threshold": "2",
        "lastmodified": "2026",
        "key_groups__list_0__map_age__list_0__map_recipient": TOKEN,
        "key_groups__list_0__map_pgp__list_0__map_fp": FINGERPRINT,
        "key_groups__list_1__map_kms__list_0__map_arn": ARN,
        "key_groups__list_1__map_kms__list_0__map_context__map_a": "1",
        "key_groups__list_10__map_hc_vault__list_0__map_vault_address": "https://v",
        "key_groups__list_10__map_hc_vault__list_0__map_engine_path": "e",
        "key_groups__list_10__map_hc_vault__list_0__map_key_name": "k",
        "key_groups__list_2__map_azure_kv__list_0__map_vault_url": "https://a",
        "key_groups__list_2__map_azure_kv__list_0__map_name": "n",
    }
    values = [{FINGERPRINT, TOKEN}, {f"{ARN}|a:1"}, {"https://a/keys/n/"}, {"https://v/v1/e/keys/k"}]
    for name, text in (
        ("a.env", "".join(f"sops_{name}={value}\n" for name, value in flat.items())),
        ("a.ini", "[sops]\n" + "".join(f"{name} = {value}\n" for name, value in flat.items())),
    ):
        found = read_file(name, text.encode())
        assert found is not None
        assert [{each.value for each in group} for group in found.groups] == values
        assert found.threshold == 2


@pytest.mark.parametrize(
    ("text", "is_empty"),
    [
        ("a: ENC[AES256_GCM,data:x]\nsops:\n  mac: ENC[AES256_GCM,data:y]\n  age:\n  - recipient: x\n", False),
        ("a: b\nsops:\n  mac: ENC[AES256_GCM,data:y]\n  age:\n  - recipient: x\n", True),
        ("a: 1\n---\nb: 1\n", None),
        ("a: ENC[AES256_GCM,x]\nsops: {mac: 'ENC[AES256_GCM,y]', pgp: [{fp: 1234}]}\n---\nb: 2\n", False),
    ],
)
def test_whether_anything_in_a_file_is_encrypted(text: str, is_empty: bool | None) -> None:
    found = read_file("a.yaml", text.encode())
    assert (found.encrypts_nothing if found else None) is is_empty


def test_what_a_key_is_told_by() -> None:
    plugin, ssh, fingerprint = keys.age(TOKEN), keys.age(f"{SSH} alice@laptop"), keys.pgp(f"0x{FINGERPRINT.lower()}")
    assert (plugin.plugin, plugin.is_plugin, plugin.is_x25519, plugin.is_ssh) == ("herdtest", True, False, False)
    assert (key("admin").age.plugin, key("admin").age.is_x25519) == (None, True)
    assert (keys.age("age1pq1abc").plugin, keys.age("age1pq1abc").is_plugin) == (None, True)
    assert (ssh.is_ssh, ssh.bare.value, ssh.label) == (True, SSH, "alice@laptop")
    assert fingerprint.bare == Recipient(Kind.PGP, FINGERPRINT)
    assert [each.label for each in (plugin, fingerprint, keys.gcp_kms("projects/x"), keys.age(SSH))] == [
        f"age1herdtest1…{TOKEN[-12:]}",
        f"pgp {FINGERPRINT[-16:].lower()}",
        "gcp_kms projects/x",
        f"ssh-ed25519 …{SSH[-12:]}",
    ]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (ADMIN, Kind.AGE),
        (SSH, Kind.AGE),
        ("85E4 2D1B 3C6C 3E6A", Kind.PGP),
        (ARN, Kind.KMS),
        ("projects/x", Kind.GCP_KMS),
        ("https://v.example/keys/k/1", Kind.AZURE_KEYVAULT),
        ("https://v.example/v1/e/keys/k", Kind.HC_VAULT),
    ],
)
def test_a_key_that_stands_alone_is_told_by_its_form(text: str, kind: Kind) -> None:
    assert keys.guess(text).kind is kind


def test_age_recipients_of_identities() -> None:
    admin = key("admin")
    assert recipient_of_identity(admin.identity) == admin.recipient
    assert is_recipient(recipient_of_nobody())
    assert is_bech32(TOKEN)
    for damaged in (admin.identity[:-1], admin.recipient, ""):
        with pytest.raises(ValueError, match="mistyped or cut off"):
            recipient_of_identity(damaged)
