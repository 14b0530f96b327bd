"""Which server the client trusts, and what the guard lets through to it."""

import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import requests

from nixherd.base.errors import ApiError, FleetError, Refused, Usage
from nixherd.fleet.models import Endpoint
from nixherd.proxmox.client import Client, connect
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.steps import Clone, Reboot, Regenerate, Resize, Shutdown, Start, Stop
from tests.nixherd.proxmox.client.conftest import POLICY, SECRET, TOKEN, connected, script
from tests.nixherd.proxmox.fleets import EMPTY
from tests.nixherd.proxmox.scripted import Answer, Scripted, make_certificate, serving


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
        lambda: client.agent_exec("prom", vmid, ["/bin/true"]),
        lambda: client._ask("POST", ("nodes", "prom", "stopall"), {}),
        lambda: client._ask("POST", ("nodes", "prom", "stopall"), {"vms": str(vmid)}),
        lambda: client._ask("PUT", ("pools", "x"), {"vms": str(vmid)}),
        lambda: client._ask("GET", ("nodes", "prom", "qemu", vmid, "vncwebsocket"), {}),
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
        client._ask("POST", ("nodes", "prom", "qemu", part, "status", "stop"), {})
    with pytest.raises((Usage, Refused)):
        client._ask("GET", ("nodes", "prom", "qemu", part), {})
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
