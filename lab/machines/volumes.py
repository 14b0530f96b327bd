"""Volumes as sparse raw images, one file each."""

import os
import shutil
import subprocess
from pathlib import Path


class Volumes:
    """Images below `directory` by volid. `template` is the initial template disk."""

    def __init__(self, directory: Path, start: dict[str, Path]) -> None:
        """`start`: volumes that exist at the start, with the image that each is a copy of."""
        self.directory = directory
        self._start = start
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, volid: str) -> Path:
        """Return the image's path, existing or not: `nvmeprom:vm-110-disk-0` → `nvmeprom/vm-110-disk-0.raw`."""
        storage, _, name = volid.partition(":")
        return self.directory / storage / (name.replace("/", "+") + ".raw")

    def exists(self, volid: str) -> bool:
        return volid in self._start or self.path(volid).exists()

    def image(self, volid: str) -> Path:
        """Return the image for reading or writing; a volume not yet written is a copy of its initial image."""
        path = self.path(volid)
        if not path.exists() and volid in self._start:
            self._copy(self._start[volid], path)
        return path

    def create(self, volid: str, size: int) -> None:
        """Create an empty image of `size` bytes."""
        path = self.path(volid)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(size)

    def clone(self, source: str, target: str, size: int) -> None:
        """Copy in full, sparse or reflinked; empty when the source has no image (a volume of the states only)."""
        origin = self._start.get(source) or self.path(source)
        if origin.exists():
            self._copy(origin, self.path(target))
        else:
            self.create(target, size)

    def resize(self, volid: str, size: int) -> None:
        """Grow it; never shrink."""
        path = self.image(volid)
        if path.exists() and path.stat().st_size < size:
            os.truncate(path, size)

    def rename(self, source: str, target: str) -> None:
        """Rename the image; a volume not yet written is a copy of its initial image."""
        image, path = self.image(source), self.path(target)
        if image.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            image.rename(path)

    def delete(self, volid: str) -> None:
        self.path(volid).unlink(missing_ok=True)

    def reset(self) -> None:
        """Keep only the initial volumes."""
        shutil.rmtree(self.directory)
        self.directory.mkdir(parents=True)

    def _copy(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        making = target.with_suffix(".making")
        subprocess.run(["cp", "--reflink=auto", "--sparse=always", source, making], check=True)
        making.rename(target)
