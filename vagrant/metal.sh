#!/bin/bash
# A guest of the lab that has a kernel of its own: a machine of QEMU on a tap, which boots over the network from what DHCP
# tells it, by TFTP and HTTP from another guest. Started by lockgate-lab-metal.service and lockgate-lab-boot.service.
# usage: metal.sh serve GUEST ADDRESS    serve /srv/boot, from the namespace of a guest
#        metal.sh run DEVICE MAC MTU     run the machine; what it says is in /var/log/lockgate-metal.log
set -euo pipefail
case ${1:-} in
serve)
	ip netns exec "${2:?}" busybox httpd -f -p "${3:?}:80" -h /srv/boot &
	trap 'kill $!' EXIT
	ip netns exec "$2" dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --listen-address="$3" \
		--bind-interfaces --enable-tftp --tftp-root=/srv/boot --user=root --pid-file= --log-facility=-
	;;
run)
	if ! ip link show dev "${2:?}" >/dev/null 2>&1; then ip tuntap add dev "$2" mode tap; fi
	# Nobody is to talk IPv6 to the host from here, nor hear it.
	sysctl --quiet "net.ipv6.conf.$2.disable_ipv6=1"
	ip link set dev "$2" mtu "${4:?}" up
	/opt/lockgate/bin/lockgate bridges plug "$2"
	# Turned on before the server is, it tries again.
	exec qemu-system-x86_64 -name "$2" -accel tcg -cpu qemu64 -m 192 -display none -vga none -monitor none -nodefaults \
		-serial file:/var/log/lockgate-metal.log -boot order=n,reboot-timeout=5000 -device virtio-rng-pci \
		-netdev "tap,id=n0,ifname=$2,script=no,downscript=no" -device "virtio-net-pci,netdev=n0,mac=${3:?}"
	;;
*)
	sed -n 's/^# usage: /usage: /p; s/^#        metal/       metal/p' "$0" >&2
	exit 2
	;;
esac
