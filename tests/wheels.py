"""A wheel as people install it: built, and in a venv of its own with what it declares to need, and nothing of ours."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
_SCRIPT = "#!{python}\nimport sys\nfrom {module} import {attr}\nsys.exit({attr}())\n"


def build(directory: Path) -> Path:
    """The wheel, made of the source distribution that is put beside it; without a network.

    In a copy of the tree: a build makes files in it, which other tests, and another build, would come across.
    """
    source = directory / "source"
    _copy_tree(source)
    argv = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(directory), str(source)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = directory.glob("*.whl")
    return wheel


def _copy_tree(target: Path) -> None:
    if not (ROOT / ".git").exists():
        shutil.copytree(ROOT, target, symlinks=True, ignore=shutil.ignore_patterns(".*", "build"))
        return
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0")
    for source in (ROOT / name for name in names if name and os.path.lexists(ROOT / name)):
        place = target / source.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, place, follow_symlinks=False)


def install(wheel: Path, venv: Path) -> Path:
    """The Python of a new venv with the wheel alone."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    return python


def install_dependencies(python: Path) -> None:
    """What the wheel there declares to need, copied from where these tests run: as pip does, and without a network."""
    [site] = (python.parents[1] / "lib").glob("python*/site-packages")
    [installed] = [each for each in distributions(path=[str(site)]) if each.name == "nixherd"]
    for each in _needed(installed):
        _copy(each, site, python)


def _needed(installed: Distribution) -> Iterator[Distribution]:
    """What a distribution needs, and what that needs; each once."""
    waiting, seen = list(_required(installed, ())), set[str]()
    while waiting:
        name, extras = waiting.pop()
        found = distribution(name)
        if name not in seen:
            yield found
        if (key := f"{name}[{','.join(extras)}]") not in seen:
            seen |= {name, key}
            waiting += _required(found, extras)


def _required(of: Distribution, extras: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for text in of.requires or ():
        required = Requirement(text)
        if required.marker is None or any(required.marker.evaluate({"extra": each}) for each in ("", *extras)):
            yield canonicalize_name(required.name), tuple(sorted(required.extras))


def _copy(found: Distribution, site: Path, python: Path) -> None:
    for file in found.files or ():
        if ".." not in file.parts and file.suffix != ".pyc":
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(found.locate_file(file)), target)
    for each in found.entry_points.select(group="console_scripts"):
        script = python.with_name(each.name)
        script.write_text(_SCRIPT.format(python=python, module=each.module, attr=each.attr))
        script.chmod(0o755)
