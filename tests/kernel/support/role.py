# SPDX-License-Identifier: GPL-3.0-or-later
"""The role on two hosts that two links of one namespace play."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces

from ...conftest import ROOT
from .namespaces import js, sh
from .tarballs import GOOD, packed

PLAY = """
- hosts: overlay
  gather_facts: false
  serial: "{{ batch | default('100%') }}"
  roles: [fromscratch.containers.overlay]
"""


def held(netns):
    """The names of the links and of the collection's files."""
    return [each["ifname"] for each in js(f"ip -n {netns} -j link show")], sorted(Path("/var/lib/fromscratch").rglob("*"))


def role_runner(scene, tmp_path):
    """Runs the role on both hosts; what it has said, and whether it has succeeded."""
    netns = scene.netns()
    for number, mtu in (1, 1500), (2, 1400):
        sh(f"ip -n {netns} link add enX{number} mtu {mtu} type veth peer name wire{number} mtu {mtu}",
           f"ip -n {netns} link set wire{number} up", f"ip -n {netns} link set enX{number} up",
           f"ip -n {netns} address add 192.0.2.{number}/32 dev enX{number}")
    tarball = packed(tmp_path / "rootfs.tar.gz", *GOOD)
    (tmp_path / "play.yml").write_text(PLAY, encoding="utf-8")

    def role(*arguments, own=None, playbook=tmp_path / "play.yml", **variables):
        hosts = {f"h{number}": {"overlay_underlay_ip": f"192.0.2.{number}", **(own or {}).get(number, {})} for number in (1, 2)}
        (tmp_path / "hosts.json").write_text(json.dumps({"overlay": {"hosts": hosts, "vars": {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "overlay_install_packages": False,
            "overlay_guard": False, "overlay_antispoof": False, "overlay_rootfs_src": str(tarball), **variables}}}), encoding="utf-8")
        with namespaces.entered(netns):
            done = subprocess.run(
                [Path(sys.executable).parent / "ansible-playbook", "-i", tmp_path / "hosts.json", playbook, *arguments],
                cwd=ROOT, capture_output=True, text=True, check=False, env={
                    **os.environ, "ANSIBLE_CONFIG": f"{ROOT}/ansible.cfg", "ANSIBLE_HOME": str(tmp_path),
                    "ANSIBLE_REMOTE_TEMP": f"{tmp_path}/tmp", "LC_ALL": "C.UTF-8"})
        return done.returncode == 0, done.stdout + done.stderr

    role.netns = netns
    return role
