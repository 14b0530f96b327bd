"""What each kind of name may look like, one regular expression a kind; to be matched whole, and as ASCII.

Sources: PVE::JSONSchema (VMIDs, storages, snapshots, nodes), PVE::Storage::Plugin (backups), RFC 1123 (DNS labels).
"""

import re

VMID = r"[1-9][0-9]{2,8}"
DNS_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DNS_NAME = rf"(?=.{{1,253}}$){DNS_LABEL}(?:\.{DNS_LABEL})*"
# as DNS_NAME, with what people have in their hostnames
_HOST_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
HOSTNAME = rf"(?=.{{1,253}}$){_HOST_LABEL}(?:\.{_HOST_LABEL})*"
NODE = DNS_LABEL
STORAGE = r"[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]"
SNAPSHOT = r"[A-Za-z][A-Za-z0-9_-]{1,39}"
# a backup in its storage, as a file or in a backup server: what kind of guest, and which
BACKUP = (
    rf"backup/(?:vzdump-(?P<kind>qemu|lxc|openvz)-(?P<file>{VMID})-[0-9][0-9_-]*\.[a-z0-9.]+"
    rf"|(?P<group>vm|ct)/(?P<pbs>{VMID})/[0-9T:Z-]+)"
)
HOST_ID = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
USER = r"[A-Za-z_][A-Za-z0-9_.-]*"
# a path that every program, shell and option takes as it is
PLAIN_PATH = r"[A-Za-z0-9/._+@-]+"


def pattern(name: str) -> re.Pattern[str]:
    return re.compile(name, re.ASCII)


def is_a(name: str, text: str) -> bool:
    """Whether a text can be a name of this kind."""
    return re.fullmatch(name, text, re.ASCII) is not None
