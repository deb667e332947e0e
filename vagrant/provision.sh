#!/bin/bash
# Make a Debian machine of the lab what it should be, as root: again, and it changes nothing. It says what it changes.
# usage: provision.sh install DEB              Lockgate's package, and what that needs
#        provision.sh control INTERFACE COUNT  mapping database and controller, for COUNT hosts; on INTERFACE
#        provision.sh host N UPLINK MGMT       bare-metal host N: its bridges, and its guests
#        provision.sh card N                   changes nothing: prints the name of the machine's Nth network card
# The network belongs to systemd-networkd; the services are those of the package, as in production.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/plan.sh"
changes=0

changed() {
	echo "changed: $1"
	changes=$((changes + 1))
}

put() { # FILE [MODE]: write standard input there, if it does not say so already
	local new
	new=$(mktemp)
	cat > "$new"
	if ! cmp -s "$new" "$1"; then
		install -D -m "${2:-644}" "$new" "$1"
		changed "$1"
	fi
	rm "$new"
}

port_of_bridge() { # INTERFACE: up, and silent
	put "/etc/systemd/network/20-lockgate-$1.network" <<-NETWORK
		[Match]
		Name=$1
		[Network]
		LinkLocalAddressing=no
		LLDP=no
		IPv6AcceptRA=no
	NETWORK
}

addressed() { # INTERFACE ADDRESS...
	local interface=$1
	shift
	{
		printf '[Match]\nName=%s\n[Network]\nLinkLocalAddressing=no\nLLDP=no\nIPv6AcceptRA=no\n' "$interface"
		printf 'Address=%s/24\n' "$@"
	} | put "/etc/systemd/network/20-lockgate-$interface.network"
}

settle_network() { # if any of its files has changed
	if ! systemctl --quiet is-active systemd-networkd; then
		systemctl --quiet enable --now systemd-networkd
		changed systemd-networkd
	elif [ "$changes" -gt 0 ]; then
		networkctl reload
	fi
}

service() { # NAME: enabled and running, with its files as they are now
	if ! systemctl --quiet is-enabled "$1" 2>/dev/null || ! systemctl --quiet is-active "$1"; then
		systemctl --quiet enable "$1"
		systemctl start "$1" || { journalctl --no-pager --lines 20 --unit "$1" >&2; exit 1; }
		changed "$1"
	elif [ "$changes" -gt "$before" ]; then
		systemctl restart "$1"
		changed "$1"
	fi
}

install_lockgate() { # DEB
	local version
	version=$(dpkg-deb --field "$1" Version)
	if [ "$(dpkg-query --show --showformat='${Status} ${Version}' lockgate 2>/dev/null)" = \
		"install ok installed $version" ]; then return; fi
	# Of a box that has what it needs already, no package list is fetched.
	dpkg --install "$1" >/dev/null 2>&1 || {
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null
	}
	changed "package lockgate $version"
}

control() { # INTERFACE COUNT
	before=$changes
	[ "$1" = br-ctl ] || addressed "$1" "$control_ip"
	settle_network
	before=$changes
	put /etc/lockgate/control.env <<-ENV
		LOCKGATE_LISTEN=ptcp:6640:$control_ip
		LOCKGATE_DB=tcp:$control_ip:6640
		LOCKGATE_OPENFLOW=$control_ip
	ENV
	service lockgate-mapping
	service lockgate-controller
	"$here/mapping.sh" "$2" | put /etc/lockgate/lab.yaml
	local tries=0 said
	until said=$(lockgate --db "tcp:$control_ip:6640" apply -f /etc/lockgate/lab.yaml); do
		tries=$((tries + 1))
		[ "$tries" -lt 20 ] || { echo "provision.sh: the mapping database does not answer" >&2; exit 1; }
		sleep 1
	done
	[[ $said == nothing* ]] || changed "the mapping"
}

host() { # N UPLINK MGMT
	before=$changes
	port_of_bridge "$2"
	port_of_bridge "$3"
	addressed br-nic "$(vtep "$1")"
	# A host that has the control machine's address, too, is both.
	addressed br-ctl "$(host_control_ip "$1")" ${ALSO_CONTROL:+$control_ip}
	settle_network
	before=$changes
	put /etc/lockgate/host.env <<-ENV
		LOCKGATE_UPLINK=$2
		LOCKGATE_MGMT=$3
		LOCKGATE_VTEP=$(vtep "$1")
		LOCKGATE_CONTROLLERS=tcp:$control_ip:6653
	ENV
	service openvswitch-switch
	service lockgate-bridges
	service lockgate-filters
	before=$changes
	for vpc in blue green; do
		ipv6=$(guest_ipv6 "$vpc" "$1")
		echo "$vpc-$1 $(guest_mac "$vpc" "$1") $mtu $(guest_ip "$1")/24 ${ipv6:+$ipv6/64}"
	done | put /etc/lockgate/guests
	put /usr/local/sbin/lockgate-lab-guests 755 < "$here/guests.sh"
	put /etc/systemd/system/lockgate-lab-guests.service < "$here/lockgate-lab-guests.service"
	[ "$changes" = "$before" ] || systemctl daemon-reload
	service lockgate-lab-guests
}

case ${1:-} in
card)
	# In the order in which the kernel has found them, which is that of their slots.
	for card in /sys/class/net/*/device; do
		card=${card%/device}
		echo "$(cat "$card/ifindex") ${card##*/}"
	done | sort -n | sed -n "${2:?}s/.* //p"
	exit
	;;
install) install_lockgate "${2:?}" ;;
control) control "${2:?}" "${3:?}" ;;
host) host "${2:?}" "${3:?}" "${4:?}" ;;
*)
	sed -n 's/^# usage: /usage: /p; s/^#        provision/       provision/p' "$0" >&2
	exit 2
	;;
esac
if [ "$changes" = 0 ]; then echo "nothing changed"; fi
