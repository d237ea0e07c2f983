# SPDX-License-Identifier: GPL-3.0-or-later
"""Run containers as systemd services: one template unit that calls the launcher, and a drop-in for each container."""

from __future__ import annotations

import os
import signal
import subprocess

from ..core.resource import OWNER
from .launcher.guard import PROGRAM
from .launcher.record import RUN, STATE
from .launcher.syscalls import PR_SET_PDEATHSIG, prctl
from .spec import OWN_RUNTIME

UNITS = "/etc/systemd/system"
TEMPLATE = f"{UNITS}/ns-container@.service"
SLICE = r"system-ns\x2dcontainer.slice"  # which systemd makes for the instances of the template, and leaves
WANTS = f"{UNITS}/multi-user.target.wants"
NO = "no"

TEMPLATE_TEXT = f"""\
# Made by {OWNER}. What one container has more stands in a directory ns-container@NAME.service.d.
[Unit]
Description=Container %i
After=network.target fromscratch-network.service
ConditionPathExists={STATE}/%i/config.json
# No more than five times in a minute, then it stays down.
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=forking
PIDFile={RUN}/%i
ExecStart={PROGRAM} start --unit %i
ExecStop={PROGRAM} stop --unit %i
TimeoutStartSec=90
# The launcher itself sends SIGKILL after the container's own time.
TimeoutStopSec=3700
KillMode=mixed
SuccessExitStatus=143
RestartSec=1
# What takes more memory than it may is killed, and not the container with it.
OOMPolicy=continue
KeyringMode=private

[Install]
WantedBy=multi-user.target
"""


def manages_host():
    """Return whether systemd is process 1, as sd_booted(3) does."""
    return os.path.isdir("/run/systemd/system")


def unit(name):
    """Return the name of a container's unit."""
    return f"ns-container@{name}.service"


def link(name):
    """Return the path of the symbolic link that enables the unit at boot."""
    return f"{WANTS}/{unit(name)}"


def drop_in(name):
    """Return the path of a container's drop-in."""
    return f"{UNITS}/{unit(name)}.d/container.conf"


def drop_in_text(container):
    """Return the text of a container's drop-in, or None where the template suffices."""
    lines = [f"Restart={container.restart}"] if container.restart not in (None, NO) else []
    lines += [f"MemoryMax={container.memory}", "MemorySwapMax=0"] if container.memory else []
    lines += [f"CPUQuota={container.cpus:.0%}"] if container.cpus else []
    lines += [f"TasksMax={container.pids}"] if container.pids else []
    lines += ["Delegate=yes"] if container.runtime not in (None, OWN_RUNTIME) else []  # it may make cgroups below
    return "\n".join([f"# Made by {OWNER}.", "[Service]", *lines]) + "\n" if lines else None


def runs_in_unit(name, pid):
    """Return whether the process runs in the container's unit."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
            return f"/{unit(name)}" in file.read()
    except OSError:
        return False


def _run(*words, **options):
    """Run a program. Return the CompletedProcess, whether it succeeded or not."""
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options)


def start_by_hand(names):
    """Start containers by the launcher's program. Return the failures as text, by name.

    The program forks in a third of the time that a process with Ansible loaded takes.
    """
    if not names:
        return {}
    failures, name = {}, names[0]
    for line in _run(PROGRAM, "start", *names, preexec_fn=_end_with_the_module).stderr.splitlines():
        known, _colon, text = line[len("ns-container: "):].partition(": ")
        name, text = (known, text) if known in names else (name, line)
        failures[name] = f"{failures[name]}\n{text}" if name in failures else text
    return failures


def _end_with_the_module():
    """Make the kernel kill this process with the module, so that no start happens later, during another run."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _shown(name, *properties):
    """Return the properties of the units that a name matches, a dict for each."""
    output = _run("systemctl", "show", f"--property={','.join(properties)}", unit(name)).stdout
    return [dict(line.split("=", 1) for line in block.splitlines()) for block in output.split("\n\n")]


def not_loaded():
    """Return the units of containers whose files systemd has not reloaded, as an interrupted run leaves them."""
    return {each["Id"] for each in _shown("*", "Id", "NeedDaemonReload") if each.get("NeedDaemonReload") == "yes"}


def exit_status(name):
    """Return the exit status of a container's main process as systemd knows it, or None."""
    shown = _shown(name, "ExecMainStatus", "ExecMainCode")[0]
    return int(shown["ExecMainStatus"]) if shown.get("ExecMainCode", "0") != "0" else None


def journal(name):
    """Return the last lines that a container has written."""
    return _run("journalctl", "--unit", unit(name), "--lines", "20", "--output", "cat", "--no-pager", "--quiet").stdout.strip()
