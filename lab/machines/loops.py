"""Loop devices that detach when their owner ends, however it ends (linux/loop.h)."""

import errno
import fcntl
import os
import struct
import time
from pathlib import Path

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LOOP_SET_CAPACITY = 0x4C07
AUTOCLEAR = 4
PARTSCAN = 8
# struct loop_config: fd, block size, struct loop_info64 (its lo_flags and lo_file_name here), eight reserved words
_CONFIG = struct.Struct("<II 40x 12x I 64s 96x 16x 64x")


class Loop:
    """An attached image. The kernel detaches it with the last descriptor: ours, a mount's or a guest's."""

    def __init__(self, image: Path) -> None:
        """Attach in one step, so that a kill at any moment leaves nothing attached."""
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        try:
            while True:
                self.number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
                self._fd = os.open(f"/dev/loop{self.number}", os.O_RDWR | os.O_CLOEXEC)
                config = _CONFIG.pack(backing, 512, AUTOCLEAR | PARTSCAN, os.fsencode(image)[-63:])
                try:
                    fcntl.ioctl(self._fd, LOOP_CONFIGURE, config)
                    break
                except OSError as error:
                    os.close(self._fd)
                    if error.errno != errno.EBUSY:  # another process took the device
                        raise
        finally:
            os.close(control)
            os.close(backing)
        self.image = image

    @property
    def device(self) -> str:
        return f"/dev/loop{self.number}"

    @property
    def major_minor(self) -> tuple[int, int]:
        number = os.fstat(self._fd).st_rdev
        return os.major(number), os.minor(number)

    def flush(self) -> None:
        """Write everything on the device to the image."""
        os.fsync(self._fd)

    def grown(self) -> None:
        """Apply the image's new size."""
        fcntl.ioctl(self._fd, LOOP_SET_CAPACITY)

    def partition(self, number: int) -> tuple[int, int] | None:
        """Return major and minor of a partition that the kernel knows."""
        for path in Path(f"/sys/block/loop{self.number}").glob("*/partition"):
            if int(path.read_text()) == number:
                major, minor = (path.parent / "dev").read_text().split(":")
                return int(major), int(minor)
        return None

    def close(self, deadline: float = 5.0) -> bool:
        """Close it; return True when the image is detached within `deadline` seconds, False when it is still in use."""
        os.close(self._fd)
        backing = Path(f"/sys/block/loop{self.number}/loop/backing_file")
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            try:
                if backing.read_text().rstrip("\n") != str(self.image):
                    return True
            except FileNotFoundError:
                return True
            time.sleep(0.01)
        return False
