//! The scripts of `completions`, in the shells that they are for.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::rig::Rig;

/// Calls the function that the script gave to readline as readline does, and prints what it offers.
const BASH: &str = r#"
source "$SCRIPT"
# Without a shell function bash has nothing to ask.
function=$(complete -p reaper-runtime) && function=${function#*-F } && function=${function%% *}
COMP_LINE=$LINE COMP_POINT=${#LINE}
read -ra COMP_WORDS <<<"$LINE"
[[ $LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
"$function" reaper-runtime "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

const FISH: &str = r#"
source $SCRIPT
complete -C $LINE | string split -f1 \t
"#;

/// Types the line and a tab into an interactive zsh, whose completion system prints what it is given.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PROMPT=; stty -echo cols 500; autoload -Uz compinit; compinit -u -D; source $SCRIPT
    bindkey "^I" complete-word
    compadd() {
        if [[ " $* " == *" -"[OAD]" "* ]]; then builtin compadd "$@"; return; fi
        local -a hits; builtin compadd -A hits "$@"
        [[ $#hits == 0 ]] || printf "hit:%s\n" $hits
        builtin compadd "$@"
    }
    ended() { print end:of:hits }; comppostfuncs=(ended); print shell:is:"ready"'
zpty -r shell output '*shell:is:ready*'
zpty -w -n shell $LINE$'\t'
zpty -r shell output '*end:of:hits*'
print -r -- $output | tr -d '\r' | sed -n 's/.*hit://p'
zpty -d shell
"#;

struct Shell {
    program: &'static str,
    arguments: &'static [&'static str],
    driver: &'static str,
}

const SHELLS: [Shell; 3] = [
    Shell {
        program: "bash",
        arguments: &["--norc", "-c"],
        driver: BASH,
    },
    Shell {
        program: "zsh",
        arguments: &["-f", "-c"],
        driver: ZSH,
    },
    Shell {
        program: "fish",
        arguments: &["--no-config", "-c"],
        driver: FISH,
    },
];

impl Shell {
    /// What is offered after a line that ends where a tab is pressed.
    fn offers(&self, script: &Path, line: &str) -> Vec<String> {
        let program = Path::new(env!("CARGO_BIN_EXE_reaper-runtime"));
        let path = env::var_os("PATH").unwrap();
        let own = program.parent().unwrap().to_owned();
        let path = env::join_paths([own].into_iter().chain(env::split_paths(&path))).unwrap();
        let output = Command::new(self.program)
            .args(self.arguments)
            .arg(self.driver)
            .env("PATH", path)
            .env("SCRIPT", script)
            .env("LINE", line)
            .env("TERM", "dumb")
            // What fish and zsh keep goes with the test's folder.
            .env("HOME", script.parent().unwrap())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{}, which the tests need: {error}", self.program));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.is_empty(), "{} of {line:?}: {error}", self.program);
        let words = String::from_utf8(output.stdout).unwrap();
        words.lines().map(|word| word.trim().to_owned()).collect()
    }
}

/// Tries it in each shell.
fn in_each_shell(rig: &Rig, check: impl Fn(&str, &dyn Fn(&str) -> Vec<String>)) {
    for shell in &SHELLS {
        let script = rig.path(&format!("completions.{}", shell.program));
        fs::write(&script, rig.ok(&["completions", shell.program])).unwrap();
        check(shell.program, &|line| shell.offers(&script, line));
    }
}

#[test]
fn shells_complete_commands_options_and_values() {
    let rig = Rig::new();
    in_each_shell(&rig, |shell, offers| {
        for (line, expected) in [
            ("reaper-runtime ", &["list", "overlay", "run"][..]),
            ("reaper-runtime li", &["list"]),
            ("reaper-runtime --root /x li", &["list"]),
            ("reaper-runtime overlay ", &["commit", "diff", "ls", "rm"]),
            ("reaper-runtime overlay diff --c", &["--content"]),
            ("reaper-runtime ls --fo", &["--format"]),
            ("reaper-runtime list --format ", &["json", "table"]),
            ("reaper-runtime state mi", &["migrate"]),
            ("reaper-runtime state migrate --to ", &["file", "sqlite"]),
            ("reaper-runtime completions ", &["bash", "fish", "zsh"]),
        ] {
            let offered = offers(line);
            for word in expected {
                // zsh says after an option with a value that one follows.
                let is_it = |offer: &String| offer.trim_end_matches('=') == *word;
                assert!(offered.iter().any(is_it), "{shell}: {line:?}: {offered:?}");
            }
            assert!(
                !offered.iter().any(|word| word.starts_with(['<', '['])),
                "{shell}: {line:?}: {offered:?}"
            );
        }
        assert!(!offers("reaper-runtime li").contains(&"run".to_owned()));
    });
}

#[test]
fn shells_complete_the_names_of_containers() {
    let rig = Rig::new();
    for id in ["web-1", "web-2", "shop"] {
        let bundle = rig.shell("exit 0");
        rig.quietly(&["create", "--bundle", &bundle, id]);
    }
    let fields = serde_json::json!({ "annotations": {
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-name": "web-0",
        "io.kubernetes.cri.container-name": "nginx",
    } });
    let process = serde_json::json!({ "args": ["true"] });
    let bundle = rig.bundle_with("pod", &process, &fields);
    rig.quietly(&[
        "--namespace",
        "k8s.io",
        "create",
        "--bundle",
        &bundle,
        "pod",
    ]);
    let options = format!(
        "--config {} --root {}",
        rig.path("config.toml").display(),
        rig.root().display()
    );
    in_each_shell(&rig, |shell, offers| {
        for command in ["kill", "delete --force", "exec", "state", "logs"] {
            let offered = offers(&format!("reaper-runtime {options} {command} we"));
            let offered: Vec<_> = offered
                .iter()
                .filter(|word| word.starts_with("web"))
                .collect();
            assert_eq!(offered, ["web-1", "web-2"], "{shell}: {command}");
        }
        let line = format!("reaper-runtime {options} kill shop/");
        assert_eq!(offers(&line), ["shop/web-0/nginx"], "{shell}");
        let offered = offers(&format!(
            "reaper-runtime --root {}/none kill we",
            rig.root().display()
        ));
        assert!(
            !offered.contains(&"web-1".to_owned()),
            "{shell}: {offered:?}"
        );
    });
    rig.ok(&["--namespace", "k8s.io", "delete", "--force", "pod"]);
    fs::remove_dir_all(rig.root().join("ns")).unwrap();
}
