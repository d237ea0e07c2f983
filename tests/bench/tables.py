# SPDX-License-Identifier: GPL-3.0-or-later
"""50,000 FDB entries and 50,000 neighbours in a namespace: set and read by the collection, beside ``bridge -batch`` and ``ip -batch``.

Usage: python -m tests.bench.tables [COUNT]; it needs root, and scripts/apart around it. Medians of three, taken in turn.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import perf_counter

from ansible_collections.fromscratch.containers.plugins.module_utils.network.changes import apply
from ansible_collections.fromscratch.containers.plugins.module_utils.network.links import FdbEntry, Neighbour
from ansible_collections.fromscratch.containers.plugins.module_utils.network.netlink import Links
from ansible_collections.fromscratch.containers.plugins.module_utils.network.operations import FdbReplace, NeighbourReplace

from ..kernel.support.namespaces import sh
from .launcher import interleaved, timed

MOST = 2.0  # times as long as the tools
NETNS = "bench-tables"


def steps(count):
    macs = [f"02:00:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}" for number in range(count)]
    fdb = [FdbReplace(NETNS, "vxlan0", FdbEntry(mac, "192.0.2.7", "")) for mac in macs]
    return fdb, [NeighbourReplace(NETNS, "br0", Neighbour(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", mac))
                 for number, mac in enumerate(macs, 1)]


def main(count):
    fdb, neighbours = steps(count)
    batches = {"bridge": "".join(f"fdb replace {step.entry.mac} dev vxlan0 dst {step.entry.dst}\n" for step in fdb),
               "ip": "".join(f"neighbour replace {step.neighbour.address} lladdr {step.neighbour.mac} dev br0\n" for step in neighbours)}
    links = Links()

    def emptied(action):
        """The milliseconds of an action on empty tables."""
        sh(f"ip -n {NETNS} link del vxlan0 2>/dev/null; ip -n {NETNS} link del br0 2>/dev/null; ip -n {NETNS} link add br0 up type bridge",
           f"ip -n {NETNS} link add vxlan0 up type vxlan id 100 dstport 4789 nolearning")
        links.forget()
        begin = perf_counter()
        action()
        return (perf_counter() - begin) * 1000

    def read():
        links.forget()
        begin = perf_counter()
        there = links.namespace(NETNS)
        found = len(there.fdb(there.index("vxlan0"))), len(there.neighbours(there.index("br0")))
        if found != (count, count):
            raise SystemExit(f"{found} entries are there, not {count}")
        return (perf_counter() - begin) * 1000

    with tempfile.TemporaryDirectory(prefix="tables-") as directory:
        tools = [[tool, "-n", NETNS, "-batch", Path(directory, tool)] for tool in batches]
        for tool, text in batches.items():
            Path(directory, tool).write_text(text, encoding="ascii")
        sh(f"ip netns add {NETNS}",
           f"ip netns exec {NETNS} sysctl -qw net.ipv4.neigh.default.gc_thresh3={4 * count} 2>/dev/null || :")
        try:
            theirs, ours = interleaved(lambda: emptied(lambda: [timed(command) for command in tools]),
                                       lambda: emptied(lambda: apply(links, fdb + neighbours)), rounds=3)
            print(f"{count} FDB entries and {count} neighbours: set in {ours:.0f} ms, {theirs:.0f} by the tools, {ours / theirs:.2f} times"
                  + (f" (wanted: {MOST})" if ours > MOST * theirs else ""))
            theirs, ours = interleaved(lambda: sum(timed([tool, "-n", NETNS, *show]) for tool, show in (
                ("bridge", ["fdb", "show"]), ("ip", ["neighbour", "show", "nud", "permanent"]))), read, rounds=3)
            print(f"  read in {ours:.0f} ms, {theirs:.0f} by the tools, {ours / theirs:.2f} times")
        finally:
            links.close()
            sh(f"ip netns del {NETNS}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
