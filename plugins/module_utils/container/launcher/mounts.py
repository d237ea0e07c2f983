# SPDX-License-Identifier: GPL-3.0-or-later
"""The file systems of a container. Each is made as a descriptor, which is nowhere as yet, and then attached to a descriptor of
its mount point, that was found below the container's root without following a link: no path leads out.
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
    """Attributes of the mount, and what is the file system's own affair."""
    attributes, own = 0, []
    for each in options:
        if each in FLAGS:
            attributes |= FLAGS[each]
        elif each not in NOTHING:
            own.append(each)
    return attributes, own


def file_system(kind, options, source=None, owner=0):
    """A new file system, as a descriptor. ``owner`` is root of the container, from which its ids count."""
    attributes, own = split(options)
    if owner and kind == "tmpfs":
        given = dict(each.partition("=")[::2] for each in own)
        own = [f"{key}={value}" if value else key for key, value in given.items() if key not in ("uid", "gid")]
        own += [f"{key}={int(given.get(key, 0)) + owner}" for key in ("uid", "gid")]
    context = syscalls.fsopen(kind)
    try:
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "source", source or kind)
        for each in own:
            key, equals, value = each.partition("=")
            if equals:
                syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, key, value)
            else:
                syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FLAG, key)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
        return syscalls.fsmount(context, attributes)
    finally:
        os.close(context)


def copy_of(directory, path, options=(), users=None):
    """Another mount of files that are there, as a descriptor: what bind mounts are.

    It has the attributes in addition to those that it has already. With ``users``, the descriptor of a user namespace, its files
    are shown with other owners. It takes Linux 5.12: mount_setattr(2).
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


def bound(each, users):
    """What an entry of the bundle binds, as a descriptor, and whether it is a directory."""
    source = os.open(each["source"], os.O_PATH | os.O_CLOEXEC)
    made = copy_of(source, "", each["options"], users if "idmap" in each["options"] else None)
    directory = os.path.isdir(f"/proc/self/fd/{source}")
    os.close(source)
    return made, directory


def attach(mounted, target):
    """Put a mount at a mount point, both of them descriptors, and let go of both."""
    syscalls.move_mount(mounted, target)
    os.close(mounted)
    os.close(target)


class Root:
    """A directory that is to be a container's root, as a descriptor; ``tree`` is what messages call it, ``owner`` whose its files
    are, and ``own`` whether what is written there is the container's alone."""

    def __init__(self, descriptor, tree, owner, own):
        self.descriptor, self.tree, self.owner, self.own = descriptor, tree, owner, own

    def open(self, path, flags=os.O_PATH):
        """What is at a path below the root; None where there is nothing. Refuses links."""
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
        """A directory or file to mount at, made where it is missing, with the directories on the way."""
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
        """A file shown in the place of a link takes it, where that is the container's alone: the link is not followed."""
        in_layer = self.own and os.fstat(directory).st_dev == os.fstat(self.descriptor).st_dev
        try:
            if in_layer and stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode):
                os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            pass

    def mount(self, mounted, path, directory=True, replace_link=False):
        attach(mounted, self.mount_point(path, directory, replace_link))


def devices(options, owner, nodes_of_its_own):
    """The file system for /dev. Nodes in there work only where they are mounts, of copies that root inside may change."""
    made = file_system("tmpfs", options, owner=owner)
    for name, target in LINKS.items():
        os.symlink(target, name, dir_fd=made)
    if nodes_of_its_own:
        make_nodes(made)
    return made


def make_nodes(directory):
    for name, (major, minor) in NODES.items():
        os.mknod(name, 0o666 | stat.S_IFCHR, os.makedev(major, minor), dir_fd=directory)
        os.chmod(name, 0o666, dir_fd=directory)


def show_nodes(root):
    """The nodes in /dev, as mounts; and /dev/console, behind which there is no terminal."""
    nodes = file_system("tmpfs", ["nosuid", "noexec", "mode=700", "size=64k"], "nodes")
    make_nodes(nodes)
    for name in [*NODES, "console"]:
        root.mount(copy_of(nodes, "null" if name == "console" else name), f"/dev/{name}", directory=False)
    os.close(nodes)


def hide(root, paths):
    """Files by a node that is empty, directories by a file system that is; what this kernel does not have needs no hiding."""
    for path in paths:
        there = root.open(path)
        if there is None:
            continue
        if stat.S_ISDIR(os.fstat(there).st_mode):
            attach(file_system("tmpfs", ["ro", "nosuid", "nodev", "noexec", "size=4k"]), there)
        else:
            attach(copy_of(root.descriptor, "dev/null"), there)


def freeze(root, paths):
    for path in paths:
        there = root.open(path)
        if there is not None:
            attach(copy_of(there, "", ["rbind", "ro", "nosuid", "nodev", "noexec"]), there)
