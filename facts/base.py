"""What all our facts are: what a machine says instead of what was asked fails its host, and no other."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from nixherd.base.errors import FAILURES
from nixherd.base.terminal import worded

T = TypeVar("T")


class Fact(FactBase[T]):
    """A fact whose `process` ends in a value or in FactProcessError: any other error would end the run for all."""

    abstract = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "process" in vars(cls):
            cls.process = _guarded(cls.process)  # type: ignore[method-assign]


def _guarded(process: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(process)
    def guarded(self: FactBase[Any], output: list[str]) -> Any:
        try:
            return process(self, output)
        except FAILURES as error:
            raise FactProcessError(str(worded(error, f"reading {self.name}"))) from None

    return guarded
