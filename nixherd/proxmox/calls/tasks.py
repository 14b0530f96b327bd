"""The nodes' tasks: lists, state and logs."""

from nixherd.proxmox.calls.base import Calls
from nixherd.proxmox.models import Task, TaskStatus, Upid


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
        """Rows of the node's task list, newest first: those that run, or those that ended."""
        source = "active" if active else "archive"
        rows = self._get(
            *("nodes", node, "tasks"), source=source, typefilter=type, vmid=vmid, limit=limit, errors=errors
        )
        tasks = (Task.of(row) for row in rows)
        return tuple(task for task in tasks if not active or task.status in (None, "RUNNING"))

    def last_task(self, node: str, vmid: int) -> Task | None:
        """What was begun on the guest last, whether it goes on or not. A task that ends is archived a little later."""
        rows = self._get("nodes", node, "tasks", source="all", vmid=vmid, limit=50)
        return max(map(Task.of, rows), key=lambda task: (task.starttime, str(task.upid)), default=None)

    def task_status(self, upid: Upid) -> TaskStatus:
        data = self._get("nodes", upid.node, "tasks", upid, "status")
        exitstatus = data.get("exitstatus")
        return TaskStatus(data["status"] == "running", None if exitstatus is None else str(exitstatus))

    def task_log(self, upid: Upid) -> tuple[str, ...]:
        """All lines of the task's log; the first ones may come long before the last."""
        return tuple(str(row["t"]) for row in self._get("nodes", upid.node, "tasks", upid, "log", limit=0))
