# SPDX-License-Identifier: GPL-3.0-or-later
"""The same bundles by another runtime of the OCI specification: what is seen inside is the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import STATE
from ansible_collections.fromscratch.containers.plugins.module_utils.container.spec import MASKED, READ_ONLY

from ..conftest import ROOT
from .support.containers import act, launcher, log
from .support.namespaces import sh
from .support.processes import eventually

sys.path.insert(0, str(ROOT / "scripts/isolation"))
import syscalls

pytestmark = pytest.mark.usefixtures("host")

LOOK = """
cut -d' ' -f4-6,7- /proc/self/mountinfo | sed 's/^/mount /'
grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups)' /proc/self/status
cat /proc/self/limits | sed 's/^/limit /'
ls /proc/self/ns | sed 's/^/namespace /'
ls /proc/$$/fd | sed 's/^/descriptor /'
env | grep -v -e ^PWD= -e ^SHLVL= -e ^OLDPWD= | sed 's/^/variable /'
echo "host name $(hostname), process $$, in $(pwd)"
cat /proc/sys/net/ipv4/ping_group_range
for path in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /sys/firmware; do
    [ ! -e $path ] || echo "$path $(ls $path | wc -l) $(head -c 10 $path 2>/dev/null | wc -c)"
done
(: >/proc/sys/kernel/hostname) 2>/dev/null && echo "writes to /proc/sys"
for each in /probes/*; do $each; echo "call ${each##*/} $?"; done
ls -l /dev | cut -d' ' -f1 | sort | uniq -c
echo over
"""
KINDS = {
    "default": {}, "host": {"userns": "host"}, "user": {"user": "1000:1001"},
    "more": {"capabilities": {"add": ["net_raw", "mknod"], "drop": ["chown"]}, "ulimits": {"nofile": "100:200", "core": 0},
             "tmpfs": ["/run:mode=755,size=1m", "/tmp:mode=1777"], "workdir": "/srv", "env": {"A": "b c"}},
    "lifted": {"no_new_privs": False, "seccomp": False, "userns": "host", "capabilities": {"add": ["all"], "drop": ["sys_resource"]}},
    "read only": {"read_only": True}}


@pytest.fixture
def crun(tmp_path):
    """Runs a bundle, on a cgroup v2 mount of its own, since it refuses others; what it said."""
    if not shutil.which("crun"):
        pytest.skip("crun is not installed")

    def run(bundle):
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-ec", "umount -R /sys/fs/cgroup || :; mount -t cgroup2 cgroup2 /sys/fs/cgroup; "
             f"exec crun --root {tmp_path}/state --cgroup-manager=disabled run --bundle {bundle} test"],
            capture_output=True, text=True, check=False, input="", timeout=60)  # crun 1.8 would give /dev/null to the container's root
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def seen(text):
    """What may be compared: a mount without the numbers of its file system, and what each runtime is free to do left out."""
    found = set()
    for line in text.splitlines():
        if line.startswith("mount "):
            words = line.split()
            kind = words[words.index("-") + 1]
            point, options = words[2], sorted(set(words[3].split(",")) - {"relatime"})
            if point == "/" or (point.startswith("/dev/") and point not in ("/dev/pts", "/dev/shm", "/dev/mqueue")):
                continue  # ours is an overlay, and each node a mount
            if point in (*MASKED, *READ_ONLY):
                options = ["ro"]  # ours are nosuid, nodev and noexec as well, and a hidden file is a node of its own
            elif point == "/dev":
                options.remove("nodev") if "nodev" in options else None  # since ours are mounts
            line = f"mount {point} {kind if not point.startswith('/proc/') else ''} {','.join(options)}"
        if line.startswith("call call_open_tree_attr"):
            continue  # which no released libseccomp knows as yet
        if not line.startswith(("Seccomp_filters", "descriptor")) and "crw-" not in line and "lrwx" not in line:
            found.add(line)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_by_another_runtime(rootfs, tmp_path, crun, kind):
    private = Path("/run/other-runtime/rootfs")  # which crun enters as root of the container
    private.parent.mkdir(mode=0o711)
    sh(f"cp -a {rootfs} {private}", f"mkdir {private}/probes")
    if syscalls.platform.machine() in syscalls.MACHINES:
        for name, code in syscalls.probes("/none").items():
            if name.startswith("call "):
                (private / "probes" / name.replace(" ", "_").replace("(", "").replace(")", "")).write_bytes(code)
    sh(f"chmod -R a+rx {private}/probes")
    act(name="c1", rootfs=str(private), init=False, state="stopped", command=["sh", "-c", LOOK], **KINDS[kind])
    config = json.loads(Path(STATE, "c1/config.json").read_text(encoding="utf-8"))
    subprocess.run(launcher("start"), check=True)
    eventually(lambda: "over" in log().splitlines(), "it has looked")
    ours = log()
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    mappings = config["linux"].get("uidMappings")
    if mappings:
        sh(f"chown -R {mappings[0]['hostID']}:{mappings[0]['hostID']} {private}")
    (bundle / "config.json").write_text(json.dumps(config), encoding="utf-8")
    theirs = crun(bundle)
    assert sorted(f"ours: {x}" for x in seen(ours) - seen(theirs)) + sorted(f"theirs: {x}" for x in seen(theirs) - seen(ours)) == []
    assert any(line.startswith("call ") for line in ours.splitlines()) and os.path.isdir(bundle)
