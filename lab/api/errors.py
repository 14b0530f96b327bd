"""Refusals of the API. The texts are those of the real server, without the final newline."""

from collections.abc import Mapping


class ApiError(Exception):
    """An answer other than 200. `body` replaces the usual JSON object (`""`: an empty body)."""

    def __init__(self, message: str, status: int = 500, *, body: str | None = None, delay: float = 0) -> None:
        super().__init__(message)
        self.message, self.status, self.body, self.delay = message, status, body, delay


class ParameterError(ApiError):
    """400: one text for each invalid parameter."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("Parameter verification failed.", 400)
        self.errors = dict(errors)


class PermissionDenied(ApiError):
    """403, raised before the answer reveals what exists."""

    def __init__(self, what: str = "") -> None:
        super().__init__(f"Permission check failed ({what})" if what else "Permission check failed", 403)


class NotImplementedHere(ApiError):
    """501: an unknown path, or a method that the path does not have."""

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"Method '{method} {path}' not implemented", 501)


def config_missing(node: str, vmid: int) -> ApiError:
    """Return the error of calls that read a missing configuration."""
    return ApiError(f"Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist")


def vm_not_found(node: str, vmid: int) -> ApiError:
    """Return the error of calls that look up the VM first."""
    return ApiError(f"unable to find configuration file for VM {vmid} on node '{node}'")
