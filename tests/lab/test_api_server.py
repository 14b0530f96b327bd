"""The emulator as a process: HTTP, credentials, faults, the request log."""

import contextlib
import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.api_node import SECRET, Api, api_process

pytestmark = pytest.mark.process
CLONE = "/nodes/prom/qemu/9002/clone"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with api_process(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(autouse=True)
def _start_state(api: Api) -> Iterator[None]:
    yield
    assert api.control("reset") == 200


def ended(api: Api, upid: str) -> str:
    for _ in range(500):
        found = api.request("GET", f"/nodes/prom/tasks/{upid}/status")[2]["data"]
        if found["status"] == "stopped":
            return str(found["exitstatus"])
        time.sleep(0.01)
    raise TimeoutError(upid)


def test_answers_and_refusals_have_the_real_server_s_form(api: Api) -> None:
    assert api.request("GET", "/version")[2]["data"]["release"] == "9.0"
    missing = api.request("GET", "/nodes/prom/qemu/999/config")
    text = "Configuration file 'nodes/prom/qemu-server/999.conf' does not exist"
    assert missing == (500, text, {"data": None, "message": text + "\n"})
    unknown = "Method 'GET /nosuch' not implemented"
    assert api.request("GET", "/nosuch") == (501, unknown, {"data": None, "message": unknown})
    assert api.request("PATCH", "/version") == (501, "method 'PATCH' not available", "")
    status, reason, body = api.request("PUT", "/nodes/prom/qemu/104/config", {"cores": "x"})
    assert (status, reason) == (400, "Parameter verification failed.")
    assert body["errors"] == {"cores": "type check ('integer') failed - got 'x'"}


def test_bad_credentials_are_refused_late_and_without_a_body(api: Api) -> None:
    bad: list[dict[str, str]] = [
        {"Authorization": f"PVEAPIToken=root@pam!full={SECRET[::-1]}"},
        {"Authorization": "PVEAPIToken=garbage"},
        {"Cookie": "PVEAuthCookie=PVE%3Aroot%40pam%3A6B03EF83%3A%3Agarbage"},
    ]
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda headers: api.request("GET", "/version", headers=headers), [{}, *bad]))
    assert answers == [(401, "No ticket", ""), *[(401, "Authentication failed!", "")] * 3]
    assert time.monotonic() - began > 2.9


def test_a_ticket_needs_its_token_for_changes(api: Api) -> None:
    login = {"username": "root@pam", "password": "secret"}
    ticket = api.request("POST", "/access/ticket", login, headers={})[2]["data"]
    cookie = {"Cookie": f"PVEAuthCookie={ticket['ticket']}"}
    assert api.request("GET", "/version", headers=cookie)[0] == 200
    refused = api.request("PUT", "/nodes/prom/qemu/104/config", {"onboot": 1}, cookie)
    assert refused[:2] == (401, "Permission denied - invalid csrf token")
    both = {**cookie, "CSRFPreventionToken": ticket["CSRFPreventionToken"]}
    assert api.request("PUT", "/nodes/prom/qemu/104/config", {"onboot": 1}, both)[0] == 200


def test_a_request_whose_answer_is_lost_was_carried_out(api: Api) -> None:
    assert api.control("fault", name="drop-connection", method="POST", path="/clone$") == 200
    with pytest.raises(http.client.RemoteDisconnected):
        api.request("POST", CLONE, {"newid": 110})
    for _ in range(100):
        status, _, body = api.request("GET", "/nodes/prom/qemu/110/config")
        if status == 200 and "lock" not in body["data"]:
            break
        time.sleep(0.02)
    assert body["data"]["name"] == "Copy-of-VM-debian"
    assert api.request("POST", CLONE, {"newid": 111})[0] == 200
    assert [entry["status"] for entry in api.requests() if entry["path"] == CLONE][-2:] == [0, 200]


def test_faults_can_be_switched(api: Api) -> None:
    api.control("fault", name="task-fails", type="qmclone", message="input/output error")
    assert ended(api, api.request("POST", CLONE, {"newid": 110})[2]["data"]) == "input/output error"
    assert ended(api, api.request("POST", CLONE, {"newid": 110})[2]["data"]) == "OK"
    api.control("fault", name="lock-held", vmid=110)
    locked = api.request("PUT", "/nodes/prom/qemu/110/config", {"cores": 1})
    assert locked[:2] == (500, "VM is locked (backup)")
    api.control("fault", name="lock-held", on=False)
    assert api.request("PUT", "/nodes/prom/qemu/110/config", {"protection": 0})[0] == 200
    assert api.control("fault", name="nosuch") == 404


def test_a_reset_brings_the_start_state_back(api: Api) -> None:
    ended(api, api.request("POST", CLONE, {"newid": 110})[2]["data"])
    api.control("fault", name="agent-silent")
    began = time.monotonic()
    assert api.control("reset") == 200
    assert time.monotonic() - began < 15
    assert api.request("GET", "/nodes/prom/qemu/110/config")[0] == 500
    assert api.request("POST", "/nodes/prom/qemu/104/agent/ping", {})[0] == 200


def test_the_log_names_every_request_and_no_secret(api: Api) -> None:
    config = "/nodes/prom/qemu/104/config"
    assert api.request("PUT", config, {"cipassword": "hunter22", "ciuser": "op"})[0] == 200
    api.request("POST", "/access/ticket", {"username": "root@pam", "password": "secret"}, headers={})
    data = "x" * 100 + "hunter33"
    api.request("POST", "/nodes/prom/qemu/104/agent/file-write", {"file": "/tmp/a", "content": data})
    last = [(entry["user"], entry["method"], entry["path"], entry["status"]) for entry in api.requests()][-3:]
    assert last[0] == ("root@pam!full", "PUT", config, 200)
    assert last[1] == (None, "POST", "/access/ticket", 200)
    assert api.requests()[-3]["params"] == {"cipassword": "**********", "ciuser": "op"}
    text = api.log.read_text()
    assert "ciuser" in text
    assert not [secret for secret in ("hunter22", '"secret"', "hunter33", SECRET) if secret in text]


def test_an_error_closes_the_connection_and_an_answer_does_not(api: Api) -> None:
    with contextlib.closing(api.connection()) as connection:
        for path, closes in (("/version", False), ("/version", False), ("/nosuch", True)):
            connection.request("GET", f"/api2/json{path}", headers=api.headers)
            response = connection.getresponse()
            response.read()
            assert (response.getheader("Connection") == "close") is closes


def test_what_cannot_be_written_as_a_status_line_is_a_broken_pipe(api: Api) -> None:
    path = "/nodes/prom/qemu/104/agent/exec"
    assert api.request("POST", path, {"command": "/no/such"}) == (596, "Broken pipe", "")


def test_many_clients_are_served_at_once_while_agents_are_silent(api: Api) -> None:
    api.control("fault", name="agent-silent")
    with ThreadPoolExecutor(12) as pool:
        silent = [pool.submit(api.request, "POST", "/nodes/prom/qemu/104/agent/ping", {}) for _ in range(3)]
        time.sleep(0.3)
        answers = [pool.submit(api.request, "GET", "/nodes/prom/qemu/104/config") for _ in range(8)]
        assert {answer.result()[0] for answer in answers} == {200}
        assert not any(answer.done() for answer in silent)
        assert {answer.result()[1] for answer in silent} == {"QEMU guest agent is not running"}


def test_sigterm_ends_it_at_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    with api_process(tmp_path_factory.mktemp("term")) as running:
        running.control("fault", name="agent-silent")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(running.request, "POST", "/nodes/prom/qemu/104/agent/ping", {})
            time.sleep(0.3)
            running.process.terminate()
            assert running.process.wait(20) == 0
            with pytest.raises((OSError, http.client.HTTPException)):
                waiting.result()
