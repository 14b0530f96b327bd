"""Whether the operator can decrypt, by what is known of identities, key groups and thresholds."""

from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.trust.secrets import keys
from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.identities import UNREAD, Identity, Opens, Operator, _secret_keys
from nixherd.trust.secrets.keys import Group
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.kinds import rsa_key, token

ADMIN, DOC1, IGP = (key(name).age for name in ("admin", "doc1", "igp"))
TOKEN, KMS = keys.age(token("alice").recipient), keys.kms("arn:aws:kms:x")
SSH = keys.age(f"{key('admin').public} and more")
YES, NO, UNKNOWN = Opens.YES, Opens.NO, Opens.UNKNOWN


def identity(place: Path, text: str) -> Identity:
    file = place / "identity"
    file.touch(0o600)
    file.write_text(text)
    return Identity.read(file)


@pytest.fixture
def admin(tmp_path: Path) -> Operator:
    return Operator((identity(tmp_path, key("admin").identity),), is_given=True)


@pytest.mark.parametrize(
    ("groups", "threshold", "opens"),
    [
        (((DOC1, ADMIN),), 1, YES),
        (((DOC1,),), 1, NO),
        (((DOC1, KMS),), 1, UNKNOWN),
        (((TOKEN,),), 1, NO),
        (((SSH,),), 1, NO),
        (((ADMIN,), (DOC1,)), 2, NO),
        (((ADMIN,), (ADMIN, DOC1)), 2, YES),
        (((ADMIN,), (DOC1,), (KMS,)), 2, UNKNOWN),
        (((), ()), 2, NO),
    ],
)
def test_what_somebody_opens(admin: Operator, groups: tuple[Group, ...], threshold: int, opens: Opens) -> None:
    assert admin.opens(groups, threshold) is opens


@pytest.mark.parametrize(
    ("before", "groups", "threshold", "keeps"),
    [
        (Encrypted(((ADMIN,),)), ((ADMIN, DOC1),), 1, YES),
        (Encrypted(((KMS,),)), ((KMS, DOC1),), 1, YES),  # whoever it was can go on
        (Encrypted(((KMS, DOC1),)), ((KMS,),), 1, UNKNOWN),
        (Encrypted(((ADMIN, DOC1),)), ((DOC1,),), 1, NO),
        (Encrypted(((IGP, DOC1),)), ((DOC1,),), 1, UNKNOWN),  # it could not before: sops will say so
        (Encrypted(((ADMIN,),)), ((ADMIN,), (DOC1,)), 2, NO),
        (Encrypted(((ADMIN,), (DOC1,)), 1), ((ADMIN,), (DOC1,)), 2, NO),
        (Encrypted(((KMS,), (DOC1,)), 2), ((KMS,), (DOC1,)), 1, YES),
        (Encrypted(((SSH,),)), ((keys.age(key("admin").public),),), 1, YES),  # only its comment is another
    ],
)
def test_whether_they_still_can(
    admin: Operator, before: Encrypted, groups: tuple[Group, ...], threshold: int, keeps: Opens
) -> None:
    assert admin.keeps(before, groups, threshold) is keeps


def test_what_files_of_identities_open(tmp_path: Path) -> None:
    plugin = Operator((identity(tmp_path, f"# alice\n{token('alice').identity}\n"),), is_given=True)
    assert [plugin.has(each) for each in (TOKEN, ADMIN, keys.age(f"age1other1{'q' * 58}"))] == [UNKNOWN, NO, UNKNOWN]
    assert plugin.is_attended([ADMIN])
    ssh = Operator((identity(tmp_path, key("admin").private_openssh),), is_given=True)
    assert [ssh.has(each) for each in (SSH, ADMIN, DOC1)] == [YES, YES, NO]
    assert not ssh.is_attended([SSH])
    private, public = rsa_key()
    (tmp_path / "identity.pub").write_text(public)
    rsa = Operator((identity(tmp_path, private),), is_given=True)
    assert [rsa.has(each) for each in (keys.age(f"{public} x"), ADMIN)] == [YES, NO]
    locked = Operator((identity(tmp_path, "-----BEGIN AGE ENCRYPTED FILE-----\nx\n"),), is_given=True)
    assert (locked.has(ADMIN), locked.is_attended([ADMIN])) == (UNKNOWN, True)


def test_what_is_no_identity(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="holds no age identity"):
        identity(tmp_path, "age1qqq\n")
    with pytest.raises(FleetError, match="use an Ed25519 key or an age identity"):
        identity(tmp_path, rsa_key()[0])  # its public half is not beside it
    (tmp_path / "identity").chmod(0o644)
    with pytest.raises(FleetError, match="others may read this identity"):
        identity(tmp_path, key("admin").identity)


def test_the_list_of_gpg() -> None:
    """Made by gpg 2.2: a key with its subkey here, one on a card, one whose subkey is elsewhere."""
    lines = []
    for primary, subkey, token_of in (
        ("AAAA0001", "AAAA0002", "+"),
        ("BBBB0001", "BBBB0002", "D276000124"),
        ("CC", "DD", "#"),
    ):
        lines += [f"sec:u:255:22:{primary}:1:::u:::scESC:::+::ed25519:::0:", f"fpr:::::::::{primary}:"]
        lines += [f"ssb:u:255:18:{subkey}:1::::::e:::{token_of}::cv25519::", f"fpr:::::::::{subkey}:"]
    found = [*_secret_keys("\n".join(lines))]
    assert [(each.fingerprint, each.is_on_card) for each in found] == [
        ("AAAA0002", False),
        ("AAAA0001", False),
        ("BBBB0002", True),
        ("BBBB0001", True),
    ]
    assert found[1].is_meant_by("AAAA0001")
    assert not found[1].is_meant_by("0001")


def test_where_sops_looks_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOPS_AGE_KEY_FILE", *UNREAD):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    usual, other = tmp_path / ".config", tmp_path / "elsewhere"
    for place, name in ((usual, "admin"), (other, "doc1")):
        (place / "sops/age").mkdir(parents=True)
        identity(place / "sops/age", key(name).identity)
        (place / "sops/age/identity").rename(place / "sops/age/keys.txt")
    for given, opened in (("", ADMIN), ("elsewhere", ADMIN), (str(other), DOC1)):
        monkeypatch.setenv("XDG_CONFIG_HOME", given)
        assert [key for key in (ADMIN, DOC1) if Operator.of(None).has(key) is YES] == [opened]


@pytest.mark.parametrize("text", ["  {}\n", "key: {}\n", "{} # mine\n", "\ufeff{}\n", "{}\n  \n", "# x\n # y\n{}\n"])
def test_what_age_reads_nothing_of_opens_nothing(text: str, tmp_path: Path) -> None:
    with pytest.raises(
        FleetError, match=r"line \d: is neither an identity alone nor a comment, and age reads none"
    ) as error:
        identity(tmp_path, text.format(key("admin").identity))
    assert "AGE-SECRET-KEY" not in str(error.value)
    with pytest.raises(FleetError, match="line 1: "):
        identity(tmp_path, key("admin").identity.lower())
    assert identity(tmp_path, f"# x\r\n\r\n{key('admin').identity}\r\n").recipients == {ADMIN}


@pytest.mark.parametrize(("program", "has"), [("/bin/false", UNKNOWN), ("/nowhere/gpg", NO), ("/bin/true", NO)])
def test_a_gpg_that_says_nothing_is_not_one_without_keys(
    program: str, has: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOPS_GPG_EXEC", program)
    assert Operator((), is_given=True).has(keys.pgp("A" * 40)) is has
