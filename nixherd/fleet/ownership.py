"""Whose a file is: what somebody else may write is not believed, as with git's safe.directory."""

import functools
import grp
import os
import pwd
import stat

SAFE = "NIXHERD_SAFE_DIRECTORY"
"""the environment's word for directories that are believed all the same: paths with colons between them, or *"""


def is_safe(*directories: str) -> bool:
    """Whether the operator has said so of one of these directories."""
    said = os.environ.get(SAFE, "").split(":")
    return "*" in said or not {os.path.realpath(word) for word in said if word}.isdisjoint(directories)


def believed() -> frozenset[int]:
    """The users that are as good as ourselves: for root, the one who called sudo."""
    ours, caller = os.geteuid(), os.environ.get("SUDO_UID", "")
    return frozenset((ours, int(caller))) if ours == 0 and caller.isdecimal() else frozenset((ours,))


def distrust(about: os.stat_result, owners: frozenset[int]) -> str | None:
    """Why what these are the properties of is not believed, as the rest of a sentence; None when it is.

    `owners` may own it, and be in the group that may write it; so may root.
    """
    if about.st_uid not in owners:
        return f"belongs to {_user(about.st_uid)}"
    if stat.S_ISLNK(about.st_mode):
        return None
    if about.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    if about.st_mode & stat.S_IWGRP and (others := _members(about.st_gid) - owners - {0}):
        return f"can be written by the group {_group(about.st_gid)}, which {_user(min(others))} is in"
    return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


@functools.cache
def _members(gid: int) -> frozenset[int]:
    """Whose group it is, first or further, as far as the system tells."""
    members = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid}
    try:
        names = grp.getgrgid(gid).gr_mem
    except KeyError:
        names = []
    for name in names:
        try:
            members.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    return frozenset(members)
