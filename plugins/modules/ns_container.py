#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: ns_container
short_description: Manage containers made of namespaces
description:
  - Starts, stops and removes containers out of a root filesystem and new pid, mount, network, UTS and IPC namespaces, and
    a user namespace (O(userns)) and a cgroup namespace where the host can have them. No engine and no daemon are involved.
  - A container is a bundle of the OCI runtime specification, C(/var/lib/fromscratch/containers/NAME/config.json), and a directory
    for what it writes. The program C(ns-container), which this module installs, starts it by system calls; for people it is
    C(ns-container list), C(start), C(stop), C(restart), C(exec), C(logs), C(status), C(wait) and C(cp).
  - Its network namespace is C(/run/netns/NAME), so that C(ip netns exec NAME) works. It outlives the container's processes,
    so that a restart keeps links and addresses; M(fromscratch.containers.veth_pair) connects it.
  - The root is changed with C(pivot_root) and the old one is gone. Root inside is nobody outside where the host can have it
    so (O(userns)), has the capabilities that podman leaves it (O(capabilities)), and no program inside gains any
    (O(no_new_privs)). System calls that it has no use for are refused (O(seccomp)), what is the whole host's in C(/proc) and
    C(/sys) is hidden or read-only, and device nodes work in C(/dev) alone. O(privileged) lifts all that.
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
  <<: &item  # the options of an item
    state:
      description:
        - V(started) and V(stopped) are what they say; a container that does not exist yet is made in both cases.
        - V(restarted) always stops and starts it.
        - V(absent) stops it and removes its network namespace and its writable layer.
      type: str
      choices: [started, stopped, restarted, absent]
      default: started
    rootfs:
      description:
        - Directory with the root filesystem, as M(fromscratch.containers.alpine_rootfs) makes it. Required unless
          O(state=absent).
      type: path
    command:
      description:
        - The command and its arguments. It runs in the background, without a terminal. Its output goes to the file C(log) beside
          the container's bundle, or to the journal of systemd; C(ns-container logs) shows both.
        - A list of words, which are strings, so that C(0755) and C(yes) are put in quotes. A string is split into words as a shell
          would, and no shell runs it; for one, write C([sh, -c, "echo hello; exec sleep 9"]).
      type: raw
      default: [sleep, infinity]
    env:
      description:
        - Environment variables of the command, beside C(HOME), C(PATH) and C(HOSTNAME). Nothing of the host's environment
          is passed on.
        - The values are strings. What YAML takes for something else, such as V(yes), V(010) or V(1.10), is put in quotes.
      type: dict
      default: {}
    hostname:
      description: Host name inside. By default the container's name.
      type: str
    workdir:
      description: Directory inside in which the command starts.
      type: path
      default: /
    layer:
      description:
        - What the container writes to. V(disk) is a layer of its own over the root filesystem, which survives a restart;
          V(tmpfs) the same in memory, new at each start; with V(none) it writes to O(rootfs) itself.
        - A bind of a file takes the place of a symbolic link in the layer, and never follows it.
        - With V(disk) and V(tmpfs) any number of containers share one root filesystem.
      type: str
      choices: [none, disk, tmpfs]
      default: disk
    binds:
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
    tmpfs:
      description:
        - Absolute paths inside that get a file system in memory, with mount options after a colon where the defaults
          do not fit, such as V(/tmp:mode=1777,size=64m). C(dev) and C(suid) are for containers that are O(privileged).
      type: list
      elements: str
      default: []
    read_only:
      description: Whether the root filesystem is read-only inside.
      type: bool
      default: false
    privileged:
      description:
        - Whether root inside is root outside, keeps all capabilities and writes to C(/proc), as a container that plays a host
          needs. It can do to the host what it likes.
      type: bool
      default: false
    capabilities:
      description:
        - What to add to the eleven capabilities that podman leaves to root, and what to take away; names as in capabilities(7),
          with or without C(CAP_), or V(all).
        - Raw sockets need V(net_raw), which C(arping), C(traceroute), C(keepalived) and Debian's C(ping) use. The C(ping) of
          busybox does without, since all groups inside may use ICMP sockets (C(net.ipv4.ping_group_range)).
      type: dict
      suboptions:
        add:
          description: Capabilities to add.
          type: list
          elements: str
          default: []
        drop:
          description: Capabilities to take away, before those of O(capabilities.add) are added.
          type: list
          elements: str
          default: []
    no_new_privs:
      description: Whether programs inside are kept from rights that their caller does not have, as by a set-user-ID bit.
      type: bool
      default: true
    seccomp:
      description:
        - Whether system calls that a container has no use for are refused, such as those that load modules, change the clock or
          reach keyrings. On machines other than x86_64 and aarch64 there is no such filter, and C(seccomp_reason) in the result
          says so.
      type: bool
      default: true
    user:
      description:
        - User and group that the command runs as, numbers inside such as V(1000:1000). By default root, whose rights
          O(capabilities) limits.
      type: str
    userns:
      description:
        - With V(auto), the container has a user namespace, in which its root is a user of the host without any rights. Each
          container has a range of 65536 ids of its own, and sees the root filesystem as its own by an idmapped mount. That
          needs Linux 5.19, and a file system that can be mounted so, such as ext4, xfs or btrfs (tmpfs since Linux 6.3).
        - With V(host), root inside is root outside, with fewer rights.
        - By default V(auto) where that is possible and O(layer) is not V(none), the container is not O(privileged), and those of
          O(binds) that it can write to lie on a file system that can be mounted so. Such a bind shows files of the host's root as
          those of root inside. C(userns_reason) in the result says why not, and a warning does where nobody has asked for it.
        - It cannot change for a container that has written to its O(layer), whose files would be those of users that it does not
          have.
      type: str
      choices: [auto, host]
    ulimits:
      description:
        - Limits of each process, by the names of prlimit(1), such as C(nofile) or C(nproc). A value is a number or V(unlimited), or
          a soft and a hard one such as V(1024:4096).
      type: dict
      default: {}
    recreate:
      description:
        - With V(on_rootfs_change), the container is started anew once O(rootfs) has been replaced. Otherwise it runs on with the
          files that it has, which M(fromscratch.containers.alpine_rootfs) keeps for it, and sees the others at its next start.
      type: str
      choices: [on_rootfs_change]
    init:
      description:
        - With V(true), process 1 is a small init in the container's own C(/bin/sh), which passes signals on to the command, reaps
          what it leaves behind, and says how it ended. With V(false) the command is process 1 itself.
        - V(catatonit), V(tini) or an absolute path is such a program of the host, linked statically, that is shown to the
          container.
      type: str
      default: "true"
    runtime:
      description:
        - The program that makes the container out of its bundle, with V(ns-container) that of this collection itself.
        - V(crun), V(runc) or an absolute path is such a program of the host. It starts the container and runs commands in it; all
          else, C(ns-container) with its log, status and copies among it, is as ever. A program whose name begins with C(crun)
          leaves cgroups to this collection, all others make a cgroup for each container.
        - It has to make containers out of namespaces of this kernel, as a file is copied by entering them.
      type: str
      default: ns-container
    stop_timeout:
      description: Seconds between SIGTERM and SIGKILL, from 0 to 3600.
      type: int
      default: 10
    restart:
      description:
        - What happens when the command ends by itself. With V(on-failure) it is started again unless it ended with status 0,
          with V(always) in any case, but no more than five times in a minute.
        - All but V(no) need systemd.
      type: str
      choices: ["no", on-failure, always]
      default: "no"
    memory:
      description:
        - Memory that the container may use, in bytes or with K, M, G or T after the number, such as V(64M). What takes more is
          killed. Unlimited by default. Needs systemd, or cgroup v2.
      type: str
    cpus:
      description: Processors' time that the container may use, such as V(1.5). Unlimited by default. Needs systemd, or cgroup
        v2.
      type: float
    pids:
      description: Processes and threads that may be in the container at a time. Systemd's own limit by default. Needs systemd,
        or cgroup v2.
      type: int
  config:
    description:
      - Any number of containers, each with the options above.
      - Options that stand beside it are the defaults of its items, such as those that C(module_defaults) adds to a task; but not
        O(name), which would be that of all.
    type: list
    elements: dict
    suboptions:
      name:
        <<: *name
        required: true
      <<: *item
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
      fields: ["command sleep, infinity -> httpd, -f"]
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
  description: The commands that do the same, those that write the program C(ns-container) and the container's bundle among them.
  returned: success
  type: list
  elements: str
  sample:
    - /usr/local/lib/fromscratch/ns-container start container-a
observed:
  description:
    - The containers as they are in the end, in the order of the task; in check mode, as they would be.
    - C(userns) is whether it has user ids of its own, C(first_uid) the first of them outside, C(userns_reason) why it has none;
      C(seccomp) and C(seccomp_reason) are the same for the filter of system calls.
    - Of a container that does not run, C(exit_status) and C(output) tell how its command ended, and what it said last.
  returned: success
  type: list
  elements: dict
"""

from ansible_collections.fromscratch.containers.plugins.module_utils.container.kind import Containers
from ansible_collections.fromscratch.containers.plugins.module_utils.core.run import KindModule, run


def main():
    kind = Containers()
    run(KindModule(kind), kind)


if __name__ == "__main__":
    main()
