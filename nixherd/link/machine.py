"""A machine that is asked over a link."""

from dataclasses import replace

from nixherd.base.becoming_root import Become
from nixherd.base.errors import NotSent
from nixherd.base.process import Completed
from nixherd.deploy.machine import ANSWER_DEADLINE, COMMAND_DEADLINE
from nixherd.fleet.models import Access
from nixherd.link.client import PinnedClient
from nixherd.link.link import Link
from nixherd.ssh.login_shell import answered


class LinkedMachine:
    """Implements `nixherd.deploy.machine.Asked` on a link that is connected."""

    def __init__(self, link: Link) -> None:
        self._link, self.id = link, link.fleet_host.id

    @property
    def access(self) -> Access:
        return self._link.access

    @property
    def become(self) -> Become:
        return self._link.become

    def run(self, script: str, *, deadline: float = COMMAND_DEADLINE) -> Completed:
        return self._client.ask(script, deadline)

    def run_forced(self, words: str, *, deadline: float = ANSWER_DEADLINE) -> Completed:
        done = self._client.say(words, deadline)
        answer, _ = answered(done.stdout.splitlines())
        return replace(done, stdout="\n".join(answer))

    @property
    def _client(self) -> PinnedClient:
        if self._link.client is None:
            raise NotSent(f"{self.id}: not connected")
        return self._link.client
