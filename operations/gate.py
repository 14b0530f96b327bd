"""The quality gate as a step: a run goes on only with a fleet that it lets through."""

from functools import partial

from pyinfra import host

from nixherd.base.names import names_of
from nixherd.gate.tools import require_known
from nixherd.pyinfra_glue.fleet_files import require_passed
from nixherd.pyinfra_glue.operation import Change, operation


@operation()
def check(without: list[str] | str | None = None) -> Change:
    """Fail this host unless the gate lets the fleet through. It runs once a run, whatever the number of hosts.

    `without` are tools that are left out, which is said.
    """
    tools = names_of("without", without) if without else []
    require_known(tools, "without")
    return Change("run the quality gate (nixherd check)", partial(require_passed, host, tools), changes=False)
