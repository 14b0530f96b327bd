"""The client on the wire: what it sends, to whom, what it never sends, and what it makes of the answers."""

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests

from nixherd.errors import ApiError, DeadlineExceeded, FleetError, Refused, Usage
from nixherd.fleet.models import Endpoint
from nixherd.proxmox.answers import Upid
from nixherd.proxmox.client import AgentUnavailable, Client, OutcomeUnknown, connect
from nixherd.proxmox.errors import NotVisible
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.steps import Clone, Reboot, Regenerate, Resize, Shutdown, Start, Stop
from nixherd.proxmox.token import Server, Token, fingerprints, read_authorities
from tests.nixherd.proxmox.fleets import EMPTY, FLEET
from tests.nixherd.proxmox.scripted import Answer, Asked, Scripted, make_certificate, serving

SECRET = "0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0"
TOKEN = Token("nixherd@pve", "lab", SECRET, Server("nowhere.invalid"))
POLICY = Policy.from_fleet(FLEET)
UPID = "UPID:prom:0002A2CB:00052A4E:6B03F0ED:qmclone:9002:nixherd@pve!lab:"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "prom.pem")


@pytest.fixture
def server(certificate: Path) -> Iterator[Scripted]:
    with serving(certificate) as scripted:
        yield scripted


@pytest.fixture
def client(server: Scripted) -> Client:
    return connected(server.endpoint())


def connected(endpoint: Endpoint, policy: Policy = POLICY) -> Client:
    """A client with a token of that very server."""
    certificates = read_authorities(endpoint.ca_file, "{}") if endpoint.ca_file else []
    return connect(endpoint, policy, replace(TOKEN, server=Server.of(endpoint, fingerprints(certificates))))


def script(server: Scripted, *answers: Answer) -> None:
    """Give these answers in turn, the last one for ever."""
    left = list(answers)
    server.answer = lambda _: left.pop(0) if len(left) > 1 else left[0]


# whom it speaks to


def test_a_policy_is_not_optional(server: Scripted) -> None:
    with pytest.raises(TypeError):
        connect(server.endpoint(), None, TOKEN)  # type: ignore[arg-type]


def test_knows_the_server_by_fingerprint(server: Scripted, client: Client) -> None:
    script(server, Answer({"version": "9.2.11", "release": "9.2"}))
    assert client.version().major == 9
    assert server.asked[0].headers["Authorization"] == f"PVEAPIToken=nixherd@pve!lab={SECRET}"


def test_another_fingerprint_ends_it_before_anything_is_sent(server: Scripted) -> None:
    client = connected(server.endpoint(fingerprint="ab" * 32))
    with pytest.raises(ApiError) as error:
        client.version()
    shown = ":".join(server.fingerprint[i : i + 2] for i in range(0, 64, 2)).upper()
    assert shown in str(error.value)
    assert "AB:AB:" in str(error.value)
    assert "pvenode cert info" in str(error.value)
    assert "\n" not in str(error.value)
    assert server.asked == []


def test_knows_the_server_by_ca(server: Scripted) -> None:
    script(server, Answer({"version": "9.2.11", "release": "9.2"}))
    connected(server.endpoint(ca_file=str(server.certificate))).version()
    assert len(server.asked) == 1


@pytest.mark.parametrize("known", ["system", "other"])
def test_an_unknown_ca_ends_it_before_anything_is_sent(server: Scripted, tmp_path: Path, known: str) -> None:
    other = {"system": None, "other": str(make_certificate(tmp_path / "other.pem"))}
    client = connected(server.endpoint(ca_file=other[known]))
    with pytest.raises(ApiError, match=r"certificate verify failed.*; nothing was sent: set proxmox\.fingerprint"):
        client.version()
    assert server.asked == []


def test_a_certificate_for_another_name_is_not_his(tmp_path: Path) -> None:
    with serving(make_certificate(tmp_path / "x.pem", "127.0.0.2")) as server:
        client = connected(server.endpoint(ca_file=str(server.certificate)))
        with pytest.raises(ApiError, match="certificate verify failed"):
            client.version()
        assert server.asked == []


def test_a_ca_file_that_is_not_there(server: Scripted) -> None:
    with pytest.raises(FleetError, match=r"proxmox\.caFile /no/such\.pem .* cannot be used: No such file"):
        connect(server.endpoint(ca_file="/no/such.pem"), POLICY, TOKEN)


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", "prom", port=unused.getsockname()[1], fingerprint="ab" * 32)
        with pytest.raises(ApiError, match=r"cannot connect to https://127.* \(Connection refused\); nothing was sent"):
            connected(endpoint).version()


def test_the_environment_leads_nowhere_else(
    server: Scripted, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none"))
    script(server, Answer({"version": "9.2.11", "release": "9.2"}))
    assert client.version().release == "9.2"


def test_a_redirect_is_never_followed(server: Scripted, client: Client) -> None:
    where = {"Location": f"https://127.0.0.1:{server.port}/api2/json/nodes/prom/qemu/104/status/stop"}
    for status in (301, 302, 307, 308):
        script(server, Answer(status=status, reason="Moved", headers=where))
        with pytest.raises(ApiError, match="never followed"):
            Stop("prom", 110).begin(client)
    assert {asked.path for asked in server.asked} == {"/api2/json/nodes/prom/qemu/110/status/stop"}


def test_nor_when_the_session_is_asked_to(server: Scripted, client: Client) -> None:
    session = session_of(client)
    script(server, Answer(status=302, reason="Moved", headers={"Location": "/api2/json/nodes/prom/qemu/104/config"}))
    request = requests.Request("GET", f"https://127.0.0.1:{server.port}/api2/json/version")
    assert session.send(session.prepare_request(request), allow_redirects=True).status_code == 302
    assert len(server.asked) == 1


def test_the_secret_is_nowhere_to_be_read(server: Scripted, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("proxmoxer").setLevel(logging.DEBUG)
    script(server, Answer(status=401, reason="Authentication failed!", body=b""))
    with pytest.raises(ApiError, match="does not accept token nixherd@pve!lab") as error:
        client.version()
    assert SECRET not in f"{error.value!r} {client!r} {vars(client)} {caplog.text}"
    assert SECRET in server.asked[0].headers["Authorization"]  # it was there to be found


# what it never sends


def every_change(client: Client, vmid: int) -> list[object]:
    return [
        lambda: Clone("prom", vmid, template=9002, template_node="prom", name="x", description="y").begin(client),
        lambda: Clone("prom", 110, template=vmid, template_node="prom", name="x", description="y").begin(client),
        lambda: client.set_config("prom", vmid, {"cores": 1}),
        lambda: client.set_config("prom", 110, {"scsi1": f"nvmeprom:vm-{vmid}-disk-0"}),
        lambda: client.set_config("prom", 110, {"vmid": vmid}),
        lambda: Resize("prom", vmid, "scsi0", 1, 64 << 30).begin(client),
        lambda: Regenerate("prom", vmid).begin(client),
        lambda: Start("prom", vmid).begin(client),
        lambda: Stop("prom", vmid).begin(client),
        lambda: Shutdown("prom", vmid, 60).begin(client),
        lambda: Reboot("prom", vmid, 60).begin(client),
        lambda: client.agent_ping("prom", vmid),
        lambda: client.agent_exec("prom", vmid, ["/bin/true"]),
        lambda: client._post("nodes", "prom", "stopall"),
        lambda: client._post("nodes", "prom", "stopall", vms=str(vmid)),
        lambda: client._put("pools", "x", vms=str(vmid)),
        lambda: client._get("nodes", "prom", "qemu", vmid, "vncwebsocket"),
    ]


@pytest.mark.parametrize("vmid", [104, 109, 111, 105, 9002])
def test_nothing_for_a_protected_guest_reaches_the_wire(server: Scripted, client: Client, vmid: int) -> None:
    changes = every_change(client, vmid)
    if vmid == 9002:
        del changes[1]  # the one thing that may be done with the template
    for change in changes:
        with pytest.raises(Refused, match="refusing"):
            change()  # type: ignore[operator]
    assert server.asked == []


def test_without_definitions_nothing_reaches_the_wire(server: Scripted) -> None:
    client = connected(server.endpoint(), Policy.from_fleet(EMPTY))
    for change in every_change(client, 110):
        with pytest.raises(Refused, match="refusing"):
            change()  # type: ignore[operator]
    assert server.asked == []


@pytest.mark.parametrize("part", ["104/status", "../104", "", "110/../104"])
def test_a_part_of_a_path_is_one_part(server: Scripted, client: Client, part: str) -> None:
    with pytest.raises((Usage, Refused)):
        client._post("nodes", "prom", "qemu", part, "status", "stop")
    with pytest.raises((Usage, Refused)):
        client._get("nodes", "prom", "qemu", part)
    assert server.asked == []


def session_of(client: Client) -> requests.Session:
    session = client._Client__api._store["session"]  # type: ignore[attr-defined]
    assert isinstance(session, requests.Session)
    return session


@pytest.mark.parametrize(
    "kwargs",
    [
        {"params": {"vmid": "104"}},
        {"json": {"vmid": 104}},
        {"files": {"vmid": "104"}},
        {"data": iter([b"vmid=104"])},
        {"data": "a=1;vmid=104"},
        {"data": b"cores=4", "headers": {"Content-Type": "application/json"}},
    ],
)
def test_the_guard_judges_what_is_on_the_wire(server: Scripted, client: Client, kwargs: dict[str, Any]) -> None:
    """Also what comes to the session by another way than ours."""
    url = f"https://127.0.0.1:{server.port}/api2/json/nodes/prom/qemu/110/config"
    session = session_of(client)
    request = requests.Request("PUT", url, **kwargs)
    with pytest.raises(Refused):
        session.send(session.prepare_request(request))
    assert server.asked == []


def test_the_guard_sits_below_every_verb_of_the_session(server: Scripted, client: Client) -> None:
    session = session_of(client)
    for url in (
        f"https://127.0.0.1:{server.port}/api2/json/nodes/prom/qemu/104/status/stop",
        f"https://127.0.0.1:{server.port}/api2/json/nodes/prom/qemu/%31%30%34/status/stop",
        f"https://127.0.0.1:{server.port}/api2/json/nodes/prom/qemu/110/../104/status/stop",
        f"https://127.0.0.1:{server.port}/api2/extjs/nodes/prom/qemu/104/status/stop",
        f"https://localhost:{server.port}/api2/json/nodes/prom/qemu/110/status/start",
        f"http://127.0.0.1:{server.port}/api2/json/nodes/prom/qemu/110/status/start",
    ):
        for method in ("POST", "PUT", "DELETE", "PATCH", "post", "OPTIONS", "HEAD"):
            with pytest.raises(Refused):
                session.send(session.prepare_request(requests.Request(method, url)))
    assert server.asked == []


# what it makes of answers


def test_says_what_it_means_to(server: Scripted, client: Client) -> None:
    script(server, Answer(UPID))
    Clone(
        "prom", 110, template=9002, template_node="prom", name="dev", description="a;b & c", storage="nvmeprom"
    ).begin(client)
    Shutdown("prom", 110, 60, force=False).begin(client)
    clone, shutdown = server.asked
    assert parse_qs(clone.body) == {
        "newid": ["110"],
        "name": ["dev"],
        "description": ["a;b & c"],
        "full": ["1"],
        "storage": ["nvmeprom"],
    }
    assert ";" not in clone.body
    assert parse_qs(shutdown.body) == {"timeout": ["60"], "forceStop": ["0"]}


def test_a_call_that_reads_is_sent_again_when_the_server_hangs_up(server: Scripted, client: Client) -> None:
    script(server, Answer(hang_up=True), Answer({"version": "9.2.11", "release": "9.2"}))
    assert client.version().release == "9.2"
    assert len(server.asked) == 2


def test_but_only_once(server: Scripted, client: Client) -> None:
    script(server, Answer(hang_up=True))
    with pytest.raises(ApiError, match="closed the connection without an answer"):
        client.version()
    assert len(server.asked) == 2


def test_a_change_is_never_sent_twice(server: Scripted, client: Client) -> None:
    script(server, Answer(hang_up=True))
    with pytest.raises(OutcomeUnknown, match="look, then try again"):
        Start("prom", 110).begin(client)
    assert len(server.asked) == 1


def test_a_change_without_a_task_is_an_error(server: Scripted, client: Client) -> None:
    script(server, Answer(None))
    with pytest.raises(ApiError, match="answered None where a task's UPID belongs"):
        Start("prom", 110).begin(client)


def test_no_guest_is_none(server: Scripted, client: Client) -> None:
    missing = b'{"data":null,"message":"Configuration file \'nodes/prom/qemu-server/110.conf\' does not exist\\n"}'
    script(server, Answer(status=500, reason="x", body=missing))
    assert client.config("prom", 110) is None
    assert client.status("prom", 110) is None


@pytest.mark.parametrize("free", [True, False])
def test_no_right_to_look_at_what_may_not_be_there(server: Scripted, client: Client, free: bool) -> None:
    taken = b'{"data":null,"message":"x","errors":{"vmid":"VM 110 already exists"}}'

    def answer(asked: Asked) -> Answer:
        if "nextid" not in asked.path:
            return Answer(status=403, reason="Permission check failed (/vms/110, VM.Audit)", body=b"")
        return Answer("110") if free else Answer(status=400, reason="x", body=taken)

    server.answer = answer
    if free:
        assert client.config("prom", 110) is None
    else:
        with pytest.raises(NotVisible, match=r"guest 110 is not visible: .* lacks VM\.Audit on /vms/110"):
            client.config("prom", 110)


def test_something_else_listens(server: Scripted, client: Client) -> None:
    script(server, Answer(body=b"<html>hello</html>"))
    with pytest.raises(ApiError, match="does Proxmox VE listen there"):
        client.version()


def test_tasks_that_run(server: Scripted, client: Client) -> None:
    row = {"upid": UPID, "type": "qmclone", "id": "9002", "starttime": 1}
    rows = [{**row, "user": "nixherd@pve!lab", "status": "RUNNING"}, {**row, "user": "u@pve", "status": "OK"}]
    script(server, Answer(rows))
    [task] = client.tasks("prom")
    assert (task.upid, task.user) == (Upid.parse(UPID), "nixherd@pve!lab")
    row["user"] = "u@pve"
    script(server, Answer([{**row, "tokenid": "x", "status": "OK"}]))
    assert client.tasks("prom", active=False)[0].user == "u@pve!x"


# the guest's agent


def agent(server: Scripted, *answers: Answer) -> None:
    left = list(answers)
    server.answer = lambda asked: Answer({"pid": 7}) if asked.path.endswith("/exec") else left.pop(0)


def test_exec(server: Scripted, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    done = {"exited": 1, "exitcode": 3, "out-data": "grüße\n".encode().decode("latin-1"), "err-data": "no"}
    agent(server, Answer({"exited": 0}), Answer(done))
    result = client.agent_exec("prom", 110, ["cat", "a b", "c;d&e=f"])
    assert (result.exitcode, result.stdout, result.stderr, result.signal) == (3, "grüße\n", "no", None)
    assert parse_qs(server.asked[0].body) == {"command": ["cat", "a b", "c;d&e=f"]}


def test_exec_of_what_the_agent_cannot_take(server: Scripted, client: Client) -> None:
    agent(server, Answer({"exited": 1, "signal": 9}))
    assert client.agent_exec("prom", 110, ["echo", "“hi”"]).signal == 9
    assert server.asked[0].body.isascii()
    shell, option, script_ = parse_qs(server.asked[0].body)["command"]
    assert (shell, option) == ("/bin/sh", "-c")
    assert "base64 -d" in script_


def test_exec_past_its_deadline(server: Scripted, client: Client) -> None:
    agent(server, Answer({"exited": 0}))
    with pytest.raises(DeadlineExceeded, match="`sleep 9` in the guest: not done within 0 s"):
        client.agent_exec("prom", 110, ["sleep", "9"], timeout=0)


def test_a_result_is_given_out_once(server: Scripted, client: Client) -> None:
    gone = b'{"data":null,"message":"Agent error: PID ld does not exist\\n"}'
    agent(server, Answer(hang_up=True), Answer(status=500, reason="x", body=gone))
    with pytest.raises(AgentUnavailable, match="PID ld does not exist"):
        client.agent_exec("prom", 110, ["/bin/true"])


class Crowd:
    """Answers slowly, and counts how many wait at once: of the agent's calls, and of the others."""

    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), {True: 0, False: 0}, {True: 0, False: 0}

    def __call__(self, asked: Asked) -> Answer:
        agent = "/agent/" in asked.path
        with self.lock:
            self.now[agent] += 1
            self.most[agent] = max(self.most[agent], self.now[agent])
        time.sleep(0.1)
        with self.lock:
            self.now[agent] -= 1
        return Answer({"version": "9.2.11", "release": "9.2", "result": []})


_UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys, gevent
from nixherd.fleet.models import Endpoint, Fleet
from nixherd.proxmox.client import connect
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.token import fingerprints, read_authorities
from nixherd.proxmox.token import Server, Token
endpoint = Endpoint("127.0.0.1", "prom", port=int(sys.argv[1]), fingerprint=sys.argv[2])
client = connect(endpoint, Policy.from_fleet(Fleet("/f", "f", {})), Token("a@pve", "b", "c", Server.of(endpoint)))
gevent.joinall([gevent.spawn(client.version) for _ in range(10)], raise_error=True)
gevent.joinall([gevent.spawn(client.agent_interfaces, "prom", 110) for _ in range(6)], raise_error=True)
"""


@pytest.mark.process
def test_under_gevent_calls_wait_side_by_side(server: Scripted) -> None:
    server.answer = crowd = Crowd()
    argv = [sys.executable, "-c", _UNDER_GEVENT, str(server.port), server.fingerprint]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert crowd.most[False] > 2
    assert crowd.most[True] == 2


def test_two_agent_calls_at_most_are_in_flight(server: Scripted, client: Client) -> None:
    server.answer = crowd = Crowd()
    threads = [threading.Thread(target=client.agent_interfaces, args=("prom", 110)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 8
    assert crowd.most[True] == 2
