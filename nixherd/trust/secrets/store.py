"""The secrets of a fleet as they lie in its repository: each `.sops.yaml` with its files, read, and encrypted anew.

Paths are relative to the fleet's directory, and begin with `../` where they are outside of it; those of `SecretFile`
to the directory of the `.sops.yaml` that the file belongs to, as a `path_regex` sees them.
"""

import os
import posixpath
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.fleet.git import Repository
from nixherd.fleet.models import Fleet
from nixherd.fleet.tree import Tree, opened
from nixherd.trust.secrets.files import Encrypted, read_file, with_first
from nixherd.trust.secrets.generated import LINK, configuration, made_by, says_so
from nixherd.trust.secrets.identities import Opens
from nixherd.trust.secrets.keeping import prove_kept, require_kept
from nixherd.trust.secrets.keys import Recipient
from nixherd.trust.secrets.people import People, recipients_of_hosts
from nixherd.trust.secrets.placeholders import NewFile
from nixherd.trust.secrets.places import MISNAMED, Layout, chosen_place, from_fleet, from_top, ignored, nearest, path_of
from nixherd.trust.secrets.plan import Plan, Rekey, plan
from nixherd.trust.secrets.reading import Meaning, Reading, SecretFile, holds_encrypted
from nixherd.trust.secrets.rules import CONFIG, Rules, parse_rules
from nixherd.trust.secrets.sops import AsOperator, nobody


@dataclass(frozen=True)
class Store:
    """A `.sops.yaml` in `directory`, with the files that belong to it; contents are by path below that.

    `prefix` is the fleet's directory from the top of its repository; `generated` why the file's maker would undo an
    edit, as far as it tells itself.
    """

    root: Path
    directory: str
    text: str
    rules: Rules
    files: tuple[SecretFile, ...]
    contents: Mapping[str, bytes]
    prefix: str = ""
    generated: str | None = None

    @classmethod
    def load(cls, root: Path, layout: Layout, directory: str, tree: Tree) -> "Store":
        """That of a directory, which is from the repository's top. FleetError without a usable configuration.

        A file that cannot be read says so itself.
        """
        config = from_fleet(f"{directory}/{CONFIG}", layout.prefix)
        try:
            content, generated = configuration(root, layout, config, tree)
            assert content is not None, "it was there"
            text = content.decode()
            parsed = parse_rules(text)
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise FleetError(f"{root / config}: line {line}: is not UTF-8 text; save it as such") from None
        except ValueError as error:
            raise FleetError(f"{root / config}: {error}") from None
        files, contents = Reading(root, layout, directory, parsed, tree).done()
        place, generated = from_fleet(directory, layout.prefix), generated or says_so(text)
        return cls(root, place, text, parsed, files, contents, layout.prefix, generated)

    @property
    def config(self) -> str:
        return self.path(CONFIG)

    def plan(self, people: People, rules: Rules | None = None) -> Plan:
        """What follows from the rules, or from those that are to be."""
        found = plan(self.directory, rules or self.rules, people, self.files, self.prefix)
        if not (self.generated or "").startswith(LINK):
            return found
        of_files = (each for each in found.findings if not each.startswith(f"{self.config}: "))
        return replace(found, findings=tuple(of_files))  # what is wrong with the rules is said where they are written

    @cached_property
    def encrypted(self) -> Mapping[str, Encrypted]:
        """What each encrypted file is now, by its path from the fleet's directory."""
        return {self.path(file.path): file.encrypted for file in self.files if file.encrypted}

    def path(self, file: str) -> str:
        """A file's path from the fleet's directory."""
        return path_of(self.directory, file, self.prefix)

    def could_be_secret(self, path: str) -> bool:
        """Whether a file of this path, from the fleet's directory, would be taken for a secret in plain text."""
        directory = from_top(self.directory, self.prefix)
        return Meaning(self.rules, directory, self.prefix).could_be(self.below(path))

    @property
    def usual_directory(self) -> str:
        """Where its secrets are, or would be looked for: a directory, from the fleet's."""
        places = Counter(posixpath.dirname(file.path) for file in self.files if file.encrypted)
        usual = "" if "secret" in posixpath.basename(self.directory).lower() else "secrets"
        return self.path(max(places, key=lambda place: (places[place], place), default=usual) or ".")

    def below(self, path: str) -> str:
        """A path from the fleet's directory as one below this one's, as rules see it."""
        return posixpath.relpath(f"/{from_top(path, self.prefix)}", f"/{from_top(self.directory, self.prefix)}")

    def staged_config(self, staged: Path) -> Path:
        """Where its `.sops.yaml` is among the files that are staged."""
        return _inside(staged, self.config)

    def stage(
        self,
        staged: Path,
        text: str,
        rekeys: Collection[Rekey],
        operator: AsOperator,
        *,
        new: Collection[NewFile] = (),
        rotate: bool,
        give_up: bool = False,
    ) -> None:
        """Encrypt copies of the files below `staged`, and new ones, at the paths that they have from the fleet's.

        Each is read back: its key groups are those of its rule; and the operator can decrypt it, or has said to
        `give_up`. With `rotate` those that somebody is removed from get a new data key. FleetError, with `staged` to be
        thrown away, otherwise.
        """
        config = self.staged_config(staged)
        staged.mkdir(parents=True, exist_ok=True)
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_bytes(text.encode())
        if rekeys:
            self._encrypt_anew(staged, rekeys, operator, rotate=rotate, give_up=give_up)
        for each in new:
            copy = _inside(staged, each.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            sops = nobody(operator.run, each.recipients)
            copy.write_bytes(sops.encrypt(staged, config, each.path, each.text, each.format))
        self._read_back(staged, new)

    def _encrypt_anew(
        self, staged: Path, rekeys: Collection[Rekey], operator: AsOperator, *, rotate: bool, give_up: bool
    ) -> None:
        config = self.staged_config(staged)
        before = self.encrypted
        doubtful = set() if give_up else require_kept(operator.who, before, rekeys)
        present = {key for rekey in rekeys for group in before[rekey.path].groups for key in group}
        sops = operator.sops({*present, *(key for rekey in rekeys for group in rekey.groups for key in group)})
        openers = {key for key in present if operator.who.has(key) is Opens.YES}

        def one(share: Sequence[Rekey]) -> None:
            self._copy(staged, share, openers)
            paths = [rekey.path for rekey in share]
            sops.update_keys(staged, config, paths)
            if thresholds := dict(self._thresholds(staged, share)):
                sops.set_threshold(staged, config, thresholds)
                sops.decrypt(staged, config, [*thresholds])  # all keys of a group have the same part
            if rotated := [rekey.path for rekey in share if rotate and rekey.removed]:
                sops.rotate(staged, config, rotated)
            self._read_back(staged, share)
            prove_kept(sops, staged, config, [path for path in paths if path in doubtful and path not in thresholds])

        shares = [list(rekeys)[start :: sops.processes] for start in range(sops.processes)]
        with ThreadPoolExecutor(sops.processes) as pool:
            list(pool.map(one, filter(None, shares)))

    def _thresholds(self, staged: Path, rekeys: Sequence[Rekey]) -> Iterator[tuple[str, int]]:
        """Those of files that now have their rule's key groups, and take another number of them."""
        for rekey in rekeys:
            back = read_file(rekey.path, _inside(staged, rekey.path).read_bytes()) if len(rekey.groups) > 1 else None
            if back is not None and back.threshold != rekey.threshold:
                yield rekey.path, rekey.threshold

    def _copy(self, staged: Path, rekeys: Sequence[Rekey], openers: Collection[Recipient]) -> None:
        """Copy files, with the keys that the operator has first: sops, which orders them anew, tries no others then."""
        copies = {rekey.path: _inside(staged, rekey.path) for rekey in rekeys}
        for place in {copy.parent for copy in copies.values()}:
            place.mkdir(parents=True, exist_ok=True)
        for rekey in rekeys:
            copy = copies[rekey.path]
            mode = (self.root / rekey.path).stat().st_mode & 0o7777
            handle = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(with_first(self.contents[self.below(rekey.path)], openers))
                os.fchmod(handle, mode)

    def _read_back(self, staged: Path, files: Iterable[Rekey | NewFile]) -> None:
        for file in files:
            copy = _inside(staged, file.path)
            if not file.is_done(read_file(file.path, copy.read_bytes())):
                what = f"sops encrypted it for others than {self.config} names"
                raise FleetError(f"{file.path}: {what}; nothing was changed, see which rule matches it")


def _inside(staged: Path, path: str) -> Path:
    return Path(os.path.normpath(f"{staged}/{path}"))


@dataclass(frozen=True)
class Secrets:
    """All that there are in the fleet's repository, or those of one `.sops.yaml`. There may be none.

    `findings` are about what is not a store, and was likely meant as one; `edit_generated`: a configuration that is
    generated is edited all the same. `submodules`, `nix`, the Nix files, and `broken`, where a `.sops.yaml` is useless,
    are paths from the fleet's directory.
    """

    root: Path
    stores: tuple[Store, ...] = ()
    prefix: str = ""
    submodules: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    nix: tuple[str, ...] = field(default=(), repr=False)
    broken: frozenset[str] = frozenset()
    edit_generated: bool = False
    repository: Repository | None = field(default=None, repr=False)

    @classmethod
    def load(
        cls,
        root: Path,
        directory: str | None = None,
        *,
        edit_generated: bool = False,
        repository: Repository | None = None,
    ) -> "Secrets":
        """Every store, or the one in this directory of the fleet's. FleetError for a configuration that is useless.

        The repository is looked for, unless it is known.
        """
        layout = Layout.of(root, repository)
        chosen = layout.directories
        if directory is not None:
            chosen = (chosen_place(root, layout.prefix, directory),)
            if chosen[0] not in layout.directories:
                remedy = "it names who may decrypt which files (docs/secrets.md)"
                raise FleetError(f"{root / directory / CONFIG}: missing; {remedy}")
        stores, broken = list[Store](), dict[str, str]()
        with opened(root) as tree:
            for each in chosen:
                try:
                    stores.append(Store.load(root, layout, each, tree))
                except FleetError as error:
                    if directory is not None or len(chosen) == 1 or holds_encrypted(layout, each, tree):
                        raise
                    broken[from_fleet(each, layout.prefix)] = str(error)  # a template, an example
        misnamed = [path for path in layout.files if posixpath.basename(path) == MISNAMED]
        findings = [f"{from_fleet(path, layout.prefix)}: sops does not read it; call it {CONFIG}" for path in misnamed]
        findings += [*broken.values(), *ignored(root, layout)]
        submodules = tuple(from_fleet(path, layout.prefix) for path in layout.submodules)
        nix = tuple(from_fleet(path, layout.prefix) for path in layout.files if path.endswith(".nix"))
        return cls(
            root,
            tuple(stores),
            layout.prefix,
            submodules,
            tuple(findings),
            nix,
            frozenset(broken),
            edit_generated,
            layout.repository,
        )

    def __bool__(self) -> bool:
        return bool(self.stores)

    def store_of(self, path: str) -> Store | None:
        """The store that a file of this path, from the fleet's directory, belongs to, or would."""
        if self.submodule_of(path) is not None:
            return None
        by_place = {from_top(store.directory, self.prefix): store for store in self.stores}
        broken = {from_top(each, self.prefix) for each in self.broken}
        place = nearest(from_top(path, self.prefix), by_place.keys() | broken)
        return None if place is None else by_place.get(place)

    def store_at(self, config: str) -> Store | None:
        """The store whose `.sops.yaml` is at this path."""
        return next((store for store in self.stores if store.config == config), None)

    def require_store(self, path: str) -> Store:
        """The same. FleetError where no `.sops.yaml` is found from the file's directory upwards."""
        store = self.store_of(path)
        if store is None:
            raise FleetError(f"{self.root / path}: {self.why_homeless(path)}")
        return store

    def submodule_of(self, path: str) -> str | None:
        """The directory of another repository, in this one, that a file is in."""
        return next((each for each in self.submodules if path.startswith(f"{each}/")), None)

    def why_homeless(self, path: str) -> str:
        """Why a file of this path belongs to no store, and what to do."""
        if (place := self.submodule_of(path)) is not None:
            return f"is in {place}, a repository of its own (a submodule); nothing is changed there from here"
        return f"no {CONFIG} is found from there upwards, to say who may decrypt it (`nixherd secrets init` begins one)"

    @cached_property
    def files(self) -> Mapping[str, SecretFile]:
        """Every secret file, by its path from the fleet's directory."""
        return {store.path(file.path): file for store in self.stores for file in store.files}

    @cached_property
    def encrypted(self) -> Mapping[str, Encrypted]:
        """What each encrypted file is now, by the same paths."""
        return {path: file for store in self.stores for path, file in store.encrypted.items()}

    @property
    def configs(self) -> tuple[str, ...]:
        return tuple(store.config for store in self.stores)

    def require_editable(self, config: str, step: str) -> None:
        """FleetError where this path is a generated `.sops.yaml`, unless such a one is to be edited; says the step."""
        store = self.store_at(config)
        if store is None or self.edit_generated:
            return
        with opened(self.root) as tree:
            why = store.generated or made_by(tree, self.nix, CONFIG if len(self.stores) == 1 else store.config)
        if why is not None:
            what = f"is generated ({why}), and was not edited: {step.removeprefix(f'{config}: ')}"
            remedy = "have its maker do that, then `nixherd secrets apply`; or say --edit-generated (edit_generated)"
            raise FleetError(f"{config}: {what}; {remedy}")

    def read(self, path: str) -> bytes | None:
        """What a file is now, as `nixherd.fleet.tree.Tree.read`."""
        with opened(self.root) as tree:
            return tree.read(path)

    def content(self, path: str) -> bytes:
        """What a secret file holds that could be read."""
        store = self.require_store(path)
        return store.contents[store.below(path)]

    def without(self, paths: Collection[str]) -> "Secrets":
        """The same without these files."""

        def left(store: Store) -> Store:
            return replace(store, files=tuple(file for file in store.files if store.path(file.path) not in paths))

        return replace(self, stores=tuple(map(left, self.stores)))

    def people(self, fleet: Fleet, rules: Mapping[str, Rules] | None = None) -> People:
        """What recipients are called, wherever they are named. `rules`, by configuration, are those that are to be."""
        texts = [*(store.rules for store in self.stores), *(rules or {}).values()]
        return People(recipients_of_hosts(fleet), {key: name for each in texts for key, name in each.names.items()})

    def plan(self, fleet: Fleet, rules: Mapping[str, Rules] | None = None) -> Plan:
        """What follows from all rules, or from those that are to be, by configuration."""
        people = self.people(fleet, rules)
        plans = [store.plan(people, (rules or {}).get(store.config)) for store in self.stores]
        findings = [*self.findings, *(finding for each in plans for finding in each.findings)]
        unknown = {path: why for each in plans for path, why in each.unknown.items()}
        notes = tuple(note for each in plans for note in each.notes)
        rekeys = tuple(rekey for each in plans for rekey in each.rekeys)
        return Plan(rekeys, tuple(dict.fromkeys(findings)), unknown, notes)
