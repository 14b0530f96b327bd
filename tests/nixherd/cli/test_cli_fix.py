"""`nixherd fix`: what differs is mended by the commands' own engines, in order, and judged by what is seen then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Usage
from nixherd.overview.document import (
    Difference,
    Guest,
    HostView,
    Hypervisor,
    Kind,
    Mend,
    Overview,
    Reach,
    State,
)
from tests.nixherd.cli.conftest import Ask, Ended
from tests.nixherd.cli.test_cli_deploying import FakePyinfra, begun, end
from tests.nixherd.cli.test_cli_metrics import Gather, gathers  # noqa: F401  (fixture)
from tests.nixherd.proxmox.conftest import Emulator, emulator  # noqa: F401  (fixture)
from tests.nixherd.proxmox.dev import begin

pytestmark = pytest.mark.xdist_group("emulator")

SYSTEM = Difference(Kind.SYSTEM, "runs a, and is to run b", Mend.DEPLOY)
REBOOT = Difference(Kind.REBOOT, "waits for a reboot", Mend.REBOOT)
MEMORY = Difference(Kind.GUEST, "memory: 4096 -> 8192", Mend.APPLY)
BACKUP = Difference(Kind.BACKUP, "there is no backup of it", Mend.BACKUP)
ADOPT = Difference(Kind.GUEST, "it has no mark", Mend.ADOPT)
UNITS = Difference(Kind.UNITS, "1 unit failed")
SILENT = Reach(False, why="silent")


def view(name: str, *differences: Difference, reach: Reach = Reach(True), **more: Any) -> HostView:  # noqa: B008
    guest = Guest(110, "dev", drift=()) if name == "dev" else None
    return HostView(name, name, "nixos", State.SAME, reach=reach, guest=guest, differences=differences, **more)


def overview(*hosts: HostView, **more: Any) -> Overview:
    return Overview("/fleet", "2026-01-31T12:00:00Z", None, hosts, **more)


def rows(done: Ended) -> list[tuple[str | None, str, str]]:
    return [(row["host"], row["mend"], row["outcome"]) for row in done.json["mends"]]


Gathers = Callable[..., Gather]


@pytest.fixture
def fix(gathers: Gathers, ask: Ask) -> Ask:  # noqa: F811
    """Runs `nixherd fix WORDS`, between two looks at the fleet: one before, and one after."""

    def call(*words: str, looks: tuple[Overview, ...], by: Any = None) -> Ended:
        gather = gathers(*looks)
        done = ask("fix", *words, by=by)
        assert gather.overviews == [], "so often it was looked at the fleet"
        return done

    return call


def test_hosts_are_deployed_to_and_then_rebooted(fix: Ask, tmp_path: Path) -> None:
    argv = list[list[str]]()

    def pyinfra(words: list[str], **how: Any) -> Any:
        argv.append(words)
        hosts = [words[at + 1] for at, word in enumerate(words) if word == "--limit"]
        outcome = "deployed" if "deploys/deploy.py" in words else "rebooted"
        fake = FakePyinfra(begun(tmp_path, *hosts), *(end(host, outcome) for host in hosts))
        return fake(words, **how)

    before = overview(view("dev", REBOOT, SYSTEM, UNITS), view("web", SYSTEM))
    looks = (before, overview(view("dev", UNITS), view("web")))
    done = fix("--only", "reboot,deploy", "--yes", "--data", "soak=1", looks=looks, by=pyinfra)
    assert done.status == 0, done.err
    assert rows(done) == [("dev", "deploy", "done"), ("web", "deploy", "done"), ("dev", "reboot", "done")]
    assert done.json["left"] == []
    assert ["deploys/deploy.py" in words for words in argv] == [True, False]
    assert ["web" in words for words in argv] == [True, False]
    assert all("soak=1" in words for words in argv)
    assert "deployed" in done.err, "the rollout's own report is beside the result"


def test_what_fails_holds_what_depends_on_it_and_the_others_go_on(fix: Ask, tmp_path: Path) -> None:
    def pyinfra(words: list[str], **how: Any) -> Any:
        hosts = [words[at + 1] for at, word in enumerate(words) if word == "--limit"]
        if "deploys/deploy.py" in words:
            ends = [end("dev", "rolled back", "dev: it breaks"), end("web", "deployed")]
            return FakePyinfra(begun(tmp_path, *hosts), *ends)(words, **how)
        assert hosts == ["web"]
        return FakePyinfra(begun(tmp_path, *hosts), end("web", "rebooted"))(words, **how)

    before = overview(view("dev", REBOOT, SYSTEM), view("web", SYSTEM, REBOOT))
    done = fix("--only", "deploy", "--only", "reboot", "--yes", looks=(before, overview(view("dev", REBOOT, SYSTEM),
               view("web"))), by=pyinfra)  # fmt: skip
    assert done.status == 1
    assert rows(done) == [
        ("dev", "deploy", "failed"), ("web", "deploy", "done"), ("dev", "reboot", "held"), ("web", "reboot", "done"),
    ]  # fmt: skip
    assert [(each["host"], each["kind"]) for each in done.json["left"]] == [("dev", "reboot"), ("dev", "system")]
    assert "dev: deploy: failed: it breaks" in done.err
    assert "dev: reboot: held: deploy was not done on it" in done.err


@pytest.mark.parametrize(
    ("after", "status"),
    [
        pytest.param(view("dev"), 0, id="gone"),
        pytest.param(view("dev", REBOOT), 0, id="another"),
        pytest.param(view("dev", SYSTEM), 1, id="still"),
        pytest.param(view("dev", unknown={"system": "no rights"}), 5, id="unknown"),
        pytest.param(view("dev", reach=SILENT), 5, id="silent"),
    ],
)
def test_the_status_is_what_was_read_back(after: HostView, status: int, fix: Ask, tmp_path: Path) -> None:
    pyinfra = FakePyinfra(begun(tmp_path, "dev"), end("dev", "deployed"))
    done = fix("--only", "deploy", "--yes", looks=(overview(view("dev", SYSTEM)), overview(after)), by=pyinfra)
    assert (done.status, done.json["exit"]) == (status, status)
    assert rows(done) == [("dev", "deploy", "done")]


def test_a_rollout_that_does_not_begin_is_a_failure(fix: Ask) -> None:
    pyinfra = FakePyinfra(status=1, stderr="--> pyinfra error: no inventory\n")
    looks = (overview(view("dev", SYSTEM)), overview(view("dev", SYSTEM)))
    done = fix("--only", "deploy", "--yes", looks=looks, by=pyinfra)
    assert done.status == 1
    assert rows(done) == [("dev", "deploy", "failed")]
    assert "no inventory" in done.err


def test_nothing_to_do_and_nobody_unknown(fix: Ask) -> None:
    assert fix("--only", "deploy", "--yes", looks=(overview(view("dev", UNITS, REBOOT)),)).status == 0
    down = view("dev", reach=SILENT, unknown={"system": "silent"})
    assert fix("--only", "deploy", "--yes", looks=(overview(down),)).status == 4
    assert fix("--only", "re-key", "--yes", looks=(overview(down),)).status == 0, "which is seen without the machine"
    odd = view("dev", unknown={"guest": "no rights"})
    assert fix("--only", "apply", "--yes", looks=(overview(odd),)).status == 5
    unseen = overview(view("dev"), hypervisor=Hypervisor("unreachable", why="silent"))
    assert fix("--only", "apply", "--yes", looks=(unseen,)).status == 4


def test_a_readonly_guest_is_refused_before_anything_begins(fix: Ask, emulator: Emulator) -> None:  # noqa: F811
    before = overview(view("caddy", REBOOT, Difference(Kind.GUEST, "memory", Mend.APPLY)))
    done = fix("--only", "reboot,apply", "--yes", looks=(before,))
    assert done.status == 3
    assert rows(done) == [("caddy", "apply", "refused"), ("caddy", "reboot", "refused")]
    assert "vm 111 (kept) is readonly" in done.err
    assert emulator.changes() == []


def test_a_guest_is_brought_to_its_definition_and_backed_up(fix: Ask, emulator: Emulator) -> None:  # noqa: F811
    begin(emulator, cores=2)
    looks = (overview(view("dev", MEMORY, BACKUP)), overview(view("dev")))
    done = fix("--only", "apply,backup", "--yes", looks=looks)
    assert done.status == 0, done.err
    assert rows(done) == [("dev", "backup", "done"), ("dev", "apply", "done")]
    backup, *changes = emulator.changes()
    assert backup == "POST /nodes/prom/vzdump"
    assert {*changes} == {f"PUT /nodes/prom/qemu/110/{each}" for each in ("config", "cloudinit")}


def test_a_guest_that_was_made_elsewhere_is_shown_before_it_is_adopted(
    fix: Ask, emulator: Emulator, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    begin(emulator, description="by hand")
    plans = list[str]()
    monkeypatch.setattr("nixherd.cli.front.confirm", lambda *_, plan, **how: plans.extend(map(str, plan)))
    looks = (overview(view("dev", ADOPT)), overview(view("dev")))
    done = fix("--only", "adopt", "--yes", looks=looks)
    assert done.status == 0, done.err
    assert plans[0] == "dev: would adopt its guest (it has no mark)"
    assert "dev: on prom: named dev, running, net0 bc:24:11:00:01:10" in plans[1].replace("BC", "bc")
    assert {*emulator.changes()} == {"PUT /nodes/prom/qemu/110/config"}


def test_another_guest_than_the_declared_one_is_not_adopted(
    fix: Ask, emulator: Emulator  # noqa: F811
) -> None:  # fmt: skip
    begin(emulator, name="others", description="by hand")
    done = fix("--only", "adopt", "--yes", looks=(overview(view("dev", ADOPT)),))
    assert done.status == 3
    assert rows(done) == [("dev", "adopt", "refused")]
    assert emulator.changes() == []


def test_a_refusal_beside_what_was_done_is_a_failure(fix: Ask, tmp_path: Path) -> None:
    pyinfra = FakePyinfra(begun(tmp_path, "dev"), end("dev", "deployed"))
    looks = (overview(view("dev", SYSTEM), view("caddy", REBOOT)), overview(view("dev")))
    done = fix("--only", "deploy,reboot", "--yes", looks=looks, by=pyinfra)
    assert done.status == 1
    assert rows(done) == [("caddy", "reboot", "refused"), ("dev", "deploy", "done")]


def test_a_host_that_does_not_answer_is_the_status_where_all_else_is_done(fix: Ask, tmp_path: Path) -> None:
    pyinfra = FakePyinfra(begun(tmp_path, "dev"), end("dev", "deployed"))
    looks = (overview(view("dev", SYSTEM), view("web", reach=SILENT)), overview(view("dev")))
    assert fix("--only", "deploy", "--yes", looks=looks, by=pyinfra).status == 4


def test_without_a_yes_nothing_begins(
    fix: Ask, monkeypatch: pytest.MonkeyPatch, emulator: Emulator  # noqa: F811
) -> None:  # fmt: skip
    done = fix("--only", "apply", looks=())
    assert done.status == 2
    assert done.err == "fix: nothing was done: without a terminal to ask on, say --yes\n"
    questions = list[str]()

    def ask(question: str, refusal: str, *, yes: bool, plan: Any, unattended: bool) -> None:
        questions.extend([question, *map(str, plan)])
        raise Usage(refusal)

    monkeypatch.setattr("nixherd.cli.fix.can_ask", lambda: True)
    monkeypatch.setattr("nixherd.cli.front.confirm", ask)
    assert fix("--only", "apply", looks=(overview(view("dev", MEMORY)),)).status == 2
    assert questions == ["Do this on 1 host?", f"dev: would bring its guest to its definition ({MEMORY.what})"]
    assert emulator.changes() == []


def test_a_dry_run_does_nothing(fix: Ask, emulator: Emulator) -> None:  # noqa: F811
    look = overview(view("dev", MEMORY, SYSTEM), view("caddy", REBOOT))
    done = fix("--only", "apply,deploy,reboot", "--dry-run", looks=(look,))
    assert done.status == 3, "one of them would be refused"
    assert sorted(rows(done)) == [
        ("caddy", "reboot", "refused"), ("dev", "apply", "planned"), ("dev", "deploy", "planned"),
    ]  # fmt: skip
    assert emulator.changes() == []
    assert json.loads(done.out)["dry"] is True


def test_people_read_a_line_for_each(fix: Ask, tmp_path: Path) -> None:
    pyinfra = FakePyinfra(begun(tmp_path, "dev"), end("dev", "deployed"))
    looks = (overview(view("dev", SYSTEM), view("caddy", reach=SILENT)), overview(view("dev", SYSTEM)))
    done = fix("--only", "deploy", "--yes", "--table", looks=looks, by=pyinfra)
    assert done.status == 1
    assert done.out.splitlines() == [
        "dev: deploy: done",
        f"dev: left: system: {SYSTEM.what}",
        "caddy: not reached: silent",
    ]
