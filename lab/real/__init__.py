"""The fleet on a real nixpkgs on this computer: `make fleet-real NIXPKGS=/path …`.

It fetches, copies and changes nothing: the given directories become the inputs of the fleet's flake.
"""
