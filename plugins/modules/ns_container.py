#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: ns_container
short_description: Manage containers made of namespaces
description:
  - Starts, stops and removes containers out of a root filesystem and new pid, mount, network, UTS and IPC namespaces, and
    a cgroup namespace where the kernel has it. No engine and no daemon are involved.
  - A container is a shell script and an fstab below C(/var/lib/fromscratch/containers/NAME), made of the commands of
    util-linux. C(container start), C(container stop), C(container exec COMMAND) and C(container status) work by hand too.
  - Its network namespace is C(/run/netns/NAME), so that C(ip netns exec NAME) works. It outlives the container's processes,
    so that a restart keeps links and addresses; M(fromscratch.containers.veth_pair) connects it.
  - The root is changed with C(pivot_root) and the old one is gone. Root inside has the capabilities that Docker leaves it
    but for C(CAP_MKNOD), no program inside gains any, C(/proc) is read-only, and device nodes work in C(/dev) alone;
    O(privileged) lifts all that.
version_added: 0.1.0
author:
  - The fromscratch.containers engineers (@fromscratch)
extends_documentation_fragment:
  - fromscratch.containers.attributes
notes:
  - Runs as root. Use C(become) where the connection does not log in as root.
  - A pid alone never tells whether a container runs; its start time and the boot are recorded beside it.
options:
  name: &name
    description: Name of the container and of its network namespace.
    type: str
  state: &state
    description:
      - V(started) and V(stopped) are what they say; a container that does not exist yet is made in both cases.
      - V(restarted) always stops and starts it.
      - V(absent) stops it and removes its network namespace and its writable layer.
    type: str
    choices: [started, stopped, restarted, absent]
    default: started
  rootfs: &rootfs
    description:
      - Directory with the root filesystem, as M(fromscratch.containers.alpine_rootfs) makes it. Required unless
        O(state=absent).
    type: path
  command: &command
    description:
      - The command and its arguments. It runs in the background, without a terminal, and its output goes to the file C(log)
        beside the container's script.
    type: list
    elements: str
    default: [sleep, infinity]
  env: &env
    description:
      - Environment variables of the command, beside C(HOME), C(PATH) and C(HOSTNAME). Nothing of the host's environment
        is passed on.
    type: dict
    default: {}
  hostname: &hostname
    description: Host name inside. By default the container's name.
    type: str
  workdir: &workdir
    description: Directory inside in which the command starts.
    type: path
    default: /
  layer: &layer
    description:
      - What the container writes to. V(disk) is a layer of its own over the root filesystem, which survives a restart;
        V(tmpfs) the same in memory, new at each start; with V(none) it writes to O(rootfs) itself.
      - With V(disk) and V(tmpfs) any number of containers share one root filesystem.
    type: str
    choices: [none, disk, tmpfs]
    default: disk
  binds: &binds
    description: Files and directories of the host that the container sees.
    type: list
    elements: dict
    default: []
    suboptions:
      source:
        description: Absolute path on the host.
        type: path
        required: true
      dest:
        description: Absolute path inside.
        type: path
        required: true
      read_only:
        description: Whether the container can only read it. Mounts below the source are not seen then.
        type: bool
        default: false
  tmpfs: &tmpfs
    description:
      - Absolute paths inside that get a file system in memory, with mount options after a colon where the defaults
        do not fit, such as V(/tmp:mode=1777,size=64m).
    type: list
    elements: str
    default: []
  read_only: &read_only
    description: Whether the root filesystem is read-only inside.
    type: bool
    default: false
  privileged: &privileged
    description: Whether root inside keeps all capabilities and writes to C(/proc), as a container that plays a host needs.
    type: bool
    default: false
  init: &init
    description:
      - Whether process 1 is a small init in the container's own C(/bin/sh), which passes signals on to the command and reaps
        what it leaves behind. Without it the command is process 1 itself.
    type: bool
    default: true
  stop_timeout: &stop_timeout
    description: Seconds between SIGTERM and SIGKILL, from 0 to 3600.
    type: int
    default: 10
  restart: &restart
    description:
      - What happens when the command ends by itself. With V(on-failure) it is started again unless it ended with status 0,
        with V(always) in any case, but no more than five times in a minute.
      - All but V(no) need systemd.
    type: str
    choices: ["no", on-failure, always]
    default: "no"
  memory: &memory
    description:
      - Memory that the container may use, in bytes or with K, M, G or T after the number, such as V(64M). What takes more is
        killed. Unlimited by default; needs systemd.
    type: str
  cpus: &cpus
    description: Processors' time that the container may use, such as V(1.5). Unlimited by default; needs systemd.
    type: float
  pids: &pids
    description: Processes and threads that may be in the container at a time. Systemd's own limit by default; needs systemd.
    type: int
  config:
    description: Any number of containers, each with the options above. Excludes those options beside it.
    type: list
    elements: dict
    suboptions:
      name:
        <<: *name
        required: true
      state: *state
      rootfs: *rootfs
      command: *command
      env: *env
      hostname: *hostname
      workdir: *workdir
      layer: *layer
      binds: *binds
      tmpfs: *tmpfs
      read_only: *read_only
      privileged: *privileged
      init: *init
      stop_timeout: *stop_timeout
      restart: *restart
      memory: *memory
      cpus: *cpus
      pids: *pids
  prune:
    description: Remove the containers of this host that are not among the items.
    type: bool
    default: false
seealso:
  - module: fromscratch.containers.alpine_rootfs
  - module: fromscratch.containers.veth_pair
"""

EXAMPLES = r"""
- name: The article's container A
  fromscratch.containers.ns_container:
    name: container-a
    rootfs: /var/lib/fromscratch/rootfs/alpine

- name: A web server that cannot write but to memory
  fromscratch.containers.ns_container:
    name: web
    rootfs: /var/lib/fromscratch/rootfs/alpine
    command: [httpd, -f, -h, /srv]
    binds:
      - source: /srv/www
        dest: /srv
        read_only: true
    read_only: true
    tmpfs: ["/tmp:mode=1777,size=16m"]

- name: All containers of a list in one call, and none beside them
  fromscratch.containers.ns_container:
    config: "{{ my_containers }}"
    prune: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be; one entry for each container.
  returned: success
  type: list
  elements: dict
  sample:
    - item: container container-a
      action: recreate
      fields: ["command: sleep, infinity vs httpd, -f"]
  contains:
    item:
      description: What it is about.
      type: str
    action:
      description: One of V(create), V(update), V(recreate) and V(delete).
      type: str
    fields:
      description: Each field that differs, what it has and what it should have.
      type: list
      elements: str
commands:
  description: The commands that do the same, once the container's files are written.
  returned: success
  type: list
  elements: str
  sample:
    - ip netns add container-a
    - ip -n container-a link set lo up
    - /var/lib/fromscratch/containers/container-a/container start
observed:
  description: The containers as they are in the end, in the order of the task; in check mode, as they would be.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fromscratch.containers.plugins.module_utils._argspec import argument_spec
from ansible_collections.fromscratch.containers.plugins.module_utils._process import Containers
from ansible_collections.fromscratch.containers.plugins.module_utils._run import run


def main():
    kind = Containers()
    run(AnsibleModule(argument_spec=argument_spec(kind.options), supports_check_mode=True), kind)


if __name__ == "__main__":
    main()
