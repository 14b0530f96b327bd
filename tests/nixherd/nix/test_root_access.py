"""Which configurations leave a freshly installed machine with a way to root."""

from pathlib import Path

import pytest

from tests.nix_cli import nix_json

pytestmark = pytest.mark.nix

RULE = Path(__file__).parents[3] / "nixherd/nix/root_access.nix"
KEY = 'openssh.authorizedKeys.keys = ["ssh-ed25519 A"];'
SSHD = "services.openssh.enable = true;"
ADMIN = f'users.users.ann = {{name = "ann"; extraGroups = ["wheel"]; {KEY}}};'
SUDO = "security.sudo.enable = true;"
ASKS = f"{SSHD} {SUDO} {ADMIN}"
NOPASSWD = 'commands = [{command = "ALL"; options = ["NOPASSWD"];}];'

CASES: dict[str, bool | None] = {
    "": None,
    ASKS: False,
    f"{ASKS} security.sudo.wheelNeedsPassword = false;": True,
    f"{SUDO} {ADMIN} security.sudo.wheelNeedsPassword = false;": False,  # no SSH to come by, no password to log in
    f"{SSHD} {ADMIN} security.sudo.wheelNeedsPassword = false;": False,  # no sudo
    f"{SSHD} {ADMIN} security.doas = {{enable = true; wheelNeedsPassword = false;}};": True,
    f"{ASKS} security.pam.sshAgentAuth.enable = true;": True,
    f'{ASKS} users.users.ann.initialHashedPassword = "$y$x";': True,
    f'{ASKS} users.users.ann.initialHashedPassword = "!";': False,
    f'{ASKS} users.users.root.initialHashedPassword = "!";': False,
    f'{ASKS} users.users.root.hashedPassword = "*";': False,
    f'{ASKS} users.users.root.hashedPasswordFile = "/run/x";': True,
    f"{ASKS} users.users.root = {{{KEY}}};": True,
    f"{ASKS} users.users.root.openssh.authorizedKeys.keyFiles = [./x];": True,
    f'{ASKS} users.users.root = {{{KEY}}}; services.openssh.settings.PermitRootLogin = "no";': False,
    f'{ASKS} users.users.root = {{{KEY}}}; services.openssh.settings.PermitRootLogin = "forced-commands-only";': False,
    f"{SUDO} {ADMIN} users.users.root = {{{KEY}}};": False,  # no SSH server
    f'{ASKS} security.sudo.extraRules = [{{users = ["ann"]; {NOPASSWD}}}];': True,
    f'{ASKS} security.sudo.extraRules = [{{groups = ["wheel"]; {NOPASSWD}}}];': True,
    f'{ASKS} security.sudo.extraRules = [{{users = ["bob"]; {NOPASSWD}}}];': False,
    f'{ASKS} security.sudo.extraRules = [{{users = ["ann"]; commands = ["ALL"];}}];': False,
    f"{ASKS} wsl.enable = true;": True,
    f"{ASKS} boot.isContainer = true;": True,
    f'{ASKS} services.getty.autologinUser = "root";': True,
}


# Nix takes no attribute twice where one of the two is a whole set: the parts are merged as the module system does.
MERGE = """
  parts: let
    merge = a: b: a // builtins.mapAttrs (name: value:
      if builtins.isAttrs value && builtins.isAttrs (a.${name} or null) then merge a.${name} value else value) b;
  in builtins.foldl' merge {} parts
"""


def test_the_ways_to_root() -> None:
    texts = " ".join(f"[{' '.join(_parts(text))}]" for text in CASES)
    found = nix_json("eval", "--impure", "--json", "--expr", f"map (parts: import {RULE} (({MERGE}) parts)) [{texts}]")
    assert dict(zip(CASES, found, strict=True)) == CASES


def _parts(text: str) -> list[str]:
    """Each definition as a set of its own."""
    found, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "{[") - (letter in "}]")
        if letter == ";" and depth == 0:
            found.append(f"{{{text[start:at]};}}")
            start = at + 1
    return found
