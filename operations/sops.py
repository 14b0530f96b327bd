"""Secret files encrypted anew, and the proof that a machine decrypts its own."""

from pyinfra import host

from nixherd.base.errors import EndUnknown, FleetError, NotWell
from nixherd.base.names import flag_of
from nixherd.pyinfra_glue.fleet_files import changed_files
from nixherd.pyinfra_glue.hosts import executing, fleet_host
from nixherd.pyinfra_glue.installing import is_installed, machine_of
from nixherd.pyinfra_glue.operation import Change, NoChange, operation
from nixherd.pyinfra_glue.proving_secrets import Proof, declared_of, report, running_of
from nixherd.trust.enrol import Wanted
from nixherd.trust.recipients import as_ruled


@operation()
def updatekeys() -> Change | NoChange:
    """Encrypt every secret file for whom its rule names, all or none, with one commit. Works on the fleet's files.

    A file that is plain text, or whose rule cannot be judged, fails the host.
    """

    def applied(files: Wanted) -> Wanted:
        files, left = as_ruled(files)
        if left:
            raise FleetError(f"{', '.join(left)}: not known to be as their rules say; see `nixherd secrets status`")
        return files

    otherwise = "every secret file is encrypted for whom its rule names"
    return changed_files(host, applied, "secrets: as .sops.yaml says", otherwise=otherwise)


@operation()
def decrypted(strict: bool = True) -> Change | NoChange:
    """Prove that the machine has decrypted each secret and template that its configuration declares, as declared.

    Reported are names and salted hashes, as read back. With `strict=False` what is to come is said only: files that are
    not encrypted for the machine yet, an older system, a home whose user has not logged in.

    Args:
        strict: whether everything that is not proven fails the host.
    """
    is_strict, host_id = flag_of("strict", strict), fleet_host(host).id
    declared = declared_of(host)
    beside = [*declared.others, *(f"containers.{name}" for name in declared.containers)]
    others = f"; what {' and '.join(beside)} brings is not proven" if beside else ""
    if not declared.secrets and not declared.templates and not declared.problem:
        return NoChange(f"{host_id} declares no secrets for sops-nix{others}")
    system = None
    if fleet_host(host).is_nixos:
        machine = machine_of(host)
        if not is_installed(machine):
            if executing(host):
                raise FleetError(f"{host_id}: no installed system answers; provision it first")
            return Change(
                f"verify that {host_id} decrypts {len(declared.secrets)} secrets", lambda: None, changes=False
            )
        system = machine["current_system"] if machine else None
    special, declared, is_current = running_of(host, declared, system)
    if special and executing(host):
        host.log(f"{host_id} runs its specialisation {special}, which is judged by what it declares itself")
    proof = Proof.of(host, declared, is_current=is_current)
    report(host, proof)
    wrong = [f"{host_id}: {each}" for each in proof.findings if each.is_wrong or is_strict]
    to_come = [f"{host_id}: {each}" for each in proof.findings if not (each.is_wrong or is_strict)]
    unknown = [f"{host_id}: not known: {line}" for line, is_system in proof.unknown if is_system or is_strict]
    to_come += [f"{host_id}: not known: {line}" for line, is_system in proof.unknown if not (is_system or is_strict)]
    for line in to_come:
        host.log(line)
    if wrong:
        raise NotWell("\n".join((*wrong, *unknown)))
    if unknown:
        raise EndUnknown("\n".join(unknown))
    where = f" in its specialisation {special}" if special else ""
    return NoChange(f"{host_id} has decrypted {proof.summary}{where}{others}")
