"""The tree that an operator gives for a new root: read, packed, and compared with what is there."""

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import FleetInvalid
from nixherd.deploy import carried
from nixherd.deploy.carried import Entry


def make(top: Path) -> Path:
    """A tree with everything that may be carried."""
    (top / "etc/deep down").mkdir(parents=True)
    (top / "home/me").mkdir(parents=True)
    (top / "etc/deep down/secret").write_bytes(bytes(range(256)))
    (top / "etc/deep down/secret").chmod(0o640)
    (top / "home/me/run").write_text("#!/bin/sh\n")
    (top / "home/me/run").chmod(0o755)
    (top / "home/me").chmod(0o700)
    (top / "etc/link").symlink_to("deep down/secret")
    (top / "etc/absolute").symlink_to("/run/secrets/x")
    (top / "etc/back\\slash").write_text("x")
    top.chmod(0o700)
    return top


def of(entries: tuple[Entry, ...]) -> dict[str, str]:
    return {each.path: f"{each} {each.target}".rstrip() for each in entries}


def looked(root: Path, entries: tuple[Entry, ...]) -> dict[str, Entry]:
    """What there is of them, as the script says it."""
    argv = ["sh", "-c", carried.listing_script(str(root))]
    done = subprocess.run(argv, input=carried.listed(entries), capture_output=True, text=True, check=True)
    return carried.parse_listing(done.stdout)


def test_modes_are_kept_and_the_owner_is_root_where_nobody_else_is_named(tmp_path: Path) -> None:
    entries = of(carried.read("dev", str(make(tmp_path)), {"/home/me": "1000:100", "/home/me/run": "root:root"}))
    assert entries["etc/deep down/secret"] == "f 640 0:0"
    assert entries["home/me"] == "d 700 1000:100"
    assert entries["home/me/run"] == "f 755 0:0"
    assert entries["etc/link"] == "l 777 0:0 deep down/secret"
    assert entries["etc/absolute"] == "l 777 0:0 /run/secrets/x"
    assert "" not in entries  # the mode of / stays


def test_single_files_are_for_root_alone(tmp_path: Path) -> None:
    make(tmp_path)
    entries = carried.read("dev", {"/etc/x": str(tmp_path / "home/me/run")})
    assert of(entries) == {"etc/x": "f 600 0:0"}


def test_what_is_unpacked_is_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    entries = carried.read("dev", str(make(tmp_path / "tree")))
    root = tmp_path / "root"
    root.mkdir()
    assert len(carried.differences(entries, {})) == len(entries)
    if os.getuid():
        pytest.skip("owners are root's to give")
    subprocess.run(["tar", "-C", root, "-xpf", "-", "--numeric-owner"], input=carried.archive(entries), check=True)
    there = looked(root, entries)
    assert carried.differences(entries, there) == []
    assert carried.in_the_way(entries, there) == []
    (root / "etc/deep down/secret").chmod(0o600)
    (root / "home/me/run").write_text("other")
    (root / "etc/link").unlink()
    there = carried.parse_listing(
        subprocess.run(
            ["sh", "-c", carried.listing_script(str(root))],
            input=carried.listed(entries),
            capture_output=True,
            text=True,
        ).stdout
    )
    assert carried.differences(entries, there) == [
        "/etc/deep down/secret is f 600 0:0, not f 640 0:0",
        "/etc/link is missing",
        "/home/me/run has another content",
    ]


def test_nothing_goes_through_a_link_that_is_there() -> None:
    entries = (Entry("etc/x", carried.FILE),)
    there = {"etc": Entry("etc", carried.LINK, target="/elsewhere")}
    assert carried.in_the_way(entries, there) == ["/etc is not a directory"]
    assert carried.in_the_way(entries, {"etc/x": Entry("etc/x", carried.DIRECTORY)}) == ["/etc/x is a directory"]


def test_an_archive_has_what_it_is_told_and_names_nobody(tmp_path: Path) -> None:
    entries = carried.read("dev", str(make(tmp_path)), {"/home": "1000:100"})
    with tarfile.open(fileobj=io.BytesIO(carried.archive(entries))) as tar:
        members = {each.name: each for each in tar.getmembers()}
    assert {(each.uname, each.gname) for each in members.values()} == {("", "")}
    assert (members["./home/me/run"].uid, members["./home/me/run"].gid) == (1000, 100)
    assert oct(members["./etc/deep down/secret"].mode) == "0o640"


def _fifo(top: Path) -> None:
    os.mkfifo(top / "pipe")


@pytest.mark.parametrize(
    ("prepare", "finding"),
    [
        (_fifo, "dev: extra_files: {}/pipe is neither a file, a directory nor a symbolic link; remove it"),
        (
            lambda top: (top / "l").symlink_to("../etc/passwd"),
            "dev: extra_files: {}/l leads out of the new root (../etc/passwd); correct it",
        ),
        (lambda top: (top / "a\nb").touch(), "dev: extra_files: '{}/a\\nb' has a name that cannot be printed"),
        (lambda top: (top / "nix/store").mkdir(parents=True), "dev: extra_files: {}/nix/store is Nix's own there"),
        (lambda top: None, "dev: extra_files: {} is empty; leave it out, or fill it"),
    ],
)
def test_what_is_not_carried(tmp_path: Path, prepare: Any, finding: str) -> None:
    prepare(tmp_path)
    with pytest.raises(FleetInvalid) as caught:
        carried.read("dev", str(tmp_path))
    [line] = caught.value.findings
    assert line.startswith(finding.format(tmp_path))


@pytest.mark.parametrize(
    ("owners", "finding"),
    [
        ("x", 'dev: extra_owners: x is not a mapping; write it as {"/home/me": "1000:100"}'),
        ({"/home/me": "me:users"}, "dev: extra_owners: /home/me: me:users is not UID:GID; give numbers, as the new"),
        ({"/home/me": "4294967295:0"}, "dev: extra_owners: /home/me: 4294967295:0 is not UID:GID"),
        ({"/home/you": "1:1"}, "dev: extra_owners: /home/you: nothing of extra_files is there; correct the path"),
    ],
)
def test_owners_that_cannot_be(tmp_path: Path, owners: Any, finding: str) -> None:
    with pytest.raises(FleetInvalid) as caught:
        carried.read("dev", str(make(tmp_path)), owners)
    [line] = caught.value.findings
    assert line.startswith(finding)


def test_too_much_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried, "LARGEST", 1 << 20)
    for name in "abc":
        (tmp_path / name).write_bytes(b"x" * (1 << 20))
    with pytest.raises(FleetInvalid) as caught:
        carried.read("dev", str(tmp_path))
    assert caught.value.findings == ("dev: extra_files: more than 1 MiB; copy what is large once the machine runs",)
