"""What would stop an installation half-way, found on this side before it begins."""

import gzip
import os
import re
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import FleetInvalid, Usage
from nixherd.deploy.installation import Given, disk_keys, obstacles
from nixherd.nix.image import Image
from tests.nixherd.proxmox.fleets import FLEET
from tests.runs import DESCRIBED, has_installer
from tests.shared import Shared


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = Shared(FLEET, tmp_path / "token")
    has_installer(found)
    return found


def findings(shared: Shared, extra_files: Any = None, **given: Any) -> list[str]:
    return list(obstacles(shared.keys, shared.builder, DESCRIBED, Given(extra_files=extra_files, **given)))


def test_nothing_to_say(shared: Shared, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert findings(shared) == []
    assert findings(shared, {"/etc/x": str(tmp_path / "file")}) == []


@pytest.mark.parametrize(
    ("files", "finding"),
    [
        ("/etc/x=file", "dev: extra_files: /etc/x=file is not there, or no directory; correct its path"),
        (["/etc/x"], "dev: extra_files: is neither a directory nor a mapping; write it as"),
        ({"/etc/ssh/ssh_host_ed25519_key": "HERE"}, "dev: extra_files: /etc/ssh/ssh_host_ed25519_key is the host key"),
        ({"/nix/store/x": "HERE"}, "dev: extra_files: /nix/store/x is Nix's own there; say it in the configuration"),
        ({"etc/x": "HERE"}, "dev: extra_files: etc/x is not an absolute path"),
        ({"/etc/../../x": "HERE"}, "dev: extra_files: /etc/../../x is not an absolute path"),
        ({"/etc/x": "/nowhere"}, "dev: extra_files: /nowhere is not there; correct the path of the local file"),
        ({"/etc/x": "/"}, "dev: extra_files: / is not there"),
    ],
)
def test_extra_files(shared: Shared, files: Any, finding: str) -> None:
    given = {key: value.replace("HERE", __file__) for key, value in files.items()} if isinstance(files, dict) else files
    [line] = findings(shared, given)
    assert line.startswith(finding)


def test_a_key_that_is_no_key_is_one_of_the_findings(shared: Shared) -> None:
    path = shared.keys.private_key_file("dev")
    path.parent.mkdir(parents=True)
    path.write_text("no key")
    path.chmod(0o600)
    has_installer(shared, "other")
    assert len(findings(shared, "x")) == 3


# The installer


def image(**given: Any) -> Image:
    return Given(**given).image("dev", "aarch64-linux")


SRI = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
URL = "https://example.org/kexec.tar.gz"


def test_the_installer_is_the_flakes_for_the_hosts_platform_unless_one_is_given() -> None:
    assert image().attribute == "packages.aarch64-linux.kexec-installer"
    assert Given().image("dev", None) == Image()
    assert image(kexec="/a.tar.gz") == Image("aarch64-linux", "/a.tar.gz")
    for each in (SRI, HEX, HEX.upper()):
        assert image(kexec=URL, kexec_sha256=each) == Image("aarch64-linux", URL, SRI)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"kexec": URL}, f"dev: kexec={URL}: say its hash as well"),
        ({"kexec": URL, "kexec_sha256": "abc"}, "dev: kexec_sha256=abc: is not a SHA-256"),
        ({"kexec": "/a.tar.gz", "kexec_sha256": SRI}, "dev: kexec_sha256: is for kexec=URL"),
        ({"kexec_sha256": SRI}, "dev: kexec_sha256: is for kexec=URL"),
    ],
)
def test_an_image_that_cannot_be_meant(shared: Shared, given: dict[str, str], complaint: str) -> None:
    with pytest.raises(Usage, match=re.escape(complaint)):
        image(**given)
    [line] = findings(shared, **given)
    assert line.startswith(complaint)


def test_an_image_that_is_given_is_a_tarball_and_asks_nothing_of_the_flake(shared: Shared, tmp_path: Path) -> None:
    has_installer(shared, "other")
    [line] = findings(shared)
    assert line == (
        "/fleet/flake.nix: it has no packages.x86_64-linux.kexec-installer; add the installer of nixos-images, as the "
        "reference fleet does in nix/installer.nix, or give an image (--kexec FILE, or --kexec URL --kexec-sha256 HASH)"
    )
    file = tmp_path / "kexec.tar.gz"
    [line] = findings(shared, kexec=str(file))
    assert line == f"kexec: {file}: cannot be read (No such file or directory); name the installer's .tar.gz"
    file.write_text("plain")
    [line] = findings(shared, kexec=str(file))
    assert line == f"kexec: {file}: is not a .tar.gz; take a kexec installer of nixos-images"
    file.write_bytes(gzip.compress(b""))
    assert findings(shared, kexec=str(file)) == []
    assert findings(shared, kexec=URL, kexec_sha256=SRI) == []


# Keys of encrypted disks


def test_keys_are_taken_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"\0secret\n")
    file.chmod(0o600)
    assert disk_keys("dev", {"/tmp/secret.key": str(file)}) == {"/tmp/secret.key": b"\0secret\n"}
    assert disk_keys("dev", None) == {}


@pytest.mark.parametrize(
    "remote",
    ["secret.key", "/", "/tmp/../mnt/key", "/tmp//key", "/tmp/a b", "/tmp/$(id)", "/mnt/key"],
)
def test_keys_go_to_plain_places_in_memory(tmp_path: Path, remote: str) -> None:
    file = tmp_path / "key"
    file.write_text("secret")
    file.chmod(0o600)
    with pytest.raises(FleetInvalid) as caught:
        disk_keys("dev", {remote: str(file)})
    assert caught.value.findings == (
        f"dev: disk_encryption_keys: {remote} cannot hold a key in the installer's memory; "
        "write a path like /tmp/secret.key",
    )


def test_keys_that_are_none(shared: Shared, tmp_path: Path) -> None:
    (tmp_path / "open").write_text("secret")
    (tmp_path / "open").chmod(0o640)
    (tmp_path / "empty").touch(0o600)
    os.mkfifo(tmp_path / "pipe", 0o600)
    names = ("open", "empty", "pipe", "none")
    given = {f"/tmp/{name}": str(tmp_path / name) for name in names}
    assert [
        line.removeprefix(f"dev: disk_encryption_keys: {tmp_path}/")
        for line in findings(shared, disk_encryption_keys=given)
    ] == [
        "open: others may read this key; chmod 600 it",
        "empty is empty, or larger than 8 MiB; name the file with the key",
        "pipe is not a file; a pipe can be read only once, so write the key into a file",
        "none cannot be read (No such file or directory); correct the path of the key",
    ]
    [line] = findings(shared, disk_encryption_keys="/tmp/key=file")
    assert line == 'dev: disk_encryption_keys: write it as {"/tmp/secret.key": "local/file"}'
