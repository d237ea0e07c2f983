# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's /run and /var/lib that are the tests' own."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import stat
import tempfile
from pathlib import Path

from .modules import utils
from .namespaces import sh

CLONE_NEWNS = 0x00020000


class Host:
    """A machine's /run and /var/lib, empty and private, in a mount namespace that shares mounts as systemd has it."""

    def __init__(self, directory):
        self.home, self.directory, self.counter = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY), directory, itertools.count()
        utils("network.namespaces")._call("unshare", CLONE_NEWNS)
        sh("mount --make-rprivate /", "mount --make-rshared /")
        self._cover()

    def _cover(self):
        lib = f"{self.directory}/lib{next(self.counter)}"
        os.makedirs(lib)
        sh("mount -t tmpfs -o mode=755 run /run", f"mount --bind {lib} /var/lib", "mkdir -p /run/mount")  # mount's own

    def picture(self):
        """All files with modes and contents, and all mounts."""
        def content(path, status):
            if stat.S_ISLNK(status.st_mode):
                return os.readlink(path)
            return path.read_bytes() if stat.S_ISREG(status.st_mode) and path.parent.name not in ("netns", "users") else status.st_ino

        found = {}
        for each in sorted([*Path("/run").rglob("*"), *Path("/var/lib").rglob("*")]):
            status = os.lstat(each)
            found[str(each)] = (oct(status.st_mode), status.st_uid, content(each, status))
        # Not the mounts of tests beside this one: the kernel takes them away here, too, when their directory is removed.
        mounts = Path("/proc/thread-self/mountinfo").read_text(encoding="ascii").splitlines()
        return found, [line for line in mounts if not line.split()[4].startswith(f"{tempfile.gettempdir()}/")]

    def clear(self):
        """Ends what a test left behind. Deletes nothing: should these paths ever be the machine's own, nothing is lost."""
        assert os.stat("/proc/thread-self/ns/mnt").st_ino != os.fstat(self.home).st_ino
        for namespace in Path("/run/netns").glob("*"):
            for pid in sh(f"ip netns pids {namespace.name}", check=False).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        for record in Path(utils("container.launcher.record").RUN).glob("*"):
            pid = utils("container.launcher.record").running(record.name)
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        sh("umount --lazy /run", "umount --lazy /var/lib")
        self._cover()

    def close(self):
        self.clear()
        utils("network.namespaces")._call("setns", self.home, CLONE_NEWNS)
        os.close(self.home)
