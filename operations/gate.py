"""The quality gate as a step: a run goes on only with a fleet that it lets through."""

from pathlib import Path

from pyinfra import host
from pyinfra.api import operation

from nixherd.arguments import names_of
from nixherd.errors import FleetError
from nixherd.gate.results import Result, passed
from nixherd.gate.tools import Scope, require_known, run_all
from nixherd.session import Session
from operations.steps import Commands, decide, do, session_of


@operation()
def check(without: list[str] | str | None = None) -> Commands:
    """Fail this host unless the gate lets the fleet through. It runs once a run, whatever the number of hosts.

    `without` are tools that are left out, which is said.
    """
    yield from decide(host, lambda: _check(names_of("without", without) if without else []))


def _check(without: list[str]) -> Commands:
    require_known(without, "without")
    yield from do(host, "run the quality gate (nixherd check)", lambda: _require(without), changes=False)


def _require(without: list[str]) -> None:
    session = session_of(host)
    results = session.once(("gate", "results", *sorted(without)), lambda: _results(session, without))
    if not passed(results):
        bad = ", ".join(f"{result.tool} ({result.status})" for result in results if not result.status.is_good)
        raise FleetError(f"{host.data.host_id}: the quality gate: {bad}; see above, or `nixherd check`")


def _results(session: Session, without: list[str]) -> list[Result]:
    """Each tool's, said once, by the host that came first."""
    with Scope(Path(session.fleet.path), session.token_file) as scope:
        results = list(run_all(scope, without))
    for result in results:
        host.log(f"{result.status} {result.tool}: {result.reason or result.note or f'{len(result.findings)} found'}")
        for found in result.findings:
            host.log(str(found))
    return results
