"""Deploy files in one line, and plans, as people run them on machines that answer as machine.sh does."""

import pytest

from nixherd.deploy.report import entries, report
from tests.security.one_thing.conftest import Place, place, to_plant_in  # noqa: F401  (fixtures)


@pytest.mark.parametrize("files", [("reboot", "deploy"), ("deploy", "reboot")])
def test_two_deploy_files_in_one_line_both_do_their_work(place: Place, files: tuple[str, str]) -> None:  # noqa: F811
    """§2.1: that the first has nothing to do, or has done it, is not an answer for the second."""
    place.planted = {"place": "", "host": "", "errors": {}}
    place.access('access = "push-closure";')
    words = [f"deploys/{name}.py" for name in files]
    ended = place.pyinfra(*words, "--data", "confirm_deadline=12")
    assert ended.status == 0, ended.err
    [run] = (place.state / "nixherd/.deployments").iterdir()
    outcomes = {each.host: str(each.outcome) for each in report(entries(run)).hosts}
    assert outcomes == dict.fromkeys("abku", "deployed"), ended.err
    events = [entry["event"] for entry in entries(run) if entry["host"]]
    assert (events.count("begin"), events.count("end")) == (8, 8)  # of each host, in both


def test_a_dry_run_leaves_no_journal(place: Place) -> None:  # noqa: F811
    """§2.4: neither a plan of a deployment, nor an operation that is only looked at."""
    place.planted = {"place": "", "host": "", "errors": {}}
    for words in (("deploys/deploy.py",), ("operations.nixos.gc",)):
        ended = place.run("pyinfra", "--dry", "inventory.py", *words)
        assert ended.status == 0, ended.err
    assert not (place.state / "nixherd/.deployments").exists()
