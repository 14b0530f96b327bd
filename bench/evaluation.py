"""Evaluate the light hosts like a deployment or bare: `python -m bench.evaluation ours|bare`, inside the lab.

Bare is one `nix eval` of their systems' derivations, the minimum. Prints seconds.
"""

import os
import subprocess
import sys
import time
from functools import partial

from nixherd.base.run import Run
from nixherd.fleet.revisions import Tree
from nixherd.nix.evaluator import Evaluator
from nixherd.proxmox.hypervisor import Definitions

BARE = "c: map (n: c.${n}.config.system.build.toplevel.drvPath) (builtins.fromJSON ''IDS'')"


def main(which: str) -> None:
    fleet = Definitions.load(os.environ["FLEET"]).fleet
    hosts = sorted(host for host in fleet.hosts if host.startswith("light"))
    began = time.monotonic()
    if which == "ours":
        evaluator = Evaluator(fleet, Run(fleet.id), partial(Tree, fleet.path))
        evaluator.evaluate(hosts, hosts[0])
    else:
        names = str(hosts).replace("'", '"')
        argv = ["nix", "eval", "--json", f"{fleet.path}#nixosConfigurations", "--apply", BARE.replace("IDS", names)]
        subprocess.run(argv, check=True, capture_output=True)
    print(time.monotonic() - began)


if __name__ == "__main__":
    main(sys.argv[1])
