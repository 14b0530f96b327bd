"""One clone that shows whether an image will do: booted, asked through its agent, destroyed.

The clone's notes say what it is and under which VMID. What a killed run left is known by that, and removed by the next.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

from nixherd.errors import ApiError, FleetError
from nixherd.fleet.models import Fleet
from nixherd.poll import Backoff, poll
from nixherd.proxmox.answers import ExecResult
from nixherd.proxmox.client import Client
from nixherd.proxmox.errors import AgentUnavailable, NotVisible, OutcomeUnknown
from nixherd.proxmox.guest import tasks
from nixherd.proxmox.guest.identity import range_of
from nixherd.proxmox.guest.tasks import Progress
from nixherd.proxmox.steps import Clone, Destroy, Start, Stop
from nixherd.proxmox.template.spec import TemplateSpec
from nixherd.proxmox.wire import TRANSIENT

NEEDED = ("guest-exec", "guest-exec-status", "guest-file-open", "guest-file-read", "guest-file-close")
PAUSE = 1.0  # seconds between two questions to an agent that is on its way
_READY = ["cloud-init", "status", "--wait"]
_BY = "tried with token "
_SAID = 500  # with which the server passes on what an agent says of a command
# What comes of an answer that the server's daemon cannot write down: glib's quotation marks around a missing command.
_UNSPEAKABLE = "Broken pipe (596)"

T = TypeVar("T")


def left_behind(client: Client, fleet: Fleet, spec: TemplateSpec) -> tuple[dict[int, str], tuple[int, ...]]:
    """The trials of other operators, by VMID with their token, and the VMIDs of those that killed runs of ours left.

    Only what is as a run made it is a trial, in the range of trials: what somebody renamed or wrote on is his.
    """
    span = range_of(fleet, spec.trials)
    known = {vm.vmid for vm in fleet.vms.values()} | {spec.vmid}
    rows = [row for row in client.resources() if row.vmid in span and row.vmid not in known and row.node == spec.node]
    others = {row.vmid: who for row in rows if (who := _whose(client, spec, row.vmid)) is not None}
    ours = tuple(vmid for vmid, who in others.items() if who == client.token_id)
    return {vmid: who for vmid, who in others.items() if vmid not in ours}, ours


def _whose(client: Client, spec: TemplateSpec, vmid: int) -> str | None:
    """The token with which a trial was made; None for what is no trial (any more)."""
    try:
        config = client.config(spec.node, vmid)
    except NotVisible:  # ours could be seen
        return None
    if config is None or config.is_template or config.name != spec.trial_name:
        return None
    mark, *more = [line.strip() for line in config.description.strip().splitlines()] or [""]
    if mark != spec.trial_mark(vmid) or len(more) > 1 or not all(line.startswith(_BY) for line in more):
        return None
    return more[0].removeprefix(_BY) if more else client.token_id  # an older release did not say


def run(
    client: Client, spec: TemplateSpec, vmid: int, *, boots: float, timeout: float, progress: Progress
) -> list[str]:
    """Clone, boot, ask, destroy. What the image lacks, a line each; none when it will do. The clone is gone then."""
    with client.making(spec.vmid, vmid):
        notes = f"{spec.trial_mark(vmid)}\n{_BY}{client.token_id}"
        copy = (spec.trial_name, spec.vmid, spec.node, notes, spec.storage, spec.pool)
        tasks.carry_out(client, Clone(spec.node, vmid, *copy), timeout, progress)
        lacks: list[str] | None = None
        try:
            tasks.carry_out(client, Start(spec.node, vmid), timeout, progress)
            lacks = list(_lacks(client, spec, vmid, boots, progress))
        finally:
            try:
                remove(client, spec, vmid, timeout=timeout, progress=progress)
            except FleetError as error:
                if lacks:
                    raise FleetError(
                        f"the image will not do: {'; '.join(lacks)}; and its trial is not known to be gone: {error}"
                    ) from error
                if lacks is not None:
                    raise
                # what ended it is what to hear about
                progress(f"vm {vmid}, the trial, is not known to be gone: {error}")
        return lacks


def remove(client: Client, spec: TemplateSpec, vmid: int, *, timeout: float, progress: Progress) -> None:
    """Destroy a trial, and see that it is gone. FleetError when what is there is none."""
    with client.making(spec.vmid, vmid):
        if _whose(client, spec, vmid) != client.token_id:
            raise FleetError(
                f"vm {vmid} is no trial of ours of template {spec.vmid} (any more): its name or notes say so; it is "
                "left alone, look at it by hand"
            )
        status = client.status(spec.node, vmid)
        if status is not None and status.running:
            tasks.carry_out(client, Stop(spec.node, vmid), timeout, progress)
        tasks.carry_out(client, Destroy(spec.node, vmid), timeout, progress)
        if client.config(spec.node, vmid) is not None:
            raise FleetError(f"vm {vmid}, the trial, is still there although its removal ended well; remove it by hand")


def _lacks(client: Client, spec: TemplateSpec, vmid: int, boots: float, progress: Progress) -> Iterator[str]:
    """What the image lacks. Nothing is said of it that it did not say itself: what gets no answer is raised."""
    progress(f"waiting for the guest agent of vm {vmid}, {boots:.0f} s at most")
    info = _patiently(boots, lambda: client.agent_info(spec.node, vmid))
    if info is None:
        yield f"no guest agent answered within {boots:.0f} s of its first boot"
        return
    enabled = {str(row["name"]): bool(row.get("enabled", True)) for row in info.get("supported_commands", ())}
    barred = [name for name in NEEDED if enabled and not enabled.get(name, False)]
    if barred:
        yield f"its guest agent does not allow {', '.join(barred)}"
        return
    progress("waiting for cloud-init")
    try:
        done = _patiently(boots, lambda: _cloud_init(client, spec, vmid, boots))
    except ApiError as error:
        if error.status != _SAID or isinstance(error, OutcomeUnknown):
            raise
        yield f"cloud-init cannot be asked: {error}"
        return
    if done is None:
        yield f"its guest agent did not answer any more within {boots:.0f} s"
    elif done.exitcode not in (0, 2):  # 2: done, with recoverable errors
        yield f"cloud-init failed ({done.exitcode}): {' '.join((done.stdout or done.stderr).split())[:200]}"


def _cloud_init(client: Client, spec: TemplateSpec, vmid: int, boots: float) -> ExecResult:
    """What cloud-init says when it is done. ApiError of status 500 when the guest has none."""
    try:
        return client.agent_exec(spec.node, vmid, _READY, timeout=boots)
    except AgentUnavailable as error:
        if _UNSPEAKABLE not in str(error):
            raise
    client.agent_info(spec.node, vmid)  # it is not that nobody answers there
    try:
        return client.agent_exec(spec.node, vmid, _READY, timeout=boots)
    except AgentUnavailable as error:
        if _UNSPEAKABLE not in str(error):
            raise
        raise ApiError(f"{error}; is it installed?", _SAID) from error


def _patiently(boots: float, ask: Callable[[], T]) -> T | None:
    """What the agent answers; None when it answers nothing for so many seconds.

    OutcomeUnknown when it was the node that did not answer in the end: that says nothing of the image.
    """
    silence: AgentUnavailable | None = None
    for _ in poll(boots, Backoff(PAUSE, PAUSE)):
        try:
            return ask()
        except AgentUnavailable as error:
            silence = error
    if silence is not None and silence.status in TRANSIENT:
        raise OutcomeUnknown(f"whether the image will do is not known: {silence}", silence.status) from silence
    return None
