"""`nixherd fix --only re-key`: the secret files of all hosts are encrypted anew, once, before anything is deployed."""

from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.main import run
from nixherd.overview.document import Difference, Kind, Mend
from tests.nixherd.cli.conftest import Ended
from tests.nixherd.cli.test_cli_fix import Gathers, overview, rows, view
from tests.nixherd.cli.test_cli_metrics import gathers  # noqa: F401  (fixture)
from tests.nixherd.trust.secrets.repositories import BEFORE, administered, contents, git, recipients

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]
RECIPIENTS = Difference(Kind.RECIPIENTS, "secrets/common.env: -igp", Mend.REKEY)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gathers: Gathers) -> Path:  # noqa: F811
    """The rules no longer name one who can still read files."""
    fleet = administered(monkeypatch, tmp_path)
    rules = fleet / "secrets" / ".sops.yaml"
    rules.write_text(rules.read_text().replace("          - *igp\n", ""))
    git(fleet, "commit", "-qam", "rules")
    return fleet


def fix(fleet: Path, capfd: pytest.CaptureFixture[str], *words: str) -> Ended:
    capfd.readouterr()
    return Ended(run(["--fleet", str(fleet), "fix", *words]), *capfd.readouterr())


LOOKS: Any = (
    overview(view("doc1", RECIPIENTS), view("igp", RECIPIENTS), differences=(RECIPIENTS,)),
    overview(view("doc1"), view("igp")),
)


def test_every_file_once(fleet: Path, gathers: Gathers, capfd: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    gather = gathers(*LOOKS)
    done = fix(fleet, capfd, "--only", "re-key", "--yes")
    assert done.status == 0, done.err
    assert rows(done) == [(None, "re-key", "done"), ("doc1", "re-key", "done"), ("igp", "re-key", "done")]
    assert recipients(fleet) == {name: who - {"igp"} for name, who in BEFORE.items()}
    assert git(fleet, "log", "--format=%s").splitlines()[0] == "secrets: as .sops.yaml says"
    assert [hosts for hosts, _ in gather.calls] == [(), ("doc1", "igp")]
    assert "commit" in done.err


def test_who_cannot_decrypt_changes_nothing(
    fleet: Path, gathers: Gathers, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    gathers(LOOKS[0], LOOKS[0])
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", "/nowhere")
    before = contents(fleet)
    done = fix(fleet, capfd, "--only", "re-key", "--yes")
    assert done.status == 1
    assert {outcome for _, _, outcome in rows(done)} <= {"failed", "refused"}
    assert [each["kind"] for each in done.json["left"]] == ["recipients"] * 3
    assert contents(fleet) == before
