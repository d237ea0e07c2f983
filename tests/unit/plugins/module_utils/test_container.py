# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's files: quoted right whatever is in it, POSIX shell, and read back as they were written."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils import _container
from ansible_collections.fromscratch.containers.plugins.module_utils._container import Bind, digest, files_of, from_json, to_json
from ansible_collections.fromscratch.containers.plugins.module_utils._errors import Invalid

HOSTILE = ["a b", "'", '"', "$HOME", "`id`", "$(id)", "\\", "\n", "*", "?", "~", "#", ";", "&", "{}", "{0}", "%s", "-n", "",
           "ü", "!", "a'b\"c\\", "\t", "EOF", "$$", "'; touch /tmp/owned; '"]


def container(**options):
    """The wanted container of a task that gives these options."""
    defaults = {name: spec.get("default") for name, spec in _container.OPTIONS.items()}
    return _container.container({**defaults, "name": "c1", "rootfs": "/rootfs", **options})


VARIANTS = {
    "default": {}, "none": {"layer": "none"}, "tmpfs": {"layer": "tmpfs", "tmpfs": ["/tmp", "/run:mode=755,size=1m"]},
    "privileged": {"privileged": True}, "read only": {"read_only": True, "layer": "none"}, "no init": {"init": False},
    "hostile": {"command": ["sh", *HOSTILE], "env": {f"V{at}": each for at, each in enumerate(HOSTILE)}},
    "binds": {"binds": [{"source": "/a+b", "dest": "/c=d", "read_only": True}, {"source": "/e~", "dest": "/f@", "read_only": False}]},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def variant(request):
    return container(**request.param)


def test_the_script_passes_shellcheck(variant, tmp_path):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    path = tmp_path / "container"
    path.write_text(_container.script(variant), encoding="utf-8")
    done = subprocess.run(["shellcheck", "--shell=sh", "--exclude=SC1003,SC2016", path],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_the_script_is_posix(variant, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    program = {"bash": ["bash", "--posix", "-n"], "busybox": ["busybox", "sh", "-n"]}.get(shell, [shell, "-n"])
    done = subprocess.run(program, input=_container.script(variant), capture_output=True, text=True, check=False)
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
    arguments, environment = words_of(_container.script(wanted), "exec env -i", tmp_path)
    assert arguments[:2] == ["/bin/sh", "-c"] and arguments[3:] == ["init", "/w~@=+", "sh", *HOSTILE]
    assert arguments[2] == _container.INIT
    for at, each in enumerate(HOSTILE):
        assert f"V{at}={each}" in environment
    assert {each.split("=")[0] for each in environment} - {"PWD", "SHLVL", "_", "SHOWN", "OLDPWD"} == {
        "HOME", "PATH", "HOSTNAME", *(f"V{at}" for at in range(len(HOSTILE)))}


def test_the_fstab(variant):
    for line in _container.fstab(variant).splitlines()[1:]:
        source, point, kind, options, dump, order = line.split(" ")
        assert point.startswith("/var/lib/fromscratch/containers/c1/root/") and (dump, order) == ("0", "0")
        assert "X-mount.mkdir" in options.split(",") and source and kind
    assert _container.fstab(variant).startswith("# ")


def test_the_order_of_the_mounts():
    wanted = container(tmpfs=["/run", "/run/deep:size=1m"], binds=VARIANTS["binds"]["binds"])
    points = [line.split()[1].rpartition("/root")[2] for line in _container.fstab(wanted).splitlines()[1:]]
    assert points == ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/run", "/run/deep"]
    script = _container.script(wanted)
    steps = ["mount -t overlay", "mount --all --fstab", "ln -s pts/ptmx", "bind /a+b /c=d bind,ro", "bind '/e~' /f@ rbind",
             "--root=/proc/self/fd/3"]
    assert sorted(steps, key=script.index) == steps
    read_only = _container.script(container(read_only=True, binds=VARIANTS["binds"]["binds"]))
    assert read_only.index("rbind") < read_only.index("remount,bind,ro") < read_only.index("--root=/proc/self/fd/3")


@pytest.mark.parametrize("options, present, missing", [
    ({}, ["--no-new-privs", "--inh-caps=-all", "rootfs=/rootfs\n", '-o "nodev,lowerdir=$rootfs,'],
     ["mknod", "sys_admin", "remount"]),
    ({"privileged": True}, ['-o "lowerdir=$rootfs,'], ["--no-new-privs", "nodev,lower", "--bounding-set"]),
    ({"layer": "none"}, ['mount -o nodev,bind "$rootfs"'], ["overlay"]),
    ({"layer": "none", "privileged": True}, ['mount -o bind "$rootfs"'], ["overlay", "nodev,bind"]),
    ({"read_only": True}, ["remount,bind,ro"], []), ({"stop_timeout": 7}, ["ends_within 70"], []),
    ({"stop_timeout": 0}, ["ends_within 00"], []), ({"init": False}, [_container.FIRST], ["trap"])])
def test_what_the_script_says(options, present, missing):
    found = _container.script(container(**options))
    assert all(each in found for each in present) and not any(each in found for each in missing)


def test_the_settings_are_read_back(variant):
    read = from_json(to_json(variant))
    assert {name: getattr(read, name) for name in _container.RECORDED} == {
        name: getattr(variant, name) for name in _container.RECORDED}
    assert digest(files_of(read)) == variant.files and all(isinstance(each, Bind) for each in read.binds)


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
        "privileged": True, "init": False, "stop_timeout": 5}
    assert set(changed) == set(_container.OPTIONS) - {"name", "state", "restart", "memory", "cpus", "pids"}  # those stand in the unit
    for option, value in changed.items():
        assert container(**{option: value}).files != base.files, option


def test_names_in_the_script_are_quoted():
    assert shlex.quote("c~x") not in _container.script(container(name="a.b-c_d"))
    with pytest.raises(Invalid):
        container(name="c~x")
