"""Whether other people use this computer too: then a page on it asks for a token, as Jupyter's does."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

# user ids of people's accounts, between those of programs
FIRST_UID = 500 if sys.platform == "darwin" else 1000
LAST_UID = 60_000
NO_SHELLS = ("nologin", "false", "sync")


def shared() -> bool:
    """Whether more than one person has an account here, or accounts come from a network, which lists not all."""
    people = {person.pw_uid for person in pwd.getpwall() if _is_person(person)}
    me = os.getuid()
    return len(people | ({me} if FIRST_UID <= me < LAST_UID else set())) > 1 or _from_network(me)


def _is_person(person: pwd.struct_passwd) -> bool:
    can_log_in = Path(person.pw_shell).name not in NO_SHELLS and Path(person.pw_dir).is_dir()
    return FIRST_UID <= person.pw_uid < LAST_UID and can_log_in


def _from_network(me: int) -> bool:
    """Whether our own account is known to the system but stands in no list."""
    try:
        pwd.getpwuid(me)
    except KeyError:
        return False  # a number alone, as in a container
    return me >= FIRST_UID and me not in {person.pw_uid for person in pwd.getpwall()}
