"""The one module that speaks HTTP: a typed client of the Proxmox VE API, guarded in its session.

`connect` is the only way to a Client, and a policy is not optional. The session asks it about each request as
it stands on the wire, right before it is sent. proxmoxer's object stays inside.
"""

import base64
import re
import shlex
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import requests
from proxmoxer import ProxmoxAPI
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError

from fleetwright.errors import ApiError, DeadlineExceeded, FleetError
from fleetwright.models import Endpoint, GuestType
from fleetwright.proxmox import wire
from fleetwright.proxmox.errors import AgentUnavailable, OutcomeUnknown
from fleetwright.proxmox.models import (
    ExecResult,
    Interface,
    Permissions,
    Storage,
    Task,
    TaskStatus,
    Upid,
    Version,
    VmConfig,
    VmStatus,
)
from fleetwright.proxmox.policy import Policy
from fleetwright.tokens import Token

__all__ = ["AgentUnavailable", "Client", "OutcomeUnknown", "connect"]

AGENT_CALLS = 2  # in flight per node: each may block one of pvedaemon's three workers for seconds
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 40.0  # pveproxy gives up on pvedaemon after 30 s


def connect(endpoint: Endpoint, policy: Policy, token: Token) -> "Client":
    """A client of the API at `endpoint`. Sends nothing yet; FleetError when the CA file cannot be used."""
    return Client(endpoint, policy, token)


class _Adapter(HTTPAdapter):
    """HTTPS to a server known by CA, or by its certificate's SHA-256 fingerprint; there is no third way."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._fingerprint = endpoint.fingerprint
        self._context = _tls_context(endpoint)
        super().__init__(pool_connections=1, pool_maxsize=100)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, _ = super().build_connection_pool_key_attributes(request, verify=True)
        return host, {"ssl_context": self._context, "assert_fingerprint": self._fingerprint}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing to set: the context and the fingerprint decide, whatever a caller passes as `verify`."""


def _tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_file)
    except OSError as error:  # ssl.SSLError is one
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror or error
        raise FleetError(
            f"proxmox.caFile {endpoint.ca_file} in vms/definitions.nix cannot be used: {reason}; "
            "name a PEM file, or give proxmox.fingerprint instead"
        ) from error
    if endpoint.fingerprint:
        # A pinned certificate needs no chain and no name: urllib3 compares its SHA-256 before anything is sent.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _GuardedSession(requests.Session):
    """The session under proxmoxer: judges each request, sends it, and turns every failure into an ApiError."""

    def __init__(self, endpoint: Endpoint, policy: Policy, token: Token) -> None:
        super().__init__()
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        self._origin = f"https://{host.lower()}:{endpoint.port}"
        self._endpoint = endpoint
        self._policy = policy
        self._who = token.id
        self.trust_env = False  # no proxy, netrc or CA from the environment
        self.adapters.clear()
        self.mount("https://", _Adapter(endpoint))
        self.headers["Authorization"] = f"PVEAPIToken={token.id}={token.secret}"
        self.headers["Accept"] = "application/json"

    def request(  # type: ignore[override]  # proxmoxer gives these four; what else requests takes is not wanted
        self, method: str, url: str, params: Any = None, data: Any = None
    ) -> requests.Response:
        """One call. A GET is sent once more when the server hung up without an answer, as it sometimes does."""
        try:
            return self._request(method, url, params, data)
        except _HungUp:
            if method != "GET":
                raise
            return self._request(method, url, params, data)

    def _request(self, method: str, url: str, params: Any, data: Any) -> requests.Response:
        path = url.removeprefix(self._origin + wire.PREFIX)
        try:
            response = super().request(
                method, url, _form(params), _form(data), timeout=(CONNECT_TIMEOUT, READ_TIMEOUT), allow_redirects=False
            )
        except requests.exceptions.SSLError as error:
            raise ApiError(self._about_tls(str(error)), None) from error
        except requests.exceptions.RequestException as error:
            raise self._no_answer(method, path, error) from error
        if response.status_code >= 300:
            raise wire.error_of(method, path, response.status_code, response.reason or "", response.content, self._who)
        return response

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """The last step before the wire, for redirects too: nothing passes that the policy does not know."""
        kwargs["allow_redirects"] = False
        path, params = wire.decode_request(
            str(request.method), str(request.url), request.headers, request.body, self._origin
        )
        self._policy.check(str(request.method), path, wire.single(params))
        return super().send(request, **kwargs)

    def _no_answer(self, method: str, path: str, error: requests.exceptions.RequestException) -> ApiError:
        cause = error.args[0] if error.args else None
        if isinstance(error, requests.exceptions.ConnectTimeout) or isinstance(cause, MaxRetryError):
            why = "no answer" if isinstance(error, requests.exceptions.Timeout) else _root(error)
            return ApiError(
                f"cannot connect to {self._origin} ({why}); nothing was sent, is the node up and `proxmox.host` right?",
                None,
            )
        if isinstance(error, requests.exceptions.Timeout):
            if method == "GET":
                return ApiError(f"{method} {path}: no answer within {READ_TIMEOUT:.0f} s; try again", None)
            return OutcomeUnknown(
                f"{method} {path}: no answer within {READ_TIMEOUT:.0f} s; look at the guest before trying again", None
            )
        return _HungUp(
            f"{method} {path}: the server closed the connection without an answer; look, then try again", None
        )

    def _about_tls(self, error: str) -> str:
        got = re.search(r'got "([0-9a-f]{64})"', error)
        where = f"{self._endpoint.host}:{self._endpoint.port}"
        if got:
            return (
                f"{where} shows a certificate with SHA-256 fingerprint {_colons(got[1])}, proxmox.fingerprint in "
                f"vms/definitions.nix says {_colons(self._endpoint.fingerprint or '')}; nothing was sent: compare with "
                "`pvenode cert info` on the node itself and correct the definitions if it was renewed"
            )
        reason = re.search(r"(certificate verify failed: [^(']*)", error)
        return (
            f"{where}: {reason[1].strip() if reason else 'TLS failed: ' + error}; nothing was sent: set "
            "proxmox.fingerprint (`pvenode cert info` on the node shows it) or proxmox.caFile in vms/definitions.nix"
        )


class _HungUp(OutcomeUnknown):
    """The connection was closed where an answer should have come."""


def _root(error: BaseException) -> str:
    """The innermost reason of a failed connection: `Connection refused`."""
    text = str(error)
    found = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
    return found[1] if found else text


def _colons(fingerprint: str) -> str:
    return ":".join(re.findall("..", fingerprint.upper()))


def _form(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Parameters as the server reads them: booleans as 1 and 0, what is None left out."""
    if not values:
        return None
    return {key: int(value) if isinstance(value, bool) else value for key, value in values.items() if value is not None}


class _Serializer:
    """Reads good answers for proxmoxer; its own turns an unreadable one into a value."""

    def loads(self, response: requests.Response) -> Any:
        request = response.request
        return wire.data_of(str(request.method), str(request.path_url).removeprefix(wire.PREFIX), response.content)


class Client:
    """The API's verbs that are used, typed. Every method raises ApiError, and Refused where the policy says no."""

    def __init__(self, endpoint: Endpoint, policy: Policy, token: Token) -> None:
        if not isinstance(policy, Policy):
            raise TypeError("a Client needs a Policy: without one nothing may be sent")
        session = _GuardedSession(endpoint, policy, token)
        api = ProxmoxAPI(endpoint.host, port=endpoint.port, user=token.user, token_name=token.name, token_value="")
        api._store = {"base_url": session._origin + wire.PREFIX, "session": session, "serializer": _Serializer()}
        self.__api = api
        self._name = f"{endpoint.host}:{endpoint.port}"
        self.token_id = token.id
        self.policy = policy
        self._agent_slots: dict[str, threading.Semaphore] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Client({self._name} as {self.token_id})"

    def _get(self, *path: object, **params: Any) -> Any:
        return self.__api(_parts(path)).get(**params)

    def _post(self, *path: object, **data: Any) -> Any:
        return self.__api(_parts(path)).post(**data)

    def _put(self, *path: object, **data: Any) -> Any:
        return self.__api(_parts(path)).put(**data)

    # the server and the token

    def version(self) -> Version:
        data = self._get("version")
        return Version(str(data["version"]), str(data["release"]))

    def permissions(self) -> Permissions:
        """What this token may do, as the server computes it."""
        data = self._get("access", "permissions")
        paths = {
            path: {name: bool(int(propagate)) for name, propagate in privileges.items()}
            for path, privileges in data.items()
        }
        return Permissions(paths)

    def nodes(self) -> tuple[str, ...]:
        return tuple(sorted(str(row["node"]) for row in self._get("nodes")))

    def storage(self, node: str, storage: str) -> Storage | None:
        """A storage as that node sees it; None when the node knows no such storage."""
        try:
            data = self._get("nodes", node, "storage", storage, "status")
        except ApiError as error:
            if error.status == 500 and "does not exist" in str(error):
                return None
            raise
        content = tuple(sorted(str(data.get("content", "")).split(",")))
        total, used, available = (int(data.get(key) or 0) for key in ("total", "used", "avail"))
        return Storage(storage, bool(int(data.get("active", 0))), total, used, available, content)

    # guests: reading

    def guests(self, node: str, type: GuestType = GuestType.QEMU) -> tuple[VmStatus, ...]:
        """The guests of a node that the token may see, by VMID."""
        rows = (VmStatus.of(int(row["vmid"]), row) for row in self._get("nodes", node, type))
        return tuple(sorted(rows, key=lambda row: row.vmid))

    def config(self, node: str, vmid: int, type: GuestType = GuestType.QEMU) -> VmConfig | None:
        """A guest's configuration, with what waits for its next start; None when there is no such guest."""
        data = self._unless_missing(vmid, lambda: self._get("nodes", node, type, vmid, "config"))
        return None if data is None else VmConfig(data)

    def status(self, node: str, vmid: int, type: GuestType = GuestType.QEMU) -> VmStatus | None:
        """A guest's power, asked of the node itself; None when there is no such guest."""
        data = self._unless_missing(vmid, lambda: self._get("nodes", node, type, vmid, "status", "current"))
        return None if data is None else VmStatus.of(vmid, data)

    def is_free(self, vmid: int) -> bool:
        """Whether no guest of the cluster has this VMID, also where the token may not see it."""
        try:
            self._get("cluster", "nextid", vmid=vmid)
        except ApiError as error:
            if error.status == 400 and "already exists" in error.errors.get("vmid", ""):
                return False
            raise
        return True

    def _unless_missing(self, vmid: int, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except ApiError as error:
            if error.status == 500 and re.search(r"Configuration file '.*' does not exist", str(error)):
                return None
            # Permissions are checked before existence: a token that may only act in a pool sees this.
            if error.status == 403 and self.is_free(vmid):
                return None
            raise

    # guests: changing

    def clone(
        self,
        node: str,
        template: int,
        newid: int,
        *,
        name: str,
        description: str,
        storage: str | None = None,
        target: str | None = None,
        pool: str | None = None,
        full: bool = True,
    ) -> Upid:
        """Begin to copy the template. Name and description are there from the first moment the copy is whole."""
        return _upid(
            self._post(
                *("nodes", node, "qemu", template, "clone"),
                newid=newid,
                name=name,
                description=description,
                full=full,
                storage=storage,
                target=target,
                pool=pool,
            )
        )

    def set_config(self, node: str, vmid: int, values: Mapping[str, object], *, digest: str | None = None) -> None:
        """Set options. With the digest of the configuration they were decided on, a change since is an error."""
        self._put("nodes", node, "qemu", vmid, "config", **values, digest=digest)

    def resize(self, node: str, vmid: int, disk: str, size: str, *, digest: str | None = None) -> Upid:
        """Begin to grow a disk to `size` (`64G`)."""
        return _upid(self._put("nodes", node, "qemu", vmid, "resize", disk=disk, size=size, digest=digest))

    def regenerate_cloudinit(self, node: str, vmid: int) -> None:
        """Write the cloud-init drive anew; a stopped VM gets that at its start anyway."""
        self._put("nodes", node, "qemu", vmid, "cloudinit")

    def start(self, node: str, vmid: int) -> Upid:
        return _upid(self._post("nodes", node, "qemu", vmid, "status", "start"))

    def stop(self, node: str, vmid: int) -> Upid:
        """Pull the plug."""
        return _upid(self._post("nodes", node, "qemu", vmid, "status", "stop"))

    def shutdown(self, node: str, vmid: int, *, timeout: int = 60, force: bool = False) -> Upid:
        """Ask the guest to power off within `timeout` seconds; `force` pulls the plug then."""
        return _upid(self._post("nodes", node, "qemu", vmid, "status", "shutdown", timeout=timeout, forceStop=force))

    def reboot(self, node: str, vmid: int, *, timeout: int = 60) -> Upid:
        """Shut the guest down and start it again; pending changes take effect."""
        return _upid(self._post("nodes", node, "qemu", vmid, "status", "reboot", timeout=timeout))

    # tasks

    def tasks(
        self, node: str, *, active: bool = True, type: str | None = None, vmid: int | None = None, limit: int = 50
    ) -> tuple[Task, ...]:
        """Rows of the node's task list, newest first: those that run, or those that ended."""
        source = "active" if active else "archive"
        rows = self._get("nodes", node, "tasks", source=source, typefilter=type, vmid=vmid, limit=limit)
        tasks = (Task.of(row) for row in rows)
        return tuple(task for task in tasks if not active or task.status in (None, "RUNNING"))

    def task_status(self, upid: Upid) -> TaskStatus:
        data = self._get("nodes", upid.node, "tasks", upid, "status")
        exitstatus = data.get("exitstatus")
        return TaskStatus(data["status"] == "running", None if exitstatus is None else str(exitstatus))

    def task_log(self, upid: Upid) -> tuple[str, ...]:
        """All lines of the task's log; the first ones may come long before the last."""
        return tuple(str(row["t"]) for row in self._get("nodes", upid.node, "tasks", upid, "log", limit=0))

    # the guest's agent

    @contextmanager
    def _agent(self, node: str) -> Iterator[None]:
        with self._lock:
            slots = self._agent_slots.setdefault(node, threading.Semaphore(AGENT_CALLS))
        with slots:
            yield

    def agent_ping(self, node: str, vmid: int) -> None:
        """Return when the agent answers, else raise AgentUnavailable after some 3 s. A changing call."""
        with self._agent(node):
            self._post("nodes", node, "qemu", vmid, "agent", "ping")

    def agent_interfaces(self, node: str, vmid: int) -> tuple[Interface, ...]:
        """The guest's network interfaces, in its own order: loopback and docker's may come first."""
        with self._agent(node):
            data = self._get("nodes", node, "qemu", vmid, "agent", "network-get-interfaces")
        return tuple(Interface.of(row) for row in data["result"])

    def agent_read(self, node: str, vmid: int, path: str) -> str:
        """A file of the guest, as text. ApiError when there is none."""
        with self._agent(node):
            data = self._get("nodes", node, "qemu", vmid, "agent", "file-read", file=path)
        return wire.guest_text(str(data["content"]))

    def agent_exec(self, node: str, vmid: int, argv: Sequence[str], *, timeout: float = 300) -> ExecResult:
        """Run a command in the guest as root and wait for its end, `timeout` seconds at most.

        Its result is given out once; when that answer is lost, AgentUnavailable is raised: run only what may
        run again. DeadlineExceeded when it does not end.
        """
        with self._agent(node):
            pid = self._post("nodes", node, "qemu", vmid, "agent", "exec", command=_plain(argv))["pid"]
        began, pause = time.monotonic(), 0.1
        while True:
            with self._agent(node):
                data = self._get("nodes", node, "qemu", vmid, "agent", "exec-status", pid=pid)
            if int(data["exited"]):
                out, err = (wire.guest_text(str(data.get(key, ""))) for key in ("out-data", "err-data"))
                return ExecResult(data.get("exitcode"), out, err, data.get("signal"))
            if time.monotonic() - began + pause > timeout:
                raise DeadlineExceeded(f"vm {vmid}: `{shlex.join(argv)}` in the guest: not done within {timeout:.0f} s")
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)


def _plain(argv: Sequence[str]) -> list[str]:
    """The command, or a shell that decodes it: the agent hangs on characters outside latin-1."""
    if all(word.isascii() for word in argv):
        return list(argv)
    script = base64.b64encode(shlex.join(argv).encode()).decode()
    return ["/bin/sh", "-c", f'script=$(echo {script} | base64 -d) || exit 127; eval "$script"']


def _parts(path: Sequence[object]) -> list[str]:
    parts = [str(part) for part in path]
    for part in parts:
        if not part or "/" in part:
            raise ValueError(f"{part!r} is no part of a path of the API")
    return parts


def _upid(data: object) -> Upid:
    try:
        return Upid.parse(str(data))
    except ValueError as error:
        raise ApiError(f"the server answered {data!r} where a task's UPID belongs; see its task list", 200) from error
