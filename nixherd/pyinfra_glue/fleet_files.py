"""Changes of the fleet's own files as a step of a deploy: one host of the run at a time, all or none, one commit."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pyinfra.api.host import Host

from nixherd.arguments import flag_of, path_below
from nixherd.errors import FleetError, Usage
from nixherd.fleet.changeset import changing, interrupted
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet
from nixherd.nix.commands import Evaluated
from nixherd.pyinfra_glue.hosts import evaluator_of, fleet_of, keys_of, run_of
from nixherd.pyinfra_glue.operation import Change, NoChange
from nixherd.trust.enrol import Wanted, publish
from nixherd.trust.secrets.sops import as_host, identity_file, operator
from nixherd.trust.secrets.store import Store, recipients_of_hosts
from nixherd.trust.templating import Values, render, render_foreign

_STEPS = "\n\n{% for step in steps %}- {{ step }}\n{% endfor %}"


def changed_files(
    host: Host,
    change: Callable[[Wanted], Wanted],
    subject: str,
    *,
    otherwise: str,
    before: Callable[[], object] = lambda: None,
) -> Change | NoChange:
    """The one step that makes a change of the fleet's files; none, and `otherwise` is said, where nothing changes.

    `before` is called first when the change is made.
    """
    root = Path(fleet_of(host).path)
    with run_of(host).fleet_files:
        fleet = load_fleet(root)
        steps = change(Wanted(fleet, store_of(host, fleet))).steps
        if interrupted(root):
            steps = ("finish what an interrupted run began to publish", *steps)
    if not steps:
        return NoChange(otherwise)
    return Change("; ".join(steps), partial(_publish, host, change, subject, before))


def _publish(host: Host, change: Callable[[Wanted], Wanted], subject: str, before: Callable[[], object]) -> None:
    """Make a change of the fleet's files as they are now, and commit it. What the flake says is evaluated anew then."""
    before()
    run, root = run_of(host), Path(fleet_of(host).path)
    with run.fleet_files, changing(root) as changeset:
        changeset.resume(host.log)
        fleet = load_fleet(root)
        wanted = change(Wanted(fleet, store_of(host, fleet)))
        key_file = identity_file(host.data.get("age_identity"))
        done = publish(
            changeset,
            wanted,
            _message(host, subject, wanted),
            sops=lambda: operator(run, key_file),
            as_host=as_host(run, keys_of(host), host.data.host_id),
            rotate=flag_of("rotate_removed", host.data.get("rotate_removed", False)),
            commit=flag_of("commit", host.data.get("commit", True)),
            say=host.log,
        )
    evaluator_of(host).forget()
    for path in done.paths:
        host.log(f"wrote {path}")
    if done.commit:
        host.log(f"commit {done.commit}")


def _message(host: Host, subject: str, wanted: Wanted) -> str:
    """The commit's message: data `commit_message`, a Jinja2 template of `host` and `steps`, or ours."""
    own = host.data.get("commit_message")
    values: Values = partial(dict, host=str(host.data.host_id), steps=tuple(wanted.steps))
    try:
        text = render_foreign("commit_message", str(own), values) if own else render(subject + _STEPS, values)
    except FleetError as error:
        raise Usage(f"{error}; it may use host and steps") from None
    text = text.strip()
    if not text:
        raise Usage("commit_message comes out empty")
    return text


def store_of(host: Host, fleet: Fleet) -> Store | None:
    """The fleet's secrets; None when it has none."""
    directory = path_below("secrets_directory", host.data.get("secrets_directory") or "secrets")
    if not (Path(fleet.path) / directory).is_dir():
        return None
    return Store.load(Path(fleet.path), directory)


def not_encrypted_for(host: Host, config: Evaluated, paths: list[str]) -> list[str]:
    """The secret files, of those that these come from, that are not encrypted for the machine as things are now."""
    fleet = load_fleet(fleet_of(host).path)
    store = store_of(host, fleet)
    mine = [key for key, host_id in recipients_of_hosts(fleet).items() if host_id == config.host_id]
    files = store.files if store else ()
    can = {
        f"{store.directory}/{file.path}"
        for file in files
        if store and file.encrypted and set(mine) & set(file.encrypted.recipients)
    }
    return sorted({config.secrets[path] for path in paths} - can)
