"""Whose a file is that a command makes: what root makes beside the configuration or the queue must not shut out the relay, which mostly has
a user of its own.
"""

import os
from pathlib import Path

_GROUP_READS = 0o040


def give(descriptor: int, folder: Path) -> None:
    """Where we are root, the new file in `folder` becomes the folder's owner's. In root's own folder that has a group (`/etc/ironpost`, root
    and ironpost) it stays root's, and that group may read it. Raises OSError."""
    if os.geteuid() != 0:
        return
    owner = folder.stat()
    if owner.st_uid != 0 or owner.st_gid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    if owner.st_uid == 0 and owner.st_gid != 0:
        os.fchmod(descriptor, os.fstat(descriptor).st_mode & 0o777 | _GROUP_READS)
