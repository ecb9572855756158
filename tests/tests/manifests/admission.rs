//! The expressions of the admission policies, evaluated as an API server does: conditions, variables in their order,
//! validations.

use cel::{Context, Program, Value as Cel};
use reaper_tests::manifest::load;
use serde_json::{Value, json};

use crate::chart::{render, values};

/// What a policy says of a request: `None` where it does not concern it, else the message of the first validation that
/// fails.
fn judge(policy: &Value, request: &Value) -> Option<Result<(), String>> {
    let mut context = Context::default();
    for name in ["request", "object", "oldObject"] {
        let value = request.get(name).cloned().unwrap_or(Value::Null);
        context.add_variable(name, value).expect("a variable");
    }
    let spec = &policy["spec"];
    for condition in spec["matchConditions"].as_array().into_iter().flatten() {
        if evaluate(&context, &condition["expression"]) != Cel::Bool(true) {
            return None;
        }
    }
    let mut variables = std::collections::HashMap::new();
    for variable in spec["variables"].as_array().into_iter().flatten() {
        let value = evaluate(&context, &variable["expression"]);
        variables.insert(variable["name"].as_str().expect("a name").to_owned(), value);
        context.add_variable_from_value("variables", variables.clone());
    }
    for validation in spec["validations"].as_array().expect("validations") {
        if evaluate(&context, &validation["expression"]) == Cel::Bool(true) {
            continue;
        }
        let message = match &validation["messageExpression"] {
            Value::Null => validation["message"]
                .as_str()
                .expect("a message")
                .to_owned(),
            expression => match evaluate(&context, expression) {
                Cel::String(text) => text.to_string(),
                other => panic!("a message that is {other:?}"),
            },
        };
        return Some(Err(message));
    }
    Some(Ok(()))
}

fn evaluate(context: &Context<'_, '_>, expression: &Value) -> Cel {
    let text = expression.as_str().expect("an expression");
    let program = Program::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    program
        .execute(context)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn policy(name: &str, values: &Value) -> Value {
    load(&render(name, values)).expect("YAML").remove(0)
}

#[test]
fn only_listed_namespaces_and_service_accounts_may_use_the_runtime_classes() {
    let mut values = values();
    values["admission"]["allowed"] = json!({ "admins": ["*"], "hpc": ["runner", "default"] });
    let policy = policy("pod-policy.yaml", &values);
    let judge = |namespace: &str, spec: Value| {
        let request = json!({
            "request": { "namespace": namespace, "operation": "CREATE" }, "object": { "spec": spec },
        });
        judge(&policy, &request)
    };
    let pod = |class: &str, account: &str| json!({ "runtimeClassName": class, "serviceAccountName": account });
    for class in ["reaper-v2", "reaper-v2-pod"] {
        assert_eq!(judge("admins", pod(class, "anyone")), Some(Ok(())));
        assert_eq!(judge("hpc", pod(class, "runner")), Some(Ok(())));
        let refused = |account: &str, namespace: &str| {
            let message = format!(
                "the runtime class {class} is not allowed to the service account {account} of the namespace {namespace}"
            );
            Some(Err(message))
        };
        assert_eq!(judge("hpc", pod(class, "other")), refused("other", "hpc"));
        assert_eq!(
            judge("kube-system", pod(class, "runner")),
            refused("runner", "kube-system")
        );
        // As an object is before the service account's admission has seen it.
        assert_eq!(
            judge("hpc", json!({ "runtimeClassName": class })),
            Some(Ok(()))
        );
    }
    assert_eq!(judge("kube-system", pod("runc", "runner")), None);
    assert_eq!(judge("kube-system", json!({})), None);
    // An empty list allows none.
    values["admission"]["allowed"] = json!({});
    let nobody = self::policy("pod-policy.yaml", &values);
    let request = json!({ "request": { "namespace": "admins" }, "object": { "spec": pod("reaper-v2", "x") } });
    assert!(matches!(self::judge(&nobody, &request), Some(Err(_))));
}

#[test]
fn the_nodes_pods_change_the_label_of_their_own_node_and_nothing_else() {
    let policy = policy("node-policy.yaml", &values());
    let node = |labels: Value, spec: Value| json!({ "metadata": { "name": "n1", "labels": labels }, "spec": spec });
    let judge = |user: &str, on: &str, old: Value, new: Value| {
        let request = json!({
            "request": { "userInfo": { "username": user, "extra": {
                "authentication.kubernetes.io/node-name": [on],
            }}},
            "oldObject": old, "object": new,
        });
        judge(&policy, &request)
    };
    let own = "system:serviceaccount:reaper-system:reaper-node";
    let before = node(json!({ "a": "1" }), json!({ "podCIDR": "10.0.0.0/24" }));
    let ready = node(
        json!({ "a": "1", "reaper.runtime/state": "ready" }),
        json!({ "podCIDR": "10.0.0.0/24" }),
    );
    assert_eq!(
        judge(own, "n1", before.clone(), ready.clone()),
        Some(Ok(()))
    );
    assert_eq!(
        judge(own, "n1", ready.clone(), before.clone()),
        Some(Ok(()))
    );
    let other_node = judge(own, "n2", before.clone(), ready.clone());
    assert_eq!(
        other_node,
        Some(Err("Reaper's pods change their own node alone".to_owned()))
    );
    assert_eq!(judge("admin", "n2", before.clone(), ready.clone()), None);
    let named = |mut node: Value| {
        node["metadata"]["name"] = "n2".into();
        node
    };
    let of_other = judge(own, "n2", named(before.clone()), named(ready));
    assert_eq!(of_other, Some(Ok(())));
    let label = Some(Err(
        "Reaper's pods change the label reaper.runtime/state alone".to_owned(),
    ));
    for labels in [
        json!({}),
        json!({ "a": "2" }),
        json!({ "a": "1", "b": "1" }),
    ] {
        let after = node(labels, json!({ "podCIDR": "10.0.0.0/24" }));
        assert_eq!(judge(own, "n1", before.clone(), after), label);
    }
    let tainted = node(json!({ "a": "1" }), json!({ "unschedulable": true }));
    let spec = Some(Err("Reaper's pods do not change a node's spec".to_owned()));
    assert_eq!(judge(own, "n1", before, tainted), spec);
}
