"""Brings machines to what the flake says: evaluated and built once for all, activated under guard, proven, kept.

    pyinfra -y inventory.py deploys/deploy.py --limit nixos
    pyinfra --dry inventory.py deploys/deploy.py               # what would change; copies nothing, activates nothing

A machine on which something goes wrong goes back by itself to the system that ran before. `--data goal=` chooses
switch (the default), boot, test or dry-activate; docs/deploying.md has all that can be said.
"""

from pyinfra import host

from nixherd.deploy.options import wave_label
from nixherd.pyinfra_glue.deploy_file import deploy_file
from nixherd.pyinfra_glue.engine import waves
from operations import deployment

deploy_file("deploy", rollout=True, from_flake=True)

deployment.reach(name="reach: what runs there")
deployment.evaluate(name="evaluate: what the flake says")
deployment.build(name="build: what is to come")
deployment.show(name="show: what changes")
deployment.copy(name="copy: what is missing there")
for wave in host.loop(waves(host)):
    deployment.activate(name=f"activate: {wave_label(wave)}: switch, prove, keep or go back", wave=wave)
