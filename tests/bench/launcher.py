# SPDX-License-Identifier: GPL-3.0-or-later
"""What the launcher takes, beside what it had to become faster than: containers of a former commit, and a bare Python.

Usage: launcher.py [COMMIT [COUNT]]; it needs root, and scripts/apart around it. Each figure is the median of five, taken in turn with
that which it is compared to. Times are noisy: read the ratios.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FORMER = "170234b"
PROGRAM = "/usr/local/lib/fromscratch/ns-container"
RUNS = 5
FLOOR = ["/usr/bin/python3", "-I", "-c", "import ctypes, json"]  # what no launcher in Python can fall below


def git(*words, check=True):
    """The checkout may be that of the user who has called sudo."""
    return subprocess.run(["git", "-c", f"safe.directory={ROOT}", *words], cwd=ROOT, check=check, capture_output=True)


def timed(command, **options):
    """The milliseconds that a command takes."""
    begin = time.perf_counter()
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    took = (time.perf_counter() - begin) * 1000
    if done.returncode:
        raise SystemExit(f"{command} failed: {done.stdout}{done.stderr}")
    return took


def interleaved(*actions, rounds=RUNS):
    """The medians of what several actions return, done in turn, after one of each that does not count."""
    figures = [[action() for action in actions] for _round in range(rounds + 1)][1:]
    return [statistics.median(column) for column in zip(*figures)]


class Release:
    """A release of the collection in a directory of its own, whose module is run as Ansible runs it on a host."""

    def __init__(self, directory, commit, rootfs, count):
        self.arguments, self.home, self.rootfs, self.count = Path(directory, "arguments.json"), Path(directory), rootfs, count
        target = self.home / "ansible_collections" / "fromscratch" / "containers"
        target.mkdir(parents=True)
        subprocess.run(["tar", "-x", "-C", target], input=git("archive", commit, "plugins").stdout, check=True)

    def run(self, state):
        options = {"state": state, **({"rootfs": self.rootfs} if state != "absent" else {})}
        options = {"config": [{"name": f"bench-{number}", **options} for number in range(self.count)]}
        self.arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": options}), encoding="utf-8")
        return timed([sys.executable, "-m", "ansible_collections.fromscratch.containers.plugins.modules.ns_container", self.arguments],
                     cwd=self.home, env={**os.environ, "PYTHONPATH": str(self.home)})

    def start(self):
        took = self.run("started")
        self.run("absent")
        return took


def kept():
    """The proportional KiB of the processes of each container beside its command, which are its init."""
    found = []
    for record in Path("/run/fromscratch/containers").iterdir():
        pid = record.read_text(encoding="utf-8").split()[0]
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
        found.append(next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")))
    return statistics.mean(found)


def main():
    commit, count = [*sys.argv[1:], *[FORMER, "100"][len(sys.argv) - 1:]]
    if git("cat-file", "-e", commit, check=False).returncode:
        raise SystemExit(f"{commit} is not there to compare with, as in a shallow clone: git fetch --unshallow")
    tarball = subprocess.run([ROOT / "scripts/find-rootfs", "--local"], check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as directory:
        rootfs = f"{directory}/rootfs"
        os.mkdir(rootfs)
        subprocess.run(["tar", "-xzf", tarball, "-C", rootfs, "--no-same-owner"], check=True)
        former, present = (Release(f"{directory}/{each}", each, rootfs, int(count)) for each in (commit, "HEAD"))
        one, two = interleaved(former.start, present.start)
        print(f"{count} containers: {one:.0f} ms with {commit}, {two:.0f} ms now: {two / one:.2f}", flush=True)
        present.run("started")
        print(f"kept beside the command of each of {count}: {kept():.0f} KiB (proportional)", flush=True)
        execution, floor = interleaved(lambda: timed([PROGRAM, "exec", "bench-0", "true"]), lambda: timed(FLOOR))
        print(f"ns-container exec: {execution:.1f} ms; {' '.join(FLOOR)!r}: {floor:.1f} ms: {execution / floor:.2f}", flush=True)
        present.run("absent")


if __name__ == "__main__":
    main()
