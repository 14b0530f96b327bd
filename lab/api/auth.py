"""Authentication: API tokens, tickets and CSRF prevention tokens."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from urllib.parse import unquote

from lab.api.errors import ApiError
from lab.api.permissions import User
from lab.api.state import State

TICKET_SECONDS = 2 * 60 * 60
# Refusals are delayed to slow down guessing.
REFUSAL_SECONDS = 3.0
_TOKEN = re.compile(r"PVEAPIToken(?:=| )(?P<userid>[^!]+)!(?P<token>[A-Za-z][A-Za-z0-9.\-_]+)=(?P<secret>.+)")
_COOKIE = re.compile(r"(?:^|;\s*)PVEAuthCookie=([^;]*)")


class Refused(ApiError):
    """401 with an empty body, after a delay."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, 401, body="", delay=REFUSAL_SECONDS)


class Authenticator:
    """Checks credentials against the users of a state. Tickets are signed with a key of this process."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def authenticate(self, state: State, method: str, headers: Mapping[str, str]) -> User:
        """Return the user of a request; raises Refused if there is none."""
        authorization = headers.get("Authorization", "")
        if authorization:
            return self._by_token(state, unquote(authorization))
        cookie = _COOKIE.search(headers.get("Cookie", ""))
        if not cookie:
            raise Refused("No ticket")
        userid = self._by_ticket(state, unquote(cookie[1]))
        if userid is None:
            raise Refused("Authentication failed!")
        if method not in ("GET", "HEAD") and not self._csrf_valid(
            state, userid, headers.get("CSRFPreventionToken", "")
        ):
            raise Refused("Permission denied - invalid csrf token")
        return User(userid)

    def login(self, state: State, username: str, password: str) -> tuple[str, str]:
        """Return a ticket and its token for a password or a valid ticket. Raises ApiError 401 after a delay."""
        record = state.users.get(username, {})
        good = self._by_ticket(state, password) == username if password.startswith("PVE:") else False
        if record and record.get("password") is not None:
            good = good or hmac.compare_digest(str(record["password"]), password)
        if not good or not _is_active(state, record):
            raise ApiError("authentication failure", 401, delay=REFUSAL_SECONDS)
        stamp = f"{state.clock.seconds():08X}"
        return (
            f"PVE:{username}:{stamp}::{self._sign(username, stamp)}",
            f"{stamp}:{self._sign('csrf', username, stamp)}",
        )

    def _sign(self, *parts: str) -> str:
        return base64.b64encode(hmac.digest(self._key, ":".join(parts).encode(), hashlib.sha256) * 8).decode()

    def _by_token(self, state: State, authorization: str) -> User:
        match = _TOKEN.fullmatch(authorization)
        record = state.users.get(match["userid"], {}) if match else {}
        token = record.get("tokens", {}).get(match["token"]) if match else None
        if not match or not token or not _is_active(state, record) or not _is_active(state, token):
            raise Refused("Authentication failed!")
        if not hmac.compare_digest(str(token["secret"]).encode(), match["secret"].encode()):
            raise Refused("Authentication failed!")
        return User(match["userid"], match["token"], bool(token.get("privsep", 1)))

    def _by_ticket(self, state: State, ticket: str) -> str | None:
        match = re.fullmatch(r"PVE:([^:]+):([0-9A-F]{8})::(.+)", ticket)
        if not match or not hmac.compare_digest(self._sign(match[1], match[2]), match[3]):
            return None
        age = state.clock.seconds() - int(match[2], 16)
        return match[1] if age < TICKET_SECONDS and _is_active(state, state.users.get(match[1], {})) else None

    def _csrf_valid(self, state: State, userid: str, token: str) -> bool:
        stamp, _, signature = token.partition(":")
        if not re.fullmatch(r"[0-9A-F]{8}", stamp) or state.clock.seconds() - int(stamp, 16) >= TICKET_SECONDS:
            return False
        return hmac.compare_digest(self._sign("csrf", userid, stamp).encode(), signature.encode())


def _is_active(state: State, record: Mapping[str, object]) -> bool:
    """Return whether a user or token is enabled and has not expired."""
    expire = int(str(record.get("expire") or 0))
    return bool(record) and bool(record.get("enable", 1)) and (not expire or expire > state.clock.seconds())
