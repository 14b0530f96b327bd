"""Users, tokens, roles and the access control list."""

import re
import uuid
from typing import Any

from lab.api.errors import ApiError, ParameterError
from lab.api.formats import split_list
from lab.api.permissions import User, builtin_roles, is_acl_path
from lab.api.routes import Call, route

_TOKEN = "/access/users/{userid}/token"
_CAPABILITIES = {
    "access": r"(User|Group)\.|Permissions\.Modify",
    "dc": r"Sys\.Audit|Sys\.Modify|SDN\.",
    "mapping": r"Mapping\.|Permissions\.Modify",
    "nodes": r"Sys\.|Permissions\.Modify",
    "sdn": r"SDN\.|Permissions\.Modify",
    "storage": r"Datastore\.|Permissions\.Modify",
    "vms": r"VM\.|Permissions\.Modify",
}
_PATHS = ("/", "/nodes", "/access/groups", "/vms", "/storage", "/sdn", "/mapping")


@route("POST", "/access/ticket")
def login(call: Call) -> Any:
    username = call.params["username"]
    if call.params.get("realm"):
        username = f"{username}@{call.params['realm']}"
    ticket, csrf = call.emulator.authenticator.login(call.emulator.state, username, call.params["password"])
    held = {privilege for path in _PATHS for privilege in call.emulator.permissions.privileges(User(username), path)}
    capabilities = {
        area: {privilege: 1 for privilege in sorted(held) if re.match(pattern, privilege)}
        for area, pattern in _CAPABILITIES.items()
    }
    return {"username": username, "ticket": ticket, "CSRFPreventionToken": csrf, "cap": capabilities}


@route("PUT", "/access/password")
def change_password(call: Call) -> Any:
    _user(call)["password"] = call.params["password"]


def _user(call: Call) -> dict[str, Any]:
    userid = call.params["userid"]
    users = call.emulator.state.users
    if userid not in users:
        raise ApiError(f"no such user ('{userid}')")
    return users[userid]


def _token(call: Call) -> dict[str, Any]:
    tokens: dict[str, dict[str, Any]] = _user(call).get("tokens", {})
    if call.params["tokenid"] not in tokens:
        raise ApiError(f"no such token '{call.params['tokenid']}' for user '{call.params['userid']}'")
    return tokens[call.params["tokenid"]]


def _shown(token: dict[str, Any]) -> dict[str, Any]:
    record = {"expire": int(token.get("expire") or 0), "privsep": int(token.get("privsep", 1))}
    return {**record, **({"comment": token["comment"]} if token.get("comment") else {})}


@route("GET", _TOKEN)
def tokens(call: Call) -> Any:
    return [{"tokenid": name, **_shown(token)} for name, token in _user(call).get("tokens", {}).items()]


@route("GET", f"{_TOKEN}/{{tokenid}}")
def token(call: Call) -> Any:
    return _shown(_token(call))


@route("POST", f"{_TOKEN}/{{tokenid}}")
def create_token(call: Call) -> Any:
    """Create a token; this is the only answer that contains its value."""
    known = _user(call).setdefault("tokens", {})
    name = call.params["tokenid"]
    if name in known:
        raise ParameterError({"tokenid": "Token already exists."})
    options: dict[str, Any] = {key: call.params[key] for key in ("comment", "expire", "privsep") if key in call.params}
    record = {"privsep": 1, **options}
    known[name] = {**record, "secret": str(uuid.uuid4())}
    info = {key: str(value) for key, value in record.items()}
    return {"full-tokenid": f"{call.params['userid']}!{name}", "info": info, "value": known[name]["secret"]}


@route("PUT", f"{_TOKEN}/{{tokenid}}")
def update_token(call: Call) -> Any:
    token = _token(call)
    token.update({key: call.params[key] for key in ("comment", "expire", "privsep") if key in call.params})
    return _shown(token)


@route("DELETE", f"{_TOKEN}/{{tokenid}}")
def delete_token(call: Call) -> Any:
    _token(call)
    del _user(call)["tokens"][call.params["tokenid"]]
    full = f"{call.params['userid']}!{call.params['tokenid']}"
    acl = call.emulator.state.acl
    acl[:] = [row for row in acl if row["ugid"] != full]


@route("GET", "/access/users")
def users(call: Call) -> Any:
    may = call.emulator.permissions.allowed(call.user, "/access/groups", ["User.Modify", "Sys.Audit"], any_of=True)
    return [
        {
            "userid": userid,
            "enable": int(record.get("enable", 1)),
            "expire": int(record.get("expire") or 0),
            "realm-type": userid.rpartition("@")[2],
            **{key: record[key] for key in ("comment", "email", "firstname", "lastname") if key in record},
        }
        for userid, record in call.emulator.state.users.items()
        if may or userid == call.user.name
    ]


@route("GET", "/access/users/{userid}")
def user(call: Call) -> Any:
    user = _user(call)
    shown = {key: user[key] for key in ("comment", "email", "firstname", "lastname") if key in user}
    tokens = {"tokens": {name: _shown(token) for name, token in user["tokens"].items()}} if user.get("tokens") else {}
    return {"enable": int(user.get("enable", 1)), "expire": int(user.get("expire") or 0), **shown, **tokens}


@route("GET", "/access/roles/{roleid}")
def role(call: Call) -> Any:
    known = call.emulator.permissions.roles()
    if call.params["roleid"] not in known:
        raise ApiError(f"role '{call.params['roleid']}' does not exist")
    return dict.fromkeys(sorted(known[call.params["roleid"]]), 1)


@route("GET", "/access/roles")
def roles(call: Call) -> Any:
    builtin = builtin_roles(call.emulator.state.version)
    everything = call.emulator.permissions.roles()
    return [
        {"roleid": name, "privs": ",".join(sorted(privs)), "special": int(name in builtin)}
        for name, privs in everything.items()
    ]


@route("GET", "/access/permissions")
def permissions(call: Call) -> Any:
    """List the caller's permissions and those of the caller's tokens; with Sys.Audit, those of another user.

    A token has no tokens of its own.
    """
    name = call.params.get("userid", call.user.name)
    userid, _, tokenid = name.partition("!")
    user = call.user
    if name != call.user.name:
        if userid != call.user.name:
            call.emulator.permissions.require(call.user, "/access", ["Sys.Audit"])
        record = call.emulator.state.users.get(userid, {}).get("tokens", {}).get(tokenid, {})
        user = User(userid, tokenid or None, bool(record.get("privsep", 1)))
    path = call.params.get("path")
    if path:
        return {path: dict(sorted(call.emulator.permissions.held(user, path).items()))}
    return call.emulator.permissions.effective(user)


@route("GET", "/access/acl")
def acl(call: Call) -> Any:
    allowed = call.emulator.permissions.allowed
    return [row for row in call.emulator.state.acl if allowed(call.user, row["path"], ["Permissions.Modify"])]


@route("PUT", "/access/acl")
def update_acl(call: Call) -> Any:
    state, params = call.emulator.state, call.params
    path = re.sub(r"/+", "/", params["path"]).rstrip("/") or "/"
    if not is_acl_path(path):
        raise ParameterError({"path": f"invalid ACL path '{params['path']}'"})
    known = call.emulator.permissions.roles()
    for role in split_list(params["roles"]):
        if role not in known:
            raise ApiError(f"ACL update failed: role '{role}' does not exist")
        for kind in ("user", "group", "token"):
            for ugid in split_list(params.get(f"{kind}s", "")):
                if kind == "user" and ugid not in state.users:
                    raise ApiError(f"ACL update failed: user '{ugid}' does not exist")
                row = {"path": path, "type": kind, "ugid": ugid, "roleid": role}
                state.acl[:] = [other for other in state.acl if any(other[key] != value for key, value in row.items())]
                if not params.get("delete"):
                    state.acl.append({**row, "propagate": int(params.get("propagate", 1))})
