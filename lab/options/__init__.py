"""The options of the real NixOS and Home Manager by name and type, for the stand-ins here.

`data/` contains names and types only, one option per line, as declared by nixpkgs 26.11 (July 2026), Home Manager,
sops-nix, disko, NixOS-WSL and nixos-hardware; docs/fleet-real.md says how the files were made.
"""

from lab.options.tables import SETS, Former, former, options
from lab.options.tree import write

__all__ = ["SETS", "Former", "former", "options", "write"]
