# SPDX-License-Identifier: GPL-3.0-or-later
"""Published ports: those that the host cannot lend, and what becomes of flows when they change."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import running as running_pid
from ansible_collections.fromscratch.containers.plugins.module_utils.firewall import conntrack, nftables, ports
from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces

from .support.egress import HERE, OUTSIDE, SENT_TO_IPTABLES
from .support.namespaces import sh

pytestmark = pytest.mark.skipif(nftables.nft() is None, reason="nft is not installed")


@contextlib.contextmanager
def listening(address, port, kind=socket.SOCK_STREAM, netns=None):
    with namespaces.entered(netns) if netns else contextlib.nullcontext():
        server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    with server:
        server.bind((address, port))
        if kind == socket.SOCK_STREAM:
            server.listen()
        server.settimeout(10)
        yield server


def refused(machine, *ports, **variables):
    """What is said, by check mode and by a real run alike, of a container with these ports; and nothing is changed."""
    found = [machine.run(("c1", {"publish": list(ports)}), egress=True, check=check, **variables) for check in (True, False)]
    assert [each.failed for each in found] == [True, True], found
    assert found[0].msg == found[1].msg and running_pid("c1") is None and "br0" not in sh("ip link")
    return found[0].msg


TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


def test_a_port_at_which_the_host_listens(machine):
    me = f"{Path('/proc/self/comm').read_text(encoding='utf-8').strip()} (process {os.getpid()})"
    for at, kind, port, shown in (
            ("0.0.0.0", TCP, "2222:22", "0.0.0.0"), ("::", TCP, "2222:22", "::"), (HERE, TCP, "2222:22", HERE), (HERE, TCP, f"{HERE}:2222:22", HERE),
            ("::ffff:" + HERE, TCP, "2222:22", "::ffff:"), ("0.0.0.0", UDP, f"{HERE}:2222:53/udp", "0.0.0.0")):
        with listening(at, 2222, kind):
            said = refused(machine, port)
        assert "publish.port: 2222 is not valid" in said and f"{me} of this host listens on it at {shown}" in said, said
        assert "overlay_publish_over" in said


def test_a_port_at_which_the_host_listens_elsewhere_or_is_asked_not_to_matter(machine):
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening("127.0.0.1", 2222))
        stack.enter_context(listening("::1", 2223))
        stack.enter_context(listening("0.0.0.0", 2224, UDP))
        stack.enter_context(listening(HERE, 2225))
        sh("ip address add 192.0.2.7/32 dev enX0", "ip address add fd00::7/128 dev enX0 nodad")
        stack.enter_context(listening("fd00::7", 2227))
        ports = ["2222:22", "2223:22", "2224:22", "192.0.2.7:2225:22", "2227:22"]
        machine.converge(("c1", {"publish": ports}), egress=True)
        for mine in ("127.0.0.1", 2222), (HERE, 2225):
            socket.create_connection(mine, 5).close()
        stack.enter_context(listening("0.0.0.0", 2226))
        machine.converge(("c1", {"publish": [*ports, "2226:22"]}), egress=True, publish_over=True)


def test_an_address_that_the_host_lacks(machine):
    said = refused(machine, "192.0.2.9:80:80")
    assert "publish.address: '192.0.2.9' is not valid: this host has no such address" in said
    machine.converge(("c1", {"publish": ["10.0.0.1:53:53/udp"]}), egress=True)  # the bridge will have it
    Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text("1", encoding="ascii")
    machine.converge(("c1", {"publish": ["192.0.2.9:80:80"]}), egress=True)


def test_clients_of_udp_follow_the_rules(machine):
    """One socket goes on sending all the time, as a resolver or a logger does."""
    published = ("c1", {"publish": ["5353:53/udp", f"{HERE}:514:514/udp"]})
    machine.converge(("c1", {}), ("c2", {}), egress=True)
    with contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(listening("0.0.0.0", 53, UDP, name)) for name in ("c1", "c2"))
        logs = stack.enter_context(listening("0.0.0.0", 514, UDP, "c1"))
        client, other = (stack.enter_context(listening("0.0.0.0", port, UDP, machine.outside)) for port in (7777, 7778))

        def send(port=5353):
            client.sendto(b"hello", (HERE, port))

        def answered(server, port=5353):
            send(port)
            assert server.recv(100) == b"hello"

        send()
        send(514)  # to nobody: the kernel remembers that
        sh(f"ip netns exec {machine.outside} ping -q -c1 -W5 {HERE}")  # both have come in by now
        made = machine.converge(published, ("c2", {}), egress=True)
        assert f"conntrack -D -f ipv4 -p udp --orig-dst {HERE} --orig-port-dst 514 || :" in made.commands
        answered(one)
        answered(logs, 514)
        other.sendto(b"other", (HERE, 514))
        assert logs.recv(100) == b"other"
        flows = sh("cat /proc/net/nf_conntrack") if Path("/proc/net/nf_conntrack").exists() else None
        moved = machine.converge(("c1", {"publish": published[1]["publish"][1:]}), ("c2", {"publish": ["5353:53/udp"]}), egress=True)
        assert [each for each in moved.commands if "conntrack" in each] == [
            "conntrack -D -f ipv4 -p udp --orig-port-dst 5353 || :"], "the other port keeps its own"
        answered(two)
        answered(logs, 514)
        assert machine.run(("c1", {}), ("c2", {}), egress=True).changed
        with listening("0.0.0.0", 5353, UDP) as server:  # the port is the host's own again
            answered(server)
        assert flows is None or "dport=5353" in flows


def test_conntrack_itself_does_the_same(machine):
    if sh("command -v conntrack || :") == "":
        pytest.skip("conntrack is not installed")
    machine.converge(("c1", {"publish": ["5353:53/udp"]}), egress=True)
    with listening("0.0.0.0", 7777, UDP, machine.outside) as client:
        client.sendto(b"hello", (HERE, 5353))
        sh(f"ip netns exec {machine.outside} ping -q -c1 -W5 {HERE}")
        assert "dport=5353" in sh("conntrack -L -p udp")
        sh(*conntrack.commands([(HERE, 5353)]))
        assert "dport=5353" not in sh("conntrack -L -p udp")


def test_the_flows_to_another_address_and_of_tcp_stay(machine):
    if sh("command -v conntrack || :") == "":
        pytest.skip("conntrack is not installed")
    sh("ip address add 192.0.2.7/32 dev enX0", f"ip -n {machine.outside} route add 192.0.2.7 via {HERE}")
    machine.converge(("c1", {"publish": [f"{HERE}:514:514/udp"]}), egress=True)

    def known():
        return [f"dst={address} sport=7777 dport=514" in sh(f"conntrack -L -p {protocol}")
                for protocol, address in (("udp", HERE), ("udp", "192.0.2.7"), ("tcp", HERE))]

    with contextlib.ExitStack() as stack:
        client = stack.enter_context(listening("0.0.0.0", 7777, UDP, machine.outside))
        stack.enter_context(listening(HERE, 514))
        with namespaces.entered(machine.outside):
            stack.enter_context(socket.create_connection((HERE, 514), 5, ("0.0.0.0", 7777)))
        for each in HERE, "192.0.2.7":
            client.sendto(b"hello", (each, 514))
        sh(f"ip netns exec {machine.outside} ping -q -c1 -W5 {HERE}")
        assert known() == [True, True, True]
        machine.converge(("c1", {}), egress=True)
        assert known() == [False, True, True]


def test_the_same_port_of_another_host_is_left_to_it(machine):
    machine.converge(("c1", {"publish": ["8080:80"]}), ("c2", {}), egress=True)
    with listening("0.0.0.0", 8080, netns=machine.outside):
        for netns in "c1", "c2", machine.name:
            with namespaces.entered(netns):
                socket.create_connection((OUTSIDE, 8080), 5).close()


def test_listeners_are_those_of_ss(machine):
    with listening("0.0.0.0", 2222), listening("::1", 2222):
        assert sorted(str(each.address) for each in ports.listeners("tcp", 2222)) == ["0.0.0.0", "::1"]
        assert len(sh("ss -Hltn 'sport = 2222'").splitlines()) == 2
    assert list(ports.listeners("tcp", 2222)) == []


def said(netns, port):
    """What a server says to one who connects; None where nothing comes back."""
    with namespaces.entered(netns):
        client = socket.socket()
    with client:
        client.settimeout(2)
        try:
            client.connect((HERE, port))
            return client.recv(100)
        except OSError:
            return None


@pytest.mark.parametrize("bridged", ["0", pytest.param("1", marks=pytest.mark.skipif(
    not SENT_TO_IPTABLES.exists(), reason="the kernel has no br_netfilter"))])
def test_a_container_reaches_its_own_published_port(machine, bridged):
    """With br_netfilter, its frames are led back to it while they still are in the bridge."""
    if SENT_TO_IPTABLES.exists():
        SENT_TO_IPTABLES.write_text(bridged, encoding="ascii")
    machine.converge(("c1", {"publish": ["8080:80"]}), ("c2", {}), egress=True)
    with listening("0.0.0.0", 80, netns="c1") as server:
        def serve():
            with contextlib.suppress(OSError):  # it is closed at the end
                while True:
                    with server.accept()[0] as client:
                        client.sendall(b"hello")

        server.settimeout(None)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        for netns in "c1", "c2", machine.outside, machine.name:
            assert said(netns, 8080) == b"hello", netns
        with listening("0.0.0.0", 81, netns="c1") as direct, namespaces.entered("c2"):
            client = socket.create_connection(("10.0.0.11", 81), 5)
            with client, direct.accept()[0] as taken:
                assert taken.getpeername()[0] == "10.0.0.12", "neighbours see each other's own addresses"
        if bridged == "1":
            sh("bridge link set dev ve-c1 hairpin off")
            assert said("c1", 8080) is None, "the kernel would do without: nothing has been shown"
            machine.converge(("c1", {"publish": ["8080:80"]}), ("c2", {}), egress=True)
            assert said("c1", 8080) == b"hello"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
