"""Keys that known_hosts files have, by real ssh-keygen; certificates of real authorities, and what does not count."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.base.process import Completed
from nixherd.locate import known_keys as module
from nixherd.locate.known_keys import Known, certified, known, preferred

pytestmark = [
    pytest.mark.lab,  # OpenSSH
    pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen"),
]


def keygen(*words: str) -> str:
    return subprocess.run(["ssh-keygen", *words], capture_output=True, text=True, check=True).stdout


def make(place: Path, kind: str = "ed25519") -> str:
    keygen("-q", "-t", kind, "-N", "", "-C", "", "-f", str(place))
    return place.with_suffix(".pub").read_text().strip()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


def test_plain_hashed_and_patterns_are_found_and_what_is_revoked_is_not(files: Path, tmp_path: Path) -> None:
    one, two, three, gone = (make(tmp_path / name) for name in ("one", "two", "three", "gone"))
    files.write_text(
        f"web.lan,192.0.2.7 {one}\nhashed.lan {two}\n*.example.org {three}\nold.lan {gone}\n@revoked old.lan {gone}\n"
    )
    keygen("-H", "-f", str(files))
    assert [each.key.bare for each in known([files], ["web.lan"])] == [" ".join(one.split()[:2])]
    assert [each.where for each in known([files], ["192.0.2.7"])] == [
        f"{files}:2"
    ]  # each name has a line of its own, once hashed
    assert [each.key.bare for each in known([files], ["hashed.lan"])] == [" ".join(two.split()[:2])]
    assert [each.key.bare for each in known([files], ["a.example.org"])] == [" ".join(three.split()[:2])]
    assert known([files], ["old.lan", "nobody.lan", "a name", "-x"]) == []


def test_of_several_types_one_is_preferred(files: Path, tmp_path: Path) -> None:
    rsa, ed = make(tmp_path / "rsa", "ecdsa"), make(tmp_path / "ed")
    files.write_text(f"web {rsa}\nweb {ed}\n[web]:2222 {rsa}\n")
    [each] = preferred(known([files], ["web"]))
    assert each.key.type == "ssh-ed25519"
    assert [each.key.type for each in known([files], ["web"], port=2222)] == ["ecdsa-sha2-nistp256"]


@pytest.fixture
def authority(files: Path, tmp_path: Path) -> Path:
    files.write_text(f"@cert-authority *.lan {make(tmp_path / 'ca')}\n")
    return tmp_path / "ca"


def shows(monkeypatch: pytest.MonkeyPatch, certificate: str) -> None:
    line = f"web.lan {certificate}"
    monkeypatch.setattr(module, "run", lambda argv, **_: Completed(f"# web.lan:22 SSH-2.0\n{line}\n", "", 0))


def certificate(tmp_path: Path, authority: Path, *words: str) -> str:
    make(tmp_path / "host")
    keygen("-q", "-s", str(authority), "-I", "web", *words, str(tmp_path / "host.pub"))
    return (tmp_path / "host-cert.pub").read_text().strip()


def authorities(files: Path) -> list[Known]:
    return [each for each in known([files], ["web.lan"]) if each.is_authority]


def test_what_an_authority_has_certified_is_the_hosts(
    files: Path, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = authorities(files)
    assert len(found) == 1
    shows(monkeypatch, certificate(tmp_path, authority, "-h", "-n", "web.lan,web", "-V", "+1h"))
    told = certified(found, ["web.lan"], "192.0.2.7")
    assert told is not None
    assert told.key.bare == " ".join((tmp_path / "host.pub").read_text().split()[:2])
    assert told.authority == found[0]
    assert time.time() < told.until < time.time() + 3700


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("-n", "web.lan", "-V", "+1h"), "is a user's, not a host's"),
        (("-h", "-n", "db.lan", "-V", "+1h"), "is for db.lan, not for web.lan"),
        (("-h", "-V", "+1h"), "is for nobody"),
        (("-h", "-n", "web.lan", "-V", "20200101:20210101"), "is not valid now"),
        (("-h", "-n", "web.lan", "-V", "+1d:+2d"), "is not valid now"),
    ],
)
def test_what_does_not_hold_is_refused(
    files: Path, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], why: str
) -> None:
    found = authorities(files)
    shows(monkeypatch, certificate(tmp_path, authority, *words))
    with pytest.raises(FleetError, match=why):
        certified(found, ["web.lan"], "192.0.2.7")


def test_another_authority_or_a_damaged_one_counts_for_nothing(
    files: Path, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = authorities(files)
    make(tmp_path / "other")
    shows(monkeypatch, certificate(tmp_path, tmp_path / "other", "-h", "-n", "web.lan"))
    assert certified(found, ["web.lan"], "192.0.2.7") is None
    for text in ("ssh-ed25519-cert-v01@openssh.com AAAA", "ssh-ed25519-cert-v01@openssh.com !", ""):
        shows(monkeypatch, text)
        assert certified(found, ["web.lan"], "192.0.2.7") is None


def test_a_forged_signature_is_refused(
    files: Path, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import base64

    found = authorities(files)
    kind, blob, *_ = certificate(tmp_path, authority, "-h", "-n", "web.lan", "-V", "+1h").split()
    raw = bytearray(base64.b64decode(blob))
    raw[-1] ^= 1  # the signature's last byte
    shows(monkeypatch, f"{kind} {base64.b64encode(raw).decode()}")
    with pytest.raises(FleetError, match="wrong signature"):
        certified(found, ["web.lan"], "192.0.2.7")
