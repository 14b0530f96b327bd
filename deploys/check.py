"""The quality gate (`nixherd check`) as a step of a run: every tool, every configuration built. Changes nothing.

    pyinfra -y inventory.py deploys/check.py
    pyinfra -y inventory.py deploys/check.py --data without=statix         # leave a tool out

It runs once, on this machine, and asks no other; every host of the run fails where it does not let the fleet through,
so that `pyinfra -y inventory.py deploys/check.py && pyinfra -y inventory.py deploys/deploy.py` deploys nothing then.
"""

from nixherd.deploys import check

check()
