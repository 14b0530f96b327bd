"""What a new host declares as secrets: a file of its own, a rule for it, and values to begin with.

The file is encrypted for people alone: the host's key is not there yet, and enrolment has it join its rule. The values
are random words made here, which nobody is shown; `nixherd secrets edit` puts others in their place. They reach sops on
its stdin, and no file as they are.
"""

import secrets as random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from nixherd.base.errors import FleetError, Usage
from nixherd.base.names import HOST_ID, is_a
from nixherd.fleet.models import Fleet
from nixherd.ssh.age import is_recipient
from nixherd.trust.new.host import NewHost
from nixherd.trust.secrets import files, rules_edit
from nixherd.trust.secrets.sops import Sops
from nixherd.trust.secrets.store import People, Store

_NAME = rf"{HOST_ID}(?:/{HOST_ID})*"
_BYTES = 32  # of randomness in a value


@dataclass(frozen=True, slots=True)
class Secrets:
    """`config` is `.sops.yaml` and `rules` as it is to be, `path` the file; `names` are of those who read it."""

    config: str
    rules: bytes
    path: str
    recipients: tuple[str, ...]
    names: tuple[str, ...]


def require_names(names: Sequence[str]) -> None:
    """Usage for what is not a name of a secret in a YAML file, or cannot stand beside another one."""
    for name in names:
        if not is_a(_NAME, name) or name.split("/")[0] == "sops":
            raise Usage(f"--secret {name}: is not a name for a secret; use letters, digits, '_', '-', '.' and '/'")
        if names.count(name) > 1:
            raise Usage(f"--secret {name}: is given twice")
        if any(other.startswith(f"{name}/") for other in names):
            raise Usage(f"--secret {name}: another secret is below it; give it a name of its own")


def problems(store: Store, fleet: Fleet, host_id: str) -> Iterator[str]:
    """Why the host can have no file of its own: the file is there, or somebody of its name is a recipient."""
    path = f"{host_id}.yaml"
    if any(file.path == path for file in store.files):
        yield f"{store.path(path)}: is there already; move it away, or take another name"
    people = People.of(fleet, store.rules)
    keys = (*store.rules.recipients, *store.rules.names)
    if any(host_id in (people.hosts.get(key), store.rules.names.get(key)) for key in keys):
        remedy = f"`nixherd secrets remove-host {host_id}` first"
        yield f"{store.config}: {host_id} is a recipient already, of another machine; {remedy}"


def plan(store: Store, fleet: Fleet, host: NewHost, given: Collection[str] = ()) -> Secrets:
    """The rule for the host's file. For `given` people, by name or key; else for those whom every rule names.

    Usage when that is nobody.
    """
    people = People.of(fleet, store.rules)
    named = tuple(dict.fromkeys(_recipient(store, people, each) for each in given))
    chosen = named or _everywhere(store, people, fleet)
    if not chosen:
        known = ", ".join(sorted({people.name(key) for key in store.rules.recipients if key not in people.hosts}))
        raise Usage(f"--recipient: who is to read {host.id}'s secrets? No person is in every rule; name one of {known}")
    path, names, text = f"{host.id}.yaml", tuple(people.name(key) for key in chosen), store.text
    rule = store.rules.rule_of(path)
    if rule is None or not rule.is_named_after(host.id):  # no rule that it will join when it is enrolled
        text = rules_edit.add_rule(store.text, path, chosen, comment=f"{host.id}'s own.")
    elif set(rule.recipients) != set(chosen) or rule.others or rule.groups > 1:
        others = f"for others than {', '.join(names)}"
        raise Usage(
            f"{store.config}: {rule.label} is there for {host.id} already, {others}; take it out, or correct it"
        )
    return Secrets(store.config, text.encode(), store.path(path), chosen, names)


def _everywhere(store: Store, people: People, fleet: Fleet) -> tuple[str, ...]:
    everywhere = [key for key in store.rules.recipients if all(key in rule.recipients for rule in store.rules.rules)]
    return tuple(key for key in everywhere if key not in people.hosts and people.name(key) not in fleet.hosts)


def _recipient(store: Store, people: People, given: str) -> str:
    known = (*store.rules.recipients, *store.rules.names)
    found = dict.fromkeys(key for key in known if given in (key, people.name(key)))
    if not found and is_recipient(given):
        raise Usage(f"--recipient {given}: {store.config} does not know this key; add it to its keys, with a name")
    if len(found) != 1:
        who = ", ".join(sorted({people.name(key) for key in known}))
        raise Usage(f"--recipient {given}: {store.config} knows nobody of this name; there are {who}")
    [key] = found
    if key in people.hosts:
        raise Usage(f"--recipient {given}: is a host; secrets of one host are no other's")
    return key


def encrypt(sops: Sops, secrets: Secrets, names: Sequence[str], staged: Path) -> bytes:
    """The file's content: a random value for each name, for whom the rule names, which is written below `staged`.

    FleetError when sops encrypts it for others, or not at all.
    """
    config = staged / secrets.config
    config.parent.mkdir(parents=True)
    config.write_bytes(secrets.rules)
    content = sops.encrypt(config.parent, Path(secrets.path).name, _document(names))
    found = files.read(secrets.path, content)
    if found is None or set(found.recipients) != set(secrets.recipients) or found.others:
        raise FleetError(f"{secrets.path}: sops encrypted it for others than {secrets.config} names; nothing was done")
    return content


def _document(names: Sequence[str]) -> str:
    document: dict[str, object] = {}
    for name in names:
        *parents, last = name.split("/")
        inner = document
        for parent in parents:
            inner = inner.setdefault(parent, {})  # type: ignore[assignment]
        inner[last] = random.token_urlsafe(_BYTES)
    return yaml.safe_dump(document, sort_keys=False)
