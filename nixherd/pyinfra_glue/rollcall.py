"""Who answers: known before the first of them is asked anything, so that what is needed for all can begin early."""

import threading
from collections.abc import Callable, Collection


class RollCall:
    """Waits until it is known of each host whether anything answers there, and then begins with those where it does.

    `begin` is called once, with their ids in order, by whoever reports the last one.
    """

    def __init__(self, hosts: Collection[str], begin: Callable[[tuple[str, ...]], None]) -> None:
        self._awaited, self._present, self._begin = set(hosts), set[str](), begin
        self._guard = threading.Lock()

    def report(self, host_id: str, *, present: bool) -> None:
        """What is known of a host; the first report of it counts."""
        with self._guard:
            if host_id not in self._awaited:
                return
            self._awaited.remove(host_id)
            if present:
                self._present.add(host_id)
            is_last = not self._awaited
        if is_last and self._present:
            self._begin(tuple(sorted(self._present)))
