# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of the documentation: its rows, and the text around them."""

from __future__ import annotations

import errno
import platform
import re
import subprocess
import textwrap
from itertools import groupby
from typing import Any, Callable, NamedTuple

from attempts import (
    INSIDE,
    LINKS,
    LOOP,
    address_space,
    attempt,
    by_proc,
    capabilities,
    cgroups,
    device_node,
    devices,
    ending,
    executed,
    executed_at_a_terminal,
    in_memory,
    lifted,
    limited,
    links,
    listed,
    low_port,
    lsm,
    many_processes,
    module,
    much_memory,
    namespaces,
    no_new_privs,
    of_its_cgroup,
    packets,
    processes,
    propagation,
    read_only_paths,
    root_writable,
    seccomp,
    set_user_id,
    settings,
    shown,
    small,
    started,
    started_by_hand,
    stopping,
    sys_,
    ulimits,
    user_ids,
    walk,
    words,
    zombies,
)
from boxes import KINDS, PIDS, ROOT, Podman, mounted
from syscalls import DOCKER_CALLS, PROBES

from ansible_collections.fromscratch.containers.plugins.module_utils.container.spec import READ_ONLY

PAGE = ROOT / "docs/docsite/rst/isolation.rst"
NOT_INSTALLED = "not installed"
HEADS = ("What, and how it was tried", "Ours by default", "``userns: host``", "``privileged: true``", "``podman run``",
         "Docker, as published")


class Row(NamedTuple):
    what: str
    how: str
    docker: str
    probe: Callable[[Any], str]


class Section(NamedTuple):
    title: str
    rows: list[Row]


DAEMON = "nothing: the daemon starts it"
TABLES = [
    Section("Root and its privileges", [
        Row("User ids", "``/proc/self/uid_map``", "root outside as well, unless the daemon has ``userns-remap``", user_ids),
        Row("Capabilities", "the bounding set", "its fourteen", capabilities),
        Row("no_new_privs", "``/proc/self/status``", "off", no_new_privs),
        Row("A set-user-ID program of root", "run by another user, to read a file of root", "root's rights", set_user_id),
        Row("System calls", "the mode of seccomp; the calls have a table of their own below", "a filter", seccomp),
        Row("Linux security module", "``/proc/self/attr/current``",
            "AppArmor's ``docker-default``, where the host has AppArmor", lsm),
    ]),
    Section("Attempts to get out", [
        Row("Walking out of a chroot", "chroot elsewhere, back by an open directory, up, and chroot there", INSIDE, walk),
        Row("The old root", "a file of the host, below ``root``, ``cwd`` and ``fd`` of all processes", INSIDE, by_proc),
        Row("Mount propagation", "``/proc/self/mountinfo``, on a host that shares its mounts", "private", propagation),
        Row("Mounting", "tmpfs, proc, sysfs, a bind, ``/sys`` again writable, ``/proc/sys`` away", "refused", lifted(attempt(
            "mount -t tmpfs x /mnt", "mount -t proc x /mnt", "mount -t sysfs x /mnt", "mount --bind /proc /mnt",
            "mount -o remount,rw /sys", "umount /proc/sys"))),
        Row("Mounting in a user namespace made inside", "``unshare -U -r -m``, and a tmpfs", "refused", lifted(attempt(
            "unshare -U -r -m mount -t tmpfs x /mnt"))),
        Row("Uncovering what is hidden, from there", "``/proc/sys`` or ``/proc/keys`` away, a new proc or sysfs", "refused",
            lifted(attempt("unshare -U -r -m umount /proc/sys", "unshare -U -r -m umount /proc/keys",
                           "unshare -U -r -m mount -t proc x /mnt", "unshare -U -r -m mount -t sysfs x /mnt"))),
        Row("Settings of the kernel", "``core_pattern``, ``modprobe``, ``sysrq-trigger`` and others are opened to be written",
            "none can be opened", settings),
        Row("Hidden paths", "those that Docker hides, as far as this kernel has them", "all hidden", shown),
        Row("Read-only paths", f"mounts of {listed(READ_ONLY, '')}", "all read-only", read_only_paths),
        Row("/sys", "how it is mounted", "read-only", sys_),
        Row("/dev", "``ls``", "the usual ones, and ``core``", devices),
        Row("A device of the host's", f"``mknod`` of ``{LOOP}``, and opening it to be read", "made, and cannot be opened",
            device_node),
        Row("Processes of the host, to send signals to or trace", "one of them is looked for in ``/proc``", "its own alone",
            processes),
        Row("Loading a module", "``insmod`` of a file that is none", "refused", lifted(module)),
        Row("Namespaces", "``/proc/self/ns`` inside and outside",
            "shared: ``user``; before 29.5 ``time``; under cgroup v1 ``cgroup``", namespaces),
        Row("Mounts of cgroups", "``/proc/self/mountinfo``", "read-only", cgroups),
        Row("A symbolic link to the host in the root filesystem", f"in place of {listed([f'/{each}' for each in LINKS], '')}",
            "not published", links),
        Row("A socket for raw packets", "``AF_PACKET``, on its own network", "possible", packets),
        Row("A port below 1024", "port 80", "root, others", low_port),
        Row("Its own links", "``ip link set lo mtu 1000``", "refused", lifted(attempt("ip link set lo mtu 1000"))),
    ]),
    Section("What the caller passes in", [
        Row("Started without a terminal", "a variable and a key of who starts it, with ours by Ansible", DAEMON, started),
        Row("Started by hand at a terminal", "a variable, a key, an open file and the terminal", DAEMON, started_by_hand),
        Row("A command run inside", "the same, by ``exec`` whose input is not the terminal", DAEMON, executed),
        Row("A command run inside at a terminal", "its terminal beside that of the caller", "one of its own",
            executed_at_a_terminal),
    ]),
    Section("Resource limits", [
        Row("Processes", "``pids.max`` of its cgroup", "unlimited", of_its_cgroup("pids", "pids.max")),
        Row("Memory", "``memory.max`` of its cgroup", "unlimited",
            of_its_cgroup("memory", "memory.max", "memory.limit_in_bytes")),
        Row("Ulimits", "``/proc/self/limits``", "those of the daemon", ulimits),
        Row("File systems in memory", "``/dev`` and ``/dev/shm``", "65,536 KiB, 65,536 KiB", in_memory),
        Row("The root filesystem", "``touch``", "a layer of its own; if asked, read-only", root_writable),
        Row("A limit of memory", "64 MiB are allowed, ``dd`` takes 200", "killed, the rest lives", limited(much_memory)),
        Row("A limit of processes", f"{PIDS} are allowed, a hundred are started", f"held at {PIDS}", limited(many_processes)),
        Row("A limit of the memory of one process", "the same, with the ulimit ``as``", "no such option", small(address_space)),
        Row("A limit of the processes of one user", "the same, with the ulimit ``nproc``, as root", "not held",
            small(many_processes)),
    ]),
    Section("Start, stop and end", [
        Row("Stopping", "a command that hears the signal and goes on", "SIGTERM, then SIGKILL after 10 s", stopping),
        Row("Zombies", "a process whose parent is gone ends", "stay, unless asked for an init", zombies),
        Row("Exit status", "a command that ends with 7", "kept: 7", ending),
        Row("Output", "its last words, once it has ended", "kept", words),
    ]),
]

BEFORE = """\
..
  SPDX-License-Identifier: GPL-3.0-or-later

.. _ansible_collections.fromscratch.containers.docsite.isolation:

Isolation
=========

What a container of :ansplugin:`fromscratch.containers.ns_container#module` is kept from, beside one of podman, and beside what
Docker publishes of its defaults. ``make isolation`` writes this page: it starts the containers, tries each row in them, and
puts down what came of it. The attempts to get out are also tests of ``make test``. *lifted* means that nothing would refuse it
there, so it was not tried.

.. contents::
   :local:
   :depth: 1
"""

CALLS = """\
Each was made by a program of its own, with arguments that do no harm. *refused* is ``EPERM``; *reaches the kernel* means that
it was let through, and failed for its arguments. The filter is that of the collection, loaded as the launcher does it.
"""

AFTER = """\
Where we differ from Docker, and why
------------------------------------

- Root inside is nobody outside, and for each container another nobody. Docker does that for all containers of a daemon or for
  none, and by default for none. An idmapped mount shows a container the files of its root filesystem as its own, so nothing is
  copied, and nothing changes on disk. Where files of the host that a container may write to cannot be mounted so, it has no user
  namespace, and a warning says so.
- ``no_new_privs`` is on. A container that needs set-user-ID programs asks for them with ``no_new_privs: false``.
- Device nodes work in ``/dev`` alone: all other file systems of a container are mounted ``nodev``. With Docker, a cgroup
  decides which devices can be opened. That takes a cgroup for each container or a program in the kernel, and this takes an
  option of ``mount``.
- ``/dev`` has 64 KiB: enough for names, and no place to fill memory from.
- Ports below 1024 are root's. Docker gives them to all users inside.
- Process 1 is an init, since what nobody reaps piles up. ``init: false`` leaves it out.
- Our list of system calls names what is refused. Docker's names what is allowed: it is longer, it refuses what a newer kernel
  adds, and the last table shows what else.

What is not restricted
----------------------

- **System calls, on machines other than x86_64 and aarch64.** The launcher has no table of theirs, and ``seccomp_reason`` in
  the result of the task says so. Capabilities and the user namespace hold all the same.
- **privileged, and sys_admin without a user namespace.** A container with ``privileged: true``, or with ``userns: host`` and
  ``capabilities: {add: [sys_admin]}``, can mount what it likes and so do to the host what it likes. That is not prevented.
- **What is written to a bind.** In a directory of the host that a container can write to, it can leave a set-user-ID file. Other
  users of the host must not reach such a directory, as they do not reach the layers: those are below a directory of mode 0700.
- **Shares, by default.** As with Docker, a container may take all memory, processors and process ids of the host until it is
  told ``memory``, ``cpus`` and ``pids``. Those take systemd, or cgroup v2 with the controllers; where neither is there, the
  task fails. ``ulimits`` hold everywhere, but each is a limit of one process, or of all processes of a user.
- **Disk space.** Neither a container's layer nor its log has a limit.
- **No profile of AppArmor or SELinux.** A container has that of who starts it.
- **What the caller gives to** ``ns-container exec``. Its standard input, output and error are the caller's, and a program inside
  may open them again by names such as ``/dev/stdout``. What of them is a terminal is not passed on: the command gets a terminal
  of the container's own, or a pipe.
- **The kernel.** It is the host's, as in every container. ``privileged: true`` lifts all of the above: such a container can do
  to the host what it likes.

Sources for Docker
------------------

Docker was not run. Its column is out of
`security <https://docs.docker.com/engine/security/>`__,
`capabilities <https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities>`__,
`seccomp <https://docs.docker.com/engine/security/seccomp/>`__ and
`its list of calls <https://github.com/moby/profiles/blob/main/seccomp/default.json>`__,
`AppArmor <https://docs.docker.com/engine/security/apparmor/>`__,
`user namespaces <https://docs.docker.com/engine/security/userns-remap/>`__,
`mounts, paths, devices and namespaces <https://github.com/moby/moby/blob/master/daemon/pkg/oci/defaults.go>`__,
`limits <https://docs.docker.com/engine/containers/resource_constraints/>`__,
`options <https://docs.docker.com/reference/cli/docker/container/run/>`__ and
`logs <https://docs.docker.com/engine/logging/configure/>`__.
"""


def table(head, rows):
    """A list-table of reStructuredText, its lines short."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 25 15 15 15 15 15", ""]
    for row in [head, *rows]:
        for at, cell in enumerate(row):
            lines.append(textwrap.fill(cell, 128, initial_indent=f"   {'* -' if at == 0 else '  -'} ", subsequent_indent=" " * 7,
                                       break_long_words=False, break_on_hyphens=False))
    return "\n".join(lines) + "\n"


def headed(title, text):
    return f"{title}\n{'-' * len(title)}\n\n{text}"


def versions(ours, podman):
    """What was measured, and how."""
    def version(name):
        return re.search(r"\d+(\.\d+)+", subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout)[0]
    kernel = re.match(r"\d+\.\d+", platform.release())[0]
    cgroup = "v1" if any(kind == "cgroup" for _point, kind, _options in mounted()) else "v2"
    theirs = "--network none" + (" --cgroups disabled" if "disabled" in Podman.run_options else "")
    return headed("What was measured", f"""\
- Linux {kernel} on {platform.machine()} with cgroup {cgroup}, util-linux {version('mount')}.
- Ours, started without systemd. Their filter of system calls is loaded by the launcher.
- {f"podman {version('podman')} with crun {version('crun')}, as root, by ``podman run {theirs}``" if podman else "No podman"}.
- All on the same root filesystem, on a host with shared mounts.
- Docker 29.7, by its documentation and source only.
""")


def calls(boxes):
    """A row for all calls of which the same is said."""
    answers = []
    for kind, prefix in ("default", "call"), ("host", "call"), ("default", "filtered"), ("podman", "call"):
        if kind in boxes:
            lines = boxes[kind].say(f'cd {PROBES}; for each in "{prefix} "*; do ./"$each"; echo "$?:$each"; done').splitlines()
            answers.append({name.partition(" ")[2]: said_of(int(code)) for code, name in (line.split(":", 1) for line in lines)})
        else:
            answers.append(dict.fromkeys(answers[0], NOT_INSTALLED))
    answers.append({name: DOCKER_CALLS.get(name, "refused") for name in answers[0]})

    def said(name):
        return tuple(each[name] for each in answers)
    return [(listed(names, ""), *cells) for cells, names in groupby(sorted(answers[0], key=lambda name: (said(name), name)), said)]


def said_of(code):
    return {0: "possible", errno.EPERM: "refused", errno.ENOSYS: "no such call"}.get(
        code, f"reaches the kernel (``{errno.errorcode.get(code, code)}``)")


def page(boxes):
    parts = [BEFORE, versions(boxes["default"], "podman" in boxes)]
    for section in TABLES:
        rows = []
        for row in section.rows:
            cells = [row.probe(boxes[kind]) if kind in boxes else NOT_INSTALLED for kind in (*KINDS, "podman")]
            print(f"{row.what}: {' | '.join(cells)}", flush=True)
            rows.append((f"**{row.what}**: {row.how}", *cells, row.docker))
        parts.append(headed(section.title, table(HEADS, rows)))
    heads = ("Call", *HEADS[1:3], "By default, with the filter", *HEADS[4:])
    return "\n".join([*parts, headed("System calls", f"{CALLS}\n{table(heads, calls(boxes))}"), AFTER])
