"""What a deployment is to come to on each machine."""

from enum import StrEnum


class Goal(StrEnum):
    """The actions of switch-to-configuration(8); the value is its word."""

    SWITCH = "switch"
    BOOT = "boot"
    TEST = "test"
    DRY_ACTIVATE = "dry-activate"

    @property
    def activates(self) -> bool:
        """Whether the running system becomes another one."""
        return self in (Goal.SWITCH, Goal.TEST)

    @property
    def makes_generation(self) -> bool:
        """Whether profile and boot entry are the new system's in the end."""
        return self in (Goal.SWITCH, Goal.BOOT)
