# SPDX-License-Identifier: GPL-3.0-or-later
"""How the role fares beside the article's shell commands and beside a playbook of command loops, in one run.

Usage: bench.py [COUNT ...]. Every figure is wall time of a whole run, `ansible-playbook`'s own start included, on a lab
host of its own that is made anew for each. Times are noisy: read the ratios, not the seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ROOTFS = "/var/lib/fromscratch/rootfs/alpine"
HOST = ["/usr/local/lib/fromscratch/ns-container", "exec", "bench"]
RUNS = 3
LOOPS = 10


def ansible(playbook, count=0, *more):
    containers = [{"name": f"bench-{i}", "address": f"10.10.{i // 250 + 1}.{i % 250 + 1}/16"} for i in range(1, count + 1)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as variables:
        json.dump({"bench_containers": containers, "bench_count": count, "overlay_rootfs": ROOTFS}, variables)
        variables.flush()
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(HERE / "inventory.yml"), str(playbook),
                   "-e", f"@{variables.name}", *more]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


class Lab:
    """A fresh lab host with the root filesystem in place; gone at the end."""

    def __enter__(self):
        ansible(ROOT / "playbooks/lab.yml")
        ansible(HERE / "rootfs.yml", 0)
        return self

    def __exit__(self, *unused):
        ansible(ROOT / "playbooks/lab.yml", 0, "-e", "lab_state=absent")


def timed(function, *args):
    begin = time.monotonic()
    function(*args)
    return time.monotonic() - begin


def site(count):
    return ansible(ROOT / "site.yml", count, "--limit", "bench")


def article(count):
    subprocess.run([*HOST, "/bin/sh", str(HERE / "article.sh"), str(count), ROOTFS], check=True)


class Watch(threading.Thread):
    """The largest resident set that a module's process reached meanwhile, in MiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.over = 0, threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            for each in Path("/proc").iterdir():
                if each.name.isdigit():
                    try:
                        command = (each / "cmdline").read_bytes().split(b"\0")
                        # A module comes through a pipe: an interpreter without arguments, whose parent entered a container.
                        if b"python" in command[0] and len(command) <= 2:
                            self.peak = max(self.peak, self._resident(each))
                    except (OSError, IndexError):
                        continue

    @staticmethod
    def _resident(process):
        for line in (process / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return 0

    def stop(self):
        self.over.set()
        self.join()
        return self.peak


def staying():
    """What stays in memory for one container beside its own command: (proportional, resident) KiB of its process 1."""
    inside = set(subprocess.run([*HOST, "/bin/sh", "-c", "head -qn1 /run/fromscratch/containers/*"], check=True,
                                capture_output=True, text=True).stdout.split())
    host = Path("/run/fromscratch/containers/bench").read_text().split()[0]
    found = []
    for each in Path("/proc").iterdir():
        try:
            status = (each / "status").read_text() if each.name.isdigit() else ""
        except OSError:
            continue
        ids = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
        # Three namespaces deep and process 1 of the innermost: the init of a container inside the lab host.
        if len(ids) >= 3 and ids[-1] == "1" and ids[-2] in inside and each.name != host:
            rollup = (each / "smaps_rollup").read_text()
            found.append(tuple(int(next(line for line in rollup.splitlines() if line.startswith(key)).split()[1])
                               for key in ("Pss:", "Rss:")))
    if len(found) != len(inside):
        raise SystemExit(f"{len(found)} of {len(inside)} containers were found among the processes: nothing is measured")
    return tuple(statistics.mean(column) for column in zip(*found))


def main():
    counts = [int(each) for each in sys.argv[1:]] or [1, 10, 100, 300]
    print(f"{'containers':>10} {'article':>9} {'role':>9} {'ratio':>7} {'2nd run':>9} {'of 1st':>7} {'module peak':>12} "
          f"{'stays (PSS)':>12} {'stays (RSS)':>12}")
    for count in counts:
        shell, first, second, peak, stays = [], [], [], 0, (0, 0)
        for unused in range(RUNS):
            with Lab():
                shell.append(timed(article, count))
            with Lab():
                watch = Watch()
                watch.start()
                first.append(timed(site, count))
                peak = max(peak, watch.stop())
                second.append(timed(site, count))
                stays = staying()
        one, two, three = (statistics.median(each) for each in (shell, first, second))
        print(f"{count:>10} {one:>8.2f}s {two:>8.2f}s {two / one:>7.2f} {three:>8.2f}s {three / two:>7.2f} {peak:>8.0f} MiB "
              f"{stays[0]:>8.0f} KiB {stays[1]:>8.0f} KiB", flush=True)
        if count == LOOPS:
            with Lab():
                loops = timed(ansible, HERE / "loops.yml", count)
            print(f"{'':>10} a playbook of command loops for {count}: {loops:.2f}s, {loops / two:.1f} times the role")
            per_loop = loops / count
    if LOOPS in counts and counts[-1] > LOOPS:
        print(f"per container: command loops {per_loop:.3f}s; the role at {counts[-1]} {two / counts[-1]:.3f}s; "
              f"{per_loop / (two / counts[-1]):.0f} times faster")


if __name__ == "__main__":
    if os.geteuid() != 0:
        raise SystemExit("The benchmark makes a lab host, which needs root: sudo make bench")
    main()
