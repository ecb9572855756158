use proptest::prelude::*;
use toml::Table;

use super::*;

fn all_classes() -> [String; 2] {
    CLASSES.map(str::to_owned)
}

fn target(form: Form, version: i64) -> Target {
    Target {
        path: "/etc/containerd/config.toml".into(),
        form,
        version,
        replaces_runc: false,
    }
}

#[test]
fn runc_stays_where_a_first_runtime_takes_its_place() {
    let mut target = target(Form::Main, 2);
    let has_runc = |text: &str, target: &Target| {
        with_handlers(Some(text), target)
            .unwrap()
            .contains("runtimes.runc]\n  runtime_type")
    };
    assert!(!has_runc("version = 2\n", &target));
    target.replaces_runc = true;
    assert!(has_runc("version = 2\n", &target));
    let other = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.x]\n";
    assert!(!has_runc(other, &target));
}

fn runtime(text: &str, version: i64, class: &str) -> Table {
    let table: Table = text.parse().unwrap();
    let runtimes = &table["plugins"][plugin(version)]["containerd"]["runtimes"];
    runtimes[class].as_table().unwrap().clone()
}

#[test]
fn each_version_gets_both_handlers_in_its_own_table() {
    for (version, name) in [
        (2, "io.containerd.grpc.v1.cri"),
        (3, "io.containerd.cri.v1.runtime"),
    ] {
        let text = with_handlers(None, &target(Form::Main, version)).unwrap();
        assert!(
            text.starts_with(&format!("version = {version}\n")),
            "{text}"
        );
        assert!(text.contains(&format!(
            "[plugins.\"{name}\".containerd.runtimes.reaper-v2]"
        )));
        for class in CLASSES {
            let runtime = runtime(&text, version, class);
            assert_eq!(runtime["runtime_type"].as_str(), Some(RUNTIME_TYPE));
            for key in ["pod_annotations", "container_annotations"] {
                assert_eq!(
                    runtime[key].as_array().unwrap()[0].as_str(),
                    Some("reaper.runtime/*")
                );
            }
            let path = runtime
                .get("options")
                .map(|it| it["ConfigPath"].as_str().unwrap());
            assert_eq!(path, (class == "reaper-v2-pod").then_some(POD_OPTIONS));
        }
    }
}

#[test]
fn the_options_of_the_second_class_are_settings() {
    let mut config = reaper_spec::Config::default();
    config.apply_options(POD_OPTIONS_TEXT).unwrap();
    assert_eq!(config.overlay.scope, reaper_spec::OverlayScope::Pod);
    assert_ne!(config.pid, reaper_spec::Config::default().pid);
}

#[test]
fn a_handler_that_is_there_stays_as_it_is_and_another_runtime_of_the_name_is_refused() {
    let table = "plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.reaper-v2";
    let own = format!("version = 2\n[{table}]\nruntime_type = \"{RUNTIME_TYPE}\"\n");
    let target = target(Form::Main, 2);
    let text = with_handlers(Some(&own), &target).unwrap();
    assert!(
        text.starts_with(&own) && text.matches("runtimes.reaper-v2]").count() == 1,
        "{text}"
    );
    assert!(
        runtime(&text, 2, "reaper-v2")
            .get("pod_annotations")
            .is_none()
    );
    assert!(text.contains("runtimes.reaper-v2-pod]"));
    assert_eq!(with_handlers(Some(&text), &target).unwrap(), text);
    let other = own.replace(RUNTIME_TYPE, "io.containerd.runc.v2");
    let problem = with_handlers(Some(&other), &target).unwrap_err();
    assert!(
        problem.contains("another's, of type io.containerd.runc.v2"),
        "{problem}"
    );
}

#[test]
fn a_table_in_one_line_is_not_added_to() {
    for text in [
        "version = 2\nplugins = {}\n",
        "version = 2\nplugins.\"io.containerd.grpc.v1.cri\" = {}\n",
    ] {
        with_handlers(Some(text), &target(Form::Main, 2)).unwrap_err();
    }
}

#[test]
fn a_template_is_added_to_whatever_is_in_it() {
    let target = target(Form::Template, 3);
    let made = with_handlers(None, &target).unwrap();
    assert!(
        made.starts_with("{{ template \"base\" . }}\n\n# >>>"),
        "{made}"
    );
    assert_eq!(
        without_handlers(&made, &target, &all_classes()),
        base(&target)
    );
    let own = "{{ template \"base\" . }}\n{{ if .X }}\n[a]\n{{ end }}\n";
    let text = with_handlers(Some(own), &target).unwrap();
    assert!(text.starts_with(own));
    assert_eq!(with_handlers(Some(&text), &target).unwrap(), text);
    assert_eq!(without_handlers(&text, &target, &all_classes()), own);
}

#[test]
fn tables_that_lost_their_comments_are_taken_out_by_name() {
    let target = target(Form::Main, 3);
    let own = "version = 3 # mine\n\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\na = 1 # one\n";
    let text = with_handlers(Some(own), &target).unwrap();
    let kept: String = text
        .lines()
        .filter(|line| !line.starts_with("# "))
        .fold(String::new(), |all, line| all + line + "\n");
    assert_eq!(
        without_handlers(&kept, &target, &all_classes()).trim_end(),
        own.trim_end()
    );
    assert_eq!(without_handlers(own, &target, &all_classes()), own);
    let first = &all_classes()[..1];
    let without = without_handlers(&kept, &target, first);
    assert!(
        without.contains("reaper-v2-pod]") && !without.contains("reaper-v2]"),
        "{without}"
    );
}

/// Configurations as people write them: keys, tables, comments, empty lines.
fn configuration() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("# a comment".to_owned()),
        Just(String::new()),
        Just("  # indented".to_owned()),
        "[a-z]{1,6}".prop_map(|name| format!("[other_{name}]")),
        Just("[plugins]".to_owned()),
        Just("  [plugins.\"io.containerd.grpc.v1.cri\"]".to_owned()),
        Just("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc] # runc".to_owned()),
        ("[a-z]{1,6}", 0..9).prop_map(|(name, value)| format!("  key_{name} = {value}")),
        "[a-z]{1,6}".prop_map(|name| format!("list_{name} = [ # of\n  \"a\",\n]")),
    ];
    let lines = proptest::collection::vec(line, 0..14);
    (lines, "\n{0,3}").prop_filter_map("TOML", |(lines, end)| {
        let text = format!("version = 2\n{}{end}", lines.join("\n"));
        parse(&text).is_ok().then_some(text)
    })
}

proptest! {
    #[test]
    fn what_was_there_keeps_its_bytes_and_comes_back(text in configuration()) {
        let target = target(Form::Main, 2);
        let with = with_handlers(Some(&text), &target).unwrap();
        prop_assert!(with.starts_with(&text));
        for class in CLASSES {
            let runtime = runtime(&with, 2, class);
            prop_assert_eq!(runtime["runtime_type"].as_str(), Some(RUNTIME_TYPE));
        }
        let without = without_handlers(&with, &target, &all_classes());
        prop_assert_eq!(without.trim_end_matches('\n'), text.trim_end_matches('\n'));
        // What comes after is not ours either.
        let more = format!("{with}[more]\nx = 1\n");
        let without = without_handlers(&more, &target, &all_classes());
        prop_assert!(without.ends_with("[more]\nx = 1\n") && !without.contains("reaper"));
    }
}
