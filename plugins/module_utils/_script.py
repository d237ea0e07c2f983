# SPDX-License-Identifier: GPL-3.0-or-later
"""The two files that a container consists of, as text: a shell script and an fstab.

The script is the container: it starts it, stops it and enters it, with nothing but util-linux and coreutils, and can be
read and run by hand.
"""

from __future__ import annotations

import shlex

from ._idmap import PROGRAM, RANGE
from ._model import OWNER
from ._paths import FILTER, RUN, USERS

# What is the whole host's in /proc and /sys: Docker hides the first ones, and the second can only be read.
MASKED = ("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
          "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
          "/sys/firmware")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
LINKS = ("fd", "stdin", "stdout", "stderr")
DEVICES = ("full", "null", "random", "tty", "urandom", "zero")


def fstab(container):
    """The file systems below the container's root, in the order in which they are mounted."""
    root = f"{container.directory}/root"
    # Device nodes work nowhere: those in /dev are mounts of the host's, each by itself.
    device = "" if container.privileged else "nodev,"
    owner = f",uid={container.first_id},gid={container.first_id}" if container.first_id else ""
    lines = [
        ("proc", "/proc", "proc", "nosuid,nodev,noexec"),
        ("sysfs", "/sys", "sysfs", "ro,nosuid,nodev,noexec"),
        ("tmpfs", "/dev", "tmpfs", f"{device}nosuid,mode=755,size=64k{owner}"),
        ("devpts", "/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"),
        ("tmpfs", "/dev/shm", "tmpfs", f"nosuid,nodev,noexec,mode=1777,size=64m{owner}"),
        ("mqueue", "/dev/mqueue", "mqueue", "nosuid,nodev,noexec"),
    ]
    for each in container.tmpfs:
        dest, unused, options = each.partition(":")
        lines.append(("tmpfs", dest, "tmpfs", ",".join(["nosuid", "nodev" + owner, *filter(None, [options])])))
    return f"# The file systems of {container.name}, in a mount namespace of its own. Made by {OWNER}.\n" + "".join(
        f"{source} {root}{dest} {kind} {options},X-mount.mkdir 0 0\n" for source, dest, kind, options in lines)


def namespace_line(name):
    """Shell that makes a container's network namespace where it is not there."""
    return f"[ -e /run/netns/{name} ] || {{ ip netns add {name} && ip -n {name} link set lo up; }}"


def become(container, filter_path):
    """The container's environment, limits and rights, and the present directory as its root: words that go before a command.

    Two paths, because the PATH is already the container's.
    """
    words = ["env -i " + " ".join(shlex.quote(each) for each in container.env)]
    if container.ulimits:
        words.append("/usr/bin/prlimit " + " ".join(f"--{each}" for each in container.ulimits) + " --")
    if not container.privileged:
        rights = ["--no-new-privs"] if container.no_new_privs else []
        rights += ["--inh-caps=-all", "--bounding-set=" + ",".join(["-all", *(f"+{each}" for each in container.capabilities)])]
        rights += [f"--seccomp-filter {filter_path}"] if container.filtered else []
        words.append("/usr/bin/setpriv " + " ".join(rights) + " --")
    return " \\\n        ".join([*words, "/usr/sbin/chroot ."])


def script(container):
    """The container's own program."""
    quoted = {name: shlex.quote(value) for name, value in {
        "name": container.name, "dir": container.directory, "record": f"{RUN}/{container.name}",
        "hostname": container.hostname, "workdir": container.workdir, "rootfs": container.rootfs}.items()}
    device = "" if container.privileged else "nodev,"
    mapped = bool(container.first_id)
    files = IDMAPPED.format(idmap=IDMAP[container.mapped_by]) if mapped else ""
    overlay = f'mount -t overlay -o "{device}{OVERLAY.format(lower="$dir/lower" if mapped else "$rootfs")}" overlay "$root"'
    made = f'\n        chown {container.first_id}:{container.first_id} "$dir/layer/upper"' if mapped else ""
    command = " ".join(shlex.quote(each) for each in container.command)
    return SCRIPT.format(
        **quoted, owner=OWNER, timeout=container.stop_timeout,
        become=become(container, "proc/self/fd/7"), exec_become=become(container, FILTER),
        layer=files + {
            "none": f'mount -o {device}bind "$rootfs" "$root"',
            "disk": f'if [ ! -d "$dir/layer/work" ]; then\n        mkdir -p "$dir/layer/upper"{made}\n'
                    f'        mkdir "$dir/layer/work"\n    fi\n    {overlay}',
            "tmpfs": 'mount -t tmpfs -o mode=700,X-mount.mkdir layer "$dir/layer"\n'
                     f'    mkdir "$dir/layer/upper" "$dir/layer/work"{made}\n    {overlay}',
        }[container.layer],
        limits=HIDE.format(masked=" ".join(MASKED), read_only=" ".join(READ_ONLY)) if not container.privileged else "",
        devices=_devices(container), links=_dev(LINKS + (DEVICES if container.privileged else ())),
        unlink=UNLINK if container.layer != "none" else "",
        binds="".join(_bind(container, each) for each in container.binds),
        freeze='\n    mount -o remount,bind,ro "$root"' if container.read_only else "",
        users=HAS_USERS.format(name=container.name) if mapped else "",
        namespaces=NAMESPACES.format(first=container.first_id, range=RANGE) if mapped else namespace_line('"$name"'),
        open_files=' 6<"$users"' if mapped else "",
        open_filter=f"\n    mount -o bind,ro {FILTER} {FILTER}\n    exec 7<{FILTER}" if container.filtered else "",
        enter="nsenter --user=proc/self/fd/6 -- " if mapped else "",
        confine=_confine(container), join=JOIN if container.limits else "", leave=LEAVE if container.limits else "",
        first=INIT if container.init else FIRST, command=command)


def _devices(container):
    """Where the nodes of /dev come from. Root must not change the owner or mode of the host's own, so it gets copies unless it
    is somebody else there; and where those lie, which it cannot reach, device nodes work."""
    if container.privileged:
        return ":"
    names = " ".join(DEVICES)
    copied = "" if container.first_id else (
        'mount -t tmpfs -o mode=700,size=64k,X-mount.mkdir nodes "$dir/nodes"\n    cp -a ' + _dev(DEVICES) + ' "$dir/nodes"\n    ')
    return copied + NODES.format(names=names, nodes="$dir/nodes" if copied else "/dev")


def _dev(names):
    return " ".join(f"/dev/{each}" for each in names)


def _bind(container, each):
    # Mounts below the source stay out of a read-only bind: they would be writable.
    options = ["ro"] * each.read_only + ["nodev"] * (not container.privileged)
    return (f"\n    bind {shlex.quote(each.source)} {shlex.quote(each.dest)} {'bind' if each.read_only else 'rbind'} "
            f"{shlex.quote(','.join(options))}")


def _confine(container):
    """The limits of a container that no systemd confines."""
    values = [("memory.max", container.memory), ("memory.swap.max", container.memory and "0"),
              ("cpu.max", container.cpus and f"{container.cpus * 100000:.0f} 100000"), ("pids.max", container.pids)]
    lines = "".join(f'\n    echo {value} >"$group/{name}"' for name, value in values if value)
    return CONFINE.format(controllers=" ".join(container.limits), lines=lines) if lines and not container.service else ""


OVERLAY = "lowerdir={lower},upperdir=$dir/layer/upper,workdir=$dir/layer/work"

# Process 1: the end of descriptor 4, a pipe, tells the host that the start is over. The shell is the container's own already,
# and may be any program: it gets no descriptor of a file of the host that could be written to, or leads to others.
FIRST = 'exec </dev/null 4<&- 6<&- 7<&- && cd "$1" && shift && exec "$@"'

# Process 1 with an init: it passes the signals on that ask a container to end, reaps what its children leave behind, and
# says how its command ended. The start is over when there is somebody to pass a signal on to.
INIT = r"""exec </dev/null 6<&- 7<&-
cd "$1" || exit 127
shift
trap "kill -TERM \$child" TERM INT QUIT HUP
"$@" 4<&- &
child=$!
exec 4<&-
while wait $child; status=$?; kill -0 $child 2>/dev/null; do :; done
echo "ended with status $status"
exit $status"""

HAS_USERS = f"""
users={USERS}/{{name}} # its user namespace"""

# The root filesystem with its owners moved into the range of the container, as a mount beside it.
IDMAPPED = '# shellcheck disable=SC3013  # every sh that is meant here has -ef\n    [ "$dir/lower" -ef "$rootfs" ] || {idmap}\n    '
IDMAP = {
    "mount": 'mount -o "bind,X-mount.idmap=$users" "$rootfs" "$dir/lower"',
    "python3": f"python3 -ISc {shlex.quote(PROGRAM)}" + ' "$rootfs" "$dir/lower" "$users"',
    "": "",
}

# A network namespace belongs to the user namespace that it was made in, where root is nobody outside.
NAMESPACES = """\
if [ ! -e "/run/netns/$name" ] || [ ! -e "$users" ]; then
        [ ! -e "/run/netns/$name" ] || ip netns delete "$name"
        [ ! -e "$users" ] || umount "$users" || :
        mkdir -p "${{users%/*}}"
        : >"$users"
        # Where the kernel refuses, below would wait for ever.
        unshare --user --net --keep-caps -- sh -c 'echo 0 >/proc/sys/user/max_user_namespaces'
        rm -f "$users.made"
        mkfifo "$users.made"
        # It gets no user namespaces inside, whose root could mount.
        unshare --user --net --keep-caps -- sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && read -r _ <"$0"' "$users.made" &
        exec 5>"$users.made" # which the other side opens as well, in its new namespaces
        echo "0 {first} {range}" >"/proc/$!/uid_map"
        echo "0 {first} {range}" >"/proc/$!/gid_map"
        mount --bind "/proc/$!/ns/user" "$users"
        ip netns attach "$name" "$!"
        ip -n "$name" link set lo up
        exec 5>&-
        rm "$users.made"
    fi"""

NODES = """\
for each in {names}; do
        : >"$root/dev/$each"
        add "{nodes}/$each $root/dev/$each none bind"
    done
    : >"$root/dev/console" # there is no terminal behind it
    add "{nodes}/null $root/dev/console none bind\""""

# Files by /dev/null, directories by an empty file system; what this kernel does not have needs no hiding.
HIDE = """
    for path in {masked}; do
        if [ -d "$path" ]; then
            add "tmpfs $root$path tmpfs ro,nosuid,nodev,noexec,size=4k"
        elif [ -e "$path" ]; then
            add "/dev/null $root$path none bind"
        fi
    done
    for path in {read_only}; do
        [ ! -e "$path" ] || add "$root$path $root$path none bind,ro,nosuid,nodev,noexec"
    done"""

# Distributions have links there to files of programs that no container runs. The layer gets a file instead; nothing is followed.
UNLINK = """
    case $2 in /etc/hosts | /etc/resolv.conf)
        mount_point "$root/etc"
        [ ! -L "$root$2" ] || rm "$root$2"
        ;;
    esac"""

# cgroup v2, where no systemd does it.
CONFINE = """
    group=$(cgroups)/fromscratch/$name
    rmdir "$group" 2>/dev/null || : # with the limits of one that ended by itself
    mkdir -p "$group"
    for each in {controllers}; do
        echo "+$each" >"${{group%/*/*}}/cgroup.subtree_control"
        echo "+$each" >"${{group%/*}}/cgroup.subtree_control"
    done{lines}
    echo $$ >"$group/cgroup.procs\""""

# The limits of the container hold for what is run in it as well.
JOIN = """
    while IFS=: read -r id _ path; do
        [ "$id" != 0 ] || echo $$ >"$(cgroups)$path/cgroup.procs"
    done <"/proc/$pid/cgroup\""""

LEAVE = """
    group=$(cgroups)/fromscratch
    rmdir "$group/$name" "$group" 2>/dev/null || :"""

SCRIPT = r"""#!/bin/sh
# {name}: a container out of namespaces, made by {owner}. By hand:
#
#   container start           start it in the background
#   container stop            SIGTERM, and SIGKILL after {timeout} s
#   container exec COMMAND    run a command inside, with the container's own rights
#   container status          say whether it runs; the exit status is 0 when it does
#   container namespace       make its network namespace, where it is not there
set -eu
umask 022

name={name}
dir={dir}
# Its process 1, the time that started, and the boot, a line each: a pid alone is soon somebody else's. And the tree it runs on.
record={record}
rootfs={rootfs}
root=$dir/root{users}
PATH=${{PATH-}}:/usr/sbin:/sbin

# Sets pid. A process that has ended but was not waited for does not run any more.
running() {{
    [ -r "$record" ] && {{ read -r pid && read -r start && read -r boot; }} <"$record" && [ -r "/proc/$pid/stat" ] || return 1
    read -r this_boot </proc/sys/kernel/random/boot_id
    stat=
    {{ while read -r line; do stat="$stat $line"; done <"/proc/$pid/stat"; }} 2>/dev/null || return 1
    # shellcheck disable=SC2086  # what follows the name in brackets, as words
    set -- ${{stat##*) }}
    [ "$boot" = "$this_boot" ] && [ "$start" = "${{20-}}" ] && [ "$1" != Z ] && [ "$1" != X ]
}}

# Whether the container ends within so many tenths of a second.
ends_within() {{
    left=$1
    nap=0.01 # most end at once
    while running; do
        [ "$left" -gt 0 ] || return 1
        sleep $nap
        nap=0.1
        left=$((left - 1))
    done
}}

# The mount point of cgroup v2; some hosts have several.
cgroups() {{
    while read -r _ point kind _; do
        [ "$kind" != cgroup2 ] || {{ echo "$point"; return; }}
    done </proc/mounts
}}

# The container's network namespace, which outlives its processes.
namespaces() {{
    {namespaces}
}}

# Refuses a mount point that a symbolic link in the container's files would lead elsewhere.
mount_point() {{
    path=$1
    while [ "$path" != "$root" ]; do
        [ ! -L "$path" ] || {{ echo "${{path#"$root"}} in $rootfs is a symbolic link: nothing is mounted there" >&2; exit 1; }}
        path=${{path%/*}}
    done
}}

# Sets tree to the inode of the root filesystem, which Linux tells since 5.14: it stays where it is as long as we run.
look_at_tree() {{
    tree=unknown
    while read -r key value; do
        [ "$key" != ino: ] || tree=$value
    done </proc/self/fdinfo/9
}} 9<"$rootfs"

# Shows the container $1 of the host at $2, by a bind or an rbind $3. The options $4 are added to those that each mount has.
bind() {{{unlink}
    mount_point "$root$2"
    if [ ! -d "$1" ] && [ ! -e "$root$2" ]; then
        mkdir -p "$root${{2%/*}}"
        : >"$root$2"
    fi
    mount -o "$3,X-mount.mkdir" "$1" "$root$2"
    [ "$4" ] || return 0
    mount -o "remount,bind,$4" "$root$2"
    [ "$3" = rbind ] && [ -d "$root$2" ] || return 0
    while read -r key value; do
        [ "$key" != mnt_id: ] || mounts=" $value "
    done 9<"$root$2" </proc/self/fdinfo/9
    while read -r id parent _ _ path _; do # with blanks as \040
        case $mounts in *" $parent "*)
            mounts="$mounts$id "
            mount -o "remount,bind,$4" "$(printf %b "$path")"
            ;;
        esac
    done </proc/self/mountinfo
}}

# One more line of the fstab that depends on the kernel.
add() {{
    table="$table$1 0 0
"
}}

# This script with a verb, in new namespaces but for that of processes, which the next process begins.
unshared() {{
    cgroup=
    [ ! -e /proc/self/ns/cgroup ] || cgroup=--cgroup
    exec nsenter --net="/run/netns/$name" -- unshare --mount --uts --ipc $cgroup --pid -- "$dir/container" "$@"
}}

# Process 1 of the container: it still sees the host's files, though its mounts are its own affair.
begin() {{
    read -r stat </proc/self/stat
    read -r boot </proc/sys/kernel/random/boot_id
    # shellcheck disable=SC2086  # what follows the name in brackets, as words
    set -- ${{stat##*) }}
    printf '%s\n' "${{stat%% *}}" "${{20}}" "$boot" >"$record"
    echo {hostname} >/proc/sys/kernel/hostname{open_filter}
    look_at_tree
    looked_at=$tree
    {layer}
    look_at_tree
    [ "$tree" = "$looked_at" ] || tree=unknown # it was replaced just now
    echo "$tree" >>"$record"
    while read -r source point rest; do
        [ "$source" = "#" ] || mount_point "$point"
    done <"$dir/fstab"
    mount --all --fstab "$dir/fstab"
    table=
    {devices}{limits}
    umask 077
    printf %s "$table" >"$dir/fstab.rest"
    umask 022
    mount --all --fstab "$dir/fstab.rest"
    cp -a {links} "$root/dev"
    ln -s pts/ptmx "$root/dev"{binds}{freeze}
    # From here the tools are found in the host's tree, and the present directory is the container's root: it has no name
    # there, which a shell complains about. (nsenter wants to enter at least one namespace.)
    PWD=/proc/self/cwd exec nsenter --uts=/proc/self/ns/uts --root=/proc/self/fd/3 --wd="$root" -- "$dir/container" pivot
}}

# Whether who calls sits at a terminal.
at_terminal() {{
    read -r stat </proc/self/stat
    # shellcheck disable=SC2086  # what follows the name in brackets, as words
    set -- ${{stat##*) }}
    [ "$5" != 0 ]
}}

# Runs a command without the files that who calls may have open.
closed() {{
    exec "$@" 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
}}

case ${{1-}} in
start)
    cd /
    if at_terminal; then # which is not the container's, nor are the keys of who sits there
        keys=
        ! command -v keyctl >/dev/null || keys="keyctl session -"
        # shellcheck disable=SC2086  # a command of its own
        closed setsid --wait $keys "$dir/container" start </dev/null >>"$dir/log" 2>&1
    fi
    # One start at a time; the lock is that of whoever has the file open, and may come from who calls. While it was waited for,
    # this script may have been written anew.
    # shellcheck disable=SC3013  # every sh that is meant here has -ef
    [ /proc/self/fd/8 -ef "$dir" ] || {{ exec 8<"$dir" && flock 8 && exec "$dir/container" start; }}
    if running; then exit 0; fi
    {{ [ -d "${{record%/*}}" ] && [ -d "$root" ]; }} || mkdir -p "${{record%/*}}" "$root"
    namespaces # a boot ago they were there{confine}
    # The host's tree, where the tools are; and the standard input, which a shell takes from what it starts by "&", and by whose
    # end one may wait if it is a pipe.
    exec 3</ 4</dev/null{open_files}
    [ ! -p /proc/self/fd/0 ] || exec 4<&0
    if [ "${{INVOCATION_ID-}}" ]; then # a unit of systemd counts as started when this ends
        rm -f "$record.begun"
        mkfifo "$record.begun"
        unshared fork 4>"$record.begun" &
        read -r _ <"$record.begun" || :
        exec rm "$record.begun"
    fi
    unshared fork
    ;;
fork)
    begin &
    ;;
pivot) # the old root goes on top of the new one, and away
    nsenter --mount=/proc/self/ns/mnt -- pivot_root "$root" "$root"
    umount --namespace /proc/self/ns/mnt --lazy /
    # shellcheck disable=SC3013  # every sh that is meant here has -ef
    [ ! . -ef / ] || {{ echo "the root of $name would be the host's" >&2; exit 1; }}
    exec {enter}{become} /bin/sh -c '{first}' \
        init {workdir} {command} 3<&- 8<&-
    ;;
exec)
    shift
    running || {{ echo "$name does not run" >&2; exit 125; }}
    # shellcheck disable=SC3013  # every sh that is meant here has -ef
    [ ! "/proc/$pid/root" -ef / ] || {{ echo "$name is only just starting" >&2; exit 125; }}
    if [ -t 0 ] && [ -z "${{own_terminal-}}" ]; then # nothing inside can type into the terminal of who sits there
        line=
        for each; do line="$line '$(printf %s "$each" | sed "s/'/'\\\\''/g")'"; done
        export own_terminal=1
        exec script --quiet --return --command "$dir/container exec$line" /dev/null
    fi{join}
    away=
    [ "${{own_terminal-}}" ] || ! at_terminal || away="setsid --wait" # nor by the name of that terminal
    # shellcheck disable=SC2086  # a command of its own
    closed $away nsenter --target "$pid" --all --root=/ --wd="/proc/$pid/root" -- \
        setpriv --pdeathsig KILL -- {exec_become} "$@"
    ;;
stop)
    if running; then
        kill -TERM "$pid" || : # it may be gone by now
        ends_within {timeout}0 || kill -KILL "$pid" || :
        ends_within 600 || {{ echo "$name: process $pid does not die" >&2; exit 1; }}
        rm -f "$record"
    fi{leave}
    ;;
status)
    if running; then echo "$name runs, process $pid"; else echo "$name does not run"; exit 3; fi
    ;;
namespace)
    namespaces
    ;;
*)
    echo "usage: $0 start|stop|status|namespace|exec COMMAND [ARGUMENT...]" >&2
    exit 64
    ;;
esac
"""
