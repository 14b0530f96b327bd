"""Nix's command lines, what they print, and the edits of its files."""
