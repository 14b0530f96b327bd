"""A file on its way to a storage: one form of several parts (RFC 7578), streamed, its length known before.

The server takes no other form for it, wants the fields before the file, and refuses chunks.
"""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nixherd.errors import Usage

CHUNK = 1 << 20


@dataclass(frozen=True)
class Upload:
    """The body of a request. `fields` are its other parameters, `filename` is what the file is to be called there."""

    file: Path
    filename: str
    fields: Mapping[str, str]
    boundary: str = field(default_factory=lambda: f"nixherd-{secrets.token_hex(16)}")

    @property
    def parameters(self) -> dict[str, list[str]]:
        """All that the request says, for whoever judges it."""
        return {**{key: [value] for key, value in self.fields.items()}, "filename": [self.filename]}

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self.boundary}"

    def __len__(self) -> int:
        return len(self._head) + self.file.stat().st_size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        with self.file.open("rb") as content:
            while chunk := content.read(CHUNK):
                yield chunk
        yield self._tail

    @property
    def _head(self) -> bytes:
        names = {**self.fields, "filename": self.filename}
        if any(set(text) & set('"\r\n') for text in names.values()):
            raise Usage(f"{self.filename}: this name cannot be sent; nothing was sent")
        parts = "".join(
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in self.fields.items()
        )
        last = f'Content-Disposition: form-data; name="filename"; filename="{self.filename}"'
        return f"{parts}--{self.boundary}\r\n{last}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()

    @property
    def _tail(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode()
