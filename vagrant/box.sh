#!/bin/bash
# Build the lab's Debian from its packages alone, as root: a box for Vagrant with libvirt, and the same disk, kernel and
# initial RAM disk for QEMU. It takes no loop device, no mount and no virtual machine.
# usage: box.sh FOLDER
#     FOLDER/box.img  vmlinuz  initrd.img  lockgate.box     boot/: what guests of labs boot over the network
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: box.sh FOLDER}
size=3072  # MiB of the disk; what is empty takes no space
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d "$folder/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
cd "$work"

key=$(find /usr/share -path '*/vagrant-*/keys/vagrant.pub' | head -n 1)
[ -n "$key" ] || { echo "box.sh: vagrant.pub: not found: install vagrant" >&2; exit 1; }
sources=()
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
	if grep -qs bookworm "$file"; then sources=("$file"); break; fi
done

packages=linux-image-cloud-amd64,initramfs-tools,grub-pc,systemd-sysv,udev,dbus,kmod,procps,less,sudo,openssh-server,rsync
packages+=,ca-certificates,python3,openvswitch-switch,iproute2,iputils-ping,ethtool,tcpdump,iperf3,nftables,python3-venv
packages+=,isc-dhcp-client,busybox-static,cpio,dnsmasq-base,qemu-system-x86

echo "Installing Debian in a folder"
# Of the kernel's modules the initial RAM disk has those that lead to the root file system, and no others.
mmdebstrap --quiet --mode=root --variant=minbase --aptopt='APT::Install-Recommends "false"' \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--setup-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"
		printf "MODULES=list\nCOMPRESS=gzip\n" > "$1/etc/initramfs-tools/conf.d/lab"
		printf "virtio_pci\nvirtio_blk\next4\n" > "$1/etc/initramfs-tools/modules"' \
	--include="$packages" bookworm tree "${sources[@]}"
"$here/box-tree.sh" tree "$key"
kernel=$(basename tree/boot/vmlinuz-*)
version=${kernel#vmlinuz-}
"$here/netboot.sh" tree boot
cp "tree/boot/$kernel" vmlinuz
cp "tree/boot/initrd.img-$version" initrd.img

echo "Making the disk"
# grub.cfg and the modules that read it; core.img goes between the partition table and the partition, where the first
# sector, boot.img, looks for it: no device is needed for that.
mkdir -p tree/boot/grub/i386-pc
cp tree/usr/lib/grub/i386-pc/*.mod tree/usr/lib/grub/i386-pc/*.lst tree/boot/grub/i386-pc/
cat > tree/boot/grub/grub.cfg <<GRUB
set timeout=0
serial --unit=0 --speed=115200
terminal_output serial console
menuentry debian {
	search --no-floppy --label --set=root root
	linux /boot/$kernel root=LABEL=root ro console=ttyS0,115200 net.ifnames=0 quiet mitigations=off
	initrd /boot/initrd.img-$version
}
GRUB
chroot tree grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img -p '(hd0,msdos1)/boot/grub' \
	biosdisk part_msdos ext2 search search_label normal serial terminal linux configfile
truncate -s "$((size - 1))M" partition
mke2fs -q -t ext4 -L root -E lazy_itable_init=1 -d tree partition
truncate -s "${size}M" disk
printf 'label: dos\nstart=2048, type=83, bootable\n' | sfdisk -q disk
dd if=partition of=disk bs=1M seek=1 conv=notrunc,sparse status=none
dd if=tree/usr/lib/grub/i386-pc/boot.img of=disk bs=440 count=1 conv=notrunc status=none
dd if=tree/boot/grub/i386-pc/core.img of=disk bs=512 seek=1 conv=notrunc status=none
qemu-img convert -O qcow2 -c -o compression_type=zstd disk box.img

printf '{"provider": "libvirt", "format": "qcow2", "virtual_size": %d}\n' "$((size / 1024))" > metadata.json
tar cf lockgate.box metadata.json box.img
rm -rf "$folder/boot"
mv boot vmlinuz initrd.img box.img lockgate.box "$folder"
echo "Made $folder/lockgate.box: Debian $(cat tree/etc/debian_version), Linux $version"
