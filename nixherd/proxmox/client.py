"""The one module that speaks HTTP to a hypervisor: a typed client of the Proxmox VE API, guarded in its session.

`connect` is the only way to a Client, and a policy is not optional. The session asks it about each request as
it stands on the wire, right before it is sent. proxmoxer's object stays inside.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import requests
from proxmoxer import ProxmoxAPI
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError

from nixherd.base.errors import AgentUnavailable, ApiError, OtherServer, OutcomeUnknown, Usage
from nixherd.fleet.models import DEFINITIONS, Endpoint
from nixherd.proxmox import wire
from nixherd.proxmox.calls import Agent, Guests, Storages
from nixherd.proxmox.guard.policy import Making, Policy, PolicySource
from nixherd.proxmox.token import Token, Trust, colons, trust
from nixherd.proxmox.wire import Tasks, Upload

__all__ = ["AgentUnavailable", "Client", "OutcomeUnknown", "connect"]

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 40.0  # pveproxy gives up on pvedaemon after 30 s
# Seconds between the tries of a call that the server says it could not hand on: nothing was done.
REFUSED_PAUSES: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)


def connect(endpoint: Endpoint, policy: Policy | PolicySource, token: Token) -> "Client":
    """Return a client of the API at `endpoint`; nothing is sent yet.

    Raises Refused when the token belongs to another server, FleetError when the CA file cannot be used. A source of
    policies is asked for its newest before each changing request.
    """
    return Client(endpoint, policy, token)


class _Adapter(HTTPAdapter):
    """HTTPS to a server known by CA, or by its certificate's SHA-256 fingerprint; nothing else is trusted."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self.fingerprint = trust.fingerprint
        super().__init__(pool_connections=1, pool_maxsize=100)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, _ = super().build_connection_pool_key_attributes(request, verify=True)
        return host, {"ssl_context": self._trust.context, "assert_fingerprint": self.fingerprint}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Set nothing: the context and the fingerprint decide, whatever a caller passes as `verify`."""


class _GuardedSession(requests.Session):
    """The session under proxmoxer: judges each request, sends it, and turns every failure into an ApiError."""

    def __init__(self, endpoint: Endpoint, policy: Policy | PolicySource, token: Token) -> None:
        adapter = _Adapter(trust(endpoint, token))  # first of all: for another server nothing is made
        super().__init__()
        self.accepted = 0
        self._pinned = adapter.fingerprint
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        self._origin = f"https://{host.lower()}:{endpoint.port}"
        self._endpoint = endpoint
        self._policy = policy
        self._known: Policy | None = None
        self.making: Making | None = None
        self._who = token.id
        self.trust_env = False  # no proxy, netrc or CA from the environment
        self.adapters.clear()
        self.mount("https://", adapter)
        self.headers["Authorization"] = f"PVEAPIToken={token.id}={token.secret}"
        self.headers["Accept"] = "application/json"

    def request(  # type: ignore[override]  # proxmoxer gives these four; what else requests takes is not wanted
        self, method: str, url: str, params: Any = None, data: Any = None
    ) -> requests.Response:
        """Send one call, and again where that is certain to do no harm.

        A GET is sent once more when the server hung up without an answer, as it sometimes does; any call while the
        server says that it could not hand it on to its daemon (595).
        """
        for pause in (*REFUSED_PAUSES, None):
            try:
                return self._once_or_read_again(method, url, params, data)
            except ApiError as error:
                if error.status != wire.NOT_ASKED or pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last try raises or returns")

    def _once_or_read_again(self, method: str, url: str, params: Any, data: Any) -> requests.Response:
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
                *(method, url, _form(params), data if isinstance(data, Upload) else _form(data)),
                headers={"Content-Type": data.content_type} if isinstance(data, Upload) else None,
                timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
                allow_redirects=False,
            )
        except requests.exceptions.SSLError as error:
            raise OtherServer(self._about_tls(str(error)), None) from error
        except requests.exceptions.RequestException as error:
            raise self._no_answer(method, path, error) from error
        except UnicodeEncodeError as error:
            raise Usage(f"{method} {path}: half a character ({error.reason}); nothing was sent") from error
        if response.status_code >= 300:
            raise wire.error_of(method, path, response.status_code, response.reason or "", response.content, self._who)
        if method != "GET":
            self.accepted += 1
        return response

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Judge a request right before the wire, redirects too: nothing passes that the policy does not know."""
        kwargs["allow_redirects"] = False
        path, params = wire.decode_request(
            str(request.method), str(request.url), request.headers, request.body, self._origin
        )
        changing = request.method != "GET"
        self._newest_policy(changing).check(str(request.method), path, wire.single(params))
        return super().send(request, **kwargs)

    def _newest_policy(self, changing: bool) -> Policy:
        """Return the policy that judges this request; only a changing one needs a newer one than the last."""
        if isinstance(self._policy, Policy):
            self._known = self._policy
        elif changing or self._known is None:
            self._known = self._policy.policy()
        return replace(self._known, making=self.making) if self.making else self._known

    def _no_answer(self, method: str, path: str, error: requests.exceptions.RequestException) -> ApiError:
        cause = error.args[0] if error.args else None
        if isinstance(error, requests.exceptions.ConnectTimeout) or isinstance(cause, MaxRetryError):
            why = "no answer" if isinstance(error, requests.exceptions.Timeout) else _root(error)
            return ApiError(
                f"cannot connect to {self._origin} ({why}); nothing was sent, is the node up and `proxmox.host` right?",
                None,
            )
        if isinstance(error, requests.exceptions.Timeout):
            late = f"{method} {path}: no answer within {READ_TIMEOUT:.0f} s"
            if method == "GET":
                return ApiError(f"{late}; try again", None)
            return OutcomeUnknown(f"{late}; look at the guest before trying again", None)
        return _HungUp(f"{method} {path}: the server hung up without an answer; look, then try again", None)

    def _about_tls(self, error: str) -> str:
        got = re.search(r'got "([0-9a-f]{64})"', error)
        where = f"{self._endpoint.host}:{self._endpoint.port}"
        if got:
            return (
                f"{where} shows a certificate with SHA-256 fingerprint {colons(got[1])}, the token's file says "
                f"{colons(self._pinned or '')}; nothing was sent: compare with `pvenode cert info` on the node itself, "
                "and if it was renewed, correct proxmox.fingerprint and run: nixherd token add --replace"
            )
        reason = re.search(r"(certificate verify failed: [^(']*)", error)
        return (
            f"{where}: {reason[1].strip() if reason else 'TLS failed: ' + error}; nothing was sent: set "
            f"proxmox.fingerprint (`pvenode cert info` on the node shows it) or proxmox.caFile in {DEFINITIONS}"
        )


class _HungUp(OutcomeUnknown):
    """The connection was closed where an answer should have come."""


def _root(error: BaseException) -> str:
    """Return the innermost reason of a failed connection: `Connection refused`."""
    text = str(error)
    match = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
    return match[1] if match else text


def _form(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return parameters as the server reads them: booleans as 1 and 0, what is None left out."""
    if not values:
        return None
    return {key: int(value) if isinstance(value, bool) else value for key, value in values.items() if value is not None}


class _Serializer:
    """Reads good answers for proxmoxer; its own turns an unreadable one into a value."""

    def loads(self, response: requests.Response) -> Any:
        request = response.request
        return wire.data_of(str(request.method), str(request.path_url).removeprefix(wire.PREFIX), response.content)


class Client(Guests, Storages, Tasks, Agent):
    """The API's verbs that are used, typed. Every method raises ApiError, and Refused where the policy says no."""

    def __init__(self, endpoint: Endpoint, policy: Policy | PolicySource, token: Token) -> None:
        if not isinstance(policy, (Policy, PolicySource)):
            raise TypeError("a Client needs a Policy: without one nothing may be sent")
        super().__init__()
        session = _GuardedSession(endpoint, policy, token)
        api = ProxmoxAPI(endpoint.host, port=endpoint.port, user=token.user, token_name=token.name, token_value="")
        api._store = {"base_url": session._origin + wire.PREFIX, "session": session, "serializer": _Serializer()}
        self.__api = api
        self.__session = session
        self._name = f"{endpoint.host}:{endpoint.port}"
        self.token_id = token.id
        self.under_way: set[str] = set()
        """the UPIDs of the tasks that somebody waits for, or stopped waiting for before they ended"""

    def __repr__(self) -> str:
        return f"Client({self._name} as {self.token_id})"

    @property
    def accepted_changes(self) -> int:
        """How many changing requests the server has taken so far; what came of each is another question."""
        return self.__session.accepted

    @contextmanager
    def making(self, template: int, trial: int | None = None) -> Iterator[None]:
        """Let the declared template be made meanwhile, and tried as the guest `trial`; the policy says what that is."""
        before, self.__session.making = self.__session.making, Making(template, trial)
        try:
            yield
        finally:
            self.__session.making = before

    def recount(self, by: int) -> None:
        """Correct the number of changes by `by`: one that is taken back, or one that a refused request left behind."""
        self.__session.accepted += by

    def _ask(self, method: str, path: Sequence[object], parameters: Mapping[str, object] | Upload) -> Any:
        if isinstance(parameters, Upload):
            url = f"{self.__session._origin}{wire.PREFIX}/{'/'.join(_parts(path))}"
            return _Serializer().loads(self.__session.request(method, url, None, parameters))
        return getattr(self.__api(_parts(path)), method.lower())(**parameters)


def _parts(path: Sequence[object]) -> list[str]:
    parts = [str(part) for part in path]
    for part in parts:
        if not part or "/" in part:
            raise Usage(f"{part!r} is not a name that the API could have; nothing was sent")
    return parts
