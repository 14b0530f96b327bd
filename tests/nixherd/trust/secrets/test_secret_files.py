"""Recipients read from files that the real sops made, in every format; and what is not a secret file."""

from pathlib import Path

import pytest

from nixherd.trust.secrets.files import Encrypted, Format, read_file, with_first
from nixherd.trust.secrets.keys import Kind, Recipient
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import SECRETS, repository, sops

pytestmark = pytest.mark.xdist_group("enrolment")

ADMIN, DOC1 = key("admin"), key("doc1")
PAIR = (ADMIN.age, DOC1.age)


@pytest.mark.nix
@pytest.mark.parametrize("name", [*SECRETS, "plain.txt", "x.yml", ".env", ".yaml", ".json", ".ini", "flat.ini"])
def test_every_format_says_who_can_decrypt_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / Path(name).name
    others = {".env": "A=b\n", ".json": '{"a": "b"}\n', ".ini": "a = b\n", "flat.ini": "a = b\n[part]\nc = d\n"}
    path.write_text({**SECRETS, **others}.get(name, "a: b\n"))
    assert read_file(path.name, path.read_bytes()) is None
    sops(tmp_path, "encrypt", "--in-place", "--age", f"{ADMIN.recipient},{DOC1.recipient}", path.name)
    assert read_file(path.name, path.read_bytes()) == Encrypted((PAIR,))


@pytest.mark.nix
@pytest.mark.parametrize("name", ["a.yaml", "a.json", "a.env", "a.ini", "a"])
def test_key_groups_are_read_as_well(name: str, tmp_path: Path) -> None:
    (tmp_path / ".sops.yaml").write_text(
        "creation_rules:\n- shamir_threshold: 2\n"
        f"  key_groups:\n  - age: [{ADMIN.recipient}]\n  - age: [{DOC1.recipient}]\n"
    )
    text = {"a.json": '{"a": 1}', "a.env": "A=1\n", "a.ini": "[x]\na = 1\n"}.get(name, "a: 1\n")
    (tmp_path / name).write_text(text)
    sops(tmp_path, "encrypt", "--in-place", name)
    found = read_file(name, (tmp_path / name).read_bytes())
    assert found == Encrypted((PAIR[:1], PAIR[1:]), 2)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        *(("a.yaml", "yaml"), ("b/a.yml", "yaml"), ("a.json", "json"), ("a.env", "dotenv"), ("a.ini", "ini")),
        *(("ssh_key_a", "binary"), ("a.yaml.bak", "binary"), ("A.YAML", "binary"), ("b.env/a", "binary")),
        *((".env", "dotenv"), ("b/.yaml", "yaml"), (".json", "json"), (".ini", "ini"), ("prod..env", "dotenv")),
    ],
)
def test_formats_are_told_by_their_extension(name: str, format: str) -> None:
    assert Format.of(name) == format


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.yaml", b"a: [", "line 2: "),
        ("a.yaml", b"a: b\n<<<<<<< HEAD\nc: d\n", "line 2: a merge was left unfinished there"),
        ("a.env", b"A=1\n=======\n>>>>>>> other\n", "line 2: a merge was left unfinished"),
        ("a.json", b"{", "it is not JSON"),
        ("a.ini", b"[x]\n= y", "it is not an INI file"),
        ("a.yaml", b"\xff\xfe", "it is not UTF-8 text"),
        ("a.yaml", b"sops:\n  mac: x\n  age:\n  - enc: y\n", "an age entry without a recipient"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_file(name, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("ssh_key", b"\x00\xff binary"), ("ssh_key", b"text")),
        *(("a.yaml", b"sops: not it\n"), ("a.yaml", b""), ("a.yaml", b"[1]")),
    ],
)
def test_what_is_not_encrypted(name: str, content: bytes) -> None:
    assert read_file(name, content) is None


def test_keys_of_other_kinds_are_read_as_well() -> None:
    text = f"sops:\n  mac: x\n  pgp:\n  - fp: ABC\n  kms:\n  - arn: y\n  age:\n  - recipient: {ADMIN.recipient}\n"
    group = (Recipient(Kind.KMS, "y"), Recipient(Kind.PGP, "ABC"), PAIR[0])
    assert read_file("a.yaml", text.encode()) == Encrypted((group,), encrypts_nothing=True)


@pytest.mark.nix
def test_keys_come_first_that_sops_is_to_try_first(tmp_path: Path) -> None:
    path, others = tmp_path / "a.yaml", [key(name).recipient for name in ("doc1", "igp", "other")]
    path.write_text("a: bücher\nb: |\n  sops:\n      age:\n")
    sops(tmp_path, "encrypt", "--in-place", "--age", ",".join([*others, ADMIN.recipient]), path.name)
    content = path.read_bytes()
    ordered = with_first(content, {ADMIN.age, key("nobody").age})
    found = read_file("a.yaml", ordered)
    assert found is not None
    assert [each.value for each in found.recipients] == [ADMIN.recipient, *others]
    assert sorted(ordered.splitlines()) == sorted(content.splitlines())
    assert with_first(ordered, {ADMIN.age}) is ordered
    assert with_first(content, {key("nobody").age}) is content
    path.write_bytes(ordered)
    assert sops(tmp_path, "decrypt", path.name).stdout == "a: bücher\nb: |\n    sops:\n        age:\n"


@pytest.mark.nix
def test_what_sops_does_not_write_so_keeps_its_order(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": "b"}')
    sops(tmp_path, "encrypt", "--in-place", "--age", f"{DOC1.recipient},{ADMIN.recipient}", "a.json")
    content = (tmp_path / "a.json").read_bytes()
    assert with_first(content, {ADMIN.age}) is content
    assert with_first(b"a: b\n", {ADMIN.age}) == b"a: b\n"


@pytest.mark.nix
def test_the_fleet_of_the_tests_is_what_it_says(tmp_path: Path) -> None:
    fleet = repository(tmp_path / "fleet")
    assert all(read_file(name, (fleet / "secrets" / name).read_bytes()) for name in SECRETS)
