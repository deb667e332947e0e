#!/bin/bash
# The guests of a host of the lab: a network namespace each, with one Ethernet port. Started by lockgate-lab-guests.service.
# Reads /etc/lockgate/guests, a line each: NAME MAC MTU ADDRESS [IPV6_ADDRESS]. What is there is left as it is, and what
# is half made is completed.
set -euo pipefail
while read -r name mac mtu address ipv6; do
	ip netns list | grep -qw "$name" || ip netns add "$name"
	ip -n "$name" link set dev lo up
	ip link show dev "$name" >/dev/null 2>&1 ||
		ip link add dev "$name" mtu "$mtu" type veth peer name eth0 address "$mac" mtu "$mtu" netns "$name"
	[ -n "$ipv6" ] || ip netns exec "$name" sysctl --quiet net.ipv6.conf.eth0.disable_ipv6=1
	# Nobody is to talk IPv6 to the host from here, nor hear it.
	sysctl --quiet "net.ipv6.conf.$name.disable_ipv6=1"
	ip -n "$name" link set dev eth0 up
	ip link set dev "$name" up
	ip -n "$name" address replace "$address" dev eth0
	[ -z "$ipv6" ] || ip -n "$name" address replace "$ipv6" dev eth0
	ip -n "$name" route replace default via 10.0.0.1
done < /etc/lockgate/guests
mapfile -t names < <(cut -d ' ' -f 1 /etc/lockgate/guests)
/opt/lockgate/bin/lockgate bridges plug "${names[@]}"
