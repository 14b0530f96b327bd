"""Operations on machines that run NixOS, or are to.

Installing (`install`, `reboot_installed`, `verify`, `hardware_configuration`) is for deploys/install.py. The others
work on a machine that is installed, and can be called by hand:

    pyinfra -y inventory.py --limit dev operations.nixos.rollback
    pyinfra -y inventory.py --limit nixos operations.nixos.gc older_than=30d
"""

from operations.nixos.generations import activated, copied, gc, profile, rollback
from operations.nixos.installing import hardware_configuration, install, reboot_installed, verify
from operations.nixos.rebuilding import rebuild

__all__ = [
    "activated",
    "copied",
    "gc",
    "hardware_configuration",
    "install",
    "profile",
    "reboot_installed",
    "rebuild",
    "rollback",
    "verify",
]
