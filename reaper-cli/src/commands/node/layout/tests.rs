use super::*;

const PLAIN: &str = "/etc/containerd/config.toml";
const K3S: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";

fn found(config: &str, text: Option<&str>, major: Option<u32>) -> Result<Target, String> {
    target(&Found {
        config: Path::new(config),
        text,
        major,
        imports: &[],
    })
}

#[track_caller]
fn assert_target(config: &str, text: &str, major: Option<u32>, expected: (&str, Form, i64)) {
    let target = found(config, Some(text), major).unwrap();
    let path = target.path.to_str().unwrap();
    assert_eq!((path, target.form, target.version), expected, "{text}");
}

#[test]
fn a_plain_configuration_is_added_to_unless_its_containerd_merges_what_it_imports() {
    let two = "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n";
    let three = two.replace('2', "3");
    let drop_in = "/etc/containerd/conf.d/reaper-v2.toml";
    assert_target(PLAIN, "version = 2\n", Some(1), (PLAIN, Form::Main, 2));
    assert_target(PLAIN, two, Some(1), (PLAIN, Form::Main, 2));
    assert_target(PLAIN, two, Some(2), (drop_in, Form::DropIn, 2));
    assert_target(PLAIN, &three, Some(2), (drop_in, Form::DropIn, 3));
    // Nothing of an image is executed: its configuration tells.
    assert_target(PLAIN, two, None, (PLAIN, Form::Main, 2));
    assert_target(PLAIN, &three, None, (drop_in, Form::DropIn, 3));
    let relative = "version = 3\nimports = [\"one.toml\", \"more/*.toml\"]\n";
    let drop_in = "/etc/containerd/more/reaper-v2.toml";
    assert_target(PLAIN, relative, Some(2), (drop_in, Form::DropIn, 3));
    assert_target(PLAIN, "version = 4\n", Some(2), (PLAIN, Form::Main, 4));
}

#[test]
fn what_containerd_imports_by_itself_is_asked_of_it() {
    let imports = ["/etc/containerd/conf.d/*.toml".to_owned()];
    let found = |major| {
        target(&Found {
            config: Path::new(PLAIN),
            text: Some("version = 3\n"),
            major: Some(major),
            imports: &imports,
        })
    };
    assert_eq!(found(2).unwrap().form, Form::DropIn);
}

#[test]
fn a_missing_or_empty_configuration_gets_the_version_of_its_containerd() {
    for text in [None, Some(""), Some("# nothing yet\n")] {
        for (major, version) in [(Some(2), 3), (Some(1), 2), (None, 2)] {
            assert_eq!(found(PLAIN, text, major).unwrap().version, version);
        }
    }
}

#[test]
fn what_a_distribution_makes_anew_is_left_alone() {
    let dir = "/var/lib/rancher/k3s/agent/etc/containerd/";
    let at = |name: &str| format!("{dir}{name}");
    assert_target(
        K3S,
        "version = 2\n",
        Some(1),
        (&at("config.toml.tmpl"), Form::Template, 2),
    );
    assert_target(
        K3S,
        "version = 3\n",
        Some(2),
        (&at("config-v3.toml.tmpl"), Form::Template, 3),
    );
    let text = format!("version = 3\nimports = [\"{dir}config-v3.toml.d/*.toml\"]\n");
    let drop_in = at("config-v3.toml.d/reaper-v2.toml");
    assert_target(K3S, &text, Some(2), (&drop_in, Form::DropIn, 3));
    let rke2 = K3S.replace("k3s", "rke2");
    let template = at("config.toml.tmpl").replace("k3s", "rke2");
    assert_target(
        &rke2,
        "version = 2\n",
        Some(1),
        (&template, Form::Template, 2),
    );
    assert!(
        found(K3S, None, None)
            .unwrap_err()
            .contains("start it once")
    );

    let microk8s = "/var/snap/microk8s/7000/args/containerd.toml";
    let template = "/var/snap/microk8s/7000/args/containerd-template.toml";
    assert_target(
        microk8s,
        "version = 2\n",
        Some(1),
        (template, Form::Template, 2),
    );

    let k0s = "/etc/k0s/containerd.toml";
    let text = "# k0s_managed=true\nversion = 2\nimports = [\"/run/k0s/containerd-cri.toml\"]\n";
    let drop_in = "/etc/k0s/containerd.d/reaper-v2.toml";
    assert_target(k0s, text, Some(1), (drop_in, Form::DropIn, 2));
    // Its user's own is like any other.
    assert_target(k0s, "version = 2\n", Some(1), (k0s, Form::Main, 2));
}

#[test]
fn what_cannot_work_is_refused_with_its_reason() {
    for (text, reason) in [
        (
            "disabled_plugins = [\"cri\"]\nversion = 2\n",
            "disables the CRI",
        ),
        // As the package of docker has it.
        ("disabled_plugins = [\"cri\"]\n", "disables the CRI"),
        ("root = \"/x\"\n", "config migrate"),
        ("version = 1\n", "config migrate"),
        ("= nonsense", "no TOML"),
    ] {
        let problem = found(PLAIN, Some(text), Some(1)).unwrap_err();
        assert!(problem.contains(reason), "{problem}");
    }
}
