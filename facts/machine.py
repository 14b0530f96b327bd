"""What a machine says of itself: which system runs, and how far an installation has come."""

from typing_extensions import override

from nixherd.deploy.running import MachineState, machine_script, parse_machine
from nixherd.facts.base import Fact


class Machine(Fact[MachineState | None]):
    """
    Returns a MachineState, None for a machine that is not there (yet):

    .. code:: python

        {"id": "nixos", "variant": None, "boot_id": "0ea6…", "hostname": "dev", "current_system": "/nix/store/…",
         "booted_system": "/nix/store/…", "revision": "4f2c…", "root": "/dev/sda2", "mnt": None, "mark": None,
         "macs": ["bc:24:11:…"], "jobs": {}}
    """

    @override
    def command(self) -> str:
        return machine_script()

    @override
    def process(self, output: list[str]) -> MachineState:
        return parse_machine(output)
