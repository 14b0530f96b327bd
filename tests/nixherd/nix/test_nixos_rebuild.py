"""nixos-rebuild's argv, exactly."""

from pathlib import Path

import pytest

from nixherd.base.errors import Usage
from nixherd.nix.rebuild import NEWER_REBUILD, OLDER_REBUILD, Flavour, nixos_rebuild
from nixherd.ssh.destination import Destination

ROOT = Destination("10.0.0.5", "root", Path("/run/known"))
ADMIN = Destination("fd00::5", "admin", Path("/run/known"), port=2222, identity=Path("/home/me/key"))


def test_root() -> None:
    argv, env = nixos_rebuild(NEWER_REBUILD, "switch", "/fleet#dev", ROOT)
    assert argv == ["nixos-rebuild", "switch", "--flake", "/fleet#dev", "--no-reexec", "--target-host", "root@10.0.0.5"]
    assert env == {"NIX_SSHOPTS": ROOT.nix_sshopts}
    assert "UserKnownHostsFile=/run/known" in env["NIX_SSHOPTS"]
    assert "StrictHostKeyChecking=yes" in env["NIX_SSHOPTS"]


def test_a_user_with_sudo_another_builder_and_a_specialisation() -> None:
    newer, env = nixos_rebuild(NEWER_REBUILD, "boot", "/fleet#dev", ADMIN, build_host=ROOT, specialisation="debug")
    assert newer == [
        *("nixos-rebuild", "boot", "--flake", "/fleet#dev", "--no-reexec", "--target-host", "admin@fd00::5"),
        *("--build-host", "root@10.0.0.5", "--specialisation", "debug", "--sudo"),
    ]
    assert "-o Port=2222" in env["NIX_SSHOPTS"]
    older, _ = nixos_rebuild(OLDER_REBUILD, "boot", "/fleet#dev", ADMIN)
    assert older == [
        *("nixos-rebuild", "boot", "--flake", "/fleet#dev", "--fast", "--target-host", "admin@fd00::5"),
        "--use-remote-sudo",
    ]


def test_which_of_the_two_it_is_shows_in_its_help() -> None:
    assert Flavour.of("usage: nixos-rebuild [--no-reexec] [--sudo]") is NEWER_REBUILD
    assert Flavour.of("Usage: nixos-rebuild [--fast] [--use-remote-sudo]") is OLDER_REBUILD


@pytest.mark.parametrize("words", [{"action": "build"}, {"action": "--help"}])
def test_wrong_words(words: dict[str, str]) -> None:
    given = {"action": "switch"} | words
    with pytest.raises(Usage):
        nixos_rebuild(NEWER_REBUILD, given.pop("action"), "/fleet#dev", ROOT, **given)  # type: ignore[arg-type]
