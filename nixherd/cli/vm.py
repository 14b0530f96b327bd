"""`nixherd vm`: looking at guests and asking something of them."""

import click

from nixherd.cli import acting, adopting, doctoring, looking

COMMANDS = (*looking.COMMANDS, *acting.COMMANDS, *adopting.COMMANDS, *doctoring.COMMANDS)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def vm() -> None:
    """Guests of the hypervisor: virtual machines and containers.

    A guest is named by its name in vms/definitions.nix, by its host's id, hostname or alias, or by its VMID. Only
    declared ones that are managed and not readonly are ever changed.
    """


for _command in COMMANDS:
    vm.add_command(_command)
