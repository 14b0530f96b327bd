"""Where the fleet is when nobody names it, and where group data are: the operator's, and those of the fleet.

The fleet's directory is input: its group data are read and never run, and may say what hosts.nix may say of how hosts
are deployed to; so are those of its repository. What decides over keys, signatures and programs is the operator's:
`~/.config/nixherd/group_data`, and what is beside the inventory.py of a project elsewhere that we are in.
"""

import ast
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nixherd.base.errors import Refused, Usage
from nixherd.base.files import expanded, write_whole
from nixherd.fleet.groups import HOST_DATA, NODE_DATA, check_group_data
from nixherd.fleet.schema import FIELDS, Place
from nixherd.fleet.world import SAFE, believed, distrust, is_safe, repository_of

PROJECT = Path(__file__).parents[1] / "project"
"""inventory.py, deploys/ and group_data/ as they are installed; in the checkout they are links to those at its top."""
GROUP_DATA = "group_data"
OF_THE_TREE = "group-data-of-the-fleet"
"""what the directory is called into which the tree's group data are written for pyinfra"""

_OF_A_FLEET = ("hosts.nix", "nixherd.nix")
_DEPLOYS = {field.name for field in FIELDS[Place.HOST] if field.deploys}
_ALLOWED = _DEPLOYS - {"require_signed"} | {"boot_deadline", "docs_file", "secrets_directory", "task_deadline"}


def fleet_around(start: Path | None = None) -> Path:
    """The nearest directory, from `start` or the current one upwards, that is a fleet: has hosts.nix, nixherd.nix or
    flake.nix.

    A project has its fleet in `fleet/`, beside its inventory.py. Where there is none, `fleet/` in `start` is returned,
    which need not exist.
    """
    start = Path.cwd() if start is None else start
    for directory in (start, *start.parents):
        is_project = directory == start or _is_file(directory / "inventory.py")
        for each in (directory, *([directory / "fleet"] if is_project else [])):
            if any(_is_file(each / name) for name in _OF_A_FLEET):
                return each
        if _is_file(directory / "flake.nix"):
            return directory
    return start / "fleet"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # not ours to look into
        return False


def personal_data() -> Path:
    """Where the operator's group data for every fleet are: all.py alone counts."""
    return expanded("~/.config/nixherd") / GROUP_DATA


def _project() -> Path | None:
    """The nearest directory upwards with an inventory.py, if it has group data and is not the installed one."""
    here = Path.cwd()
    project = next((each for each in (here, *here.parents) if _is_file(each / "inventory.py")), None)
    if project is None or not (project / GROUP_DATA).is_dir() or _is_installed(project / GROUP_DATA):
        return None
    return project


def _is_the_fleets(project: Path, fleet: Path) -> bool:
    """Whether who may push to the fleet's repository may write the project's files, unless the operator allows that."""
    place = os.path.realpath(project)
    return not is_safe(place) and Path(place).is_relative_to(repository_of(os.path.realpath(fleet)))


def project_data(fleet: Path) -> list[Path]:
    """Group data beside the inventory.py of the project that we are in, unless that is in the fleet's repository.

    They are run. Refused where somebody else may write them.
    """
    project = _project()
    if project is None or _is_the_fleets(project, fleet):
        return []
    directory = project / GROUP_DATA
    if not is_safe(os.path.realpath(project)):
        for path in (project, directory, *sorted(directory.glob("*.py"))):
            if why := distrust(path.stat(), believed() | {0}):
                raise Refused(f"{path}: {why}, and would be run; see to that, or set {SAFE}={project} to allow it")
    return [directory]


def operators_data(fleet: Path) -> list[Path]:
    """The directories of group data that are the operator's, later ones first in rank. Refused as `project_data`."""
    return [PROJECT / GROUP_DATA, *project_data(fleet), personal_data()]


def _is_installed(directory: Path) -> bool:
    return directory.resolve() == (PROJECT / GROUP_DATA).resolve()


def tree_data(fleet: Path) -> dict[str, dict[str, Any]]:
    """What `group_data/` says by group, in the fleet's directory and in a project of its repository; nothing is run.

    Usage for code, and for what is not the fleet's to say.
    """
    project = _project()
    places = [project] if project and _is_the_fleets(project, fleet) else []
    run = [PROJECT / GROUP_DATA, *project_data(fleet)]
    found: dict[str, dict[str, Any]] = {}
    for directory in dict.fromkeys((place / GROUP_DATA).resolve() for place in (*places, fleet)):
        if directory.is_dir() and directory not in [each.resolve() for each in run]:
            for file in sorted(directory.glob("*.py")):
                found.setdefault(file.stem, {}).update(_read(file))
    return {group: values for group, values in found.items() if values}


def write_tree_data(data: Mapping[str, Mapping[str, Any]], run: Path) -> Path | None:
    """Write these data for pyinfra below the directory of a run; return where, None without any."""
    for group, values in data.items():
        text = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        write_whole(run / OF_THE_TREE / f"{group}.py", text)
    return run / OF_THE_TREE if data else None


def _read(file: Path) -> dict[str, Any]:
    """The names that we ask for; others may be for deploy files of one's own, which pyinfra gives them."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (OSError, SyntaxError, ValueError) as error:
        raise Usage(f"{file}: cannot be read: {error}") from None
    values: dict[str, Any] = {}
    for node in tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not is_docstring:
            name, value = _assigned(file, node)
            values[name] = value
    check_group_data(values, str(file))
    for name in values:
        if (name in HOST_DATA and name not in _ALLOWED) or name.startswith(("ssh_", "_")):
            remedy = "say it in hosts.nix, nixherd.nix or in" if name == "require_signed" else "say it in"
            raise Usage(f"{file}: {name} is not the fleet's to say; {remedy} {personal_data()}/all.py, which is yours")
    return {name: value for name, value in values.items() if name in _ALLOWED and name not in NODE_DATA}


def _assigned(file: Path, node: ast.stmt) -> tuple[str, Any]:
    """The name and value of an assignment that is written out."""
    target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
    if isinstance(node, ast.Assign) and isinstance(target, ast.Name):
        try:
            return target.id, ast.literal_eval(node.value)
        except ValueError:
            pass
    raise Usage(
        f"{file}:{node.lineno}: write NAME = VALUE with a plain value; what stands in the fleet's directory is read, "
        f"and not run; code is for {personal_data()}/all.py, or for a project that {SAFE} names"
    )
