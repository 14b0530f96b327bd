"""A VM's configuration: reading it, changing it, pending changes."""

import re
import time
from dataclasses import replace
from typing import Any

from lab.api import options
from lab.api.changes import Change, prepared, require_storages
from lab.api.errors import ApiError, ParameterError
from lab.api.formats import split_list
from lab.api.routes import Call, route
from lab.api.snapshots import config_of, snapshot_of
from lab.api.state import Config, Vm
from lab.api.tasks import Task
from lab.api.volume_access import kind_of

_BASE = "/nodes/{node}/qemu/{vmid}"
_HIDDEN = "**********"


def shown(config: Config) -> Config:
    """Return the configuration as the API shows it, with the password hidden."""
    return {**config, "cipassword": _HIDDEN} if "cipassword" in config else dict(config)


@route("GET", f"{_BASE}/config")
def read(call: Call) -> Any:
    vm = call.emulator.state.vm(call.vmid)
    name = call.params.get("snapshot")
    if name:
        return {**shown(config_of(snapshot_of(vm, name))), "digest": vm.digest()}
    config = dict(vm.config if call.params.get("current") else vm.desired)
    lock = call.emulator.lock_of(vm)
    return {**shown(config), **({"lock": lock} if lock else {}), "digest": vm.digest()}


@route("GET", f"{_BASE}/pending")
def pending(call: Call) -> Any:
    vm = call.emulator.state.vm(call.vmid)
    now, waiting = shown(vm.config), shown(vm.pending)
    rows: list[dict[str, Any]] = [{"key": "digest", "value": vm.digest()}]
    for key in sorted(now.keys() | waiting.keys()):
        row: dict[str, Any] = {"key": key}
        if key in now:
            row["value"] = now[key]
        if key in waiting:
            row["pending"] = waiting[key]
        if key in vm.pending_delete:
            row["delete"] = 2 if key in vm.pending_force else 1
        rows.append(row)
    return rows


@route("PUT", f"{_BASE}/config")
def change(call: Call) -> Any:
    """Change the configuration synchronously."""
    request = Request(call)
    with call.emulator.locks.config(call.vmid):
        vm = request.checked_vm()
        request.apply(vm, lambda line: None)


@route("POST", f"{_BASE}/config")
def change_in_background(call: Call) -> Any:
    """Change the configuration in a worker; `background_delay` waits up to that many seconds for its end."""
    request = Request(call)
    with call.emulator.locks.config(call.vmid):
        request.checked_vm()

    def work(task: Task) -> None:
        task.write(f"update VM {call.vmid}: {request.description()}")
        with call.emulator.locks.config(call.vmid):
            try:
                request.apply(request.checked_vm(), task.write)
            except ParameterError as error:  # a task prints everything on one line
                why = "".join(f"{name}: {text}" for name, text in sorted(error.errors.items()))
                raise ApiError(f"400 {error.message} {why}".replace("\n", " ")) from error

    upid = call.emulator.tasks.start("qmconfig", call.vmid, call.user, work)
    task = call.emulator.tasks.by_upid[upid]
    deadline = time.monotonic() + float(call.params.get("background_delay") or 0)
    while time.monotonic() < deadline:
        if task.exitstatus == "OK":
            return None
        if task.exitstatus:
            raise ApiError(f"failed to update VM {call.vmid}: {task.exitstatus}")
        time.sleep(0.05)
    return upid


@route("PUT", f"{_BASE}/unlink")
def unlink(call: Call) -> Any:
    """Detach disks; with `force`, delete their volumes as well."""
    params = {**call.params, "delete": call.params["idlist"]}
    del params["idlist"]
    return change(replace(call, params=params))


class Request:
    """The changes that a call requests, checked as far as possible without the VM."""

    _META = (
        "node",
        "vmid",
        "digest",
        "delete",
        "revert",
        "skiplock",
        "background_delay",
        "force",
        "import-working-storage",
    )

    def __init__(self, call: Call) -> None:
        self.call = call
        self.values = {name: value for name, value in call.params.items() if name not in self._META}
        self.deletes = [self._full_name(name) for name in split_list(call.params.get("delete", ""))]
        self.reverts = split_list(call.params.get("revert", ""))
        self._check()

    @staticmethod
    def _full_name(name: str) -> str:
        return "ide2" if name == "cdrom" else name

    def _check(self) -> None:
        call = self.call
        if call.params.get("skiplock") and not call.user.is_root:
            raise ParameterError({"skiplock": "Only root may use this option."})
        if not (self.values or self.deletes or self.reverts or call.nulls):
            raise ApiError("no options specified")
        if self.values.get("sshkeys"):
            options.require_ssh_keys(self.values["sshkeys"])
        if self.values.get("hookscript"):
            _require_script(call, str(self.values["hookscript"]))
        for name in self.reverts:
            if not options.exists(call, name):
                raise ParameterError({"revert": f"unknown option '{name}'"})
            if name in self.values:
                raise ParameterError({"delete": f"you can't use '-{name}' and -revert {name}' at the same time"})
        for name in self.deletes:
            if name in self.values:
                raise ParameterError({"delete": f"you can't use '-{name}' and -delete {name}' at the same time"})
            if name in self.reverts:
                raise ParameterError({"revert": f"you can't use '-revert {name}' and -delete {name}' at the same time"})
            if not options.exists(call, name):
                raise ParameterError({"delete": f"unknown option '{name}'"})
        options.require_privileges(call, call.vmid, [*self.deletes, *self.reverts, *self.values])
        options.require_devices(call, self.values)
        require_storages(call, call.vmid, self.values)

    def checked_vm(self) -> Vm:
        """Return the VM if its configuration exists, matches the digest given and is not locked."""
        vm = self.call.emulator.state.vm(self.call.vmid)
        digest = self.call.params.get("digest")
        if digest and digest != vm.digest():
            raise ApiError("checksum mismatch (file change by other user?)")
        if not self.call.params.get("skiplock"):
            self.call.emulator.require_unlocked(vm)
        return vm

    def apply(self, vm: Vm, log: Any) -> None:
        change = Change(self.call, vm, log)
        values, deletes = change.reverted(self.reverts)
        change.delete([*deletes, *self.deletes], force=bool(self.call.params.get("force")))
        change.set({**prepared(self.call, self.values), **values})

    def description(self) -> str:
        """Return the change as the task's log prints it."""
        shown = {**self.values, **({"cipassword": "<hidden>"} if "cipassword" in self.values else {})}
        parts = [f"-{name} {_quoted(value)}" for name, value in sorted(shown.items())]
        parts += [
            f"-{verb} {','.join(names)}"
            for verb, names in (("delete", self.deletes), ("revert", self.reverts))
            if names
        ]
        return " ".join(parts)


def _require_script(call: Call, volid: str) -> None:
    """Require that a hook script is one of a storage's snippets."""
    if kind_of(volid) != "snippets":
        raise ParameterError({"hookscript": f"'{volid}' is not in the snippets directory\n"})
    if call.emulator.volumes.find(volid) is None:
        raise ParameterError({"hookscript": f"script '{volid}' does not exist\n"})


def _quoted(value: object) -> str:
    text = str(value)
    return text if re.fullmatch(r"[\w@%+=:,./;-]+", text) else "'" + text.replace("'", "'\\''") + "'"
