"""The checkout's `operations` and `facts` are `nixherd.operations` and `nixherd.facts`: one module with two names.

Python would load each file a second time under the second name, and pyinfra would then know two classes of a fact.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from typing_extensions import override

_LIBRARY = "nixherd."


class _Both(MetaPathFinder, Loader):
    """Finds modules below a package that has taken its long name's place."""

    @override
    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        package = name.partition(".")[0]
        is_ours = package != name and getattr(sys.modules.get(package), "__name__", "") == _LIBRARY + package
        return ModuleSpec(name, self) if is_ours and find_spec(_LIBRARY + name) else None

    @override
    def exec_module(self, module: ModuleType) -> None:
        """Import the long name; whoever imports the short one is given what stands in sys.modules then."""
        sys.modules[module.__name__] = import_module(_LIBRARY + module.__name__)


def use_long_name(name: str) -> None:
    """Make a package that is imported by its short name the very same as the one with the long name."""
    if name.startswith(_LIBRARY):
        return
    sys.modules[name] = import_module(_LIBRARY + name)
    if not any(isinstance(each, _Both) for each in sys.meta_path):
        sys.meta_path.insert(0, _Both())
