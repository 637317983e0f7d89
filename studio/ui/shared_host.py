"""Whether other people use this computer too: then a page on it asks for a token, as Jupyter's does."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

FIRST_UID, LAST_UID = (
    (500 if sys.platform == "darwin" else 1000),
    60_000,
)  # numbers of people's accounts, between those of programs
NO_SHELLS = ("nologin", "false", "sync")


def shared() -> bool:
    """Whether more than one person has an account here, or accounts come from a network, where not all of them are
    listed.
    """
    people = {one.pw_uid for one in pwd.getpwall() if _is_person(one)}
    me = os.getuid()
    return len(people | ({me} if FIRST_UID <= me < LAST_UID else set())) > 1 or _from_network(me)


def _is_person(one: pwd.struct_passwd) -> bool:
    return FIRST_UID <= one.pw_uid < LAST_UID and Path(one.pw_shell).name not in NO_SHELLS and Path(one.pw_dir).is_dir()


def _from_network(me: int) -> bool:
    """Whether our own account is known to the system but stands in no list."""
    try:
        pwd.getpwuid(me)
    except KeyError:
        return False  # a number alone, as in a container
    return me >= FIRST_UID and me not in {one.pw_uid for one in pwd.getpwall()}
