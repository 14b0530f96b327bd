"""All verbs, by the names of their operations: what the operations and the `vm` commands are made from."""

from collections.abc import Mapping

from nixherd.proxmox.guest import backups, destroy, disks, hardware, lifecycle, snapshots
from nixherd.proxmox.guest.verb import Verb


def _verbs() -> Mapping[str, type[Verb]]:
    modules = (lifecycle, disks, hardware, snapshots, backups, destroy)
    classes = [each for module in modules for each in vars(module).values()]
    verbs = [each for each in classes if isinstance(each, type) and issubclass(each, Verb) and "name" in vars(each)]
    return {verb.name: verb for verb in verbs if verb is not Verb}


VERBS = _verbs()
COMMANDS = {verb.command: verb for verb in VERBS.values() if verb.command}
