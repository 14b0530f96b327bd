"""The declared template, made: observed first, tried by one clone that boots, and only then made a template.

A template that is there is never changed. What an earlier run left unfinished is known by the line in its notes, and
gone on with: until it is a template nobody clones it. Each step is seen before the next one begins.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

from nixherd.base.errors import FleetError, FleetInvalid, Refused, TaskFailed
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType
from nixherd.proxmox.answers import Pending, Permissions, Task
from nixherd.proxmox.belongings import belongings, owner
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest import tasks
from nixherd.proxmox.guest.aftermath import UNKNOWN
from nixherd.proxmox.guest.identity import next_vmid, range_of
from nixherd.proxmox.guest.observe import observe_template
from nixherd.proxmox.guest.storages import require_place
from nixherd.proxmox.guest.tasks import Progress, stands
from nixherd.proxmox.preflight import template_findings
from nixherd.proxmox.steps import Create, Destroy, MakeTemplate
from nixherd.proxmox.template.image import (
    MADE_OF,
    Image,
    TemplateSpec,
    bring,
    image_of,
    remove_trial,
    trials_left,
    try_out,
)

HOW = (
    "make one that has it (`virt-customize -a FILE.qcow2 --install cloud-init,qemu-guest-agent`) and give that: "
    "nixherd template create --from FILE.qcow2"
)
_OF_TRIALS = ("qmstart", "qmstop", "qmdestroy")
_STARTS = ("qmstart", "qmresume", "qmreboot", "qmrollback")
_EARLIER = ("qmcreate", "qmclone", "qmtemplate", *_OF_TRIALS)


class State(Enum):
    """How far the template is. `STALE`: an unfinished one of ours, made of another image or otherwise."""

    NOTHING = auto()
    STALE = auto()
    UNFINISHED = auto()
    FINISHED = auto()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now: `leftovers` are the trials of killed runs."""

    state: State
    image: Image | None = None
    trial: int | None = None
    leftovers: tuple[int, ...] = ()

    def steps(self, spec: TemplateSpec) -> Iterator[str]:
        """Yield the steps as they are reported."""
        for vmid in self.leftovers:
            yield f"destroy vm {vmid}, the trial of a run that was killed"
        if self.state is State.FINISHED:
            return
        if self.state is State.STALE:
            yield f"destroy vm {spec.vmid}, unfinished and made of something else"
        if self.image and self.state is not State.UNFINISHED:
            if self.image.sha256:
                source = spec.source.url or f"{spec.source.file}"
                yield f"bring {source} to {self.image.volume} (SHA-256 {self.image.sha256[:16]}…)"
            where = f"{spec.bios}, its disk from {self.image.volume} on {spec.storage}"
            yield f"create vm {spec.vmid} ({spec.name}): {where}"
        yield f"try it: clone it to vm {self.trial}, boot that, ask its agent, destroy it"
        yield f"convert vm {spec.vmid} to a template, for good"


def plan(client: Client, fleet: Fleet, spec: TemplateSpec) -> Plan:
    """Plan what is left to do; only GETs are sent.

    Raise Refused where somebody else's guest is in the way, FleetInvalid with every right that the token lacks.
    """
    state = _state(client, fleet, spec)
    others, leftovers = trials_left(client, fleet, spec)
    if state is State.FINISHED:
        return Plan(state, leftovers=leftovers)
    for vmid, who in others.items():
        raise Refused(
            f"vm {vmid} is a trial of template {spec.vmid} which token {who} makes; wait until that has ended, or "
            f"when nothing of it runs, see to it by hand (`qm destroy {vmid}`)"
        )
    require_place(client, spec.node, spec.storage, "images")
    image = image_of(client, spec)
    config = client.config(spec.node, spec.vmid) if state is State.UNFINISHED else None
    if config is not None and not is_made_of(spec, config, image.volume):
        state = State.STALE
    vmid = next_vmid(client, fleet, spec.trials)
    if lacking := list(missing_rights(client.permissions(), spec, vmid, image, client.version().major)):
        raise FleetInvalid(lacking)
    return Plan(state, image, vmid, leftovers)


def create(
    client: Client, fleet: Fleet, spec: TemplateSpec, *, timeout: float, boots: float, progress: Progress
) -> list[str]:
    """Carry the plan out and return its steps. `boots` is how many seconds a clone may take until it answers.

    Raise FleetError when the image is unfit: then only the image is left. What came to an unknown end says what exists.
    """
    tried = list[int]()
    try:
        return _create(client, fleet, spec, tried, timeout=timeout, boots=boots, progress=progress)
    except UNKNOWN as error:
        words = (_stands(client, spec.node, vmid) for vmid in (spec.vmid, *tried))
        error.args = (f"{error}; {', '.join(words)}; run again to go on", *error.args[1:])
        raise


def _create(
    client: Client,
    fleet: Fleet,
    spec: TemplateSpec,
    tried: list[int],
    *,
    timeout: float,
    boots: float,
    progress: Progress,
) -> list[str]:
    """Carry the plan out; VMIDs of clones that are made or removed to try the image are added to `tried`."""
    _await_earlier(client, fleet, spec, timeout, progress)
    todo = plan(client, fleet, spec)
    tried += todo.leftovers
    for vmid in todo.leftovers:
        remove_trial(client, spec, vmid, timeout=timeout, progress=progress)
    if todo.state is State.FINISHED:
        return list(todo.steps(spec))
    assert todo.trial is not None
    with client.making(spec.vmid):
        if todo.state is State.STALE:
            _remove(client, fleet, spec, timeout, progress)
        if todo.image and todo.state is not State.UNFINISHED:
            if todo.image.sha256:
                bring(client, spec, todo.image, timeout, progress)
            values = options(spec, todo.image.volume)
            tasks.carry_out(client, Create(spec.node, spec.vmid, spec.name, values), timeout, progress)
        _require_unfinished(client, fleet, spec)
    tried.append(todo.trial)
    lacks = try_out(client, spec, todo.trial, boots=boots, timeout=timeout, progress=progress)
    with client.making(spec.vmid):
        if lacks:
            why = f"the image will not do: {'; '.join(lacks)}"
            try:
                _remove(client, fleet, spec, timeout, progress)
            except FleetError as error:
                raise FleetError(f"{why}; and vm {spec.vmid} is not known to be gone: {error}") from error
            raise FleetError(f"{why}; vm {spec.vmid} was removed again; {HOW}")
        _require_unfinished(client, fleet, spec)
        tasks.carry_out(client, MakeTemplate(spec.node, spec.vmid), timeout, progress)
    if findings := list(template_findings(fleet, observe_template(client, fleet))):
        raise FleetError("; ".join(findings))
    return list(todo.steps(spec))


def _stands(client: Client, node: str, vmid: int) -> str:
    """Describe a VM of ours as it is now."""
    try:
        config = client.config(node, vmid)
        status = client.status(node, vmid) if config else None
    except FleetError as error:
        return f"whether vm {vmid} is there now is not known ({error})"
    if config is None:
        return f"vm {vmid} is not there now"
    what = "is a template" if config.is_template else stands(status)
    return f"now vm {vmid} ({config.name or 'without a name'}) {what}"


def options(spec: TemplateSpec, volume: str) -> dict[str, object]:
    """Return the VM's options as the API takes them: what docs/proxmox.md asks of a template."""
    storage = spec.storage
    firmware: dict[str, object] = {"bios": "seabios"}
    if spec.bios == "ovmf":
        # without Secure Boot's keys, which would stop kexec and an unsigned boot loader
        keys = f"{storage}:1,efitype=4m,pre-enrolled-keys=0"
        firmware = {"bios": "ovmf", "machine": "q35", "efidisk0": keys}
    values = {
        "name": spec.name,
        "description": spec.notes(volume),
        "ostype": "l26",
        "cores": spec.cores,
        "memory": str(spec.memory),
        "agent": "enabled=1",
        "scsihw": "virtio-scsi-single",
        "scsi0": f"{storage}:0,import-from={volume}",
        "ide2": f"{storage}:cloudinit",
        "boot": "order=scsi0",
        "serial0": "socket",
        "net0": f"virtio,bridge={spec.bridge}",
        "ipconfig0": "ip=dhcp",
        "ciupgrade": False,
        "pool": spec.pool,
        **firmware,
    }
    return {key: value for key, value in values.items() if value is not None}


def _state(client: Client, fleet: Fleet, spec: TemplateSpec) -> State:
    where = f"vm {spec.vmid} on {spec.node}"
    config = observe_template(client, fleet)
    if config is None:
        if not client.is_free(spec.vmid):
            raise Refused(f"VMID {spec.vmid} is taken, elsewhere in the cluster; correct `template` in {DEFINITIONS}")
        return State.NOTHING
    if config.is_template:
        if findings := list(template_findings(fleet, config)):
            raise Refused(f"{where} is a template already, which is never changed: {'; '.join(findings)}")
        return State.FINISHED
    if not is_unfinished(spec, config):
        raise Refused(
            f"{where} ({config.name or 'without a name'}) exists, is not a template and was not made by "
            f"`nixherd template create`; give `template` another VMID in {DEFINITIONS}, or see to it by hand"
        )
    if config.lock:
        raise FleetError(f"{where}, our unfinished template, is locked ({config.lock}); run again when nobody holds it")
    if why := foreign_notes(spec, config):
        raise Refused(
            f"{where}, our unfinished template, is in somebody's hands: {why}; take that out of its notes, or remove "
            f"it (`qm destroy {spec.vmid}`), and run again"
        )
    if config.flag("protection"):
        raise Refused(
            f"{where}, our unfinished template, is protected, and so would its trial be; lift that "
            f"(`qm set {spec.vmid} --protection 0`) and run again"
        )
    status = client.status(spec.node, spec.vmid)
    if status is None:
        raise FleetError(f"{where}, our unfinished template, was there and is not any more; run again")
    if status.running:
        raise Refused(
            f"{where}, our unfinished template, {tasks.stands(status)}: somebody started it, so what its disk holds "
            f"is not an image any more; remove it (`qm stop {spec.vmid} && qm destroy {spec.vmid}`), and run again"
        )
    if other := _started(client, spec):
        raise Refused(
            f"{where}, our unfinished template, was started since it was made ({other.type} of {other.user}, "
            f"{other.upid}), so what its disk holds is not an image any more; remove it (`qm destroy {spec.vmid}`), "
            "and run again"
        )
    now = client.config(spec.node, spec.vmid, current=True) or config
    if others := foreign(spec, now, client.pending(spec.node, spec.vmid)):
        raise Refused(
            f"{where}, our unfinished template, has drives that are not its own: {', '.join(others)}; "
            f"somebody attached them, detach them by hand (`qm set {spec.vmid} --delete DRIVE`) and run again"
        )
    if lacks := unfit(fleet, config):
        raise Refused(
            f"{where}, our unfinished template, is not as it was made: {'; '.join(lacks)}; mend that, or remove it "
            f"(`qm destroy {spec.vmid}`), and run again"
        )
    return State.UNFINISHED


def _started(client: Client, spec: TemplateSpec) -> Task | None:
    """Return the visible task that started the VM since it was last made; no run of ours does that."""
    for task in client.tasks(spec.node, active=False, vmid=spec.vmid):
        if task.type == "qmcreate":
            return None
        if task.type in _STARTS:
            return task
    return None


def _require_unfinished(client: Client, fleet: Fleet, spec: TemplateSpec) -> None:
    """Require our unfinished VM: requests without a digest are checked right before they are sent."""
    if (state := _state(client, fleet, spec)) is not State.UNFINISHED:
        raise FleetError(f"vm {spec.vmid} is not the one that was made ({state.name.lower()}); look at it by hand")


def _remove(client: Client, fleet: Fleet, spec: TemplateSpec, timeout: float, progress: Progress) -> None:
    _require_unfinished(client, fleet, spec)
    tasks.carry_out(client, Destroy(spec.node, spec.vmid), timeout, progress)


def _await_earlier(client: Client, fleet: Fleet, spec: TemplateSpec, timeout: float, progress: Progress) -> None:
    """Wait for what a killed run began and the server goes on with: until that ends nothing of it has a name."""
    for task in client.tasks(spec.node):
        vmid = int(task.id) if task.id.isdecimal() else 0
        is_ours = vmid == spec.vmid or (vmid in range_of(fleet, spec.trials) and task.type in _OF_TRIALS)
        if task.user == client.token_id and task.type in _EARLIER and is_ours:
            progress(f"waiting for {task.upid}, which an earlier run began")
            with suppress(TaskFailed):  # what came of it is looked at, not remembered
                tasks.wait(client, task.upid, timeout, progress)


_GUEST_RIGHTS = (
    *("VM.Allocate", "VM.Audit", "VM.Clone", "VM.PowerMgmt"),
    *(f"VM.Config.{what}" for what in ("CPU", "Memory", "Options", "Disk", "Network", "HWType", "Cloudinit")),
)


def missing_rights(
    permissions: Permissions, spec: TemplateSpec, trial: int, image: Image | None, major: int
) -> Iterator[str]:
    """Yield a line for each path with the rights that the token lacks there.

    `image` has to be brought or imported; `major` is of the server's version. With a pool its path counts: the rights
    on the two guests go with them.
    """
    agent = "VM.GuestAgent.Unrestricted" if major >= 9 else "VM.Monitor"
    guests = [f"/pool/{spec.pool}"] if spec.pool else [f"/vms/{spec.vmid}", f"/vms/{trial}"]
    needs: list[tuple[str, Sequence[str]]] = [(path, (*_GUEST_RIGHTS, agent)) for path in guests]
    needs.append((f"/storage/{spec.storage}", ("Datastore.AllocateSpace",)))
    needs.append((f"/sdn/zones/localnetwork/{spec.bridge}", ("SDN.Use",)))
    if image and image.sha256:
        needs.append((f"/storage/{image.storage}", ("Datastore.AllocateTemplate",)))
        cluster = permissions.allows("/", "Sys.Audit") and permissions.allows("/", "Sys.Modify")
        if spec.source.url and not cluster:
            needs.append((f"/nodes/{spec.node}", ("Sys.AccessNetwork",)))
    for path, privileges in needs:
        if lacking := [each for each in privileges if not permissions.allows(path, each)]:
            yield (
                f"the API token lacks {', '.join(lacking)} on {path}; docs/proxmox.md has the recipe for making a "
                "template, or name another token's file with --token-file"
            )


def is_unfinished(spec: TemplateSpec, config: VmConfig) -> bool:
    """Tell whether an earlier run of ours made this, and was killed before it was a template."""
    lines = map(str.strip, config.description.splitlines())
    return not config.is_template and config.name == spec.name and spec.mark in lines


def is_made_of(spec: TemplateSpec, config: VmConfig, volume: str) -> bool:
    """Tell whether it was made of this image and as the specification says now."""
    return _notes(config) == spec.notes(volume).splitlines()


def foreign_notes(spec: TemplateSpec, config: VmConfig) -> str:
    """Return what its notes say that no run of ours wrote, or lack; empty where a run wrote them."""
    lines = _notes(config)
    more = [line for line in lines if line != spec.mark and not line.startswith(MADE_OF)]
    if more:
        return f"its notes say {more[0]!r}"
    made = [line for line in lines if line.startswith(MADE_OF)]
    return "" if lines == [spec.mark, *made] and len(made) == 1 else "its notes were changed"


def _notes(config: VmConfig) -> list[str]:
    return [line.strip() for line in config.description.strip().splitlines() if line.strip()]


def foreign(spec: TemplateSpec, config: VmConfig, pending: Iterable[Pending]) -> list[str]:
    """Return the drives that hold another guest's volume: a conversion would rename it.

    `config` is without what is `pending`. A volume whose name does not tell whose it is counts as somebody else's.
    """
    parts = belongings(GuestType.QEMU, spec.vmid, config, pending=pending)
    others = [f"{part.name} {part.volume}" for part in parts.parts if owner(part.volume or "") != spec.vmid]
    return [*map(str, parts.stays), *others]


def unfit(fleet: Fleet, config: VmConfig) -> list[str]:
    """Return what it would lack as a template: checked before the conversion, which cannot be undone."""
    return list(template_findings(fleet, VmConfig({**config.values, "template": 1})))
