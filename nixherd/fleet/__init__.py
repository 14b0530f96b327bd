"""What the Nix files of a fleet say, and the repository they are in."""
