# SPDX-License-Identifier: GPL-3.0-or-later
"""A container's bundle: all settings are in it, it is read back as it was written, and the launcher knows all of its words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container import recorded, spec
from ansible_collections.fromscratch.containers.plugins.module_utils.container.kind import require_linux
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import bundle, cgroups
from ansible_collections.fromscratch.containers.plugins.module_utils.container.spec import Bind, from_bundle, to_bundle
from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import ModuleError, OptionError
from ansible_collections.fromscratch.containers.plugins.module_utils.core.plan import diff
from ansible_collections.fromscratch.containers.plugins.module_utils.core.resource import OWNER

HOSTILE = ["a b", "'", '"', "$HOME", "`id`", "\\", "\n", "*", "{}", "{0}", "%s", "-n", "", "ü", "a'b\"c\\", "\t", "EOF"]
MAPPED = {"userns": True, "first_uid": 600000}


def container(**options):
    """The wanted container of a task that gives these options."""
    defaults = {name: option.get("default") for name, option in spec.OPTIONS.items()}
    told = {"userns": False, "first_uid": 0, **{key: options.pop(key) for key in ("userns", "first_uid") if key in options}}
    return replace(spec.container({**defaults, "name": "c1", "rootfs": "/rootfs", **options}), **told)


VARIANTS = {
    "default": {}, "none": {"layer": "none"}, "tmpfs": {"layer": "tmpfs", "tmpfs": ["/tmp", "/run:mode=755,size=1m"]},
    "privileged": {"privileged": True}, "read only": {"read_only": True, "layer": "none"}, "no init": {"init": "false"},
    "hostile": {"command": ["sh", *HOSTILE], "env": {f"V{at}": word for at, word in enumerate(HOSTILE)}},
    "mapped": MAPPED, "limits": {"memory": "64M", "cpus": 0.5, "pids": 9}, "user": {"user": "1000:1001"},
    "init": {"init": "catatonit"},
    "rights": {"capabilities": {"add": ["net_admin"], "drop": ["all"]}, "ulimits": {"nofile": "9:20"}, "no_new_privs": False},
    "binds": {"binds": [{"source": "/a+b", "dest": "/c=d", "read_only": True}, {"source": "/e~", "dest": "/f@", "read_only": False}]},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def variant(request):
    return container(**request.param)


def test_the_launcher_knows_all_words_of_the_bundle(variant):
    bundle.check(json.loads(to_bundle(variant)), bundle.KNOWN, "config.json")


@pytest.mark.parametrize("change, words", [
    ({"hooks": {}}, "'hooks' is not known here"), ({"hostname": 5}, "5 is not of the type str"), ({"mounts": {}}, "is no list"),
    ({"linux": {"intelRdt": {}}}, "linux: 'intelRdt' is not known"), ({"process": []}, "process: [] is no object")])
def test_what_the_launcher_does_not_know_it_refuses(change, words):
    with pytest.raises(bundle.Refused) as caught:
        bundle.check({**json.loads(to_bundle(container())), **change}, bundle.KNOWN, "config.json")
    assert words in str(caught.value)


def test_the_settings_are_read_back(variant):
    read = from_bundle(to_bundle(variant))
    assert {name: getattr(read, name) for name in spec.RECORDED} == {name: getattr(variant, name) for name in spec.RECORDED}
    assert to_bundle(read) == to_bundle(variant) and all(isinstance(bind, Bind) for bind in read.binds)


def test_hostile_values_reach_the_command_as_they_are():
    process = json.loads(to_bundle(container(**VARIANTS["hostile"])))["process"]
    assert process["args"] == ["/bin/sh", "-c", spec.INIT, "init", "sh", *HOSTILE]
    assert {f"V{at}={word}" for at, word in enumerate(HOSTILE)} < set(process["env"])


def test_the_order_of_the_mounts():
    found = json.loads(to_bundle(container(tmpfs=["/run", "/run/deep:size=1m"], binds=VARIANTS["binds"]["binds"])))["mounts"]
    assert [mount["destination"] for mount in found] == [
        "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/run", "/run/deep", "/c=d", "/f@"]
    assert [mount["options"] for mount in found[-2:]] == [["bind", "ro", "nodev"], ["rbind", "nodev"]]
    assert all("nodev" in mount["options"] for mount in found if mount["destination"] not in ("/dev", "/dev/pts"))


@pytest.mark.parametrize("options, found", [
    (MAPPED, lambda config: config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 600000, "size": 65536}]),
    ({**MAPPED, **VARIANTS["binds"]}, lambda config: config["mounts"][-1]["options"] == ["rbind", "nodev", "idmap"]),
    ({"privileged": True}, lambda config: "maskedPaths" not in config["linux"] and not config["process"]["noNewPrivileges"]),
    ({"capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["ALL"]}},
     lambda config: config["process"]["capabilities"]["bounding"] == ["CAP_NET_ADMIN"]),
    ({"ulimits": {"nproc": 5, "NOFILE": "10:unlimited"}}, lambda config: config["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 2 ** 64 - 1}, {"type": "RLIMIT_NPROC", "soft": 5, "hard": 5}]),
    ({"seccomp": False}, lambda config: "seccomp" not in config["linux"]),
    ({"user": "1000"}, lambda config: config["process"]["user"] == {"uid": 1000, "gid": 0}),
    ({"init": "tini"}, lambda config: config["process"]["args"][:2] == ["/dev/init", "--"]),
    ({"init": "no"}, lambda config: config["process"]["args"] == ["sleep", "infinity"])])
def test_what_the_bundle_says(options, found):
    assert found(json.loads(to_bundle(container(**options))))


def test_limits_are_those_of_the_kernels_files():
    resources = json.loads(to_bundle(container(**VARIANTS["limits"])))["linux"]["resources"]
    assert cgroups.files(resources) == {"memory": [("memory.max", 64 << 20), ("memory.swap.max", 0)],
                                        "cpu": [("cpu.max", "50000 100000")], "pids": [("pids.max", 9)]}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", "5", '"x"', json.dumps({"annotations": {}}), None])
def test_what_is_not_a_record(text):
    broken = json.loads(to_bundle(container()))
    broken["annotations"][spec.SETTINGS] = json.dumps({"name": "c1", "binds": [1]})
    with pytest.raises((ValueError, KeyError, TypeError)):
        from_bundle(json.dumps(broken) if text is None else text)


def test_every_setting_is_in_the_bundle():
    """A setting that is not would take no effect, or its change would not be seen."""
    base, changed = container(), {
        "rootfs": "/other", "command": ["x"], "env": {"A": "b"}, "hostname": "other", "workdir": "/x", "layer": "none",
        "binds": [{"source": "/a", "dest": "/b", "read_only": False}], "tmpfs": ["/x"], "read_only": True, "user": "5",
        "privileged": True, "init": "false", "stop_timeout": 5, "capabilities": {"add": ["lease"], "drop": []},
        "no_new_privs": False, "userns": True, "seccomp": False, "ulimits": {"core": 0}, "memory": "1M", "cpus": 1, "pids": 9,
        "runtime": "crun"}
    # Those that are left stand in the unit, or say when to make it anew.
    assert set(changed) == set(spec.OPTIONS) - {"name", "state", "restart", "recreate"}
    for option, value in changed.items():
        configs = [json.loads(to_bundle(each)) for each in (container(**{option: value}), base)]
        for config in configs:
            del config["annotations"][spec.SETTINGS]
        assert configs[0] != configs[1], option


def test_what_is_taken_away_is_a_change():
    limited = container(memory="1M", cpus=0.5, pids=9, recreate="on_rootfs_change", ulimits={"core": 0})
    change, = diff({"c1": container()}, {"c1": replace(limited, owner=OWNER)}).changes
    assert [str(difference) for difference in change.differences] == [
        "ulimits core=0:0 -> none", "memory 1M -> none", "cpus 0.5 -> none", "pids 9 -> none", "recreate on_rootfs_change -> none"]
    assert change.after.memory is None and "memory" not in change.after.to_result()
    assert limited.to_result()["ulimits"] == [{"name": "core", "soft": 0, "hard": 0}]
    shown = container(binds=[{"source": "/a", "dest": "/b", "read_only": False}]).to_result()["binds"]
    assert shown == [{"source": "/a", "dest": "/b", "read_only": False}]


def test_a_record_of_an_earlier_release():
    text = to_bundle(container(ulimits={"nofile": "9:unlimited"}))
    bundle = json.loads(text)
    settings = {**json.loads(bundle["annotations"][spec.SETTINGS]), "ulimits": ["nofile=9:unlimited"], "memory": "", "recreate": ""}
    bundle["annotations"][spec.SETTINGS] = json.dumps(settings)
    assert from_bundle(json.dumps(bundle)) == from_bundle(text)


@pytest.mark.parametrize("options, words", [
    ({"capabilities": {"add": ["fly"], "drop": []}}, ["capabilities.add", "'fly'"]),
    ({"capabilities": {"add": ["lease"], "drop": []}, "privileged": True}, ["capabilities.add", "privileged"]),
    ({"ulimits": {"speed": 1}}, ["ulimits", "'speed'"]), ({"ulimits": {"core": "much"}}, ["ulimits.core", "'much'"]),
    ({"ulimits": {"core": "5:4"}}, ["ulimits.core", "soft limit is above"]), ({"user": "root"}, ["user", "UID:GID"]),
    ({"user": "70000"}, ["user", "below 65536"]), ({"init": "systemd"}, ["init", "catatonit"]),
    ({"tmpfs": ["/x:dev"]}, ["tmpfs", "dev lifts"]),
    ({"tmpfs": ["/x:mode=700,suid"]}, ["tmpfs", "suid lifts"])])
def test_rights_and_limits_that_are_none(options, words):
    with pytest.raises(OptionError) as caught:
        container(**options)
    assert all(word in str(caught.value) for word in words), caught.value


def test_all_capabilities_are_those_of_the_kernel():
    assert len(spec.ALL_CAPABILITIES) == 41 and spec.ALL_CAPABILITIES.index("sys_admin") == 21
    assert container(capabilities={"add": ["all"], "drop": ["sys_admin"]}).capabilities == tuple(
        name for name in spec.ALL_CAPABILITIES if name != "sys_admin")
    assert container(capabilities={"add": [], "drop": ["all"]}).capabilities == ()


def test_a_record_of_a_former_release():
    """Its defaults were Docker's fourteen capabilities, and a filter only where something could load one."""
    former = {"name": "c1", "rootfs": "/r", "command": ["x"], "env": [], "binds": [], "tmpfs": [], "init": True, "userns": "600000",
              "capabilities": sorted(recorded.FORMER_CAPABILITIES), "seccomp": "off: it needs systemd"}
    found = recorded.of_a_script(former)
    assert (found.userns, found.first_uid, found.init, found.seccomp) == (True, 600000, "shell", True)
    assert found.capabilities == spec.CAPABILITIES
    other = recorded.of_a_script({**former, "userns": "off: because", "seccomp": "off", "capabilities": ["chown"]})
    assert (other.userns, other.first_uid, other.seccomp, other.capabilities) == (False, 0, False, ("chown",))


def test_names_are_checked():
    with pytest.raises(OptionError):
        container(name="c~x")
    for name in "", "../x", ".":
        with pytest.raises(bundle.Refused):
            bundle.directory(name)


def test_a_kernel_that_is_too_old():
    for release in "5.12.0", "6.1.0-28-amd64", "10.0-rc1":
        require_linux(release)
    for release in "5.10.0-33-amd64", "4.19.0":
        with pytest.raises(ModuleError, match=f"Containers need Linux 5.12 or newer, and this host runs {release}: "):
            require_linux(release)
