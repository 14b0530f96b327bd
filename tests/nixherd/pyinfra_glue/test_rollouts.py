"""Rollouts of a run: deploy files in one line, rows after one another, and plans, which take and leave nothing."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyinfra.api.host import Host
from pyinfra.api.state import StateStage

from nixherd.base.errors import FleetError, Usage
from nixherd.deploy.protocol import Kind
from nixherd.deploy.rollout import Reached
from nixherd.deploy.running import Running
from nixherd.fleet.models import Access, Configuration
from nixherd.nix.kinds import Output
from nixherd.pyinfra_glue import engine
from nixherd.pyinfra_glue.engine import PyinfraMachine
from tests.nixherd.proxmox.fleets import FLEET, HOST
from tests.shared import Shared

OLD, NEW = (f"/nix/store/{letter * 32}-nixos-system-dev" for letter in "ab")


def host_of(shared: Shared, *, stage: StateStage, row: str = "1", **data: Any) -> Host:
    """As much of pyinfra's host as a rollout needs."""
    made = SimpleNamespace(
        data=SimpleNamespace(context=shared.context, host_id="dev", get=data.get),
        connector=SimpleNamespace(
            fleet_host=shared.context.fleet.hosts["dev"],
            access=Access.SHELL,
            here=None,
            data={"ssh_user": "root"},
            sudo_password=None,
        ),
        current_op_hash=row,
        log=lambda text: None,
    )
    made.state = SimpleNamespace(
        current_stage=stage, failed_hosts=set(), inventory=[made], is_host_in_limit=lambda host: True
    )
    return cast(Host, made)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Shared(replace(FLEET, hosts={"dev": replace(HOST, id="dev")}), tmp_path / "token")


def files_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_a_plan_takes_no_lock_and_leaves_no_file(shared: Shared, tmp_path: Path) -> None:
    """§2.4: two plans at once; neither keeps the other, or a deployment, from beginning."""
    other = Shared(shared.fleet, shared.token_file)
    for each in (shared, other):
        rollout, host_run = engine.begin_rollout(host_of(each, stage=StateStage.Prepare))
        host_run.enter("reach")
        assert rollout.id == "plan"
    assert files_below(tmp_path) == []
    engine.begin_rollout(host_of(shared, stage=StateStage.Execute))
    with pytest.raises(FleetError, match="another deployment of this fleet"):
        engine.begin_rollout(host_of(other, stage=StateStage.Execute))
    engine.begin_rollout(host_of(other, stage=StateStage.Prepare))
    shared.run.close()


def test_each_row_reads_anew_and_what_was_planned_answers_nothing(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """§2.2: activated(OLD), activated(NEW): the second goes by what the first has left."""
    runs = [NEW, OLD]

    def ask(machine: object, kind: Kind) -> Running:
        return Running(runs[0], runs[0], "dev", "1")

    monkeypatch.setattr(engine, "ask_running", ask)
    monkeypatch.setattr(PyinfraMachine, "reconnect", lambda *_, **__: "192.0.2.1")
    planned = [engine.begin_reached(host_of(shared, stage=StateStage.Prepare, row=row))[2] for row in "12"]
    assert [each.running.current for each in planned] == [NEW, NEW]
    _, first, reached = engine.begin_reached(host_of(shared, stage=StateStage.Execute, row="1"))
    assert reached.running.current == NEW
    runs.pop(0)
    _, second, reached = engine.begin_reached(host_of(shared, stage=StateStage.Execute, row="2"))
    assert reached.running.current == OLD
    assert first is not second
    shared.run.close()


def test_two_rollouts_of_a_run_have_names_of_their_own(shared: Shared) -> None:
    hosts = [host_of(shared, stage=StateStage.Execute, row=row) for row in "12"]
    (first, _), (second, later) = (engine.begin_rollout(host) for host in hosts)
    assert second.id == f"{first.id}.2"
    assert engine.current(hosts[0])[1] is later
    shared.run.close()


def test_a_row_without_the_one_before_says_which_is_missing(shared: Shared) -> None:
    host = host_of(shared, stage=StateStage.Prepare)
    with pytest.raises(Usage, match=r"dev: this row goes on with a rollout; put deployment.reach before it"):
        engine.current(host)
    _, host_run = engine.begin_rollout(host)
    for row, value in (("reach", "reached"), ("evaluate", "planned"), ("evaluate", "built"), ("evaluate", "copied")):
        with pytest.raises(Usage, match=rf"the result of deployment.{row}; put that row before it"):
            getattr(host_run, value)
    host_run.value = reached = Reached("192.0.2.1", Running(OLD, OLD, "dev", "1"))
    assert host_run.reached is reached


def test_a_home_can_be_switched_to_and_no_more(shared: Shared) -> None:
    shared.fleet = replace(shared.fleet, hosts={"dev": replace(HOST, id="dev", configuration_file=None)})
    with pytest.raises(Usage, match="goal=boot: a home can be switched to"):
        engine.begin_rollout(host_of(shared, stage=StateStage.Prepare, goal="boot"))


def test_files_are_moved_out_of_a_homes_way_alone(shared: Shared) -> None:
    with pytest.raises(Usage, match=r"dev: backup_extension=bak \(-b\): only a home takes it; for a home beside"):
        engine.begin_rollout(host_of(shared, stage=StateStage.Prepare, backup_extension="bak"))


@pytest.mark.parametrize("output", [Output.HIVE, Output.RAW])
def test_nixos_rebuild_is_not_asked_for_what_it_does_not_know(shared: Shared, output: Output) -> None:
    configuration = Configuration(output, "dev")
    shared.fleet = replace(shared.fleet, hosts={"dev": replace(HOST, id="dev", configuration=configuration)})
    engine.begin_rollout(host_of(shared, stage=StateStage.Prepare))
    with pytest.raises(Usage, match="engine=nixos-rebuild: nixos-rebuild knows no hive of colmena; use engine=guarded"):
        engine.begin_rollout(host_of(shared, stage=StateStage.Prepare, engine="nixos-rebuild"))
