"""One evaluation for the whole selection, shared by every host of a run; a host that is wrong fails alone.

nix-eval-jobs, where there is one, evaluates several hosts side by side. Without it `nix eval` evaluates them together,
what they share once; many hosts in as many processes side by side as memory has room for. Where one fails, the half of
its hosts in which something is wrong is looked for, and so on: one of a hundred in a dozen tries.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from nixherd.base.errors import FAILURES, FleetError, ProcessFailed
from nixherd.base.process import run
from nixherd.base.run import Run
from nixherd.base.terminal import say, worded
from nixherd.base.waiting import Once, OncePer, ahead
from nixherd.nix import commands as nix
from nixherd.nix.commands import Evaluated, evaluated, jobs_of
from nixherd.nix.declared import Declared
from nixherd.nix.errors import explain, explain_failure
from nixherd.nix.halving import Outcomes, T, halved
from nixherd.nix.kinds import Output, why_another
from nixherd.nix.log import EvaluationProgress, Warnings, shown
from nixherd.nix.store_source import StoreSource

EVAL_JOBS = "nix-eval-jobs"
EVAL_JOBS_HELP = (EVAL_JOBS, "--help")
BYTES_PER_WORKER = 4 << 30  # after which it begins anew; its own default
DEADLINE = 1800.0  # seconds
HELP_DEADLINE = 60.0
# What a host of real NixOS adds to an evaluation of several, and how much of what is free may be used.
BYTES_PER_HOST = 512 << 20
SHARE = 0.8
WORTHWHILE = 8  # hosts for a process of their own: each evaluates anew what all of them share
Found = Outcomes[Evaluated]


def knows_options(help_text: str) -> bool:
    """Tell whether the nix-eval-jobs with this --help has the options that `eval_jobs` gives."""
    return "--select" in help_text and "--apply" in help_text


def eval_jobs(flake: str, names: Sequence[str], kind: Output, *, roots: str, workers: int) -> list[str]:
    """Return the argv that evaluates hosts side by side; links in `roots` hold the derivations that they come to."""
    options = ["--gc-roots-dir", roots, "--workers", str(workers), "--max-memory-size", str(BYTES_PER_WORKER >> 20)]
    options += ["--show-trace", "--select", jobs_of(names, kind), "--apply", "job: job.nixherd"]
    features = ["--option", "experimental-features", "nix-command flakes"]
    return [EVAL_JOBS, *features, *options, "--flake", kind.installable(flake)]


def parse_jobs(lines: Iterable[str], directory: Path) -> dict[str, Evaluated | FleetError]:
    """Parse what nix-eval-jobs printed, by host id: a description, or why the flake in `directory` cannot be evaluated.

    Raise FleetError on anything else.
    """
    hosts: dict[str, Evaluated | FleetError] = {}
    for line in lines:
        try:
            job: Mapping[str, Any] = json.loads(line)
            host_id = str(job["attrPath"][0])
            if "error" in job:
                hosts[host_id] = FleetError(explain(str(job["error"]), directory))
            else:
                hosts[host_id] = evaluated(host_id, job["extraValue"])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise FleetError(f"{EVAL_JOBS} printed something unexpected ({error!r}): {line[:200]}") from error
    return hosts


def _hosts_of_job(line: str) -> list[str]:
    """The host that a line of nix-eval-jobs is about; none where it is in another form."""
    try:
        return [str(json.loads(line)["attrPath"][0])]
    except (ValueError, KeyError, TypeError, IndexError):
        return []


class Source(Protocol):
    """The flake that is evaluated: as Nix is told it, and its revision at this moment, None where nobody can say."""

    @property
    def url(self) -> str: ...

    @property
    def revision(self) -> str | None: ...


class Hosts(Protocol):
    """A fleet: the flake's directory, where it has hosts that are not NixOS's, how it calls those of another id."""

    @property
    def path(self) -> str: ...

    @property
    def kinds(self) -> Mapping[str, Output]: ...

    @property
    def attributes(self) -> Mapping[str, str]: ...


class Evaluator:
    """Evaluates the flake of a fleet for a run; what is evaluated stays until `forget`.

    `source` says which flake: the fleet's tree, one named by a reference, or the commit that was verified.
    """

    def __init__(self, fleet: Hosts, run: Run, source: Callable[[], Source]) -> None:
        self.path, self.run = fleet.path, run
        self.warnings = Warnings()
        self.together: tuple[str, ...] = ()
        """the hosts that are evaluated together, where that began ahead"""
        self._kinds, self._find_source = fleet.kinds, source
        self._attributes = fleet.attributes
        self._source: Once[Source] = Once(f"{self.path}: finding the flake")
        self._results: OncePer[tuple[str, ...], Found] = OncePer(f"{self.path}: evaluating")
        self._declared: OncePer[tuple[str, ...], Outcomes[Declared]] = OncePer(f"{self.path}: evaluating its secrets")
        self._details: OncePer[tuple[str, ...], Outcomes[Any]] = OncePer(f"{self.path}: reading what hosts say")
        self._store_source: Once[StoreSource] = Once(f"{self.path}: finding its source")
        self._knows_jobs: Once[bool] = Once(f"looking for {EVAL_JOBS}")

    @property
    def source(self) -> Source:
        with self._source as source:
            if source.is_empty:
                source.value = self._find_source()
            return source.value

    @source.setter
    def source(self, source: Source) -> None:
        """Set it, where it is known already."""
        self._source.value = source

    @property
    def flake(self) -> str:
        """The flake, as Nix is told it."""
        return self.source.url

    def forget(self) -> None:
        """Evaluate anew: the fleet's files were changed."""
        self._results.clear()
        self._declared.clear()
        self._details.clear()
        self._store_source.forget()
        self._source.forget()

    def evaluate(self, host_ids: Sequence[str], host_id: str) -> Evaluated:
        """What the flake says of one host; all of `host_ids` of its kind are evaluated together, once.

        FleetError when the flake does not have this host, or cannot be evaluated for it.
        """
        host_ids = self.together if set(host_ids) <= set(self.together) else host_ids
        kind, alike = self._alike(host_ids, host_id)
        with self._results[alike] as results:
            if results.is_empty:
                # of which revision each is: not known where the tree moved on meanwhile
                before = self.source.revision
                found = self._all(alike, kind)
                self._tell_warnings()
                revision = before if before == self.source.revision else None
                results.value = {id: self._completed(each, revision) for id, each in found.items()}
            result = results.value.get(host_id)
        if isinstance(result, FleetError):
            raise result
        if result is None:
            raise FleetError(f"{self.path}/flake.nix: it has no {self._place(host_id)}; add it")
        return result

    def _place(self, host_id: str) -> str:
        return f"{self._kind(host_id).place}.{self._attributes.get(host_id, host_id)}"

    def _kind(self, host_id: str) -> Output:
        return self._kinds.get(host_id, Output.SYSTEM)

    def _alike(self, host_ids: Sequence[str], host_id: str) -> tuple[Output, tuple[str, ...]]:
        """A host's kind, and those of `host_ids` that are of it."""
        kind = self._kind(host_id)
        return kind, tuple(each for each in host_ids if self._kind(each) is kind)

    def declared(self, host_ids: Sequence[str], host_id: str) -> Declared:
        """Evaluate what a host declares of secrets, all of `host_ids` of its kind together; once, without toplevels.

        Where that is not possible, the result's `problem` says why.
        """
        for once in list(self._results.values()):
            if isinstance(config := (once.known or {}).get(host_id), Evaluated):
                return config.declared
        found = self._apart(self._declared, host_ids, host_id, nix.describe_declared, nix.parse_declared)
        if not isinstance(found, Declared) and (other := self._of_other_kind(host_id)) is not None:
            return other
        if not isinstance(found, Declared):
            return Declared(host_id, problem=str(found or f"{self._place(host_id)} does not exist"))
        return self._placed(replace(found, host_id=host_id))

    def details(self, host_ids: Sequence[str], host_id: str) -> Any:
        """Evaluate what a host says of how it is reached and deployed to, as `declared` does. Unjudged (details.nix).

        FleetError when the flake does not have this host, or cannot be evaluated for it.
        """
        found = self._apart(self._details, host_ids, host_id, nix.describe_details, json.loads)
        if isinstance(found, FleetError):
            raise found
        if found is None:
            raise FleetError(f"{self.path}/flake.nix: it has no {self._place(host_id)}; add it")
        return found

    def _apart(
        self,
        all_results: OncePer[tuple[str, ...], Outcomes[T]],
        host_ids: Sequence[str],
        host_id: str,
        question: Callable[..., list[str]],
        parse: Callable[[str], Mapping[str, T | None]],
    ) -> T | FleetError | None:
        """Ask one question of all of `host_ids` of a host's kind, and nothing else of them; once."""
        kind, alike = self._alike(host_ids, host_id)

        def attempt(ids: Sequence[str]) -> Outcomes[T] | FleetError:
            try:
                found = parse(self._asked(question(self.flake, self._named(ids), kind)))
            except FleetError as error:
                return error
            return {id: found.get(name) for id, name in zip(ids, self._named(ids), strict=True)}

        with all_results[alike] as results:
            if results.is_empty:
                results.value = halved(alike, attempt(alike), attempt)
                self._tell_warnings()
            return results.value.get(host_id)

    def _named(self, host_ids: Sequence[str]) -> list[str]:
        """What the flake calls the configurations of these hosts."""
        return [self._attributes.get(host_id, host_id) for host_id in host_ids]

    def _by_id(self, found: Found, host_ids: Sequence[str]) -> dict[str, Evaluated | FleetError | None]:
        """What was found by the flake's names, by the ids of hosts; what was not is left out."""
        named = zip(host_ids, self._named(host_ids), strict=True)
        results = {host_id: found[name] for host_id, name in named if name in found}
        return {
            host_id: replace(each, host_id=host_id) if isinstance(each, Evaluated) else each
            for host_id, each in results.items()
        }

    def _of_other_kind(self, host_id: str) -> Declared | None:
        """What it declares as the kind that its entry does not say, and that as its `problem`; None where it is not."""
        is_home = self._kind(host_id).is_home
        other = Output.SYSTEM if is_home else Output.HOME
        lacking, there = self._place(host_id), f"{other}.{host_id}"
        argv = nix.describe_declared(self.flake, (host_id,), other)
        try:
            found = nix.parse_declared(self._asked(argv)).get(host_id)
        except FleetError:
            return None
        if not isinstance(found, Declared):
            return None
        out = "take its configurationFile out of its entry, as a home alone has none"
        remedy = "give it its configurationFile in its entry" if is_home else out
        return replace(self._placed(found), problem=f"{lacking} does not exist, and {there} does; {remedy}")

    def _placed(self, declared: Declared) -> Declared:
        """With its files as they are below the fleet's directory; its `problem` says why that is not known."""
        if not (declared.secrets or declared.specialisations or declared.containers):
            return declared
        try:
            with self._store_source as source:
                if source.is_empty:
                    source.value = StoreSource.parse(self._asked(nix.flake_source(self.flake)))
                return source.value.placed(declared)
        except FleetError as error:
            return replace(declared, problem=f"where the files of its secrets are is not known: {error}")

    def ahead(self, host_ids: Sequence[str]) -> None:
        """Begin to evaluate these hosts; `evaluate` waits for that when it is asked for some of them."""
        if not set(host_ids) <= set(self.together):
            self.together = tuple(host_ids)
        one_of_each_kind = {self._kind(host_id): host_id for host_id in host_ids}.values()
        ahead(*(partial(self.evaluate, host_ids, host_id) for host_id in one_of_each_kind))

    def _completed(self, config: Evaluated | FleetError | None, revision: str | None) -> Evaluated | FleetError | None:
        if not isinstance(config, Evaluated):
            return config
        if config.verdict:
            return FleetError(f"{self.path}/flake.nix: {why_another(config.host_id, config.verdict, config.system)}")
        return replace(
            config, revision=revision or config.configuration_revision, declared=self._placed(config.declared)
        )

    def _all(self, host_ids: Sequence[str], kind: Output) -> Found:
        found: dict[str, Evaluated | FleetError | None] = {}
        progress = EvaluationProgress(len(host_ids), lambda text: self.run.journal.note("progress", text=text))
        if len(host_ids) > 1 and self._has_jobs():
            found |= self._side_by_side(host_ids, progress, kind)
        workers, batches = _batches([host_id for host_id in host_ids if host_id not in found])

        def work(batch: Sequence[str]) -> Found:
            attempt = partial(self._try, progress=progress, kind=kind)
            found = halved(batch, attempt(batch), attempt)
            progress.take(batch)
            return found

        with ThreadPoolExecutor(workers) as pool:
            for each in pool.map(work, batches):
                found |= each
        return found

    def _has_jobs(self) -> bool:
        """Whether there is a nix-eval-jobs of use."""
        if shutil.which(EVAL_JOBS) is None:
            return False
        with self._knows_jobs as is_usable:
            if is_usable.is_empty:
                done = run(EVAL_JOBS_HELP, timeout=HELP_DEADLINE, check=False)
                is_usable.value = knows_options(done.stdout + done.stderr)
            return is_usable.value

    def _side_by_side(self, host_ids: Sequence[str], progress: EvaluationProgress, kind: Output) -> Found:
        """What nix-eval-jobs says; a host that it lost on the way, or does not have, is not in it."""
        room = int(_available() * SHARE) // BYTES_PER_WORKER
        workers = max(1, min(os.cpu_count() or 1, room, len(host_ids)))
        roots = str(self.run.gc_roots)
        argv = eval_jobs(self.flake, self._named(host_ids), kind, roots=roots, workers=workers)
        done = run(argv, timeout=DEADLINE, check=False, out=lambda line: progress.take(_hosts_of_job(line)))
        self.warnings.take(done.stderr, are_hosts_known=False)  # several are evaluated at a time
        return self._by_id(parse_jobs(done.stdout.splitlines(), Path(self.path)), host_ids)

    def _try(self, host_ids: Sequence[str], *, progress: EvaluationProgress, kind: Output) -> Found | FleetError:
        try:
            argv = nix.describe(self.flake, self._named(host_ids), kind)
            return self._by_id(nix.parse_description(self._asked(argv, progress.follow())), host_ids)
        except FAILURES as error:
            return worded(error, f"{self.path}: evaluating {', '.join(host_ids)}")

    def as_of(self, host_ids: Sequence[str], revision: str) -> Mapping[str, str]:
        """The systems of hosts with the flake's revision in them, were it this one; unknown ones are left out."""
        found: dict[str, str] = {}
        for kind in {self._kind(host_id) for host_id in host_ids}:
            alike = [host_id for host_id in host_ids if self._kind(host_id) is kind]
            try:
                systems = json.loads(self.ask(nix.as_of(self.flake, self._named(alike), revision, kind)))
            except FleetError:  # it cannot be another one
                continue
            named = zip(alike, self._named(alike), strict=True)
            found |= {host_id: system for host_id, name in named if (system := systems.get(name))}
        return found

    def ask(self, argv: Sequence[str]) -> str:
        """Return what an evaluation of the flake prints. FleetError with where in the fleet's files it fails."""
        try:
            return self._asked(argv)
        finally:
            self._tell_warnings()

    def _asked(self, argv: Sequence[str], stream: Callable[[str], None] | None = None) -> str:
        try:
            done = run(argv, timeout=DEADLINE, stream=stream)
        except ProcessFailed as error:
            self.warnings.take(error.stderr)
            if not error.stderr and error.status >= 0:
                raise
            raise FleetError(explain_failure(error, Path(self.path))) from error
        self.warnings.take(done.stderr)
        return done.stdout

    def _tell_warnings(self) -> None:
        """Say what the evaluations warned of and was not said yet: on stderr, and in the run's journal."""
        for text, hosts, is_new in self.warnings.news():
            if is_new:
                say(f"warning: {shown(text, hosts)}", err=True)
            self.run.journal.note("warning", text=text, hosts=list(hosts))


def _batches(host_ids: Sequence[str]) -> tuple[int, list[Sequence[str]]]:
    """How many processes, and the hosts of each call: no more at a time than fit into memory."""
    room = max(1, int(_available() * SHARE) // BYTES_PER_HOST)
    workers = max(1, min(os.cpu_count() or 1, min(room, len(host_ids)) // WORTHWHILE))
    size = max(1, min(room // workers, -(-len(host_ids) // workers)))
    return workers, [host_ids[start : start + size] for start in range(0, len(host_ids), size)]


def _available() -> int:
    """Bytes of memory that are free for programs (proc_meminfo(5)); without that file, plenty."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 40
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 1 << 40)
