"""The API on the wire: what a request that is about to be sent says, what an answer means, and the calls' base.

Nothing here speaks HTTP; each call goes through `_ask`, and so through the guard.
"""

import json
import re
import secrets
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from nixherd.base.errors import UNFORESEEN, AgentUnavailable, ApiError, NoAgent, OutcomeUnknown, Refused, Usage
from nixherd.fleet.models import DEFINITIONS, GuestType
from nixherd.proxmox.answers import Task, TaskStatus, Upid
from nixherd.proxmox.route import Route

PREFIX = "/api2/json"
_FORM = "application/x-www-form-urlencoded"

# The server could not be asked (595), or was asked and did not answer: then the call may still be carried out.
NOT_ASKED = 595
NO_ANSWER = frozenset({596, 597, 598, 599})
TRANSIENT: frozenset[int | None] = NO_ANSWER | {NOT_ASKED, None}


def decode_request(
    method: str, url: str, headers: Mapping[str, str], body: object, origin: str
) -> tuple[str, dict[str, list[str]]]:
    """Return path below /api2/json, undecoded, and all parameters, decoded, of a request as it goes out.

    `origin` is `https://HOST:PORT`, the only permitted server. Raises Refused for whatever cannot be read with
    certainty: nobody can judge what nobody can read.
    """
    parts = urlsplit(url)
    if f"{parts.scheme}://{parts.netloc}" != origin:
        raise Refused(f"refusing {method} to {parts.scheme}://{parts.netloc}; this client speaks to {origin} only")
    if not parts.path.startswith(f"{PREFIX}/"):
        raise Refused(f"refusing {method} {parts.path}; calls of the API begin with {PREFIX}/")
    path = parts.path.removeprefix(PREFIX)
    if parts.query and method not in ("GET", "DELETE"):
        # The server lets the query override the body.
        raise Refused(f"refusing {method} {path} with a query; parameters of a change go into its body")
    query = _pairs(method, path, parts.query)
    if body in (None, b"", ""):
        return path, query
    if method in ("GET", "DELETE"):
        raise Refused(f"refusing {method} {path} with a body; the server takes none")
    if isinstance(body, Upload) and headers.get("Content-Type") == body.content_type:
        return path, body.parameters
    content_type = headers.get("Content-Type", "").split(";")[0].strip()
    if content_type != _FORM or not isinstance(body, (str, bytes)):
        raise Refused(f"refusing {method} {path}: its body is {content_type or 'untyped'}, only forms can be judged")
    return path, _pairs(method, path, body.decode("latin-1") if isinstance(body, bytes) else body)


def _pairs(method: str, path: str, form: str) -> dict[str, list[str]]:
    if ";" in form:
        raise Refused(f"refusing {method} {path}: a bare ';' separates parameters for the server; write it as %3B")
    params: dict[str, list[str]] = {}
    try:
        for key, value in parse_qsl(form, keep_blank_values=True, strict_parsing=bool(form), errors="strict"):
            params.setdefault(key, []).append(value)
    except ValueError as error:
        raise Refused(f"refusing {method} {path}: its parameters cannot be read ({error})") from error
    return params


def single(params: Mapping[str, list[str]]) -> dict[str, str | list[str]]:
    """Return parameters with those given once as plain values."""
    return {key: values[0] if len(values) == 1 else values for key, values in params.items()}


def error_of(method: str, path: str, status: int, reason: str, body: bytes, who: str) -> ApiError:
    """Return the error that an answer of status >= 300 means, in one line with a remedy. `who` is the token's name."""
    answer = _json(body)
    said_of = answer.get("errors")
    errors = {str(key): _line(value) for key, value in said_of.items()} if isinstance(said_of, dict) else {}
    message = _line(answer.get("message") or reason or "")
    if errors:
        message += " " + "; ".join(f"{key}: {text}" for key, text in sorted(errors.items()))
    what = f"{method} {path}: {message or 'no reason given'}"
    if status in NO_ANSWER:
        text = f"{what} ({status}): the node's API daemon did not answer in time or is overloaded"
        if "/agent/" in path:
            return AgentUnavailable(text, status)
        if method == "GET":
            return ApiError(f"{text}; try again", status)
        return OutcomeUnknown(f"{text}; it may still carry this out, look before trying again", status)
    blocked = _AGENT_BLOCKS.search(message) if "/agent/" in path else None
    if blocked:
        return ApiError(f"{what} ({status}){_ALLOW.format(blocked[1])}", status)
    if "/agent/" in path and "No QEMU guest agent configured" in message:
        return NoAgent(what, status)
    if "/agent/" in path and _AGENT_ABSENT.search(message):
        return AgentUnavailable(what, status)
    hint = _HINTS.get(status, "").format(who=who, user=who.partition("!")[0])
    lookup = re.search(r"hostname lookup '([^']*)' failed", message)
    if lookup:
        hint = f"; node {lookup[1]} does not exist, correct `node` in {DEFINITIONS}"
    if 300 <= status < 400:
        hint = "; a redirect is never followed, is this the API's own address?"
    return ApiError(f"{what} ({status}){hint}", status, errors)


_FROZEN = "the agent is in frozen state"  # while a backup is begun; qemu-ga says of its commands that they are disabled
_AGENT_ABSENT = re.compile(
    r"guest agent is not running|^VM \d+ (is )?not running|got timeout|PID \w+ does not exist|QMP command .* failed|"
    + _FROZEN
)
_AGENT_BLOCKS = re.compile(rf"[Cc]ommand ([\w-]+) has been disabled(?!: {_FROZEN})")
_ALLOW = (
    "; the guest's agent is set to refuse {}: allow guest-exec and guest-file-* there and in the template "
    "(BLACKLIST_RPC or FILTER_RPC_ARGS in /etc/sysconfig/qemu-ga, elsewhere block-rpcs or allow-rpcs in "
    "/etc/qemu/qemu-ga.conf), then `systemctl restart qemu-guest-agent`"
)
_HINTS = {
    401: "; the server does not accept token {who}: check the token file, and on the node whether it is there and "
    "has not expired: `pveum user token list {user}`",
    403: "; token {who} lacks this permission: grant it on the node with `pveum acl modify`",
    501: "; does something else than Proxmox VE answer there, or an older one?",
    NOT_ASKED: "; the node's API daemon is down, nothing was done: `systemctl status pvedaemon` on the node",
}


def data_of(method: str, path: str, body: bytes) -> Any:
    """Return the value of a good answer. Raise ApiError when it is not the API's JSON."""
    answer = _json(body)
    if "data" not in answer:
        raise ApiError(f"{method} {path}: the answer is not the API's; does Proxmox VE listen there?", 200)
    return answer["data"]


def _json(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _line(text: object) -> str:
    return " ".join(str(text).split())


def guest_text(text: str) -> str:
    """Decode output of a guest's command: the API shows its bytes as latin-1."""
    try:
        return text.encode("latin-1").decode(errors="replace")
    except UnicodeEncodeError:
        return text


CHUNK = 1 << 20


@dataclass(frozen=True)
class Upload:
    """The body of a request. `fields` are its other parameters, `filename` is what the file is to be called there."""

    file: Path
    filename: str
    fields: Mapping[str, str]
    boundary: str = field(default_factory=lambda: f"nixherd-{secrets.token_hex(16)}")

    @property
    def parameters(self) -> dict[str, list[str]]:
        """All that the request says, for whoever judges it."""
        return {**{key: [value] for key, value in self.fields.items()}, "filename": [self.filename]}

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self.boundary}"

    def __len__(self) -> int:
        return len(self._head) + self.file.stat().st_size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        with self.file.open("rb") as content:
            while chunk := content.read(CHUNK):
                yield chunk
        yield self._tail

    @property
    def _head(self) -> bytes:
        names = {**self.fields, "filename": self.filename}
        if any(set(text) & set('"\r\n') for text in names.values()):
            raise Usage(f"{self.filename}: this name cannot be sent; nothing was sent")
        parts = "".join(
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in self.fields.items()
        )
        last = f'Content-Disposition: form-data; name="filename"; filename="{self.filename}"'
        return f"{parts}--{self.boundary}\r\n{last}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()

    @property
    def _tail(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode()


class Calls:
    """The verbs of the API below /api2/json; parts of a path hold no slash.

    An answer that cannot be read is an ApiError that names the call.
    """

    token_id: str
    """`USER@REALM!TOKENID`, whose rights decide what is shown"""

    @abstractmethod
    def _ask(self, method: str, path: Sequence[object], parameters: Mapping[str, object] | Upload) -> Any:
        """Send one request through the guard, and return the data of its answer."""

    @contextmanager
    def _asked(self, method: str, path: Sequence[object], parameters: Mapping[str, object]) -> Iterator[Any]:
        """Send one request; what the block finds wrong with the answer is an ApiError that names the call.

        After a changing request that is OutcomeUnknown.
        """
        data = self._ask(method, path, parameters)
        try:
            yield data
        except UNFORESEEN as error:
            kind = ApiError if method == "GET" else OutcomeUnknown
            detail = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            why = f"the answer is not what Proxmox VE's is ({detail}); which version answers there?"
            raise kind(f"{method} /{'/'.join(map(str, path))}: {why}", 200) from error

    def _get(self, *path: object, **params: Any) -> AbstractContextManager[Any]:
        return self._asked("GET", path, params)

    def change(
        self, route: Route, names: Mapping[str, object], parameters: Mapping[str, object], *, at_once: bool = False
    ) -> Upid | None:
        """Send a request of the guard's table, `names` in its path. Returns the task that it began.

        None only with `at_once`, where the server has done it when it answers.
        """
        data = self._ask(route.method, route.filled(names), parameters)
        return None if data is None and at_once else upid_of(data)


def guest_path(node: str, vmid: int, type: GuestType) -> tuple[str, str, str, int]:
    return ("nodes", node, str(type), vmid)


def upid_of(data: object) -> Upid:
    """Parse the task in an answer. Raise ApiError when it does not name one."""
    try:
        return Upid.parse(str(data))
    except ValueError as error:
        raise ApiError(f"the server answered {data!r} where a task's UPID belongs; see its task list", 200) from error


class Tasks(Calls):
    def tasks(
        self,
        node: str,
        *,
        active: bool = True,
        type: str | None = None,
        vmid: int | None = None,
        limit: int = 50,
        errors: bool | None = None,
    ) -> tuple[Task, ...]:
        """Return rows of the node's task list, newest first: those that run, or those that ended."""
        source = "active" if active else "archive"
        parameters = {"source": source, "typefilter": type, "vmid": vmid, "limit": limit, "errors": errors}
        with self._get("nodes", node, "tasks", **parameters) as rows:
            tasks = [Task.of(row) for row in rows]
        return tuple(task for task in tasks if not active or task.status in (None, "RUNNING"))

    def last_task(self, node: str, vmid: int) -> Task | None:
        """Return the guest's newest task, running or not. A task that ends is archived a little later."""
        with self._get("nodes", node, "tasks", source="all", vmid=vmid, limit=50) as rows:
            return max(map(Task.of, rows), key=lambda task: (task.starttime, str(task.upid)), default=None)

    def task_status(self, upid: Upid) -> TaskStatus:
        with self._get("nodes", upid.node, "tasks", upid, "status") as data:
            exitstatus = data.get("exitstatus")
            return TaskStatus(data["status"] == "running", None if exitstatus is None else str(exitstatus))

    def task_log(self, upid: Upid) -> tuple[str, ...]:
        """Return all lines of the task's log; the first ones may come long before the last."""
        with self._get("nodes", upid.node, "tasks", upid, "log", limit=0) as rows:
            return tuple(str(row["t"]) for row in rows)
