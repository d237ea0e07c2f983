#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: alpine_rootfs
short_description: Unpack Alpine Linux root filesystems for containers
description:
  - Downloads the minimal root filesystem that Alpine Linux publishes, verifies its checksum, and unpacks it; or does
    the same with a tarball that is on the host.
  - A tree is unpacked once, into C(.store/sha256-DIGEST) beside O(dest), which is closed to all but root, and written by
    nobody from then on. O(dest) becomes a symbolic link to it that is switched at one moment, so that it is whole or as it
    was, also where the module is killed.
  - Takes one rootfs by its options, or any number of them as a list under O(config), in one call.
version_added: 0.1.0
author:
  - The fromscratch.containers engineers (@fromscratch)
extends_documentation_fragment:
  - fromscratch.containers.attributes
options:
  dest: &dest
    description:
      - Absolute path of the link to the root filesystem. It must be absent, an empty directory or made by this module. A directory
        that an earlier release has made becomes a link, while containers run on it.
      - Parent directories that are missing are made, those that exist are left as they are.
    type: path
  <<: &item  # the options of an item
    state:
      description: Whether the root filesystem is there. Only what this module made is removed.
      type: str
      choices: [present, absent]
      default: present
    version:
      description: The release of Alpine Linux. Not used with O(src).
      type: str
      default: 3.21.3
    arch:
      description: The architecture, in Alpine's words. By default that of the host. Not used with O(src).
      type: str
      choices: [x86_64, aarch64, armv7, armhf, x86, ppc64le, riscv64, s390x, loongarch64]
    mirror:
      description:
        - The base URL of a mirror, by http, https or file. Not used with O(src).
        - Credentials of a mirror belong into C(~/.netrc) of the host.
      type: str
      default: https://dl-cdn.alpinelinux.org/alpine
    src:
      description:
        - Absolute path of a tarball on the host, compressed by gzip, to use instead of a mirror.
        - It must be there at every run.
      type: path
    checksum:
      description:
        - The SHA-256 of the tarball, as C(sha256:) with the hexadecimal digits, or the digits alone.
        - By default that which this module knows of the release. For a release that it does not know, that which the
          mirror publishes beside the tarball; for another tarball given as O(src), none is asked for.
      type: str
  config:
    description:
      - Any number of root filesystems, each with the options above.
      - Options that stand beside it are the defaults of its items, such as those that C(module_defaults) adds to a task; but not
        O(dest), which would be that of all.
    type: list
    elements: dict
    suboptions:
      dest:
        <<: *dest
        required: true
      <<: *item
  prune:
    description:
      - Remove the root filesystems that this module made, in the directories that hold those of the items, and that
        are not among the items.
    type: bool
    default: false
  validate_certs:
    description: Whether the certificates of https mirrors are verified.
    type: bool
    default: true
  use_proxy:
    description: Whether the proxy is used that the environment of the host names.
    type: bool
    default: true
  http_agent:
    description: What the module calls itself towards the mirror.
    type: str
    default: ansible-httpget
  timeout:
    description: Seconds of silence after which a mirror counts as unreachable.
    type: int
    default: 30
notes:
  - Runs as root. Use C(become) where the connection does not log in as root.
  - What the tree was made of is recorded in C(.alpine_rootfs.json) inside of it. While that tells of the wanted
    tarball, nothing is downloaded.
  - Check mode downloads no tarball. It reads the checksum that a mirror publishes where it knows no other.
  - Symlinks with an absolute target, setuid bits, owners and times are kept. A tarball with device nodes, or with
    anything that leads outside of the tree, is refused. Extended attributes are not unpacked.
  - A tree to which no link beside the store leads any more stays for as long as containers of
    M(fromscratch.containers.ns_container) run on it, an overlay that this process sees is mounted on it, or something is mounted in
    it. After that it is removed by the next run of either module.
seealso:
  - module: fromscratch.containers.ns_container
"""

EXAMPLES = r"""
- name: The root filesystem of the article
  fromscratch.containers.alpine_rootfs:
    dest: /var/lib/rootfs/alpine-3.21.3

- name: From a tarball that was copied to the host
  fromscratch.containers.alpine_rootfs:
    dest: /var/lib/rootfs/alpine
    src: /root/alpine-minirootfs-3.20.3-x86_64.tar.gz

- name: Two releases from a mirror of one's own, and no others beside them
  fromscratch.containers.alpine_rootfs:
    config:
      - dest: /var/lib/rootfs/alpine-3.20
        version: 3.20.3
        mirror: http://mirror.example/alpine
      - dest: /var/lib/rootfs/alpine-3.21
        mirror: http://mirror.example/alpine
    prune: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be; one entry for each root filesystem.
  returned: success
  type: list
  elements: dict
  sample:
    - item: rootfs /var/lib/rootfs/alpine
      action: recreate
      fields: ["version 3.20.3 -> 3.21.3"]
  contains:
    item:
      description: What it is about.
      type: str
    action:
      description: One of V(create), V(update), V(recreate) and V(delete).
      type: str
    fields:
      description: Each field that differs, what it has and what it should have.
      type: list
      elements: str
commands:
  description: The shell commands that do the same.
  returned: success
  type: list
  elements: str
  sample:
    - mkdir -p -m 0700 /var/lib/rootfs/.store
    - mkdir /var/lib/rootfs/.store/new
    - curl --fail --location --silent --show-error --output /var/lib/rootfs/.store/new/tarball
      https://dl-cdn.alpinelinux.org/alpine/v3.21/releases/x86_64/alpine-minirootfs-3.21.3-x86_64.tar.gz
observed:
  description: The root filesystems as they are in the end, in the order of the task; in check mode, as they would be.
  returned: success
  type: list
  elements: dict
"""

from ansible_collections.fromscratch.containers.plugins.module_utils.core.run import KindModule, run
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs.download import OPTIONS
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs.kind import Rootfses


def main():
    module = KindModule(Rootfses, **OPTIONS)
    run(module, Rootfses(module.params))


if __name__ == "__main__":
    main()
