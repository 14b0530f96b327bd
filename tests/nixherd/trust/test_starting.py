"""The `.sops.yaml` that a fleet begins with: what its rules say, read by the parser, and what is refused."""

import re

import pytest

from nixherd.base.errors import Usage
from nixherd.nix.declared import Declared, DeclaredSecret
from nixherd.trust.secrets.files import Format
from nixherd.trust.secrets.keys import Kind, Recipient, age
from nixherd.trust.secrets.placeholders import NewFile
from nixherd.trust.secrets.rules import Rule, parse_rules
from nixherd.trust.starting import config_text, declared_files, directory_of
from tests.nixherd.trust.secrets.keys import key

ADA, BOB = key("ada").age, Recipient(Kind.PGP, "FBC7B9E2A4F9289AC0C1D4843D16CEE4A27381B4")
TOUCH = age(f"{key('laptop').public}: with a colon")


def secret(file: str | None, key: str = "token", *, user: str | None = None, form: str = "yaml") -> DeclaredSecret:
    return DeclaredSecret(key, f"/run/secrets/{key}", file, form, key, user=user)


def readers(text: str, path: str) -> set[Recipient]:
    rule = parse_rules(text).rule_of(path)
    assert isinstance(rule, Rule), rule
    return set(rule.recipients)


def test_each_file_has_a_rule_for_people_and_who_declares_it() -> None:
    hosts = {"web-1": key("web").age, "db": key("db").age}
    rules = [("common.yaml", ("web-1", "db")), ("web-1.yaml", ("web-1",)), ("a b/ü.env", ()), ("new.yaml", ("new",))]
    text = config_text({"ada": ADA, "bob": BOB, "ada.laptop": TOUCH}, hosts, rules)
    people = {ADA, BOB, TOUCH}
    assert readers(text, "common.yaml") == {*people, *hosts.values()}
    assert readers(text, "web-1.yaml") == {*people, hosts["web-1"]}
    assert readers(text, "a b/ü.env") == people
    assert readers(text, "new.yaml") == people, "a host without a key joins when it is enrolled"
    assert parse_rules(text).rule_of("web-1xyaml") is None


def test_two_keys_of_one_name_are_refused() -> None:
    with pytest.raises(Usage, match=r"a-b|two keys with one name"):
        config_text({"a.b": ADA}, {"a_b": key("x").age}, [])


def test_files_are_those_of_this_repository_and_of_whom_they_are() -> None:
    web = Declared("web", (secret("secrets/common.yaml"), secret("secrets/web.yaml", "a/b"), secret(None)))
    db = Declared("db", (secret("secrets/common.yaml", "other"), secret("secrets/ada.yaml", user="ada")))
    found = {file.path: file for file in declared_files((web, db))}
    assert {path: file.hosts for path, file in found.items()} == {
        "secrets/ada.yaml": (),
        "secrets/common.yaml": ("web", "db"),
        "secrets/web.yaml": ("web",),
    }
    common = NewFile.of("a.yaml", ".sops.yaml", found["secrets/common.yaml"].secrets, {ADA}, "ada")
    assert (common.keys, common.format) == (("other", "token"), Format.YAML)
    mixed = (secret("a", "1"), secret("a", "2", form="json"))
    with pytest.raises(ValueError, match="declared as json and as yaml, and sops takes it for binary by its name"):
        NewFile.of("a", ".sops.yaml", mixed, {ADA}, "ada")


@pytest.mark.parametrize(
    ("paths", "directory"),
    [
        ((), "secrets"),
        (("secrets/a.yaml", "secrets/hosts/b.yaml"), "secrets"),
        (("secrets/a.yaml", "hosts/web/b.yaml"), "."),
        (("a.yaml",), "."),
        (("x/y/a.yaml", "x/y/z/b.yaml"), "x/y"),
    ],
)
def test_the_configuration_is_where_all_files_are_below(paths: tuple[str, ...], directory: str) -> None:
    assert directory_of(declared_files([Declared("web", tuple(map(secret, paths)))])) == directory


@pytest.mark.parametrize(
    ("paths", "directory"),
    [
        (("../secrets/a.yaml", "../secrets/b/c.yaml"), "../secrets"),
        (("../secrets/a.yaml", "secrets/b.yaml"), ".."),
        (("../secrets/a.yaml", "../../my secrets/b.yaml"), "../.."),
        (("../../my secrets/a.yaml",), "'../../my secrets'"),
    ],
)
def test_a_file_outside_of_the_fleet_needs_a_word_which_is_said(paths: tuple[str, ...], directory: str) -> None:
    words = re.escape(f"`nixherd secrets --directory {directory} init`".replace("../..", "../.."))
    with pytest.raises(Usage, match=words):
        directory_of(declared_files([Declared("web", tuple(map(secret, paths)))]), "infra/nix")
