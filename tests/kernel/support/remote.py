# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible as a user runs it, and two hosts that it reaches by ssh: ``amazon``, next to the desk where Ansible runs, and
``debian`` behind it. Both are containers with an overlay of / as their root, an sshd and a network of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from ...conftest import ROOT
from . import task_results
from .modules import run_module
from .namespaces import sh

NEAR, FAR, PORT = "192.0.2.2", "198.51.100.2", 2222
WORDS = "it's \"a\" $ecret"
OURS = {"ansible_connection": "fromscratch.containers.ns_container", "ansible_python_interpreter": sys.executable}
SEEN = {os.path.realpath(each) for each in (ROOT, sys.prefix, sys.base_prefix)} - {"/usr"}

# Of the users, admin may become root as on an EC2 host, ops by a password, and guest not at all.
BOOT = """set -e
for each in admin ops guest; do useradd --create-home --password '*' --shell /bin/bash $each; done
printf 'ops:%s\\n' "$OPS" | chpasswd
mkdir -p /run/sshd /etc/sudoers.d
echo 'admin ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin
echo 'ops ALL=(ALL) ALL' >/etc/sudoers.d/ops
echo "127.0.0.1 $HOSTNAME" >>/etc/hosts
exec "$(command -v sshd)" -D -e -f "$SSH/sshd_config"
"""
SSHD = f"""Port {PORT}
HostKey {{0}}/host_key
PidFile none
AuthorizedKeysFile {{0}}/key.pub
StrictModes no
PasswordAuthentication no
"""
CLIENT = """Host *
  IdentityFile {0}/key
  IdentitiesOnly yes
  UserKnownHostsFile {0}/known_hosts
  StrictHostKeyChecking yes
"""


def lab_host(name, *directories, **options):
    """What makes a container a host with Python."""
    return {"name": name, "rootfs": "/", "layer": "tmpfs", "privileged": True,
            "tmpfs": ["/run:mode=755", "/tmp:mode=1777", "/var/lib:mode=755"],
            "binds": [{"source": each, "dest": each, "read_only": True} for each in sorted(SEEN | set(directories))], **options}


def python_rootfs(directory):
    """A root of the host's own programs; what it takes of a container to show them there."""
    directory.mkdir()
    shared = ["/usr", "/etc", *sorted(SEEN)]
    for name in "/bin", "/sbin", "/lib", "/lib64":
        if os.path.islink(name):
            (directory / name[1:]).symlink_to(os.readlink(name))
        elif os.path.isdir(name):
            shared.append(name)
    return {"rootfs": str(directory), "tmpfs": ["/tmp:mode=1777", "/var/tmp:mode=1777", "/root:mode=755"],
            "binds": [{"source": each, "dest": each, "read_only": True} for each in shared]}


class Remote:
    """``variables`` of the hosts, as an inventory has them; ``shared`` is a directory that they see."""

    def __init__(self, directory, rootfs):
        missing = [each for each in ("sshd", "ssh", "ssh-keygen", "sudo", "useradd") if not shutil.which(each)]
        if missing:
            pytest.skip(f"{', '.join(missing)} missing: scripts/tools installs it")
        self.directory, self.shared = directory, directory / "shared"
        self.shared.mkdir()
        ssh = self.shared
        for name in "key", "host_key":
            sh(f"ssh-keygen -q -t ed25519 -N '' -f {ssh}/{name}")
        (ssh / "sshd_config").write_text(SSHD.format(ssh), encoding="utf-8")
        (ssh / "config").write_text(CLIENT.format(ssh), encoding="utf-8")
        host_key = (ssh / "host_key.pub").read_text(encoding="utf-8")
        (ssh / "known_hosts").write_text("".join(f"[{each}]:{PORT} {host_key}" for each in (NEAR, FAR)), encoding="utf-8")
        made = run_module("ns_container", config=[lab_host(
            name, rootfs, str(ssh), command=["sh", "-c", BOOT], env={"OPS": WORDS, "SSH": str(ssh)}) for name in ("amazon", "debian")])
        assert not made.failed, made.msg
        sh("ip netns add desk", "ip -n desk link set lo up",
           "ip -n desk link add enX0 type veth peer name enX0 netns amazon",
           "ip -n amazon link add enX1 type veth peer name enX0 netns debian",
           *(f"ip -n {host} address add {address}/24 dev {device} && ip -n {host} link set {device} up" for host, device, address in
             [("desk", "enX0", "192.0.2.1"), ("amazon", "enX0", NEAR), ("amazon", "enX1", "198.51.100.1"), ("debian", "enX0", FAR)]))
        for name in "amazon", "debian":
            sh(f"timeout 60 nsenter --net=/run/netns/{name} sh -c 'until ss -Hltn sport = :{PORT} | grep -q .; do sleep 0.05; done'")
        every = {"ansible_port": PORT, "ansible_connection": "ssh", "ansible_python_interpreter": sys.executable}
        self.variables = {
            "amazon": {**every, "ansible_host": NEAR, "ansible_user": "root", "ansible_ssh_common_args": f"-F {ssh}/config"},
            "debian": {**every, "ansible_host": "{{ far }}", "far": FAR, "ansible_user": "admin", "ansible_become": True,
                       "ansible_ssh_common_args": f"-F {ssh}/config -J root@{NEAR}:{PORT}"}}

    def close(self):
        for pid in sh("ip netns pids desk").split():  # ssh, which keeps connections open
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        sh("ip netns delete desk")
        gone = run_module("ns_container", config=[{"name": name, "state": "absent"} for name in self.variables])
        assert not gone.failed, gone.msg

    def run(self, *command, **environment):
        """A command at the desk; what became of it."""
        return subprocess.run(
            ["nsenter", "--net=/run/netns/desk", "--", *command], cwd=ROOT, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, env={**settings(self.directory), "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.directory), **environment})


def settings(home):
    return {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LC_ALL": "C.UTF-8", "HOME": str(home)}


def run_plays(run, directory, inventory, plays, **environment):
    """Run plays, (hosts, tasks) by name, in one run of ansible-playbook; the list of the tasks' results by play and host."""
    source, playbook, results = directory / "hosts.json", directory / "play.json", directory / "results"
    source.write_text(json.dumps({"all": inventory}), encoding="utf-8")
    playbook.write_text(json.dumps([{"hosts": hosts, "gather_facts": False, "tasks": [
        {**task, "name": f"{name} {number}", "ignore_errors": True, "ignore_unreachable": True} for number, task in enumerate(tasks)]}
        for name, (hosts, tasks) in plays.items()]), encoding="utf-8")
    done = run(f"{sys.prefix}/bin/ansible-playbook", "-i", str(source), str(playbook), **task_results.enabled(results), **environment)
    found = {(task, host): result for task, host, result in task_results.read(results)}
    assert found, done.stdout + done.stderr
    return {name: {host: [found.get((f"{name} {number}", host)) for number in range(len(tasks))] for host in hosts}
            for name, (hosts, tasks) in plays.items()}


def run_tasks(run, directory, inventory, hosts, tasks, **environment):
    """Run tasks on hosts by ansible-playbook; the list of their results by host."""
    return run_plays(run, directory, inventory, {"tasks": (hosts, tasks)}, **environment)["tasks"]
