# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount the file systems of a container.

Each mount is created as a detached descriptor, then attached to a descriptor of its mount point, which is opened below the
container's root without following symbolic links: no path leads out.
"""

from __future__ import annotations

import errno
import os
import stat

from . import syscalls
from .bundle import Refused

FLAGS = {"ro": syscalls.MOUNT_ATTR_RDONLY, "nosuid": syscalls.MOUNT_ATTR_NOSUID, "nodev": syscalls.MOUNT_ATTR_NODEV,
         "noexec": syscalls.MOUNT_ATTR_NOEXEC}
NOTHING = {"rw", "suid", "dev", "exec", "relatime", "newinstance", "private", "rprivate"}  # what holds anyway
BELOW = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
NODES = {"full": (1, 7), "null": (1, 3), "random": (1, 8), "tty": (5, 0), "urandom": (1, 9), "zero": (1, 5)}  # Linux's devices.txt
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
         "ptmx": "pts/ptmx"}


def split(options):
    """Return mount options as (attribute flags of the mount, list of options of the file system)."""
    attributes, own = 0, []
    for option in options:
        if option in FLAGS:
            attributes |= FLAGS[option]
        elif option not in NOTHING:
            own.append(option)
    return attributes, own


def file_system(kind, options, source=None, owner=0):
    """Return a descriptor of a new, detached file system.

    ``owner`` is the host's uid of the container's root, added to uid and gid.
    """
    attributes, own = split(options)
    if owner and kind == "tmpfs":
        given = dict(each.partition("=")[::2] for each in own)
        own = [f"{key}={value}" if value else key for key, value in given.items() if key not in ("uid", "gid")]
        own += [f"{key}={int(given.get(key, 0)) + owner}" for key in ("uid", "gid")]
    context = syscalls.fsopen(kind)
    try:
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "source", source or kind)
        for option in own:
            key, equals, value = option.partition("=")
            if equals:
                syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, key, value)
            else:
                syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FLAG, key)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
        return syscalls.fsmount(context, attributes)
    finally:
        os.close(context)


def copy_of(directory, path, options=(), users=None):
    """Return a descriptor of a detached bind mount, with the attributes in addition to those of the source.

    ``users``, a descriptor of a user namespace, makes it an idmapped mount; mount_setattr(2) takes Linux 5.12.
    """
    attributes, own = split(options)
    recursive = "rbind" in own
    everything = syscalls.OPEN_TREE_CLONE | (syscalls.AT_EMPTY_PATH if not path else 0)
    mounted = syscalls.open_tree(directory, path, everything | (syscalls.AT_RECURSIVE if recursive else 0))
    if users is not None:
        syscalls.mount_setattr(mounted, recursive, syscalls.MOUNT_ATTR_IDMAP | attributes, users)
    elif attributes:
        syscalls.mount_setattr(mounted, recursive, attributes)
    return mounted


def bound(entry, users):
    """Return (descriptor of the detached bind mount of a bundle's entry, whether it is a directory)."""
    source = os.open(entry["source"], os.O_PATH | os.O_CLOEXEC)
    made = copy_of(source, "", entry["options"], users if "idmap" in entry["options"] else None)
    directory = os.path.isdir(f"/proc/self/fd/{source}")
    os.close(source)
    return made, directory


def attach(mounted, target):
    """Attach a mount to a mount point, both descriptors, and close them."""
    syscalls.move_mount(mounted, target)
    os.close(mounted)
    os.close(target)


class Root:
    """Hold the root of a container as a descriptor.

    ``tree`` is its path for messages, ``owner`` the host's uid of the container's root, and ``own`` whether writes stay in its
    layer.
    """

    def __init__(self, descriptor, tree, owner, own):
        self.descriptor, self.tree, self.owner, self.own = descriptor, tree, owner, own

    def open(self, path, flags=os.O_PATH):
        """Return a descriptor of a path below the root, or None where nothing is there. Raise Refused for a symbolic link."""
        try:
            return syscalls.openat2(self.descriptor, path.lstrip("/") or ".", flags, BELOW)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise Refused(f"{path} in {self.tree}: a part of it is no directory: choose another place to mount at") from None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise Refused(f"{path} in {self.tree}: {error.strerror}") from None
            raise Refused(f"{path} in {self.tree} is a symbolic link: nothing is mounted there, so name what it leads to") from None

    def mount_point(self, path, directory, replace_link=False):
        """Return a descriptor of a directory or file to mount on, creating it and its parent directories. Raise Refused."""
        parts = path.strip("/").split("/")
        here = os.dup(self.descriptor)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            so_far = "/" + "/".join(parts[:number + 1])
            if replace_link and last:
                self._without_link(here, part)
            there = self.open(so_far)
            if there is None:
                self._make(here, part, last and not directory)
                there = self.open(so_far)
                if there is None:
                    raise Refused(f"{so_far} in {self.tree} goes away while it is made: look for who else writes there")
            os.close(here)
            here = there
        if stat.S_ISDIR(os.fstat(here).st_mode) != directory:
            raise Refused(f"{path} in {self.tree} is {'no' if directory else 'a'} directory: a file is mounted on a file, and a "
                          "directory on a directory")
        return here

    def _make(self, directory, name, file):
        # As root of the container: on a mount that shows other owners, root of the host has no files.
        syscalls.set_fs_ids(self.owner)
        try:
            if file:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=directory))
            else:
                os.mkdir(name, 0o755, dir_fd=directory)
        finally:
            syscalls.set_fs_ids(0)

    def _without_link(self, directory, name):
        """Remove a symbolic link that a bind mount of a file replaces, where it is in the container's own layer.

        It is never followed.
        """
        in_layer = self.own and os.fstat(directory).st_dev == os.fstat(self.descriptor).st_dev
        try:
            if in_layer and stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode):
                os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            pass

    def mount(self, mounted, path, directory=True, replace_link=False):
        """Attach a detached mount at a path below the root, creating the mount point. Raise Refused."""
        attach(mounted, self.mount_point(path, directory, replace_link))


def devices(options, owner, nodes_of_its_own):
    """Return a descriptor of the file system for /dev.

    Device nodes work only where each is a mount, as root inside may replace them.
    """
    made = file_system("tmpfs", options, owner=owner)
    for name, target in LINKS.items():
        os.symlink(target, name, dir_fd=made)
    if nodes_of_its_own:
        make_nodes(made)
    return made


def make_nodes(directory):
    """Create the device nodes in a directory, given as a descriptor."""
    for name, (major, minor) in NODES.items():
        os.mknod(name, 0o666 | stat.S_IFCHR, os.makedev(major, minor), dir_fd=directory)
        os.chmod(name, 0o666, dir_fd=directory)


def show_nodes(root):
    """Mount the device nodes in /dev, and /dev/console, which is /dev/null."""
    nodes = file_system("tmpfs", ["nosuid", "noexec", "mode=700", "size=64k"], "nodes")
    make_nodes(nodes)
    for name in [*NODES, "console"]:
        root.mount(copy_of(nodes, "null" if name == "console" else name), f"/dev/{name}", directory=False)
    os.close(nodes)


def hide(root, paths):
    """Mask paths: files by /dev/null, directories by an empty read-only tmpfs. Skip those that this kernel does not have."""
    for path in paths:
        there = root.open(path)
        if there is None:
            continue
        if stat.S_ISDIR(os.fstat(there).st_mode):
            attach(file_system("tmpfs", ["ro", "nosuid", "nodev", "noexec", "size=4k"]), there)
        else:
            attach(copy_of(root.descriptor, "dev/null"), there)


def freeze(root, paths):
    """Make paths read-only, with all mounts below them."""
    for path in paths:
        there = root.open(path)
        if there is not None:
            attach(copy_of(there, "", ["rbind", "ro", "nosuid", "nodev", "noexec"]), there)
