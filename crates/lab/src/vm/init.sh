#!/bin/busybox sh
# The first and only program of a lab's virtual machine: its network, an echo service, and an agent on the
# second serial line. Its arguments are those of the kernel command line: name, MTU, addresses.
/bin/busybox mkdir -p /dev /proc /sys /tmp
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
# In the order in which they need each other.
for module in MODULES; do
    insmod /modules/$module.ko
done
hostname "$1"
ip link set lo up
ip link set eth0 mtu "$2" up
shift 2
for address; do
    ip address add "$address" dev eth0
done
# Duplicate address detection ends within seconds; the agent answers after it.
tries=500
while [ $tries -gt 0 ] && ip -6 address show dev eth0 | grep tentative | grep -qv dadfailed; do
    usleep 10000
    tries=$((tries - 1))
done
nc -ll -p 7 -e cat &
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
# Request: a number, and the command in base64. Answer: the number, the status, output and errors in base64.
while read -r number command <&3; do
    [ -n "$command" ] || continue
    echo "$command" | base64 -d >/tmp/command
    timeout SECONDS sh /tmp/command >/tmp/output 2>/tmp/errors 3<&- </dev/null
    echo "$number $? $(base64 -w 0 /tmp/output). $(base64 -w 0 /tmp/errors)." >&3
done
