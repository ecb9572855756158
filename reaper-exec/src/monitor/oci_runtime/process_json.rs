//! OCI's `process` object, for `exec`.

use reaper_spec::ProcessSpec;
use serde_json::{Map, Value, json};

/// The object for `process`. Properties that [`ProcessSpec`] has no field for, such as
/// capabilities, are taken from `whole`, the object that it was read from.
pub(crate) fn document(process: &ProcessSpec, whole: Option<&str>) -> serde_json::Result<Value> {
    let mut object: Map<String, Value> = match whole {
        Some(text) => serde_json::from_str(text)?,
        None => Map::new(),
    };
    let mut set = |key: &str, value: Value| _ = object.insert(key.to_owned(), value);
    set("args", json!(process.args));
    set("cwd", json!(process.cwd));
    set("env", json!(process.env));
    set("terminal", json!(process.terminal));
    set("noNewPrivileges", json!(process.no_new_privileges));
    if let Some(size) = process.console_size {
        let size = json!({ "width": size.width, "height": size.height });
        set("consoleSize", size);
    }
    if let Some(adjustment) = process.oom_score_adj {
        set("oomScoreAdj", json!(adjustment));
    }
    let limit = |limit: &reaper_spec::Rlimit| json!({ "type": limit.resource.to_string(), "soft": limit.soft, "hard": limit.hard });
    let limits: Vec<Value> = process.rlimits.iter().map(limit).collect();
    set("rlimits", Value::from(limits));
    let mut user = json!({ "uid": 0, "gid": 0 });
    if let Some(wanted) = &process.user {
        user = json!({
            "uid": wanted.uid,
            "gid": wanted.gid,
            "additionalGids": wanted.additional_gids,
        });
        if let Some(umask) = wanted.umask {
            user["umask"] = json!(umask);
        }
    }
    set("user", user);
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_and_unknown_properties_are_both_written() {
        let whole = r#"{"args":["old"],"cwd":"/","terminal":true,
            "user":{"uid":7,"gid":8,"additionalGids":[9],"umask":18},
            "rlimits":[{"type":"RLIMIT_NOFILE","soft":5,"hard":6}],
            "capabilities":{"bounding":["CAP_CHOWN"]},"apparmorProfile":"p"}"#;
        let mut process = ProcessSpec::parse(whole.as_bytes()).unwrap();
        process.args = vec!["new".to_owned()];
        process.terminal = false;
        let written = document(&process, Some(whole)).unwrap();
        let mut expected: Value = serde_json::from_str(whole).unwrap();
        expected["args"] = json!(["new"]);
        expected["terminal"] = json!(false);
        expected["env"] = json!([]);
        expected["noNewPrivileges"] = json!(false);
        assert_eq!(written, expected);
        assert_eq!(
            ProcessSpec::parse(written.to_string().as_bytes()).unwrap(),
            process
        );
    }

    #[test]
    fn without_an_object_one_is_made() {
        let process = ProcessSpec::new(["true"], "/").unwrap();
        let written = document(&process, None).unwrap();
        let again = ProcessSpec::parse(written.to_string().as_bytes()).unwrap();
        assert_eq!(again.args, process.args);
    }
}
