# SPDX-License-Identifier: GPL-3.0-or-later
"""Collect and print what ``ns-container list`` shows."""

from __future__ import annotations

import json
import os
import subprocess
import time

from . import record
from .bundle import Refused, load


def rows(names):
    """Return a dict for each container: name, state, pid, addresses, network, since, limits."""
    masters = {each["ifindex"]: each.get("master") for each in _ip("link", "show")}
    return [_row(name, masters) for name in names]


def _row(name, masters):
    pid = record.running(name)
    links = [each for each in _ip("-n", name, "address", "show") if each.get("ifname") != "lo"]
    try:
        limits = load(name)["linux"].get("resources", {})
    except Refused:  # of a former release
        limits = {}
    return {"name": name, "state": "started" if pid else "stopped", "pid": pid,
            "addresses": [f"{address['local']}/{address['prefixlen']}" for link in links for address in link.get("addr_info", [])
                          if address.get("scope") == "global"],
            "network": next((masters[link["link_index"]] for link in links if masters.get(link.get("link_index"))), None),
            "since": _since(pid), "limits": _limits(limits)}


def _ip(*words):
    if words[0] == "-n" and not os.path.exists(f"/run/netns/{words[1]}"):
        return []
    done = subprocess.run(["ip", "-j", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return [each for each in json.loads(done.stdout or "[]") if each] if done.returncode == 0 else []


def _since(pid):
    ticks = record.start_time(pid) if pid else None
    if ticks is None:
        return None
    with open("/proc/stat", encoding="ascii") as file:
        boot = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(boot + int(ticks) / os.sysconf("SC_CLK_TCK")))


def _limits(resources):
    found = {}
    if "memory" in resources:
        found["memory"] = resources["memory"]["limit"]
    if "cpu" in resources:
        found["cpus"] = resources["cpu"]["quota"] / resources["cpu"]["period"]
    if "pids" in resources:
        found["pids"] = resources["pids"]["limit"]
    return found


def table(found):
    """Return the rows as a table for people."""
    head = ("NAME", "STATE", "PID", "ADDRESSES", "NETWORK", "SINCE", "LIMITS")
    lines = [head] + [(row["name"], row["state"], str(row["pid"] or ""), ",".join(row["addresses"]), row["network"] or "",
                       row["since"] or "", ",".join(f"{key}={value}" for key, value in row["limits"].items())) for row in found]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "".join("  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip() + "\n" for line in lines)
