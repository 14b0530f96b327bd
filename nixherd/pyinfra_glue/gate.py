"""The quality gate, run once for all hosts of a run."""

from pathlib import Path

from pyinfra.api.host import Host

from nixherd.errors import FleetError
from nixherd.gate.results import Result, passed
from nixherd.gate.tools import Scope, run_all
from nixherd.pyinfra_glue.hosts import fleet_of, gate_results


def require_passed(host: Host, without: list[str]) -> None:
    """FleetError unless every tool lets the fleet through."""
    results = gate_results(host)(tuple(sorted(without)), lambda: _results(host, without))
    if not passed(results):
        bad = ", ".join(f"{result.tool} ({result.status})" for result in results if not result.status.is_good)
        raise FleetError(f"{host.data.host_id}: the quality gate: {bad}; see above, or `nixherd check`")


def _results(host: Host, without: list[str]) -> list[Result]:
    """Each tool's, said once, by the host that came first."""
    with Scope(Path(fleet_of(host).path)) as scope:
        results = list(run_all(scope, without))
    for result in results:
        host.log(f"{result.status} {result.tool}: {result.reason or result.note or f'{len(result.findings)} found'}")
        for finding in result.findings:
            host.log(str(finding))
    return results
