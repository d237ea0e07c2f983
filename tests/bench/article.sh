#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The article's commands, for any number of containers: article.sh COUNT ROOTFS
set -eu
count=$1
rootfs=$2

ip link add br0 type bridge
ip address add 10.10.0.1/16 dev br0
ip link set br0 up

i=0
while [ $i -lt "$count" ]; do
    i=$((i + 1))
    unshare --pid --mount --uts --ipc --net --fork \
        chroot "$rootfs" /bin/sh -c 'mount -t proc proc /proc && exec sleep infinity' </dev/null >/dev/null 2>&1 &
    shell=$!
    until pid=$(pgrep -P $shell); do :; done
    ip link add "veth$i" type veth peer name "ceth$i"
    ip link set "ceth$i" netns "$pid"
    nsenter --target "$pid" --net ip address add "10.10.$((i / 250 + 1)).$((i % 250 + 1))/16" dev "ceth$i"
    nsenter --target "$pid" --net ip link set "ceth$i" up
    nsenter --target "$pid" --net ip link set lo up
    ip link set "veth$i" master br0
    ip link set "veth$i" up
done

ip link add vxlan0 type vxlan id 100 local 172.31.89.40 remote 172.31.94.69 dev enX0 dstport 4789
ip link set vxlan0 master br0
ip link set vxlan0 up
