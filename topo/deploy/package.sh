#!/bin/bash
# Build the Debian package of Lockgate for hosts and control machines: /opt/lockgate, a virtual environment of Debian's
# own Python with every dependency in it, and the units. Installing it needs no other registry than Debian's.
# usage: package.sh FOLDER        makes FOLDER/lockgate.deb, in the project's folder
# PIP is a pip of any Python, which installs for Debian's.
set -euo pipefail
folder=${1:?usage: package.sh FOLDER}
deploy=topo/deploy
[ -d "$deploy" ] || { echo "package.sh: run it in the project's folder" >&2; exit 1; }
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
stage=$(mktemp -d "$folder/package.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 130' INT TERM HUP
chmod 755 "$stage"
home=$stage/opt/lockgate

/usr/bin/python3 -m venv --without-pip "$home"
# See build-constraints.txt, and the Makefile for its two names.
PIP_CONSTRAINT=build-constraints.txt PIP_BUILD_CONSTRAINT=build-constraints.txt PIP_USE_PEP517=1 \
	${PIP:-/usr/bin/python3 -m pip} --python "$home/bin/python3" install --quiet --disable-pip-version-check \
	--no-compile -c requirements.txt . 2> >(grep -v '^WARNING: Location' >&2)
# What has been made here says where that was.
rm -f "$home"/bin/[Aa]ctivate* "$home"/lib/python3*/site-packages/*.dist-info/{direct_url.json,RECORD}
find "$home/bin" "$home/pyvenv.cfg" -type f -exec sed -i "s|$stage||g" {} +
find "$home/lib" -type d -name tests -prune -exec rm -rf {} +
# Ryu has files of other languages, and of older Pythons, that do not compile, and that nothing imports.
"$home/bin/python3" -W ignore -m compileall -q --invalidation-mode unchecked-hash -s "$stage" "$home/lib" >/dev/null || true

install -D -m 644 -t "$stage/lib/systemd/system" "$deploy"/*.service
install -D -m 644 -t "$stage/usr/share/lockgate" "$deploy/host-sysctl.conf"
install -D -m 644 "$deploy/lockgate-users.conf" "$stage/usr/lib/sysusers.d/lockgate.conf"
install -d -m 755 "$stage/etc/lockgate/tls" "$stage/usr/bin"
ln -s /opt/lockgate/bin/lockgate "$stage/usr/bin/lockgate"

# The same content has the same version, so that what is installed already need not be installed again.
content=$(cd "$stage" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-8)
release=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
python=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
install -d -m 755 "$stage/DEBIAN"
cat > "$stage/DEBIAN/control" <<CONTROL
Package: lockgate
Version: $release+$content
Architecture: $(dpkg --print-architecture)
Maintainer: Lockgate <lockgate@localhost>
Depends: python3 (>= $python), python3 (<< $next), openvswitch-switch, iproute2, nftables, systemd
Recommends: openssh-client
Section: net
Priority: optional
Description: makes the NIC of a bare-metal host the trust boundary of a cloud network
CONTROL
# A new package means what runs is old. The bridges are left alone: they are made what they should be at the next start.
cat > "$stage/DEBIAN/postinst" <<'POSTINST'
#!/bin/sh
set -e
systemd-sysusers lockgate.conf
for role in member:lockgate-mapping controller:lockgate-controller host:root operator:root; do
	install -d -m 700 -o "${role#*:}" -g "${role#*:}" "/etc/lockgate/tls/${role%:*}"
done
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
systemctl try-restart lockgate-mapping.service lockgate-controller.service lockgate-filters.service 'lockgate-attest@*.service'
POSTINST
cat > "$stage/DEBIAN/prerm" <<'PRERM'
#!/bin/sh
set -e
[ "$1" = remove ] && [ -d /run/systemd/system ] || exit 0
systemctl --quiet stop 'lockgate-attest@*.service'
systemctl --quiet disable lockgate-attest@.service
systemctl --quiet disable --now lockgate-mapping.service lockgate-controller.service lockgate-bridges.service lockgate-filters.service
PRERM
chmod 755 "$stage/DEBIAN/postinst" "$stage/DEBIAN/prerm"
dpkg-deb --root-owner-group -Zgzip -z1 --build "$stage" "$folder/lockgate.deb" >/dev/null
echo "Made $folder/lockgate.deb: $release+$content"
