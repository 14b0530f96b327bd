"""The fleet on a real nixpkgs that lies on this machine: `make fleet-real NIXPKGS=/path …`.

Nothing is fetched, copied or mended: what is given are directories, and the fleet's flake gets them as its inputs.
"""
