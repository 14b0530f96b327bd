"""Lists of tasks, and what the lists are fed from: who sees what, in which words."""

import pytest

from lab.api.control import outside
from lab.api.errors import ParameterError
from lab.api.permissions import User
from tests.lab.api_node import SECRET, Node, state_with

VM = "/nodes/prom/qemu/104"
TOKEN = User("fw@pve", "t", privsep=True)


def node(**acl: str) -> Node:
    """What root does, and what the token does, which may switch 104 on and off, and see as much as `acl` says."""
    rights = {"/vms/104": "PVEVMUser", **acl}
    rows = [
        {"path": path, "type": kind, "ugid": ugid, "roleid": role, "propagate": 1}
        for path, role in rights.items()
        for kind, ugid in (("user", "fw@pve"), ("token", "fw@pve!t"))
    ]
    users = {"fw@pve": {"enable": 1, "tokens": {"t": {"secret": SECRET, "privsep": 1}}}, "root@pam": {"enable": 1}}
    made = Node(state_with(acl=rows, users=users))
    assert made.run("POST", f"{VM}/status/stop") == "OK"
    assert made.run("POST", f"{VM}/status/start", TOKEN) == "OK"
    return made


def test_a_token_is_shown_its_own_tasks_by_the_node_and_none_by_the_cluster() -> None:
    made = node()
    [task] = made.call("GET", "/nodes/prom/tasks", {}, TOKEN)
    assert (task["type"], task["user"], task["tokenid"]) == ("qmstart", "fw@pve", "t")
    assert made.call("GET", "/cluster/tasks", {}, TOKEN) == []
    rows = made.get("/cluster/tasks")
    assert [(row["type"], row["user"], row.get("tokenid"), row["saved"]) for row in rows] == [
        ("qmstart", "fw@pve", "t", 1),
        ("qmstop", "root@pam", None, "1"),
    ]
    assert not rows[0].keys() & {"pid", "pstart"}
    auditing = node(**{"/": "PVEAuditor"})
    assert len(auditing.call("GET", "/cluster/tasks", {}, TOKEN)) == 2


def test_a_running_task_is_listed_with_the_token_in_its_user() -> None:
    made = node()
    upid = made.call("POST", f"{VM}/status/shutdown", {"timeout": 60}, TOKEN)
    [row] = made.call("GET", "/nodes/prom/tasks", {"source": "active"}, TOKEN)
    assert (row["upid"], row["user"], row["status"]) == (upid, "fw@pve!t", "RUNNING")
    assert "tokenid" not in row
    made.call("DELETE", f"/nodes/prom/tasks/{upid}", {}, TOKEN)
    assert made.get(f"/nodes/prom/tasks/{upid}/status")["exitstatus"] == "received interrupt"
    assert made.get(f"/nodes/prom/tasks/{upid}") == [{"name": "log"}, {"name": "status"}]
    assert {"name": "qemu"} in made.get("/nodes/prom")
    with pytest.raises(ParameterError) as refused:
        made.get("/nodes/prom/tasks", statusfilter="nope")
    assert refused.value.errors == {"statusfilter": "invalid format - invalid status 'nope'\n"}


def test_without_its_statistics_the_server_knows_little_and_works() -> None:
    made = node()
    assert outside(made.emulator, None, {"do": "stop-pvestatd"})  # type: ignore[arg-type]
    assert {key: made.get("/nodes")[0].get(key) for key in ("node", "status", "maxmem")} == {
        **{"node": "prom", "status": "unknown", "maxmem": None},
    }
    rows = made.get("/cluster/resources")
    assert {row["status"] for row in rows if row["type"] in ("node", "qemu", "storage")} == {"unknown"}
    assert not any({"name", "template", "maxmem"} & row.keys() for row in rows if row["type"] == "qemu")
    assert [row["name"] for row in made.get("/nodes/prom/qemu")] == ["doc1", "debian"]
    assert made.get(f"{VM}/status/current")["status"] == "running"
