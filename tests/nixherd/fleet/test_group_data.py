"""What may be said as data of a run."""

import re
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Usage
from nixherd.fleet.groups import HOST_DATA, NODE_DATA, check_data, check_group_data

ROOT = Path(__file__).parents[3]
# What the inventory gives its hosts, and what only the emulated API is asked.
_GIVEN = {
    "api_only",
    "host_id",
    "makes_machines",
    "may_install",
    "must_answer",
    "node",
    "only_looks",
    "context",
    "steps",
    "without_order",
}


def test_every_datum_that_our_code_asks_for_is_known() -> None:
    files = [file for name in ("nixherd", "operations", "deploys") for file in (ROOT / name).rglob("*.py")]
    asked = {name for file in files for name in re.findall(r'host\.data\.get\("([a-z_]+)"', file.read_text())}
    told = re.findall(r"^# ?([a-z_]+) =", (ROOT / "group_data/all.py").read_text(), re.MULTILINE)
    assert {"boot_deadline", "docs_template", "secrets_rules", "task_deadline"} <= asked
    known = {*HOST_DATA, *NODE_DATA}
    assert {*asked, *told} - _GIVEN - known - {name for name in asked if name.startswith("ssh_")} == set()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param({"unknown": 1}, "--data unknown: nobody asks for it; correct the name", id="unknown"),
        pytest.param(
            {"requre_signed": True}, "--data requre_signed: nobody asks for it; write require_signed", id="near"
        ),
        pytest.param({"boot-deadline": 3}, "write boot_deadline", id="a dash"),
        pytest.param({"boot_deadline": "soon"}, "boot_deadline=soon is not a whole number of seconds", id="seconds"),
        pytest.param({"commit": "perhaps"}, "commit=perhaps is not true or false", id="flag"),
        pytest.param({"snapshot": "all"}, "snapshot=all is not keep or remove", id="choice"),
        pytest.param({"sudo_password": "x"}, "is not stdin: the password itself is never said here", id="password"),
        pytest.param({"devices": "1002:13c0"}, "--data devices: nobody asks for it", id="of a node"),
    ],
)
def test_what_nobody_asks_for_or_cannot_be_meant_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(Usage, match=re.escape(message)):
        check_data(data, HOST_DATA)


def test_the_data_of_nodes_are_their_own() -> None:
    check_data({"devices": "x", "vendor_reset": "/x", "ssh_user": "root"}, NODE_DATA)
    for name, meant in (("vendor-reset", "vendor_reset"), ("device", "devices"), ("hostpcis", "hostpci")):
        with pytest.raises(Usage, match=f"--data {name}: nobody asks for it; write {meant}"):
            check_data({name: "x"}, NODE_DATA)
    with pytest.raises(Usage, match="--data boot_deadline: nobody asks for it; correct the name"):
        check_data({"boot_deadline": 3}, NODE_DATA)


def test_what_is_pyinfras_or_an_operators_own_is_let_through() -> None:
    check_data({"goal": "test", "local": True, "_sudo": True, "ssh_port": 22, "boot_deadline": 3}, HOST_DATA)
    check_data({"mine": 1}, HOST_DATA, others=True)
    with pytest.raises(Usage, match="write max_fail"):
        check_data({"max_fial": 1}, HOST_DATA, others=True)


def test_group_data_has_no_name_near_one_of_ours() -> None:
    check_group_data(["mine", "sign_with", "devices"], "group_data/all.py")
    with pytest.raises(Usage, match=r"group_data/web.py: confirm_deadlin: nobody asks for it; write confirm_deadline"):
        check_group_data(["confirm_deadlin"], "group_data/web.py")
