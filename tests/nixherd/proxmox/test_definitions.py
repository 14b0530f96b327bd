"""Before each changing request the definitions are as new as the fleet's whole repository, or nothing is sent."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nixherd.base.errors import Refused
from nixherd.fleet.world import look
from nixherd.proxmox import hypervisor
from nixherd.proxmox.hypervisor import Definitions

MakeFleet = Callable[..., Path]


@pytest.fixture
def directory(make_fleet: MakeFleet) -> Path:
    """A fleet whose definitions import another file."""
    fleet = make_fleet()
    file = fleet / "vms" / "definitions.nix"
    file.write_text(file.read_text().replace('purpose = "development";', "readonly = import ../flags/dev.nix;"))
    (fleet / "flags").mkdir()
    (fleet / "flags" / "dev.nix").write_text("false\n")
    return fleet


def test_what_does_not_change_is_evaluated_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Definitions.load(directory)
    monkeypatch.setattr(hypervisor, "load_fleet", lambda *_: pytest.fail("evaluated again"))
    for _ in range(3):
        assert loaded.policy().may_change(110)


def test_a_file_that_the_definitions_import_counts(directory: Path) -> None:
    loaded = Definitions.load(directory)
    loaded.policy().check("POST", "/nodes/prom/qemu/110/status/stop")
    (directory / "flags" / "dev.nix").write_text("true\n")
    with pytest.raises(Refused, match=r"vm 110 \(dev\) is readonly"):
        loaded.policy().check("POST", "/nodes/prom/qemu/110/status/stop")
    (directory / "flags" / "dev.nix").write_text("false\n")
    assert loaded.policy().may_change(110)


def test_so_does_one_behind_a_link(directory: Path) -> None:
    (directory / "flags").rename(directory / "elsewhere")
    (directory / "flags").symlink_to("elsewhere")
    loaded = Definitions.load(directory)
    (directory / "elsewhere" / "dev.nix").write_text("true\n")
    assert not loaded.policy().may_change(110)


def test_definitions_that_cannot_be_read_refuse_everything(directory: Path) -> None:
    loaded = Definitions.load(directory)
    file = directory / "vms" / "definitions.nix"
    text = file.read_text()
    file.write_text(text + "}")
    with pytest.raises(Refused, match="the definitions changed and cannot be used: ") as refusal:
        loaded.policy()
    assert "\n" not in str(refusal.value)
    file.write_text(text.replace("vmid = 104", "vmid = 110"))
    with pytest.raises(Refused, match="110 is also"):
        loaded.policy()
    file.write_text(text)
    assert loaded.policy().may_change(110)
    directory.rename(f"{directory}-away")
    with pytest.raises(Refused, match="cannot be read any more"):
        loaded.policy()


def test_another_hypervisor_needs_another_run(directory: Path) -> None:
    loaded = Definitions.load(directory)
    file = directory / "vms" / "definitions.nix"
    file.write_text(file.read_text().replace('host = "127.0.0.1"', 'host = "127.0.0.2"'))
    with pytest.raises(Refused, match="names another fleet or hypervisor than when this run began"):
        loaded.policy()


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.nix"
    file.write_text("true")
    before = look(tmp_path).fingerprint
    about = file.stat()
    file.write_text("eurt")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert look(tmp_path).fingerprint != before


def test_loops_and_dead_links_end(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "index").write_text("x")
    before = look(tmp_path).fingerprint
    (tmp_path / ".git" / "index").write_text("y")
    assert look(tmp_path).fingerprint == before
    (tmp_path / "missing").write_text("here now")
    assert look(tmp_path).fingerprint != before
