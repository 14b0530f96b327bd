"""The options of the real NixOS and Home Manager by name and type, for what stands in for them here.

`data/` holds names and types only, one option a line, as nixpkgs 26.11 (July 2026), Home Manager, sops-nix, disko,
NixOS-WSL and nixos-hardware declare them; how the files were made is in docs/fleet-real.md.
"""

from lab.options.tables import SETS, Former, former, options
from lab.options.tree import write

__all__ = ["SETS", "Former", "former", "options", "write"]
