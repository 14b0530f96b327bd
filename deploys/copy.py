"""Copies to machines what they are to run, so that a deployment later is short; activates nothing.

    pyinfra -y inventory.py deploys/copy.py --limit nixos

Nothing holds it there: the machine's next garbage collection may take it.
"""

from nixherd.pyinfra_glue.deploy_file import deploy_file
from operations import deployment

deploy_file("copy", rollout=True, from_flake=True)

deployment.reach(name="reach: what runs there")
deployment.evaluate(name="evaluate: what the flake says")
deployment.build(name="build: what is to come")
deployment.copy(name="copy: what is missing there")
deployment.copied(name="copied: read back from the machine's store")
