#!/bin/bash
# Make the certificates of a lab of COUNT hosts: FOLDER/pki, the authorities, and for each machine FOLDER/MACHINE.tar,
# all that it is to have. What is there stays.
# usage: certificates.sh FOLDER COUNT        LOCKGATE is the command, if it is not on the path
set -euo pipefail
folder=${1:?usage: certificates.sh FOLDER COUNT}
count=${2:?usage: certificates.sh FOLDER COUNT}
pki=$folder/pki
umask 077
[ -d "$pki/host" ] || "${LOCKGATE:-lockgate}" pki init --pki "$pki/" >/dev/null

for machine in control $(seq -f host-%g "$count"); do
	[ "$machine" = control ] && roles="member controller operator" || roles=host
	[ ! -e "$folder/$machine.tar" ] || continue
	for role in $roles; do
		"${LOCKGATE:-lockgate}" pki issue "$role" "$machine" --pki "$pki" --out "$folder/$machine/$role" >/dev/null
	done
	# Last, and at once: a machine has its archive when it has everything.
	tar cf "$folder/$machine.part" -C "$folder/$machine" .
	mv "$folder/$machine.part" "$folder/$machine.tar"
	rm -r "${folder:?}/$machine"
done
