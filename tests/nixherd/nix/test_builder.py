"""One build for all hosts of a run, and the installer."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.base.waiting import ahead
from nixherd.nix.image import Image
from tests.nixherd.nix.conftest import FakeNix
from tests.shared import Shared


def test_one_build_for_all_held_by_gc_roots(shared: Shared, nix: Callable[..., FakeNix]) -> None:
    fake = nix()
    for host_id in ("a", "b"):
        shared.builder.build(("a", "b"), host_id)
    assert fake.verbs() == ["eval", "build"]
    link = fake.calls[-1][fake.calls[-1].index("--out-link") + 1]
    assert Path(link).is_relative_to(shared.run.state_directory)
    assert Path(link).parent.is_dir()


def test_a_build_that_fails_fails_who_needs_it(shared: Shared, nix: Callable[..., FakeNix]) -> None:
    nix(".drv")
    with pytest.raises(FleetError, match=r"^/fleet: nix build failed: broken$"):
        shared.builder.build(("a", "b"), "a")


def test_what_is_begun_ahead_is_waited_for_and_its_error_is_seen_later(
    shared: Shared, nix: Callable[..., FakeNix]
) -> None:
    nix("kexec-installer")
    before = threading.active_count()
    ahead(lambda: shared.builder.kexec_tarball(Image()))
    with pytest.raises(FleetError, match="nix build failed"):
        shared.builder.kexec_tarball(Image())
    while threading.active_count() > before:
        threading.Event().wait(0.01)


def test_the_installer_is_a_tarball_of_the_flakes(shared: Shared, nix: Callable[..., FakeNix]) -> None:
    fake = nix()
    shared.builder.require_installer(Image())
    fake.out.mkdir()
    with pytest.raises(FleetError, match=r"kexec-installer holds no .tar.gz; take it from nixos-images"):
        shared.builder.kexec_tarball(Image())
    shared.builder._tarballs[Image()].forget()
    (fake.out / "installer.tar.gz").touch()
    assert shared.builder.kexec_tarball(Image()) == fake.out / "installer.tar.gz"
