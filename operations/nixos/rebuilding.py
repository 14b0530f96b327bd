"""nixos-rebuild itself, run here against the machine: upstream's behaviour, without our guard; the end is read back."""

from pyinfra import host
from pyinfra.api import operation

from nixherd.deploy.options import HERE
from nixherd.errors import NotWell
from nixherd.nix.evaluator import evaluate
from operations.deploy_run import ask, this_host
from operations.rebuilding import rebuild_on
from operations.steps import Commands, decide, do, session_of
from operations.wellness import wrong_with


@operation()
def rebuild(action: str = "switch", build_on: str = HERE, specialisation: str | None = None) -> Commands:
    """Run `nixos-rebuild ACTION --flake FLEET#HOST --target-host …`, and read back what runs then.

    Args:
        action: switch, boot, test or dry-activate.
        build_on: local, target or a host of the fleet.
        specialisation: the one to switch to.
    """
    yield from decide(host, lambda: _rebuild(action, build_on, specialisation))


def _rebuild(action: str, build_on: str, specialisation: str | None) -> Commands:
    own = this_host(host)
    about, state = evaluate(session_of(host), (own.id,), own.id), ask(own)
    if action == "switch" and specialisation is None and about.toplevel == state["current"] == state["profile"]:
        runs = f"{own.id} runs {state['current']} already"
        if problem := wrong_with(host, own, about.toplevel):
            raise NotWell(f"{runs}; {problem}; nothing was activated")
        host.noop(runs)
        return

    def act() -> None:
        with own.reporting():
            rebuild_on(host, own, about, action, build_on, specialisation)

    yield from do(host, f"nixos-rebuild {action} of {own.id}", act)
