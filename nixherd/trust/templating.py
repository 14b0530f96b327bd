"""Templates that the fleet or its operator wrote: rendered in Jinja2's sandbox, by a process that can do little harm.

The sandbox keeps a template from what its values are made of, and there is nothing that it could include. How long it
takes and how much it makes no sandbox limits (a loop in a loop, a power of a power): the kernel does, in a process of
its own, which gets the template and its values on stdin and gives a text back.
"""

import copyreg
import json
import os
import pickle
import resource
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from nixherd.base.errors import DeadlineExceeded, FleetError
from nixherd.base.process import run
from nixherd.base.terminal import visible

SECONDS = 3
_MEMORY = 1 << 30  # bytes
_LIMITS = {
    resource.RLIMIT_CPU: SECONDS,
    resource.RLIMIT_AS: _MEMORY,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_CORE: 0,
}
_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
_LARGEST = 16 << 20  # characters that come out
_SHOWN = 300  # characters of an error

Values = Callable[[], Mapping[str, Any]]
"""What a template may use. For one that others wrote it has to be a `partial` of a function of a module."""


def render(template: str, values: Values) -> str:
    """What a template of our own comes to."""
    import jinja2  # not for those who only ask for status
    import jinja2.sandbox

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        finalize=visible,  # a page is read by others
        loader=jinja2.FunctionLoader(lambda name: None),
    )
    return environment.from_string(template).render(values())


def render_foreign(name: str, template: str, values: Values) -> str:
    """What a template that others wrote comes to. FleetError, in one line, when it does not."""
    env = {name: os.environ[name] for name in _KEPT if name in os.environ}
    env |= {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-P", "-m", __name__]
    try:
        input = pickle.dumps((template, values))
        done = run(argv, env=env, closed=True, input=input, timeout=10 * SECONDS, check=False)
    except DeadlineExceeded:
        raise FleetError(f"{name}: takes too long; nothing was changed") from None
    if done.status:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
        if done.status < 0 or reason.startswith("MemoryError"):
            reason = f"takes more than {SECONDS} seconds, or {_MEMORY >> 20} MiB of memory"
        raise FleetError(f"{name}: {' '.join(reason.split())[:_SHOWN]}")
    text: str = json.loads(done.stdout)
    return text


def _read_only(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


# The fleet's values are full of read-only mappings, of which pickle knows nothing.
copyreg.pickle(MappingProxyType, lambda mapping: (_read_only, (dict(mapping),)))


def _main() -> None:
    import jinja2

    template, values = pickle.load(sys.stdin.buffer)  # from render_foreign
    for kind, most in _LIMITS.items():
        resource.setrlimit(kind, (most, most))
    try:
        text = render(template, values)
    except jinja2.TemplateSyntaxError as error:
        sys.exit(f"line {error.lineno}: {error.message}")
    except jinja2.TemplateNotFound as error:
        sys.exit(f"it cannot include {error.name}: there is nothing that it may read")
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        sys.exit(str(error))
    except RecursionError:
        sys.exit("it goes round in circles")
    if len(text) > _LARGEST:
        sys.exit(f"it comes to more than {_LARGEST >> 20} MiB")
    json.dump(text, sys.stdout)


if __name__ == "__main__":
    _main()
