"""The machine that nixherd runs on: Linux, whose locks, nameless files and signals at a parent's death it uses."""

import sys

from nixherd.base.errors import Usage


def require_linux() -> None:
    """Usage on another system."""
    if not sys.platform.startswith("linux"):
        remedy = "start it on one: a host of the fleet, a VM, a container; Nix there builds for Linux"
        raise Usage(f"nixherd runs on Linux, and this is {sys.platform}; {remedy}")
