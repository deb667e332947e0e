#!/bin/bash
# Make what a guest boots over the network: the kernel of the Debian in TREE, and BusyBox as its only program.
# usage: netboot.sh TREE FOLDER     FOLDER/boot.ipxe, vmlinuz, initrd
set -euo pipefail
tree=${1:?usage: netboot.sh TREE FOLDER}
folder=${2:?usage: netboot.sh TREE FOLDER}
# In an order in which each finds what it needs.
modules="virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover virtio_net"

work=$(mktemp -d "$tree/tmp/netboot.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder" "$work"/{bin,modules,dev,proc,sys}
kernel=$(find "$tree/boot" -name 'vmlinuz-*' | sort -V | tail -n 1)
cp "$tree/bin/busybox" "$work/bin"
for module in $modules; do
	find "$tree/lib/modules/${kernel##*/vmlinuz-}/kernel" -name "$module.ko" -exec cp {} "$work/modules" \;
done
cat > "$work/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
exec >/dev/ttyS0 2>&1 </dev/null
echo "kernel: \$(uname -r)"
for module in $modules; do insmod /modules/\$module.ko; done
ip link set lo up
ip link set eth0 up
until udhcpc -i eth0 -q -n -t 20 -T 1 -s /lease; do true; done
while true; do sleep 60; done
INIT
cat > "$work/lease" <<'LEASE'
#!/bin/busybox sh
[ "$1" = bound ] || exit 0
[ -z "$mtu" ] || ip link set eth0 mtu "$mtu"
ip addr add "$ip/$mask" dev eth0
ip route add default via "$router"
echo "lease: $ip/$mask router $router mtu $mtu"
LEASE
chmod 755 "$work/init" "$work/lease"
# What makes the archive is Debian's, too.
chroot "$tree" sh -c "cd ${work#"$tree"} && find . | cpio --quiet -o -H newc | gzip -1" > "$folder/initrd"
cp "$kernel" "$folder/vmlinuz"
chmod 644 "$folder/vmlinuz"
# What DHCP has told, iPXE knows by these names.
cat > "$folder/boot.ipxe" <<'IPXE'
#!ipxe
kernel http://${next-server}/vmlinuz console=ttyS0 quiet panic=-1 mitigations=off
initrd http://${next-server}/initrd
boot
IPXE
