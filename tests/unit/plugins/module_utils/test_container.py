# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's files: quoted right whatever is in it, POSIX shell, and read back as they were written."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils import _container, _script
from ansible_collections.fromscratch.containers.plugins.module_utils._container import Bind, digest, files_of, from_json, to_json
from ansible_collections.fromscratch.containers.plugins.module_utils._errors import Invalid

HOSTILE = ["a b", "'", '"', "$HOME", "`id`", "$(id)", "\\", "\n", "*", "?", "~", "#", ";", "&", "{}", "{0}", "%s", "-n", "",
           "ü", "!", "a'b\"c\\", "\t", "EOF", "$$", "'; touch /tmp/owned; '"]


def container(**options):
    """The wanted container of a task that gives these options."""
    defaults = {name: spec.get("default") for name, spec in _container.OPTIONS.items()}
    told = {key: options.pop(key) for key in ("userns", "mapped_by", "seccomp", "service") if key in options}  # by the host
    return _container.container({**defaults, "name": "c1", "rootfs": "/rootfs", **options}).with_(**told)


VARIANTS = {
    "default": {}, "none": {"layer": "none"}, "tmpfs": {"layer": "tmpfs", "tmpfs": ["/tmp", "/run:mode=755,size=1m"]},
    "privileged": {"privileged": True}, "read only": {"read_only": True, "layer": "none"}, "no init": {"init": False},
    "hostile": {"command": ["sh", *HOSTILE], "env": {f"V{at}": each for at, each in enumerate(HOSTILE)}},
    "mapped": {"userns": "600000", "mapped_by": "python3"}, "mapped by mount": {"userns": "600000", "mapped_by": "mount"},
    "mapped tmpfs": {"userns": "600000", "mapped_by": "mount", "layer": "tmpfs", "tmpfs": ["/tmp"]},
    "filtered": {"seccomp": "setpriv, unit"}, "limits": {"memory": "64M", "cpus": 0.5, "pids": 9, "service": False},
    "rights": {"capabilities": {"add": ["net_admin"], "drop": ["all"]}, "ulimits": {"nofile": "9:20"}, "no_new_privs": False},
    "binds": {"binds": [{"source": "/a+b", "dest": "/c=d", "read_only": True}, {"source": "/e~", "dest": "/f@", "read_only": False}]},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def variant(request):
    return container(**request.param)


def test_the_script_passes_shellcheck(variant, tmp_path):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    path = tmp_path / "container"
    path.write_text(_script.script(variant), encoding="utf-8")
    done = subprocess.run(["shellcheck", "--shell=sh", "--exclude=SC1003,SC2016", path],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_the_script_is_posix(variant, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    program = {"bash": ["bash", "--posix", "-n"], "busybox": ["busybox", "sh", "-n"]}.get(shell, [shell, "-n"])
    done = subprocess.run(program, input=_script.script(variant), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def words_of(found, first, tmp_path):
    """What the script would run in place of ``first``, which is replaced by a program that shows its arguments."""
    shown = tmp_path / "shown"
    text = found[found.index(first):]
    text = text[:text.index("\n    ;;")]
    show = """/bin/sh -c 'env -0 >"$SHOWN.env"; for each; do printf "%s\\0" "$each"; done >"$SHOWN"' show"""
    text = text.replace("exec env -i", f"exec env -i SHOWN={shown}").replace("/usr/sbin/chroot .", show)
    subprocess.run(["sh", "-eu", "-c", text], check=True, stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]})
    return shown.read_bytes().decode().split("\0")[:-1], (tmp_path / "shown.env").read_bytes().decode().split("\0")[:-1]


def test_hostile_values_reach_the_command_as_they_are(tmp_path):
    wanted = container(privileged=True, workdir="/w~@=+", **VARIANTS["hostile"])
    arguments, environment = words_of(_script.script(wanted), "exec env -i", tmp_path)
    assert arguments[:2] == ["/bin/sh", "-c"] and arguments[3:] == ["init", "/w~@=+", "sh", *HOSTILE]
    assert arguments[2] == _script.INIT
    for at, each in enumerate(HOSTILE):
        assert f"V{at}={each}" in environment
    assert {each.split("=")[0] for each in environment} - {"PWD", "SHLVL", "_", "SHOWN", "OLDPWD"} == {
        "HOME", "PATH", "HOSTNAME", *(f"V{at}" for at in range(len(HOSTILE)))}


def test_the_fstab(variant):
    for line in _script.fstab(variant).splitlines()[1:]:
        source, point, kind, options, dump, order = line.split(" ")
        assert point.startswith("/var/lib/fromscratch/containers/c1/root/") and (dump, order) == ("0", "0")
        assert "X-mount.mkdir" in options.split(",") and source and kind
    assert _script.fstab(variant).startswith("# ")


def test_the_order_of_the_mounts():
    wanted = container(tmpfs=["/run", "/run/deep:size=1m"], binds=VARIANTS["binds"]["binds"])
    points = [line.split()[1].rpartition("/root")[2] for line in _script.fstab(wanted).splitlines()[1:]]
    assert points == ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/run", "/run/deep"]
    script = _script.script(wanted)
    steps = ["mount -t overlay", "mount --all --fstab", "fstab.rest", "ln -s pts/ptmx", "bind /a+b /c=d bind ro,nodev",
             "bind '/e~' /f@ rbind nodev",
             "--root=/proc/self/fd/3"]
    assert sorted(steps, key=script.index) == steps
    read_only = _script.script(container(read_only=True, binds=VARIANTS["binds"]["binds"]))
    assert read_only.index("/f@ rbind") < read_only.index("remount,bind,ro") < read_only.index("--root=/proc/self/fd/3")


@pytest.mark.parametrize("options, present, missing", [
    ({}, ["--no-new-privs", "--inh-caps=-all", "rootfs=/rootfs\n", '-o "nodev,lowerdir=$rootfs,'],
     ["sys_admin", "remount,bind,ro", "cgroup.procs", "nsenter --user", "seccomp"]),
    ({"userns": "600000", "mapped_by": "mount"}, ["nsenter --user=proc/self/fd/6", "X-mount.idmap=$users", "lowerdir=$dir/lower",
                                                  "chown 600000:600000", "0 600000 65536"], ["python3"]),
    ({"userns": "600000", "mapped_by": "python3"}, ["python3 -ISc"], ["X-mount.idmap"]),
    ({"userns": "off: because"}, [], ["nsenter --user"]),
    ({"seccomp": "setpriv"}, ["--seccomp-filter proc/self/fd/7", "--seccomp-filter /var/lib/fromscratch/seccomp"], []),
    ({"seccomp": "unit"}, [], ["--seccomp-filter"]),
    ({"capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["ALL"]}}, ["--bounding-set=-all,+net_admin,+sys_chroot "], ["+chown"]),
    ({"capabilities": {"add": [], "drop": ["mknod"]}}, ["+net_raw"], ["+mknod"]),
    ({"no_new_privs": False}, ["--bounding-set"], ["--no-new-privs"]),
    ({"ulimits": {"nproc": 5, "NOFILE": "10:20"}}, ["prlimit --nofile=10:20 --nproc=5:5 --"], []),
    ({"memory": "64M", "service": False}, ["memory.max", "memory.swap.max", "cgroup.procs"], ["pids.max", "cpu.max"]),
    ({"memory": "64M", "service": True}, ["cgroup.procs"], ["memory.max"]),
    ({"privileged": True}, ['-o "lowerdir=$rootfs,'], ["--no-new-privs", "nodev,lower", "--bounding-set"]),
    ({"layer": "none"}, ['mount -o nodev,bind "$rootfs"'], ["overlay"]),
    ({"layer": "none", "privileged": True}, ['mount -o bind "$rootfs"'], ["overlay", "nodev,bind"]),
    ({"read_only": True}, ["remount,bind,ro"], []), ({"stop_timeout": 7}, ["ends_within 70"], []),
    ({"stop_timeout": 0}, ["ends_within 00"], []), ({"init": False}, [_script.FIRST], ["trap"])])
def test_what_the_script_says(options, present, missing):
    found = _script.script(container(**options))
    assert all(each in found for each in present) and not any(each in found for each in missing)


def test_the_settings_are_read_back(variant):
    read = from_json(to_json(variant))
    assert {name: getattr(read, name) for name in _container.RECORDED} == {
        name: getattr(variant, name) for name in _container.RECORDED}
    assert digest(files_of(read)) == digest(files_of(variant)) and all(isinstance(each, Bind) for each in read.binds)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", "5", '"x"', json.dumps({"name": "c1"}), None])
def test_what_is_not_a_record(text):
    broken = json.loads(to_json(container()))
    broken["binds"] = [1]
    with pytest.raises((ValueError, KeyError, TypeError)):
        from_json(json.dumps(broken) if text is None else text)


def test_every_setting_is_in_the_files():
    """A setting that is not would take no effect, or its change would not be seen."""
    base, changed = container(), {
        "rootfs": "/other", "command": ["x"], "env": {"A": "b"}, "hostname": "other", "workdir": "/x", "layer": "none",
        "binds": [{"source": "/a", "dest": "/b", "read_only": False}], "tmpfs": ["/x"], "read_only": True,
        "privileged": True, "init": False, "stop_timeout": 5, "capabilities": {"add": ["lease"], "drop": []},
        "no_new_privs": False, "userns": "600000", "seccomp": "setpriv", "ulimits": {"core": 0}, "memory": "1M", "cpus": 1, "pids": 9}
    # Those that are left stand in the unit, or say when to make it anew.
    assert set(changed) == set(_container.OPTIONS) - {"name", "state", "restart", "recreate"}
    for option, value in changed.items():
        assert digest(files_of(container(**{option: value}))) != digest(files_of(base)), option


@pytest.mark.parametrize("options, words", [
    ({"capabilities": {"add": ["fly"], "drop": []}}, ["capabilities.add", "'fly'"]),
    ({"capabilities": {"add": [], "drop": ["sys_chroot"]}}, ["capabilities.drop", "launcher itself needs it"]),
    ({"capabilities": {"add": ["lease"], "drop": []}, "privileged": True}, ["capabilities.add", "privileged"]),
    ({"ulimits": {"speed": 1}}, ["ulimits", "'speed'"]), ({"ulimits": {"core": "much"}}, ["ulimits.core", "'much'"]),
    ({"ulimits": {"core": "5:4"}}, ["ulimits.core", "soft limit is above"])])
def test_rights_and_limits_that_are_none(options, words):
    with pytest.raises(Invalid) as caught:
        container(**options)
    assert all(each in str(caught.value) for each in words), caught.value


def test_all_capabilities_are_those_of_the_kernel():
    assert len(_container.ALL_CAPABILITIES) == 41 and _container.ALL_CAPABILITIES.index("sys_admin") == 21
    assert container(capabilities={"add": ["all"], "drop": ["sys_admin"]}).capabilities == tuple(
        each for each in _container.ALL_CAPABILITIES if each != "sys_admin")
    assert container(capabilities={"add": [], "drop": ["all"]}).capabilities == ("sys_chroot",)


def test_a_record_of_before_has_fewer_settings():
    older = json.loads(to_json(container()))
    for each in "userns", "ulimits", "capabilities":
        del older[each]
    read = from_json(json.dumps(older))
    assert (read.name, read.userns, read.ulimits) == ("c1", None, ())


def test_names_in_the_script_are_quoted():
    assert shlex.quote("c~x") not in _script.script(container(name="a.b-c_d"))
    with pytest.raises(Invalid):
        container(name="c~x")


def test_nsenter_always_enters_a_namespace(variant):
    """From util-linux 2.41 on it refuses to do anything else alone."""
    for line in _script.script(variant).replace("\\\n", " ").splitlines():
        if "nsenter " in line and not line.lstrip().startswith("#"):
            assert any(each in line for each in ("--net", "--uts", "--mount", "--user", "--all")), line
