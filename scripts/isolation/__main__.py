# SPDX-License-Identifier: GPL-3.0-or-later
"""Tries what containers are kept from, in ours and in podman's, and writes docs/docsite/rst/isolation.rst: ``isolation``.

The same command runs in each container, and prints what the page says of it. Containers have no compiler and no Python, so
single system calls are programs of a few instructions that are put together here. Nothing that could hurt the machine is tried
where nothing is refused, in a privileged container. As root, ``scripts/apart`` from the machine's own containers, and with
/run, /var/lib and the cgroups as this run alone sees them.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / ".collections"))

from boxes import KINDS, MARKER, PIDS, ROOT, TOGETHER, Box, Ours, Podman, ansible, mounted, sh
from page import PAGE, page
from syscalls import MACHINES, PROBES, TELLTALE, own_key, probes

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import STATE


def private_host():
    """Cgroups and all that is written to as this run alone sees them, and mounts that are shared, as systemd has them."""
    directories = ("/run", "/dev/shm", "/var/cache", "/var/lib")
    sh("mount --make-rprivate /", *(f"mount -t tmpfs -o mode=755 own {each}" for each in directories))
    hierarchies = [os.path.basename(point) for point, kind, _options in mounted() if kind == "cgroup"]
    if hierarchies:  # then without cgroup v2, as crun refuses both versions at once
        own = f"{Box.directory}/cgroups"
        sh(f"mkdir {own}; mount -t tmpfs cgroups {own}", *(
            f"mkdir {own}/{name}; mount --bind /sys/fs/cgroup/{name} {own}/{name}" for name in hierarchies),
            f"umount --recursive --lazy /sys/fs/cgroup; mount --move {own} /sys/fs/cgroup")
    sh("mount --make-rshared /")


def make_rootfs():
    found = subprocess.run([ROOT / "scripts/find-rootfs", "--local"], stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode:
        sys.exit(found.returncode)
    sh(f"mkdir -p {Box.rootfs}{PROBES}", f"tar -xzf {found.stdout.strip()} -C {Box.rootfs} --no-same-owner",
       f"touch {Box.rootfs}{MARKER}")
    for name, content in probes(Box.secret).items():
        path = Path(f"{Box.rootfs}{PROBES}", name)
        path.write_bytes(content)
        path.chmod(0o755)


def start():
    """All containers, by the columns of the page."""
    boxes = {kind: Ours(kind) for kind in KINDS}
    ansible(*(box.options(role) for box in boxes.values() for role in TOGETHER))
    if Podman.prepare():
        boxes["podman"] = Podman("podman")
        # With any ulimit it would raise the number of open files, which not every root may.
        ulimits = ["--ulimit", f"nproc={PIDS}:{PIDS}", "--ulimit", "nofile=1024:1024"]
        for role, options in zip(TOGETHER, ([], ["--read-only", *ulimits], [], ["--stop-timeout", "1"])):
            if not boxes["podman"].start(role, *options):
                sys.exit(f"podman does not start its container {role}")
    for box in boxes.values():
        box.start_limited()
    return boxes


def close():
    """Nothing stays behind but the page."""
    if os.path.isdir(STATE):
        ansible(*({"name": name, "state": "absent"} for name in os.listdir(STATE)))
    Podman.close()


def main():
    if os.geteuid() != 0 or "FROMSCRATCH_APART" not in os.environ:
        sys.exit("This makes containers as root, so it runs apart: scripts/apart scripts/isolation")
    if platform.machine() not in MACHINES:
        sys.exit(f"The system calls of {platform.machine()} are not known here")
    own_key()
    with tempfile.TemporaryDirectory(prefix="isolation-") as directory:
        os.chmod(directory, 0o755)
        os.chdir(directory)  # where podman leaves a file when a container runs out of memory
        Box.directory, Box.rootfs, Box.secret = directory, f"{directory}/rootfs", f"{directory}/secret"
        Path(Box.secret).write_text(TELLTALE, encoding="ascii")
        private_host()
        make_rootfs()
        with subprocess.Popen(["sh", "-c", "sleep 1000; :", TELLTALE]) as process:
            try:
                text = page(start())
            finally:
                process.kill()
                close()
    PAGE.write_text(text, encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
