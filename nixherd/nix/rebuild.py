"""nixos-rebuild's command lines, of the two programs of that name: one written in shell, one in Python. Pure."""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass

from nixherd.base.errors import Usage
from nixherd.nix.commands import Remote

REBUILD = "nixos-rebuild"
REBUILD_HELP = (REBUILD, "--help")
ACTIONS = ("switch", "boot", "test", "dry-activate")


@dataclass(frozen=True)
class Flavour:
    """How the nixos-rebuild that is here spells its options."""

    sudo: str
    no_reexec: str

    @classmethod
    def of(cls, help_text: str) -> "Flavour":
        """Return the flavour of the program with this --help."""
        return NEWER_REBUILD if "--no-reexec" in help_text else OLDER_REBUILD


NEWER_REBUILD = Flavour("--sudo", "--no-reexec")
OLDER_REBUILD = Flavour("--use-remote-sudo", "--fast")


def require_action(action: str) -> None:
    """Raise Usage for another action than nixos-rebuild's that are used here."""
    if action not in ACTIONS:
        raise Usage(f"action={action} is not one of {', '.join(ACTIONS)}")


def nixos_rebuild(
    flavour: Flavour,
    action: str,
    installable: str,
    to: Remote | None,
    *,
    build_host: Remote | None = None,
    specialisation: str | None = None,
    no_check: bool = False,
    options: Sequence[str] = (),
) -> tuple[list[str], dict[str, str]]:
    """Return argv and environment, for the installable `FLAKE#HOST`; without `to` for this machine.

    Raise Usage for another action. nixos-rebuild has one set of SSH options for both machines: those of `to` have to
    do for `build_host` too.
    """
    require_action(action)
    argv = [REBUILD, action, "--flake", installable, flavour.no_reexec]
    argv += ["--target-host", to.target] if to else []
    argv += ["--build-host", build_host.target] if build_host else []
    argv += ["--specialisation", specialisation] if specialisation else []
    argv += [flavour.sudo] if (to.user if to else getpass.getuser()) != "root" else []
    at = to or build_host
    environment = {"NIX_SSHOPTS": at.nix_sshopts} if at else {}
    return [*argv, *options], environment | ({"NIXOS_NO_CHECK": "1"} if no_check else {})
