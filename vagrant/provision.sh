#!/bin/bash
# Make a Debian machine of the lab what it should be, as root: again, and it changes nothing. It says what it changes.
# usage: provision.sh install DEB TLS          Lockgate's package, what that needs, and an archive of certificates
#        provision.sh control INTERFACE COUNT  mapping database and controller, for COUNT hosts; on INTERFACE
#        provision.sh host N UPLINK MGMT       bare-metal host N: its bridges, and its guests
#        provision.sh card N                   changes nothing: prints the name of the machine's Nth network card
# With METAL set hosts have a guest with a kernel of its own, too.
# The network belongs to systemd-networkd; the services are those of the package, as in production.
set -euo pipefail
# What is put at the end of a pipeline counts as changed here, too.
shopt -s lastpipe
here=$(cd "$(dirname "$0")" && pwd)
. "$here/plan.sh"
changes=0

changed() {
	echo "changed: $1"
	changes=$((changes + 1))
}

put() { # FILE [MODE [OWNER]]: write standard input there, if it does not say so already
	local new
	new=$(mktemp)
	cat > "$new"
	if ! cmp -s "$new" "$1"; then
		install -D -m "${2:-644}" -o "${3:-root}" -g "${3:-root}" "$new" "$1"
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

install_certificates() { # TLS: the archive, which is not left lying about
	local unpacked file
	unpacked=$(mktemp -d)
	tar xf "$1" -C "$unpacked" --no-same-owner
	for file in "$unpacked"/*/*.pem; do
		file=${file#"$unpacked"/}
		put "/etc/lockgate/tls/$file" 600 "$(stat -c %U "/etc/lockgate/tls/${file%/*}")" < "$unpacked/$file"
	done
	rm -r "$unpacked"
	[ ! -w "$1" ] || rm "$1"
}

control() { # INTERFACE COUNT
	before=$changes
	[ "$1" = br-ctl ] || addressed "$1" "$control_ip"
	settle_network
	before=$changes
	put /etc/lockgate/mapping.env <<-ENV
		LOCKGATE_TLS=/etc/lockgate/tls/member
		LOCKGATE_FOR_OPERATORS=pssl:6641:$control_ip
		LOCKGATE_FOR_CONTROLLERS=pssl:6642:$control_ip
	ENV
	service lockgate-mapping
	before=$changes
	put /etc/lockgate/control.env <<-ENV
		LOCKGATE_TLS=/etc/lockgate/tls/controller
		LOCKGATE_DB=ssl:$control_ip:6642
		LOCKGATE_OPENFLOW=$control_ip
	ENV
	service lockgate-controller
	"$here/mapping.sh" "$2" | put /etc/lockgate/lab.yaml
	local tries=0 said
	until said=$(LOCKGATE_TLS=/etc/lockgate/tls/operator \
		lockgate --db "ssl:$control_ip:6641" apply -f /etc/lockgate/lab.yaml); do
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
		LOCKGATE_CONTROLLERS=ssl:$control_ip:6653
		LOCKGATE_TLS=/etc/lockgate/tls/host
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
	[ -z "${METAL:-}" ] || metal "$1"
}

metal() { # N
	if ! dpkg-query --show busybox-static cpio dnsmasq-base qemu-system-x86 >/dev/null 2>&1; then
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			busybox-static cpio dnsmasq-base qemu-system-x86 >/dev/null
		changed "packages for a guest with a kernel of its own"
	fi
	before=$changes
	put /usr/local/sbin/lockgate-lab-metal 755 < "$here/metal.sh"
	put /etc/lockgate/metal <<-ENV
		NAME=metal-$1
		MAC=$(metal_mac "$1")
		MTU=$mtu
		SERVER=blue-1
		ADDRESS=$(guest_ip 1)
	ENV
	put /etc/systemd/system/lockgate-lab-boot.service < "$here/lockgate-lab-boot.service"
	put /etc/systemd/system/lockgate-lab-metal.service < "$here/lockgate-lab-metal.service"
	[ "$changes" = "$before" ] || systemctl daemon-reload
	if [ "$1" = 1 ]; then
		if [ ! -e /srv/boot/boot.ipxe ]; then
			"$here/netboot.sh" / /srv/boot
			changed /srv/boot
		fi
		service lockgate-lab-boot
	fi
	service lockgate-lab-metal
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
install)
	install_lockgate "${2:?}"
	install_certificates "${3:?}"
	;;
control) control "${2:?}" "${3:?}" ;;
host) host "${2:?}" "${3:?}" "${4:?}" ;;
*)
	sed -n 's/^# usage: /usage: /p; s/^#        provision/       provision/p' "$0" >&2
	exit 2
	;;
esac
if [ "$changes" = 0 ]; then echo "nothing changed"; fi
