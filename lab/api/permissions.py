"""Permissions: roles, access control list, pools, and the checks that the schema names for each call."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.api.errors import ParameterError, PermissionDenied

if TYPE_CHECKING:
    from lab.api.state import State

_STORE_USER = ("Datastore.AllocateSpace", "Datastore.Audit")
_STORE_ADMIN = ("Datastore.Allocate", "Datastore.AllocateTemplate", *_STORE_USER)
_VM_CONFIG = tuple(
    f"VM.Config.{what}" for what in ("CDROM", "CPU", "Cloudinit", "Disk", "HWType", "Memory", "Network", "Options")
)
_AGENT = tuple(f"VM.GuestAgent.{what}" for what in ("Audit", "FileRead", "FileSystemMgmt", "FileWrite", "Unrestricted"))
_VM_ADMIN = (
    *("VM.Allocate", "VM.Audit", "VM.Backup", "VM.Clone", "VM.Console", "VM.Migrate", "VM.PowerMgmt"),
    *("VM.Snapshot", "VM.Snapshot.Rollback", *_VM_CONFIG),
)
_VM_USER = ("VM.Audit", "VM.Backup", "VM.Config.CDROM", "VM.Config.Cloudinit", "VM.Console", "VM.PowerMgmt")
_SYS_AUDIT = ("Sys.Audit", "Sys.Console", "Sys.Syslog")
_SDN = ("SDN.Allocate", "SDN.Audit", "SDN.Use")
_USERS = ("Group.Allocate", "Realm.AllocateUser", "User.Modify")
_POOL = ("Pool.Allocate", "Pool.Audit")
_AUDIT = ("Datastore.Audit", "Mapping.Audit", "Pool.Audit", "SDN.Audit", "Sys.Audit", "VM.Audit")
_ROOT_ONLY = (
    "Mapping.Modify",
    "Permissions.Modify",
    "Realm.Allocate",
    "Sys.AccessNetwork",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
)


def builtin_roles(version: int) -> dict[str, frozenset[str]]:
    """Return the predefined roles. Version 9 has the guest agent's privileges in place of VM.Monitor."""
    agent, replicate = (_AGENT, ("VM.Replicate",)) if version >= 9 else (("VM.Monitor",), ())
    vm_admin = (*_VM_ADMIN, *agent, *replicate)
    admin = (*_STORE_ADMIN, *_USERS, "Mapping.Audit", "Mapping.Use", *_POOL, *_SDN, *_SYS_AUDIT, *vm_admin)
    roles: dict[str, tuple[str, ...]] = {
        "Administrator": (*admin, *_ROOT_ONLY),
        "NoAccess": (),
        "PVEAdmin": admin,
        "PVEAuditor": (*_AUDIT, *(("VM.GuestAgent.Audit",) if version >= 9 else ())),
        "PVEDatastoreAdmin": _STORE_ADMIN,
        "PVEDatastoreUser": _STORE_USER,
        "PVEMappingAdmin": ("Mapping.Audit", "Mapping.Modify", "Mapping.Use"),
        "PVEMappingUser": ("Mapping.Audit", "Mapping.Use"),
        "PVEPoolAdmin": _POOL,
        "PVEPoolUser": ("Pool.Audit",),
        "PVESDNAdmin": _SDN,
        "PVESDNUser": ("SDN.Audit", "SDN.Use"),
        "PVESysAdmin": _SYS_AUDIT,
        "PVETemplateUser": ("VM.Audit", "VM.Clone"),
        "PVEUserAdmin": _USERS,
        "PVEVMAdmin": vm_admin,
        "PVEVMUser": (*_VM_USER, *(_AGENT[:4] if version >= 9 else ())),
    }
    return {name: frozenset(privileges) for name, privileges in roles.items()}


@dataclass(frozen=True)
class User:
    """The caller. `token` is the name of the API token, None with a ticket."""

    userid: str
    token: str | None = None
    privsep: bool = False

    @property
    def name(self) -> str:
        """The name in tasks and logs."""
        return f"{self.userid}!{self.token}" if self.token else self.userid

    @property
    def is_root(self) -> bool:
        """Whether this is root@pam itself; its tokens are not."""
        return self.name == "root@pam"


class Permissions:
    """Evaluates permissions on one state."""

    def __init__(self, state: "State") -> None:
        self._state = state

    def roles(self) -> dict[str, frozenset[str]]:
        """All roles, including custom ones."""
        return {
            **builtin_roles(self._state.version),
            **{name: frozenset(privs) for name, privs in self._state.roles.items()},
        }

    def _roles_of(self, name: str, path: str) -> dict[str, int]:
        """Return the roles that the ACL gives to a user or token, and whether they apply below the path as well.

        Nearer paths override farther ones, NoAccess overrides all others.
        """
        if name == "root@pam":
            return {"Administrator": 1}
        kind = "token" if "!" in name else "user"
        roles: dict[str, int] = {}
        for prefix in _prefixes(path):
            rows = [
                row for row in self._state.acl if row["path"] == prefix and row["type"] == kind and row["ugid"] == name
            ]
            here = {row["roleid"]: int(row.get("propagate", 1)) for row in rows}
            roles = {role: on for role, on in here.items() if prefix == path or on} or roles
        return {"NoAccess": roles["NoAccess"]} if "NoAccess" in roles else roles

    def _of(self, name: str, path: str) -> dict[str, int]:
        roles = self._roles_of(name, path)
        if "NoAccess" not in roles:
            for pool in self._pools_of(path):
                # Rights through a pool never propagate below its members.
                roles = {**dict.fromkeys(self._roles_of(name, f"/pool/{pool}"), 0), **roles}
        known, held = self.roles(), dict[str, int]()
        for role in roles.keys() - {"NoAccess"}:
            for privilege in known.get(role, ()):
                held[privilege] = held.get(privilege, 0) or roles[role]
        return held

    def _pools_of(self, path: str) -> list[str]:
        _, _, kind = path.partition("/")
        kind, _, name = kind.partition("/")
        if kind == "vms":
            return [
                pool for pool, record in list(self._state.pools.items()) if name in map(str, record.get("members", []))
            ]
        if kind == "storage":
            return [pool for pool, record in list(self._state.pools.items()) if name in record.get("storages", [])]
        return []

    def held(self, user: User, path: str) -> dict[str, int]:
        """Return the privileges at a path: 1 if they propagate below the path, otherwise 0."""
        granted = self._of(user.userid, path)
        if not (user.token and user.privsep):
            return granted
        separate = self._of(user.name, path)
        return {privilege: granted[privilege] & separate[privilege] for privilege in granted.keys() & separate.keys()}

    def privileges(self, user: User, path: str) -> set[str]:
        """Return the privileges at a path."""
        return set(self.held(user, path))

    def allowed(self, user: User, path: str, privileges: Sequence[str], *, any_of: bool = False) -> bool:
        held = self.privileges(user, path)
        return any(p in held for p in privileges) if any_of else all(p in held for p in privileges)

    def require(self, user: User, path: str, privileges: Sequence[str], *, any_of: bool = False) -> None:
        """Raise PermissionDenied naming the missing privilege: the first of all, or any of them."""
        held = self.privileges(user, path)
        if any_of:
            if not held.intersection(privileges):
                raise PermissionDenied(f"{path}, {'|'.join(privileges)}")
            return
        for privilege in privileges:
            if privilege not in held:
                raise PermissionDenied(f"{path}, {privilege}")

    def require_pool(self, pool: str) -> None:
        if pool not in self._state.pools:
            raise PermissionDenied(f"pool '{pool}' does not exist")

    def effective(self, user: User) -> dict[str, dict[str, int]]:
        """Return GET /access/permissions: the privileges at every referenced path, without empty ones."""
        paths = {"/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms"}
        paths.update(row["path"] for row in self._state.acl)
        for pool, record in list(self._state.pools.items()):
            paths.add(f"/pool/{pool}")
            paths.update(f"/vms/{vmid}" for vmid in record.get("members", []))
            paths.update(f"/storage/{storage}" for storage in record.get("storages", []))
        by_path = {path: self.held(user, path) for path in sorted(paths)}
        return {path: dict(sorted(held.items())) for path, held in by_path.items() if held}

    def check_call(self, user: User, permissions: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Run the check that the schema names for a call; raises PermissionDenied."""
        if user.is_root or permissions.get("user") in ("all", "world"):
            return
        if "check" not in permissions:
            raise PermissionDenied("user != root@pam")
        self._check(user, permissions["check"], params)

    def _check(self, user: User, check: Sequence[Any], params: Mapping[str, Any]) -> None:
        verb, *rest = check
        if verb == "and":
            for part in rest:
                self._check(user, part, params)
        elif verb == "or":
            self._any(user, rest, params)
        elif verb == "perm":
            self._perm(user, rest, params)
        elif verb == "perm-modify":
            self._perm_modify(user, _filled(rest[0], params))
        elif verb == "userid-group":
            if not self.allowed(user, "/access/groups", rest[0], any_of=True):
                raise PermissionDenied
        elif verb == "userid-param":
            # A token is not its user, so it may not look at itself.
            if rest[0] == "self" and user.name == params.get("userid"):
                return
            realm = str(params.get("userid", "")).rpartition("@")[2]
            if rest[0] == "self" or not self.allowed(user, f"/access/realm/{realm}", [rest[0]]):
                raise PermissionDenied()
        else:
            raise PermissionDenied()

    def _any(self, user: User, checks: Sequence[Sequence[Any]], params: Mapping[str, Any]) -> None:
        for check in checks:
            try:
                return self._check(user, check, params)
            except PermissionDenied:
                continue
        raise PermissionDenied()

    def _perm(self, user: User, rest: Sequence[Any], params: Mapping[str, Any]) -> None:
        path, privileges, *pairs = rest
        options = dict(zip(pairs[::2], pairs[1::2], strict=True))
        if "require_param" in options and not params.get(options["require_param"]):
            raise PermissionDenied()
        self.require(user, _filled(path, params), privileges, any_of=bool(options.get("any")))

    def _perm_modify(self, user: User, path: str) -> None:
        if not is_acl_path(path):
            raise ParameterError({"path": f"invalid ACL path '{path}'"})
        privilege = {"storage": "Datastore.Allocate", "vms": "VM.Allocate", "pool": "Pool.Allocate"}.get(
            path.split("/")[1]
        )
        privileges = ["Permissions.Modify", *([privilege] if privilege and path.count("/") > 1 else [])]
        self.require(user, path, privileges, any_of=True)


def _prefixes(path: str) -> Iterator[str]:
    """List the path and its parents, starting at the root."""
    yield "/"
    parts = [part for part in path.split("/") if part]
    for length in range(1, len(parts) + 1):
        yield "/" + "/".join(parts[:length])


def _filled(path: str, params: Mapping[str, Any]) -> str:
    for name, value in params.items():
        path = path.replace(f"{{{name}}}", str(value))
    return path


_ACL_ROOTS = {"access", "mapping", "nodes", "pool", "sdn", "storage", "vms"}


def is_acl_path(path: str) -> bool:
    """Return whether the access control list accepts this path."""
    return path == "/" or (path.startswith("/") and path.split("/")[1] in _ACL_ROOTS)
