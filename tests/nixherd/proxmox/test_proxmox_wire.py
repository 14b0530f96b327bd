"""What a request says on the wire, and what an answer means."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.errors import AgentUnavailable, ApiError, NoAgent, OutcomeUnknown, Refused
from nixherd.proxmox.wire import data_of, decode_request, error_of, guest_text, single

ORIGIN = "https://10.77.0.1:8006"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
START = f"{ORIGIN}/api2/json/nodes/prom/qemu/110/status/start"


def test_reads_path_and_form() -> None:
    body = urlencode({"command": ["/bin/sh", "-c", "a;b&c=d"], "x": ""}, doseq=True)
    path, params = decode_request("POST", START, FORM, body, ORIGIN)
    assert path == "/nodes/prom/qemu/110/status/start"
    assert single(params) == {"command": ["/bin/sh", "-c", "a;b&c=d"], "x": ""}


def test_reads_a_query() -> None:
    _, params = decode_request("GET", f"{ORIGIN}/api2/json/cluster/nextid?vmid=110&vmid=104", {}, None, ORIGIN)
    assert params == {"vmid": ["110", "104"]}


@pytest.mark.parametrize(
    ("method", "url", "headers", "body", "words"),
    [
        ("POST", START + "?vmid=104", FORM, "a=1", "with a query"),
        ("POST", START, FORM, "a=1;vmid=104", "bare ';'"),
        ("POST", START, {"Content-Type": "application/json"}, b'{"vmid":104}', "only forms"),
        ("POST", START, {"Content-Type": "multipart/form-data; boundary=x"}, b"--x", "only forms"),
        ("POST", START, {}, "vmid=104", "untyped"),
        ("POST", START, FORM, iter([b"vmid=104"]), "only forms"),
        ("POST", START, FORM, "novalue", "cannot be read"),
        ("POST", START, FORM, "a=%ff", "cannot be read"),
        ("DELETE", START, FORM, "vmid=104", "with a body"),
        ("GET", START, FORM, "vmid=104", "with a body"),
        ("POST", "http://10.77.0.1:8006/api2/json/x", {}, None, "only"),
        ("POST", "https://10.77.0.1:8007/api2/json/x", {}, None, "only"),
        ("POST", "https://u:p@10.77.0.1:8006/api2/json/x", {}, None, "only"),
        ("POST", "https://10.77.0.1:8006.evil/api2/json/x", {}, None, "only"),
        ("POST", ORIGIN + "/api2/extjs/nodes/prom/qemu/104/status/stop", {}, None, "begin with"),
        ("POST", ORIGIN + "//api2/json/nodes", {}, None, "begin with"),
    ],
)
def test_refuses_what_cannot_be_judged(
    method: str, url: str, headers: dict[str, str], body: object, words: str
) -> None:
    with pytest.raises(Refused, match=words):
        decode_request(method, url, headers, body, ORIGIN)


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.lists(st.text(max_size=9), min_size=1, max_size=3)))
def test_reads_back_whatever_was_sent(params: dict[str, list[str]]) -> None:
    def encode(text: str) -> str:
        return quote(text, safe="")

    body = "&".join(f"{encode(key)}={encode(value)}" for key, values in params.items() for value in values)
    assert decode_request("POST", START, FORM, body, ORIGIN)[1] == params


def test_takes_the_message_whole_and_in_one_line() -> None:
    body = b'{"data":null,"message":"first\\nsecond\\n","errors":{"memory":"type check failed\\n"}}'
    error = error_of("PUT", "/x", 400, "first", body, "u@pve!t")
    assert str(error) == "PUT /x: first second memory: type check failed (400)"
    assert (error.status, error.errors) == (400, {"memory": "type check failed"})


def test_falls_back_to_the_reason() -> None:
    assert str(error_of("GET", "/x", 500, "VM 9 went away", b"", "t")) == "GET /x: VM 9 went away (500)"


@pytest.mark.parametrize(
    ("method", "path", "status", "reason", "kind", "words"),
    [
        ("GET", "/version", 401, "No ticket", ApiError, "does not accept token u@pve!t"),
        ("GET", "/x", 403, "Permission check failed (/vms/1, VM.Audit)", ApiError, "token u@pve!t lacks this"),
        ("POST", "/x", 595, "Connection refused", ApiError, "nothing was done"),
        ("POST", "/x", 596, "Connection timed out", OutcomeUnknown, "may still carry this out"),
        ("GET", "/x", 596, "Connection timed out", ApiError, "try again"),
        ("POST", "/x", 599, "Too many", OutcomeUnknown, "may still"),
        ("GET", "/x", 302, "Moved", ApiError, "never followed"),
        ("GET", "/x", 500, "hostname lookup 'pve9' failed - failed to get", ApiError, "node pve9 does not exist"),
        ("GET", "/q/1/agent/get-osinfo", 500, "QEMU guest agent is not running", AgentUnavailable, ""),
        ("GET", "/q/1/agent/get-osinfo", 500, "VM 100 is not running", AgentUnavailable, ""),
        ("POST", "/q/1/agent/exec", 500, "VM 101 qga command 'guest-exec' failed - got timeout", AgentUnavailable, ""),
        ("POST", "/q/1/agent/exec", 596, "Broken pipe", AgentUnavailable, ""),
        ("GET", "/q/1/agent/file-read", 500, "Agent error: failed to open file '/no'", ApiError, "failed to open"),
        (
            *("POST", "/q/1/agent/exec", 500),
            *("Agent error: Command guest-exec has been disabled: the command is not allowed", ApiError),
            "refuse guest-exec: allow guest-exec and guest-file-* there and in the template",
        ),
        (
            *("GET", "/q/1/agent/file-read", 500),
            *("Agent error: The command guest-file-open has been disabled for this instance", ApiError),
            "FILTER_RPC_ARGS in /etc/sysconfig/qemu-ga",
        ),
        (
            *("POST", "/q/1/agent/exec", 500),
            *(
                "VM 1 QMP command 'guest-exec' failed - Command guest-exec has been disabled",
                ApiError,
                "refuse guest-exec",
            ),
        ),
        (
            *("POST", "/q/1/agent/exec", 500),
            *("Agent error: Command guest-exec has been disabled: the agent is in frozen state", AgentUnavailable, ""),
        ),
        ("GET", "/q/1/agent/get-osinfo", 500, "No QEMU guest agent configured", NoAgent, "No QEMU"),
    ],
)
def test_tells_failures_apart(
    method: str, path: str, status: int, reason: str, kind: type[ApiError], words: str
) -> None:
    error = error_of(method, path, status, reason, b"", "u@pve!t")
    assert type(error) is kind
    assert words in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"message":"x"}'])
def test_an_answer_that_is_not_the_apis(body: bytes) -> None:
    with pytest.raises(ApiError, match="does Proxmox VE listen there"):
        data_of("GET", "/version", body)


def test_null_is_an_answer() -> None:
    assert data_of("PUT", "/x", b'{"data":null}') is None


def test_output_of_the_guest_is_bytes_shown_as_latin_1() -> None:
    assert guest_text("“grüße”".encode().decode("latin-1")) == "“grüße”"
    assert guest_text("“already”") == "“already”"
