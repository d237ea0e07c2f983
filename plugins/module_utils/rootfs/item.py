# SPDX-License-Identifier: GPL-3.0-or-later
"""Define a root filesystem as data: its options, and where on a host it may be."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass, replace
from typing import Any, Dict, Optional

from ..core.errors import OptionError
from ..core.resource import Item, fixed, identity, observed_only, settable
from . import releases, store

# Never replaced or removed by one wrong option ...
SYSTEM = frozenset("""/ /home /media /mnt /opt /root /run /srv /tmp /usr/local /var /var/cache /var/lib /var/local
                      /var/lock /var/log /var/mail /var/opt /var/run /var/spool /var/tmp""".split())
# ... nor anything inside of these.
SYSTEM_TREES = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys",
                "/usr")

NAME_MAX = 255


@dataclass(frozen=True)
class Rootfs(Item):
    """Hold a root filesystem: an unpacked tarball that ``dest`` points to.

    ``checksum`` is the SHA-256 of the tarball, ``source`` its URL or path. ``immutable`` is whether the tree is in the store, as an
    earlier release unpacked it at ``dest`` itself; ``closed`` whether only root can read the store. ``leftover`` is a path in the
    store that can be removed, of an interrupted run or a former tree that no container runs on; else an empty string.
    """

    word = "rootfs"

    dest: str = identity()
    version: Optional[str] = fixed()
    arch: Optional[str] = fixed()
    checksum: Optional[str] = fixed()
    source: Optional[str] = identity()
    immutable: Optional[bool] = settable()
    closed: Optional[bool] = settable()
    leftover: Optional[str] = settable()
    owner: Optional[str] = observed_only()

    @property
    def key(self) -> str:
        return f"{self.word} {self.dest}"

    @property
    def parent(self) -> str:
        """Return the directory that holds the link and the store."""
        return os.path.dirname(self.dest)

    @property
    def tree(self) -> str:
        """Return the path of the tree in the store."""
        return store.place(self.dest, str(self.checksum))

    @property
    def option(self) -> str:
        """Return the name of the option that names the tarball."""
        return "src" if os.path.isabs(self.source or "") else "mirror"

    def expected_after_apply(self):
        """Return the item without ``leftover``: a container may end at any time, and leave a former tree unused."""
        return replace(self, leftover=None)

    def to_result(self):
        return {name: value for name, value in super().to_result().items() if value != ""}


RECORD = ".alpine_rootfs.json"  # what a tree is made of, in the tree itself
OPTIONS = {
    "dest": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "version": {"type": "str", "default": releases.DEFAULT_VERSION},
    "arch": {"type": "str", "choices": list(releases.ARCHES)},
    "mirror": {"type": "str", "default": releases.MIRROR},
    "src": {"type": "path"},
    "checksum": {"type": "str"},
}


def rootfs(options: Dict[str, Any]) -> Rootfs:
    """Return the desired Rootfs of one item's options. Raise OptionError."""
    dest = destination("dest", options["dest"])
    checksum = releases.checksum("checksum", options["checksum"])
    version = releases.version("version", options["version"])
    mirror = releases.mirror("mirror", options["mirror"])
    if options["state"] == "absent":
        return Rootfs(dest=dest)
    if options["src"] is not None:
        source = absolute("src", options["src"])
        version, arch = releases.named(source)
    else:
        arch = options["arch"] or releases.host_arch()
        source = releases.url(mirror, version, arch)
    return Rootfs(dest=dest, version=version, arch=arch, checksum=checksum, source=source)


def destination(option: str, value: str) -> str:
    """Return the normalized path of a root filesystem. Raise OptionError."""
    if not value.startswith("/") or "\0" in value:
        raise OptionError(option, value, "give the absolute path of a directory, such as /var/lib/rootfs/alpine")
    if ".." in value.split("/"):
        raise OptionError(option, value, "it leads through '..'; give the path itself")
    path = "/" + posixpath.normpath(value).lstrip("/")
    if len(os.fsencode(posixpath.basename(path))) > NAME_MAX:
        raise OptionError(option, value, f"its last part has more than {NAME_MAX} bytes; give a shorter one")
    if store.NAME in path.split("/"):
        raise OptionError(option, value, f"{store.NAME} is where the trees of root filesystems lie; give a place beside it")
    return refuse_system(option, value, path)


def refuse_system(option: str, value: str, path: str) -> str:
    """Return the path. Raise OptionError for one that belongs to the host's system."""
    inside = any(path == tree or path.startswith(tree + "/") for tree in SYSTEM_TREES)
    if path in SYSTEM or (inside and not path.startswith("/usr/local/")):
        where = "it" if path == value else path
        raise OptionError(option, value, f"{where} belongs to the system of this host; give a directory of its own, such "
                          "as /var/lib/rootfs/alpine")
    return path


def absolute(option: str, value: str) -> str:
    """Return the normalized path of a tarball on the host. Raise OptionError."""
    if not value.startswith("/") or "\0" in value:
        raise OptionError(option, value, "give the absolute path of a tarball on the host")
    return posixpath.normpath("/" + value.lstrip("/"))


def refuse_nested(option, paths):
    """Raise OptionError where one of the directories is inside another, with which it would be replaced and removed."""
    for path in paths:
        for other in paths:
            if path.startswith(other + "/"):
                raise OptionError(option, path,
                                  f"it is inside of {other}, another rootfs of this task; give it a place beside that")
