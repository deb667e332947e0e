#!/bin/bash
# The guests of a host of the lab: a network namespace each, with one Ethernet port. Started by lockgate-lab-guests.service.
# Reads /etc/lockgate/guests, a line each: NAME MAC MTU ADDRESS [IPV6_ADDRESS]. What is there is left as it is.
set -euo pipefail
while read -r name mac mtu address ipv6; do
	if ! ip netns list | grep -qw "$name"; then
		ip netns add "$name"
		ip -n "$name" link set dev lo up
	fi
	if ! ip link show dev "$name" >/dev/null 2>&1; then
		ip link add dev "$name" mtu "$mtu" type veth peer name eth0 address "$mac" mtu "$mtu" netns "$name"
		[ -n "$ipv6" ] || ip netns exec "$name" sysctl --quiet net.ipv6.conf.eth0.disable_ipv6=1
		# Nobody is to talk IPv6 to the host from here, nor hear it.
		sysctl --quiet "net.ipv6.conf.$name.disable_ipv6=1"
		ip -n "$name" link set dev eth0 up
		ip link set dev "$name" up
		ip -n "$name" address add "$address" dev eth0
		[ -z "$ipv6" ] || ip -n "$name" address add "$ipv6" dev eth0
		ip -n "$name" route add default via 10.0.0.1
	fi
done < /etc/lockgate/guests
mapfile -t names < <(cut -d ' ' -f 1 /etc/lockgate/guests)
/opt/lockgate/bin/lockgate bridges plug "${names[@]}"
