#!/bin/bash
# Print the mapping of a lab of COUNT hosts, as a file for `lockgate apply`. Hosts take the encapsulations in turn.
# usage: mapping.sh COUNT [ENCAPSULATION...]
set -euo pipefail
. "$(dirname "$0")/plan.sh"
count=${1:?usage: mapping.sh COUNT [ENCAPSULATION...]}
shift
encaps=("${@:-}")
[ $# -gt 0 ] || encaps=(vxlan geneve gre)

printf 'vpcs:\n'
printf '  blue: {vni: 5001, subnets: [10.0.0.0/24, "fd00:5001::/64"], mtu: %s}\n' "$mtu"
printf '  green: {vni: 5002, subnets: [10.0.0.0/24], mtu: %s}\n' "$mtu"
printf 'hosts:\n'
for n in $(seq "$count"); do
	printf '  host-%s: {vtep: %s, encap: %s}\n' "$n" "$(vtep "$n")" "${encaps[$(((n - 1) % ${#encaps[@]}))]}"
done
printf 'ports:\n'
for vpc in blue green; do
	for n in $(seq "$count"); do
		ipv6=$(guest_ipv6 "$vpc" "$n")
		printf '  %s-%s: {vpc: %s, mac: "%s", host: host-%s, addresses: [%s]}\n' \
			"$vpc" "$n" "$vpc" "$(guest_mac "$vpc" "$n")" "$n" "$(guest_ip "$n")${ipv6:+, \"$ipv6\"}"
	done
done
[ -z "${METAL:-}" ] || for n in $(seq "$count"); do
	printf '  metal-%s: {vpc: blue, mac: "%s", host: host-%s, addresses: [%s], boot: {next_server: %s, ipxe: boot.ipxe}}\n' \
		"$n" "$(metal_mac "$n")" "$n" "$(metal_ip "$n")" "$(guest_ip 1)"
done
