"""nixos-rebuild's command line, for those who want exactly upstream's behaviour. Pure.

Two programs have this name: the newer one (nixos-rebuild-ng) says --sudo and --no-reexec where the older one says
--use-remote-sudo and --fast. Source: their --help.
"""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass

from nixherd.base.errors import Usage
from nixherd.nix.commands import Remote

PROGRAM = "nixos-rebuild"
HELP = (PROGRAM, "--help")
ACTIONS = ("switch", "boot", "test", "dry-activate")


@dataclass(frozen=True)
class Flavour:
    """How the program that is here spells what it takes."""

    sudo: str
    no_reexec: str

    @classmethod
    def of(cls, help_text: str) -> "Flavour":
        """Read its abilities from its --help."""
        return NEWER if "--no-reexec" in help_text else OLDER


NEWER = Flavour("--sudo", "--no-reexec")
OLDER = Flavour("--use-remote-sudo", "--fast")


def require_action(action: str) -> None:
    """Usage when it is not one of ours."""
    if action not in ACTIONS:
        raise Usage(f"action={action} is not one of {', '.join(ACTIONS)}")


def rebuild(
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

    Raise Usage for wrong words. It has one set of SSH options for both machines: those of `to` have to do for
    `build_host` too.
    """
    require_action(action)
    argv = [PROGRAM, action, "--flake", installable, flavour.no_reexec]
    argv += ["--target-host", to.target] if to else []
    argv += ["--build-host", build_host.target] if build_host else []
    argv += ["--specialisation", specialisation] if specialisation else []
    argv += [flavour.sudo] if (to.user if to else getpass.getuser()) != "root" else []
    at = to or build_host
    environment = {"NIX_SSHOPTS": at.nix_sshopts} if at else {}
    return [*argv, *options], environment | ({"NIXOS_NO_CHECK": "1"} if no_check else {})
