#!/bin/sh
# A CNI plugin: a pair of devices between a pod and the node, which is the pod's way to all others.
set -e
node=10.88.0.1
folder=${0%/*}
cat >/dev/null
inside() { nsenter --net="$CNI_NETNS" ip "$@"; }

case ${0##*/}-$CNI_COMMAND in
*-VERSION)
  echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}'
  ;;
loopback-ADD)
  inside link set lo up
  echo '{"cniVersion":"0.4.0","interfaces":[{"name":"lo"}],"ips":[{"version":"4","address":"127.0.0.1/8"}]}'
  ;;
pair-ADD)
  number=$(flock "$folder/last" sh -c 'n=$(($(cat "$1") + 1)); echo "$n" >"$1"; echo "$n"' sh "$folder/last")
  address=10.88.$((1 + number / 250)).$((1 + number % 250))
  # The pod's device is made where it belongs: it is lost with its namespace, and the other with it.
  ip link add "pod$number" type veth peer name "$CNI_IFNAME" netns "$CNI_NETNS"
  ip link set "pod$number" up
  ip route add "$address/32" dev "pod$number"
  inside addr add "$address/32" dev "$CNI_IFNAME"
  inside link set "$CNI_IFNAME" up
  inside route add "$node" dev "$CNI_IFNAME"
  inside route add default via "$node" dev "$CNI_IFNAME"
  printf '{"cniVersion":"0.4.0","interfaces":[{"name":"%s","sandbox":"%s"}],"ips":[{"version":"4","interface":0,"address":"%s/32"}]}\n' \
    "$CNI_IFNAME" "$CNI_NETNS" "$address"
  ;;
esac
