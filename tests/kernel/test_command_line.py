# SPDX-License-Identifier: GPL-3.0-or-later
"""``ns-container`` as people use it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container import install
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.options import VERBS
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import STATE

from .support.containers import UNTIL_TOLD, act, end, inside, launcher, pid, take_away
from .support.modules import run_module
from .support.namespaces import sh
from .support.processes import eventually
from .support.terminals import in_terminal

pytestmark = pytest.mark.usefixtures("host")


def run(*words, **options):
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.usefixtures("container_runtime")
@pytest.mark.parametrize("userns", ["auto", "host"])
def test_exec_as_another_user_elsewhere_and_with_variables(rootfs, userns):
    act(name="c1", rootfs=rootfs, userns=userns, env={"GIVEN": "by the container"})
    inside("echo worker:x:1234:1234::/:/bin/sh >>/etc/passwd; echo staff2:x:4321:worker >>/etc/group; mkdir -p /srv/there")
    look = "id -u; id -g; id -G; pwd; echo $GIVEN $OTHER $PASSED; grep CapEff /proc/self/status"
    code, said, unused = run("exec", "-u", "worker", "-w", "/srv/there", "-e", "OTHER=x y", "--env", "PASSED", "c1", "sh", "-c", look,
                             env={**os.environ, "PASSED": "from outside"})
    assert code == 0 and said.splitlines() == ["1234", "1234", "1234 4321", "/srv/there", "by the container x y from outside",
                                               "CapEff:\t0000000000000000"]
    assert run("exec", "-u", "99:98", "c1", "sh", "-c", "id -u; id -g")[1].split() == ["99", "98"]
    for words, said in (("-u", "nobody-here"), "no such user"), (("-w", "/nowhere"), "/nowhere: No such file"), (("-u", "0:none"), "no such group"):
        code, unused, errors = run("exec", *words, "c1", "true")
        assert code == 125 and said in errors, errors


def test_a_command_that_is_not_there(rootfs):
    act(name="c1", rootfs=rootfs)
    inside("echo something >/text; chmod 755 /text; echo '#!/no/such/shell' >/script; chmod 755 /script")
    for code, name, words in ((127, "no-such", "not found: give the path"), (126, "/etc", "permission denied: give the path"),
                              (126, "/text", "not a program of this machine"), (127, "/script", "a script needs its interpreter")):
        found = run("exec", "c1", name)
        assert found[:2] == (code, "") and found[2].startswith(f"ns-container: {name}: ") and words in found[2], found
    assert run("exec", "none", "true") == (125, "", "ns-container: there is no container none: ns-container list shows those that there are\n")
    assert run("exec", "../c1", "true")[0] == 125


@pytest.mark.parametrize("options, words", [
    ({"ulimits": {"nofile": 1 << 40}}, "setrlimit RLIMIT_NOFILE 1099511627776:1099511627776: not allowed to raise maximum limit: choose lower"),
    ({"tmpfs": ["/x:flavour=sweet"]}, "fsconfig flavour=sweet: Invalid argument, of the tmpfs tmpfs at /x with nosuid,nodev,flavour=sweet: change"),
    ({"workdir": "/no/where"}, "chdir /no/where: No such file or directory: choose a directory")])
def test_a_start_that_fails_says_at_what_and_what_to_do(rootfs, options, words):
    found = run_module("ns_container", name="c1", rootfs=rootfs, **options)
    assert found.failed and f"container c1: starting it failed: {words}" in found.msg, found.msg


def test_a_bundle_that_says_what_cannot_be(rootfs):
    act(name="c1", rootfs=rootfs, state="stopped")
    bundle = Path(STATE, "c1/config.json")
    bundle.write_text(bundle.read_text(encoding="utf-8").replace("CAP_CHOWN", "CAP_FLY"), encoding="utf-8")
    code, unused, said = run("start", "c1")
    assert code == 125 and "config.json says what cannot be" in said and "run the playbook again" in said


def test_a_user_of_its_own(rootfs):
    act(name="c1", rootfs=rootfs, user="1000:1001", init=False, command=["sleep", "1000"])
    first = json.loads(Path(STATE, "c1/config.json").read_text(encoding="utf-8"))["linux"]["uidMappings"][0]["hostID"]
    status = Path(f"/proc/{pid()}/status").read_text(encoding="utf-8")
    assert f"Uid:\t{first + 1000}\t" in status and f"Gid:\t{first + 1001}\t" in status and "CapEff:\t0000000000000000" in status
    assert inside("id -u") == "1000"


@pytest.mark.usefixtures("container_runtime")
def test_list_and_status(rootfs, scene):
    act(config=[{"name": "c1", "rootfs": rootfs}, {"name": "c2", "rootfs": rootfs, "state": "stopped"}])
    sh("ip -n c1 link add eth0 type bridge", "ip -n c1 address add 10.0.0.100/24 dev eth0")
    one, two = json.loads(run("list", "--json")[1])
    assert (one["name"], one["state"], one["pid"], one["addresses"], one["limits"]) == ("c1", "started", pid(), ["10.0.0.100/24"], {})
    assert one["since"][:2] == "20" and (two["state"], two["pid"], two["since"]) == ("stopped", None, None)
    assert [line.split()[:2] for line in run("list")[1].splitlines()] == [["NAME", "STATE"], ["c1", "started"], ["c2", "stopped"]]
    assert run("status")[:2] == (0, f"c1 runs, process {pid()}\nc2 does not run\n")
    assert run("status", "c1", "c2")[0] == 3


@pytest.mark.usefixtures("container_runtime")
def test_logs_and_wait(rootfs):
    act(name="c1", rootfs=rootfs, command=["sh", "-c", f"echo one; echo two; {UNTIL_TOLD}; exit 5"])
    assert run("logs", "c1")[1] == "one\ntwo\n" and run("logs", "-n1", "c1")[1] == "two\n"
    end()
    assert run("wait", "c1") == (0, "5\n", "")
    assert run("logs", "-n", "x", "c1")[0] == 125
    act(name="c2", rootfs=rootfs, command=["sh", "-c", UNTIL_TOLD], init=False)
    end("c2")
    assert run("wait", "c2") == (0, "ended\n", "")


@pytest.mark.usefixtures("container_runtime")
@pytest.mark.parametrize("userns", ["auto", "host"])
def test_cp(rootfs, tmp_path, userns):
    act(name="c1", rootfs=rootfs, userns=userns)
    data, victim = os.urandom(3 << 20), tmp_path / "victim"
    (tmp_path / "file").write_bytes(data)
    victim.write_text("of the host", encoding="ascii")
    assert run("cp", str(tmp_path / "file"), "c1:/srv") == (0, "", "")
    assert inside("stat -c '%u %s' /srv/file") == f"0 {len(data)}"
    assert run("cp", "c1:/srv/file", str(tmp_path / "back"))[0] == 0 and (tmp_path / "back").read_bytes() == data
    inside(f"ln -s {victim} /srv/link")
    code, unused, said = run("cp", "c1:/srv/link", str(tmp_path / "stolen"))
    assert code == 125 and "No such file" in said, "a link of the container leads to its own files"
    run("cp", str(tmp_path / "file"), "c1:/srv/link")
    assert victim.read_text(encoding="ascii") == "of the host"
    for words in ("c1:/x", "c1:/y"), ("/x", "/y"), ("c1:x", "/y"):
        assert run("cp", *words)[0] == 125


@pytest.mark.usefixtures("container_runtime")
def test_signals_reach_the_command(rootfs):
    act(name="c1", rootfs=rootfs)
    with trapping() as command:
        assert command.stdout.readline() == "ready\n"
        command.send_signal(signal.SIGTERM)
        assert command.stdout.read() == "got it\n" and command.wait() == 7


def test_a_signal_reaches_a_command_that_is_faster_than_who_waits_for_it(rootfs):
    act(name="c1", rootfs=rootfs)
    for _time in range(10):
        with trapping() as command:
            children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
            while not children.read_text(encoding="ascii"):
                assert command.poll() is None
            command.send_signal(signal.SIGSTOP)
            assert command.stdout.readline() == "ready\n"
            command.send_signal(signal.SIGTERM)
            command.send_signal(signal.SIGCONT)
            assert command.stdout.read() == "got it\n" and command.wait() == 7


def trapping():
    """A command that ends with 7 when it is told to; who tells it is the program that runs it."""
    return subprocess.Popen(launcher("exec", "sh", "-c", "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.05; done"),
                            stdout=subprocess.PIPE, text=True)


@pytest.mark.usefixtures("container_runtime")
def test_a_terminal_where_there_is_one(rootfs):
    act(name="c1", rootfs=rootfs)
    look = "tty; [ -t 0 ] && [ -t 1 ] && echo yes; echo $TERM; : >/dev/tty && echo controlling; stty size"
    said = in_terminal(["sh", "-c", f"stty rows 33 cols 77; TERM=vt52 {PROGRAM} exec c1 sh -c '{look}'"])[0]
    assert said.splitlines() == ["/dev/pts/0", "yes", "vt52", "controlling", "33 77"]
    assert in_terminal([PROGRAM, "exec", "-T", "c1", "tty"])[0].strip() == "not a tty"
    assert run("exec", "-t", "c1", "tty")[1].strip() == "/dev/pts/0"
    eventually(lambda: inside("ls /dev/pts") == "ptmx", "it is gone")


def test_help_manual_and_completion(rootfs):
    act(name="c1", rootfs=rootfs)
    assert run("--help")[0] == 0 and all(f"ns-container {verb}" in run("--help")[1] for verb in VERBS)
    assert run("exec", "--help")[1].count("--workdir") == 1
    bash = f". {install.COMPLETION}; COMP_WORDS=(ns-container {{}}); COMP_CWORD={{}}; _ns_container x '{{}}'; echo ${{{{COMPREPLY[@]}}}}"
    for words, at, word, expected in ("st", 1, "st", "start stop status"), ("exec --w", 2, "--w", "--workdir"), ("start c", 2, "c", "c1"):
        done = subprocess.run(["bash", "-c", bash.format(words, at, word)], capture_output=True, text=True, check=True)
        assert done.stdout.split() == expected.split()


def test_man_finds_the_manual(rootfs):
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    act(name="c1", rootfs=rootfs)
    found = subprocess.run(["man", "-w", "ns-container"], capture_output=True, text=True, check=False)
    assert os.path.samefile(found.stdout.strip() or "/", install.MANUAL), found.stderr
    rendered = subprocess.run(["man", "ns-container"], capture_output=True, text=True, check=False)
    assert rendered.stderr == "" and "ns-container exec" in rendered.stdout


def test_bash_finds_the_completion(rootfs):
    loader = "/usr/share/bash-completion/bash_completion"
    if not os.path.exists(loader):
        pytest.skip("bash-completion is not installed")
    act(name="c1", rootfs=rootfs)
    load = f". {loader}; if declare -F _comp_load >/dev/null; then _comp_load ns-container; else _completion_loader ns-container; fi; complete -p ns-container"
    found = subprocess.run(["bash", "-c", load], capture_output=True, text=True, check=False)
    assert "-F _ns_container ns-container" in found.stdout, found.stderr


@pytest.mark.parametrize("link", install.LINKS)
def test_what_is_installed_for_people_comes_back_and_goes_with_the_last_container(rootfs, link):
    take_away()
    before = sorted(Path("/usr/local").rglob("*"))
    act(name="c1", rootfs=rootfs)
    assert os.path.realpath(link) == install.LINKS[link] and os.lstat(link).st_uid == os.stat(link).st_uid == 0
    os.unlink(link)
    assert [each["fields"] for each in act(name="c1", rootfs=rootfs).changes] == [["bundle off -> on"]]
    assert os.readlink(link) == install.LINKS[link]
    act(name="c1", state="absent")
    assert sorted(Path("/usr/local").rglob("*")) == before


def test_what_an_administrator_has_in_place_of_a_link_stays(rootfs):
    take_away()
    path = Path(install.COMPLETION)
    path.parent.mkdir(parents=True)
    path.write_text("of an administrator", encoding="ascii")
    try:
        act(name="c1", rootfs=rootfs)
        act(name="c1", state="absent")
        assert path.read_text(encoding="ascii") == "of an administrator"
    finally:
        shutil.rmtree(path.parent.parent)


@pytest.mark.parametrize("words", [[], ["fly"], ["start"], ["exec", "c1"], ["exec", "-x", "c1", "true"], ["exec", "-u"], ["wait", "a", "b"],
                                   ["list", "--json=1"]])
def test_what_is_not_understood(rootfs, words):
    act(name="c1", rootfs=rootfs)
    code, unused, said = run(*words)
    assert code == 64 and ("Try ns-container --help" in said or not words)


def test_it_takes_root(rootfs):
    act(name="c1", rootfs=rootfs)
    done = subprocess.run(["/usr/bin/python3", "-I", PROGRAM, "exec", "c1", "true"], user=65534, group=65534, extra_groups=[],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (125, "ns-container: it takes root: try sudo\n")
