"""Moved to nixherd.pyinfra_glue.arguments; here until operations/proxmox has left it."""

from nixherd.pyinfra_glue.arguments import *  # noqa: F403
