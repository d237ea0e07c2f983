# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to work out an overlay for all of its hosts, before any of them is touched: seconds of processor time, which two
noisy cores do not distort as they do the clock, and memory of the controller.

Usage: planning.py [HOSTS...]; each has CONTAINERS containers. Learning has to grow with the hosts; static with its entries, of which
each container has one on each other host.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CONTAINERS = 20
HOSTS = (1, 10, 50, 100, 500)
SECONDS, PER_HOST, PER_ENTRY, MEMORY = 60, 1.3, 1.3, 1024  # what is aimed at, at most; seconds at 500 hosts, MiB
PLAY = "- {hosts: overlay, gather_facts: false, roles: [overlay]}"
TASKS = "- {fromscratch.containers.overlay_plan: , run_once: true}"


def host(number):
    high, low = divmod(number, 200)
    containers = ", ".join(f"{{name: c{number}-{each}, address: 10.{each + 1}.{high}.{low + 1}/8}}" for each in range(CONTAINERS))
    return (f"        host-{number}: {{overlay_underlay_ip: 172.31.{high}.{low + 1}, "
            f"overlay_bridge_address: 10.0.{high}.{low + 1}/8, overlay_containers: [{containers}]}}\n")


def planned(directory, hosts, forwarding):
    """Plan for so many hosts; the seconds of processor time, and MiB at most."""
    inventory = Path(directory, "inventory.yml")
    inventory.write_text(f"all:\n  children:\n    overlay:\n      vars: {{overlay_forwarding: {forwarding}}}\n      hosts:\n"
                         + "".join(map(host, range(hosts))), encoding="utf-8")
    with subprocess.Popen(["ansible-playbook", "-i", inventory, Path(directory, "play.yml")], stdout=subprocess.PIPE, cwd=directory,
                          env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections")}) as process:
        said = process.stdout.read().decode()
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(said)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def entries(hosts):
    return hosts * (hosts - 1) * (CONTAINERS + 1)


def mark(value, most):
    return f"{value:.2f}{'' if value <= most else f' (wanted: {most})'}"


def main(counts):
    with tempfile.TemporaryDirectory(prefix="planning-") as directory:
        role = Path(directory, "roles", "overlay")  # the role's variables, and its first task
        for path, text in (Path(directory, "play.yml"), PLAY), (role / "tasks" / "main.yml", TASKS):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        role.joinpath("defaults").symlink_to(ROOT / "roles/overlay/defaults")
        for forwarding, per, unit, most in (("learning", lambda hosts: hosts, "host", PER_HOST), ("static", entries, "entry", PER_ENTRY)):
            floor = planned(directory, 1, forwarding)[0]  # Ansible's own start
            print(f"{forwarding}: 1 host {floor:.1f} s")
            base = None
            for hosts in counts:
                seconds, memory = planned(directory, hosts, forwarding)
                cost = (seconds - floor) / per(hosts)
                base = cost if hosts == 50 else base
                print(f"  {hosts} hosts x {CONTAINERS}: {mark(seconds, SECONDS)} s, {mark(memory, MEMORY)} MiB, "
                      f"{cost * 1e6:.1f} us for each {unit}" + (f", {mark(cost / base, most)} of that at 50" if base and hosts > 50 else ""),
                      flush=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or HOSTS[1:])
