"""What the API answers when it refuses. Texts are those of the real server, without its final newline."""

from collections.abc import Mapping


class ApiError(Exception):
    """An answer other than 200. `body` replaces the usual JSON object (`""`: no body at all)."""

    def __init__(self, message: str, status: int = 500, *, body: str | None = None, delay: float = 0) -> None:
        super().__init__(message)
        self.message, self.status, self.body, self.delay = message, status, body, delay


class ParameterError(ApiError):
    """400: one text for each parameter that is wrong."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("Parameter verification failed.", 400)
        self.errors = dict(errors)


class PermissionDenied(ApiError):
    """403, before anything is said about what exists."""

    def __init__(self, what: str = "") -> None:
        super().__init__(f"Permission check failed ({what})" if what else "Permission check failed", 403)


class NotImplementedHere(ApiError):
    """501: no such path, or not with this method."""

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"Method '{method} {path}' not implemented", 501)


def config_missing(node: str, vmid: int) -> ApiError:
    """What calls say that read a configuration which is not there."""
    return ApiError(f"Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist")


def vm_not_found(node: str, vmid: int) -> ApiError:
    """The same from calls that look for the VM first."""
    return ApiError(f"unable to find configuration file for VM {vmid} on node '{node}'")
