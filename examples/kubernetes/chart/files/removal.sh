# Has the DaemonSet's pods take Reaper out of their nodes, and waits until all have: before the objects are removed that
# they need. Where one refuses, as pods of Reaper run on its node, this ends with 1, and nothing is removed.
set -u

: "${NAMESPACE:?}"
limit=${LIMIT:-280}
api=${API:-https://${KUBERNETES_SERVICE_HOST:-}:${KUBERNETES_SERVICE_PORT:-443}}
account=${ACCOUNT:-/var/run/secrets/kubernetes.io/serviceaccount}
run=${RUN:-/run/reaper-node}
daemonset=/apis/apps/v1/namespaces/$NAMESPACE/daemonsets/reaper-node

api() {
  (umask 077 && printf 'Authorization: Bearer %s\n' "$(cat "$account/token")" >"$run/authorization")
  curl --silent --show-error --fail --max-time 30 --cacert "$account/ca.crt" --header "@$run/authorization" "$@"
}

api --request PATCH --header 'Content-Type: application/strategic-merge-patch+json' --data-binary '{
  "spec": {"template": {"spec": {"containers": [{"name": "node", "env": [{"name": "MODE", "value": "remove"}]}]}}}}' \
  "$api$daemonset" >"$run/answer" || exit 1

waited=0
while [ $waited -lt "$limit" ]; do
  # Of the generation that removes, each pod is ready when its node is done.
  if api "$api$daemonset" | jq --exit-status '.status as $now
    | $now.observedGeneration >= .metadata.generation
      and ($now.updatedNumberScheduled // 0) >= ($now.desiredNumberScheduled // 0)
      and ($now.numberReady // 0) >= ($now.desiredNumberScheduled // 0)' >"$run/answer"; then
    exit 0
  fi
  sleep 2
  waited=$((waited + 2))
done
printf '%s\n' 'Some nodes still have Reaper: `kubectl describe nodes -l reaper.runtime/state` says why' >&2
exit 1
