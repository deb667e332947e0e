#!/bin/bash
# What only the lab needs, in the tree of a Debian that has just been installed: called by box.sh, as root.
# usage: box-tree.sh TREE VAGRANT_PUBLIC_KEY
set -euo pipefail
tree=$1 key=$2
in_tree() { chroot "$tree" "$@"; }

echo lockgate-lab > "$tree/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 lockgate-lab\n' > "$tree/etc/hosts"
printf 'LABEL=root / ext4 errors=remount-ro,noatime 0 1\n' > "$tree/etc/fstab"
# The network that Vagrant reaches the machine by. The others are Vagrant's, or Lockgate's, to configure.
cat > "$tree/etc/systemd/network/90-first.network" <<'NETWORK'
[Match]
Name=eth0
[Network]
DHCP=ipv4
[DHCPv4]
ClientIdentifier=mac
NETWORK

# What Vagrant expects of a box: its user, who may sudo, and whom its own well-known key lets in.
in_tree useradd -m -s /bin/bash -G sudo vagrant
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' > "$tree/etc/sudoers.d/vagrant"
chmod 440 "$tree/etc/sudoers.d/vagrant"
install -d -m 700 "$tree/home/vagrant/.ssh"
install -m 600 "$key" "$tree/home/vagrant/.ssh/authorized_keys"
in_tree chown -R vagrant:vagrant /home/vagrant/.ssh
printf 'UseDNS no\nPasswordAuthentication no\n' > "$tree/etc/ssh/sshd_config.d/lab.conf"

# Without hardware virtualisation each of these costs seconds of every boot, and a lab needs none.
in_tree systemctl --quiet enable systemd-networkd ssh serial-getty@ttyS0
in_tree systemctl --quiet disable apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	e2scrub_reap fstrim.timer
in_tree systemctl --quiet mask systemd-networkd-wait-online systemd-pstore sys-kernel-debug.mount \
	sys-kernel-tracing.mount dev-hugepages.mount dev-mqueue.mount
in_tree systemctl --quiet set-default multi-user.target
echo force-unsafe-io > "$tree/etc/dpkg/dpkg.cfg.d/lab"
sed -i /pam_systemd/d "$tree/etc/pam.d/common-session"
printf 'blacklist floppy\nblacklist pcspkr\nblacklist psmouse\n' > "$tree/etc/modprobe.d/lab.conf"
: > "$tree/etc/machine-id"
