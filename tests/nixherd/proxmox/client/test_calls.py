"""The client's calls: repetition, errors, tasks, the guest agent, parallel requests."""

import subprocess
import sys
import threading
import time
from urllib.parse import parse_qs

import pytest

from nixherd.base.errors import ApiError, DeadlineExceeded, NotVisible
from nixherd.proxmox.answers import Upid
from nixherd.proxmox.client import AgentUnavailable, Client, OutcomeUnknown
from nixherd.proxmox.steps import Clone, Shutdown, Start
from tests.nixherd.proxmox.client.conftest import UPID, script
from tests.nixherd.proxmox.scripted import Answer, Asked, Scripted


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
    with pytest.raises(ApiError, match="hung up without an answer"):
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
