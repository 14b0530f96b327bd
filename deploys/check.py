"""The quality gate (`nixherd check`) as a step of a run: every tool, every configuration built. Changes nothing.

    pyinfra -y inventory.py deploys/check.py                               # the gate alone
    pyinfra -y inventory.py deploys/check.py deploys/deploy.py             # nothing is deployed that it refuses
    pyinfra -y inventory.py deploys/check.py --data without=statix         # leave a tool out

It runs once, on this machine; every host of the run fails where it does not let the fleet through.
"""

from pyinfra import host

from operations import gate

gate.check(name="gate: every check passes", without=host.data.get("without"))
