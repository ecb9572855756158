# Installs Reaper on the node that this pod runs on, sees that it stays so, and takes it out when it is not wanted any
# more: `reaper-runtime node` in the node's own namespaces, and what came of it as the node's label, condition and events.
set -u

: "${NODE_NAME:?}" "${NAMESPACE:?}"
mode=${MODE:-install}                       # or remove
opt_in=${OPT_IN:-reaper.runtime/install}
interval=${INTERVAL:-60}
containerd_config=${CONTAINERD_CONFIG:-}
restart_command=${RESTART_COMMAND:-}
bin_dir=${BIN_DIR:-}
sysroot=${SYSROOT:-}                        # an image, of which nothing is executed: for tests
api=${API:-https://${KUBERNETES_SERVICE_HOST:-}:${KUBERNETES_SERVICE_PORT:-443}}
account=${ACCOUNT:-/var/run/secrets/kubernetes.io/serviceaccount}
run=${RUN:-/run/reaper-node}
# Through this process' root, since the node's own has no such directory.
programs=${PROGRAMS:-/proc/$$/root/opt/reaper}
enter=${ENTER-nsenter --target 1 --mount --uts --ipc --net --}

state_label=reaper.runtime/state
condition=ReaperReady
# An installation that takes longer is ended, which it survives, before others take the lease for abandoned.
limit=240
lease_seconds=300
leases=/apis/coordination.k8s.io/v1/namespaces/$NAMESPACE/leases
node_path=/api/v1/nodes/$NODE_NAME
nothing_to_do='Nothing to do: all is in place'

say() { printf '%s\n' "$*" >&2; }

# Asks the API server: METHOD PATH [TYPE], with a body on stdin unless it is GET or DELETE.
api() {
  method=$1 path=$2 type=${3:-application/json}
  # In a file: arguments are seen by every process of the node.
  (umask 077 && printf 'Authorization: Bearer %s\n' "$(cat "$account/token")" >"$run/authorization")
  set -- --silent --show-error --fail --max-time 30 --cacert "$account/ca.crt" --request "$method" \
    --header "@$run/authorization"
  case $method in
    GET | DELETE) ;;
    *) set -- "$@" --header "Content-Type: $type" --data-binary @- ;;
  esac
  curl "$@" "$api$path"
}

on_node() { $enter timeout "$limit" env LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
# `reaper-runtime node`, with the chart's values as far as the command has them: COMMAND [OPTION…].
node_command() {
  command=$1
  shift
  case $command in
    install)
      set -- "$@" --from "$programs"
      [ -z "$bin_dir" ] || set -- "$@" --bin-dir "$bin_dir"
      ;;
  esac
  case $command in
    install | uninstall) [ -z "$restart_command" ] || set -- "$@" --restart-command "$restart_command" ;;
  esac
  [ -z "$containerd_config" ] || set -- "$@" --containerd-config "$containerd_config"
  [ -z "$sysroot" ] || set -- "$@" --sysroot "$sysroot"
  on_node "$programs/reaper-runtime" node "$command" "$@"
}

now() { date -u +%Y-%m-%dT%H:%M:%SZ; }

# The lease, so that one node changes at a time. Fails while another has it.
take_turn() {
  body=$(jq -n --arg name reaper-node --arg holder "$NODE_NAME" --argjson seconds $lease_seconds \
    --arg now "$(date -u +%Y-%m-%dT%H:%M:%S.000000Z)" '{apiVersion: "coordination.k8s.io/v1", kind: "Lease",
      metadata: {name: $name}, spec: {holderIdentity: $holder, leaseDurationSeconds: $seconds,
      acquireTime: $now, renewTime: $now}}')
  if printf '%s' "$body" | api POST "$leases" >"$run/answer" 2>&1; then return 0; fi
  lease=$(api GET "$leases/reaper-node") || return 1
  # With the version that was seen, so that of two that find it abandoned one gets it.
  body=$(printf '%s' "$lease" | jq --argjson new "$body" '
    if .spec.holderIdentity == $new.spec.holderIdentity or
       now - (.spec.renewTime | sub("\\.[0-9]+"; "") | fromdate) > .spec.leaseDurationSeconds
    then $new * {metadata: {resourceVersion: .metadata.resourceVersion}} else empty end')
  [ -n "$body" ] && printf '%s' "$body" | api PUT "$leases/reaper-node" >"$run/answer" 2>&1
}

end_turn() { api DELETE "$leases/reaper-node" >"$run/answer" || say 'the lease stays until it expires'; }

# The node's label: a value, or null for none.
label() {
  jq -n --arg key $state_label --argjson value "$1" '{metadata: {labels: {($key): $value}}}' |
    api PATCH "$node_path" application/merge-patch+json >"$run/answer"
}

event() {
  jq -n --arg node "$NODE_NAME" --arg type "$1" --arg reason "$2" --arg message "$3" --arg now "$(now)" '{
    apiVersion: "v1", kind: "Event", metadata: {generateName: "reaper-", namespace: "default"},
    involvedObject: {apiVersion: "v1", kind: "Node", name: $node, uid: $node},
    type: $type, reason: $reason, message: $message[:1000], count: 1, firstTimestamp: $now, lastTimestamp: $now,
    source: {component: "reaper-node", host: $node}}' |
    api POST /api/v1/namespaces/default/events >"$run/answer" || say 'the event was not recorded'
}

# Says what is so by condition and label, and by an event if that is new: STATE STATUS REASON MESSAGE, of the $node that
# was read. The label is last: a pod that it lets come finds all in place.
report() {
  state=$1 status=$2 reason=$3 message=$4
  before=$(printf '%s' "$node" | jq -r --arg type $condition \
    '.status.conditions[]? | select(.type == $type) | "\(.status) \(.reason) \(.message)"')
  if [ "$before" != "$status $reason $message" ]; then
    say "$reason: $message"
    jq -n --arg type $condition --arg status "$status" --arg reason "$reason" --arg message "$message" \
      --arg now "$(now)" '{status: {conditions: [{type: $type, status: $status, reason: $reason, message: $message,
        lastHeartbeatTime: $now, lastTransitionTime: $now}]}}' |
      api PATCH "$node_path/status" application/strategic-merge-patch+json >"$run/answer" || return 1
    case $status in
      True) event Normal "$reason" "$message" ;;
      *) event Warning "$reason" "$message" ;;
    esac
  fi
  [ "$(state_of_node)" = "$state" ] || label "\"$state\"" || return 1
}

state_of_node() { printf '%s' "$node" | jq -r --arg key $state_label '.metadata.labels[$key] // ""'; }
last_lines() { tail -n 5 "$run/output" | tr -c '[:print:]\n' '?' | paste -sd' ' | cut -c1-900; }

failed() {
  rm -f "$run/ready"
  say "$(cat "$run/output")"
  [ "$(state_of_node)" != ready ] || label "\"failed\"" || return 1
  report failed False "$1" "$(last_lines)"
}

is_complete() {
  node_command install --dry-run >"$run/output" 2>&1 || return 1
  [ "$(cat "$run/output")" = "$nothing_to_do" ] && node_command status >"$run/output" 2>&1
}

install_step() {
  if ! is_complete; then
    take_turn || { say 'another node has its turn'; return 1; }
    # Labelled before anything is written: from then on a pod stays with the node until all is taken out again.
    if [ -z "$(state_of_node)" ] && ! label '"installing"'; then end_turn; return 1; fi
    node_command install >"$run/output" 2>&1
    outcome=$?
    end_turn
    if [ $outcome != 0 ]; then failed InstallFailed; return; fi
    say "$(cat "$run/output")"
    if ! node_command status >"$run/output" 2>&1; then failed NotAsInstalled; return; fi
  fi
  report ready True Installed "$("$programs/reaper-runtime" --version)" || return 1
  touch "$run/ready"
}

remove_step() {
  if [ -z "$(state_of_node)" ]; then touch "$run/ready"; return; fi
  # No pod is to come while it is taken out.
  [ "$(state_of_node)" = removing ] || label '"removing"' || return 1
  take_turn || { say 'another node has its turn'; return 1; }
  node_command uninstall >"$run/output" 2>&1
  outcome=$?
  end_turn
  say "$(cat "$run/output")"
  if [ $outcome != 0 ]; then
    rm -f "$run/ready"
    report removing False RemovalFailed "$(last_lines)"
    return
  fi
  event Normal Removed 'Reaper was taken out of the node'
  jq -n --arg type $condition '{status: {conditions: [{type: $type, "$patch": "delete"}]}}' |
    api PATCH "$node_path/status" application/strategic-merge-patch+json >"$run/answer" || return 1
  label null && touch "$run/ready"
}

step() {
  node=$(api GET "$node_path") || return 1
  wanted=$(printf '%s' "$node" | jq -r --arg key "$opt_in" '.metadata.labels[$key] // ""')
  if [ "$mode" = install ] && [ "$wanted" = true ]; then install_step; else remove_step; fi
}

# A step that has begun is ended first: sh looks at signals between commands.
trap 'exit 0' TERM INT
while :; do
  pause=$interval
  step || pause=5
  [ -z "${ONCE:-}" ] || exit 0
  sleep "$pause" &
  wait $!
done
