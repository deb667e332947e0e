# Who is who in a lab of COUNT hosts: sourced by provision.sh and mapping.sh. Hosts and guests are numbered from 1.
#
#   substrate 192.0.2.0/24: host N has N on br-nic. control network 198.51.100.0/24: 1 is the mapping database and the
#   controller, host N has 10 + N on br-ctl. Each host has a guest of VPC blue and one of green, which use the same
#   addresses: 10.0.0.(10 + N); blue's have fd00:5001::(10 + N), too, in digits that read the same. The VPCs' MTU leaves
#   room for any encapsulation on a substrate of 1500 bytes. With METAL set each host has a third guest, in blue, with
#   10.0.0.(20 + N): a machine that boots over the network, from what blue-1 serves.
control_ip=198.51.100.1
mtu=1400
vtep() { echo "192.0.2.$1"; }
host_control_ip() { echo "198.51.100.$((10 + $1))"; }
guest_ipv6() { [ "$1" = blue ] && echo "fd00:5001::$((10 + $2))" || true; }
guest_ip() { echo "10.0.0.$((10 + $1))"; }
metal_ip() { echo "10.0.0.$((20 + $1))"; }
metal_mac() { printf '02:00:00:00:03:%02x\n' "$1"; }
guest_mac() { printf '02:00:00:00:%02x:%02x\n' "$([ "$1" = blue ] && echo 1 || echo 2)" "$2"; }
