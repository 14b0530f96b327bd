"""Reboots who needs it: where the next boot brings another kernel, initrd, modules or systemd. One of a role at a time.

    pyinfra -y inventory.py deploys/reboot.py --limit nixos
    pyinfra -y inventory.py deploys/reboot.py --limit dev --data force=true

Each reboot is proven by another boot_id, the system that runs, and units and checks as before. A readonly VM is only
listed, with the command for its owner.
"""

from pyinfra import host

from nixherd.deploy.options import wave_label
from nixherd.pyinfra_glue.deploy_file import deploy_file
from nixherd.pyinfra_glue.engine import waves
from operations import deployment, rebooting

deploy_file("reboot", rollout=True)

deployment.reach(name="reach: what runs there")
rebooting.plan(name="plan: who needs a reboot, and why", force=host.data.get("force") or False)
for wave in host.loop(waves(host)):
    rebooting.reboot(name=f"reboot: {wave_label(wave)}: one at a time, proven", wave=wave)
