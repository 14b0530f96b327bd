"""Whose a recipient is: a host's in every form of its key, a person's by the name that it has."""

import subprocess
from pathlib import Path

import pytest

from nixherd.fleet.load import load_fleet
from nixherd.trust.secrets import keys
from nixherd.trust.secrets.people import People, pgp_fingerprint, pgp_packet, recipients_of_hosts
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.kinds import rsa_key, token
from tests.nixherd.trust.secrets.repositories import repository


def test_a_fingerprint_of_an_rsa_key_is_gpgs(tmp_path: Path) -> None:
    _, public = rsa_key()
    (tmp_path / "key").write_bytes(pgp_packet(public))
    listed = subprocess.run(
        ["gpg", "--homedir", tmp_path, "--list-packets", tmp_path / "key"], capture_output=True, text=True
    )
    assert f"keyid: {pgp_fingerprint(public)[-16:]}" in listed.stdout, listed.stderr
    with pytest.raises(ValueError, match="PGP keys come from ssh-rsa keys only"):
        pgp_fingerprint(key("dev").public)


@pytest.mark.nix
def test_a_host_is_known_in_every_form_of_its_key(tmp_path: Path) -> None:
    place = repository(tmp_path / "fleet")
    _, public = rsa_key()
    text = (place / "hosts.nix").read_text().replace("placeholder", public)
    (place / "hosts.nix").write_text(text)
    hosts = recipients_of_hosts(load_fleet(place))
    doc1, bare = key("doc1"), key("doc1").public.rpartition(" ")[0]
    assert [hosts.get(each) for each in (doc1.age, keys.age(bare), keys.age(f"{bare} x"))] == ["doc1"] * 3
    assert hosts[keys.age(f"{public} root@dev")] == "dev"
    assert hosts[keys.pgp(f"0x{pgp_fingerprint(public).lower()}")] == "dev"
    assert key("other").age not in hosts


def test_who_says_of_themselves_whose_they_are() -> None:
    people = People({}, {token("alice").recipient: "alice"})
    ssh = key("admin").public
    known = [keys.age(token("alice").recipient), keys.age(ssh), keys.gcp_kms("projects/x")]
    unknown = [keys.age(ssh.rpartition(" ")[0]), key("admin").age, keys.pgp("AB" * 20)]
    assert [people.knows(each) for each in (*known, *unknown)] == [True] * 3 + [False] * 3
    assert [people.name(each) for each in known] == ["alice", "root@admin", "gcp_kms projects/x"]
