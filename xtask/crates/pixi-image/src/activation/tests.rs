use std::process::Output;

use proptest::prelude::*;
use rattler_conda_types::Subdir;

use super::rootfs::{NoFiles, Rootfs, environment_of, shellcheck};
use super::*;

const PREFIX: &str = "/app/.pixi/envs/gpu";
const BIN: &str = "/app/.pixi/envs/gpu/bin";
const SCRIPT: &str = "app/.pixi/envs/gpu/etc/conda/activate.d/script.sh";
/// Works in bash only: an array, the script's own place, and a test for bash.
const BASH_SCRIPT: &str = r#"
parts=("a b" "it's" '$HOME' "\`id\`")
export FROM_SCRIPT="${parts[*]}
second \"line\""
export SCRIPT_PLACE="${BASH_SOURCE[0]}" SCRIPT_SHELL="${BASH_VERSION:+bash}" SCRIPT_ARGUMENTS="$#"
declare -x DECLARED='d'
[[ "$FROM_SCRIPT" =~ b ]] && export MATCHED=yes
echo chatter; read -r ignored; cd /; set -eu
"#;

fn bash() -> Option<Shell> {
    Some(Shell::Bash("/bin/bash".to_owned()))
}

fn posix(path: &str) -> Option<Shell> {
    Some(Shell::Posix(path.to_owned()))
}

fn environment(cuda: Option<&str>) -> Environment {
    Environment {
        name: "gpu".to_owned(),
        subdir: Subdir::Linux64,
        platform: "p1".to_owned(),
        cuda: cuda.map(str::to_owned),
        virtual_packages: Vec::new(),
        lock_hash: None,
        packages: Vec::new(),
    }
}

fn try_activation(
    shell: Option<Shell>,
    scripts: &[&str],
    env_vars: &[(&str, &str)],
    base: &[&str],
) -> Result<Activation, ActivationError> {
    let scripts: Vec<_> = scripts.iter().map(|script| (*script, None)).collect();
    try_activation_of(shell, &scripts, env_vars, base)
}

/// With scripts whose content is known.
fn try_activation_of(
    shell: Option<Shell>,
    scripts: &[(&str, Option<&str>)],
    env_vars: &[(&str, &str)],
    base: &[&str],
) -> Result<Activation, ActivationError> {
    let path = |text: &str| ImagePath::new(text).unwrap();
    let script = |(place, content): &(&str, Option<&str>)| Script {
        path: path(place),
        content: content.map(|content| content.as_bytes().to_vec()),
    };
    Activation::new(ActivationInput {
        environment: &environment(Some("12")),
        prefix: &Prefix::of_environment("gpu"),
        workspace_name: "it's a $workspace",
        scripts: scripts.iter().map(script).collect(),
        files: &NoFiles,
        env_vars: env_vars.iter().map(|(file, text)| (path(file), text.as_bytes().to_vec())).collect(),
        base_env: base.iter().map(|&entry| entry.to_owned()).collect(),
        shell,
    })
}

fn activation(shell: Option<Shell>, scripts: &[&str]) -> Activation {
    try_activation(shell, scripts, &[("etc/conda/env_vars.d/a.json", r#"{"SETTING": "a'b \"c\"\n$HOME `id`"}"#)], &[])
        .unwrap()
}

/// Puts an image's activation into a root, as the builder does.
fn install(root: &Rootfs, activation: &Activation, script: &str) {
    root.write(SCRIPT, 0o644, script);
    root.write(ENTRYPOINT_PATH, 0o755, activation.entrypoint().unwrap().content);
    root.write("/.singularity.d/env/90-environment.sh", 0o755, activation.singularity_environment());
    root.write("/.singularity.d/env/99-base.sh", 0o755, include_str!("../singularity/99-base.sh"));
    if let Some(text) = activation.hand_back() {
        root.write(HAND_BACK_PATH, 0o644, text);
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Reads the files of `/.singularity.d/env` in `shell` with `options`, then prints the environment.
fn apptainer_like(root: &Rootfs, shell: &[&str], options: &str, env: &[(&str, &str)]) -> Output {
    let text =
        format!("set {options}; for f in /.singularity.d/env/*.sh; do . \"$f\"; done; exec /usr/bin/env -0 \"$@\"");
    let path = [("PATH", DEFAULT_PATH)]; // first: a test may give another
    root.run(&[shell, &["-c", &text, "sh"]].concat(), &[&path, env].concat())
}

const SHELLS: [&[&str]; 3] = [&["/bin/bash"], &["/bin/dash"], &["/bin/busybox", "sh"]];

#[test]
fn the_oci_environment_has_the_prefix_in_front_of_the_base_images_path() {
    let base = [
        "LANG=C.UTF-8",
        "PATH=/opt/x:/app/.pixi/envs/gpu/bin:/usr/bin",
        "LANG=en",
        "CONDA_PREFIX=/old",
        "odd.name=1",
        "x",
    ];
    let activation = try_activation(bash(), &[], &[], &base).unwrap();
    assert_eq!(
        activation.oci_env(),
        [
            "PATH=/app/.pixi/envs/gpu/bin:/opt/x:/usr/bin",
            "LANG=en",
            "odd.name=1",
            "CONDA_PREFIX=/app/.pixi/envs/gpu",
            "CONDA_SHLVL=1",
            "CONDA_DEFAULT_ENV=it's a $workspace:gpu",
            "PIXI_PROJECT_NAME=it's a $workspace",
            "PIXI_PROJECT_ROOT=/app",
            "PIXI_PROJECT_MANIFEST=/app/pixi.toml",
            "PIXI_ENVIRONMENT_NAME=gpu",
            "PIXI_ENVIRONMENT_PLATFORMS=linux-64",
            "PIXI_IN_SHELL=1",
            "CONDA_OVERRIDE_CUDA=12",
            "PYTHONNOUSERSITE=1",
        ]
    );
    let scratch = try_activation(None, &[], &[], &[]).unwrap();
    assert_eq!(scratch.oci_env()[0], format!("PATH={BIN}:{DEFAULT_PATH}"));
}

#[test]
fn cuda_is_overridden_only_where_the_lock_promises_it() {
    let input = ActivationInput {
        environment: &environment(None),
        prefix: &Prefix::of_environment("gpu"),
        workspace_name: "w",
        scripts: Vec::new(),
        files: &NoFiles,
        env_vars: Vec::new(),
        base_env: Vec::new(),
        shell: None,
    };
    let activation = Activation::new(input).unwrap();
    assert!(!activation.oci_env().iter().any(|entry| entry.starts_with("CONDA_OVERRIDE_CUDA")));
}

#[test]
fn of_two_files_that_set_one_variable_the_later_name_wins_whatever_the_order_of_the_input() {
    let (a, b) = (("e/a.json", r#"{"X": "a", "Y": "a"}"#), ("e/b.json", r#"{"X": "b"}"#));
    let one = try_activation(bash(), &["s/b.sh", "s/a.sh"], &[a, b], &[]).unwrap();
    let two = try_activation(bash(), &["s/a.sh", "s/b.sh"], &[b, a], &[]).unwrap();
    assert!(one.oci_env().contains(&"X=b".to_owned()) && one.oci_env().contains(&"Y=a".to_owned()));
    assert_eq!(one.oci_env(), two.oci_env());
    assert_eq!(one.singularity_environment(), two.singularity_environment());
    assert_eq!(one.entrypoint(), two.entrypoint());
}

#[test]
fn a_file_of_variables_that_says_nothing_usable_is_refused_by_name() {
    for (text, reason) in [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (r#"{"X": 1}"#, "the value of X is 1, not a string"),
        (r#"{"X; rm": "1"}"#, "not the name"),
        (r#"{"": "1"}"#, "not the name"),
        (r#"{"X": "a\u0000b"}"#, "NUL"),
        (r#"{"PATH": "/x"}"#, "it sets PATH"),
    ] {
        let error =
            try_activation(bash(), &[], &[("etc/conda/env_vars.d/bad.json", text)], &[]).unwrap_err().to_string();
        assert!(error.contains("etc/conda/env_vars.d/bad.json") && error.contains(reason), "{error}");
    }
    for shell in ["bash", "/bin/my shell", "/bin/sh\nx"] {
        assert!(matches!(try_activation(posix(shell), &[], &[], &[]), Err(ActivationError::ShellPath(_))), "{shell:?}");
    }
    assert!(matches!(try_activation(None, &[], &[], &["A=\0"]), Err(ActivationError::BaseVariable(_))));
}

#[test]
fn an_image_without_a_shell_has_no_entrypoint_and_names_the_scripts_that_cannot_run() {
    let activation = activation(None, &[SCRIPT]);
    assert_eq!(activation.entrypoint(), None);
    assert_eq!(activation.scripts_without_shell(), [format!("/{SCRIPT}")]);
    assert!(!activation.singularity_environment().contains("script.sh"));
    assert!(super::tests::activation(bash(), &[SCRIPT]).scripts_without_shell().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_quoted_text_is_one_word_of_the_shell(text in "[^\0]*") {
        let output = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quote(&text))]).output();
        prop_assert_eq!(output.unwrap().stdout, text.into_bytes());
    }
}

#[test]
fn nothing_that_apptainer_reads_relies_on_a_backslash_outside_of_quotes() {
    // Its shell (1.4.5) reads 'it'\''s' as it\'s.
    let Some(root) = Rootfs::new() else { return };
    install(&root, &activation(bash(), &[SCRIPT]), "export FROM_SCRIPT=\"it's\"\n");
    let handed = stdout(&root.run(&["/bin/bash", HAND_BACK_PATH], &[("PATH", "/bin")]));
    assert_eq!(handed, "export FROM_SCRIPT='it'\"'\"'s'\n# end of activation");
    assert!(!activation(bash(), &[SCRIPT]).singularity_environment().contains("'\\''"));
}

#[test]
fn the_entrypoint_passes_arguments_untouched_and_says_nothing() {
    let Some(root) = Rootfs::new() else { return };
    for shell in [bash(), posix("/bin/dash"), posix("/bin/sh")] {
        install(&root, &activation(shell.clone(), &[SCRIPT]), "export FROM_SCRIPT=\"$#\"; set -- x\n");
        let arguments = ["a b", "it's", "\"q\"", "$HOME", "*", "", "-x", "new\nline", "\\"];
        let print = ["/bin/sh", "-c", "printf '%s|' \"$@\"; printf '%s' \"$FROM_SCRIPT\"", "sh"];
        let output = root.run(&[&[ENTRYPOINT_PATH], &print[..], &arguments].concat(), &[]);
        assert_eq!(stdout(&output), arguments.map(|a| format!("{a}|")).concat() + "0", "{shell:?}");
        assert_eq!((stderr(&output), output.status.code()), (String::new(), Some(0)), "{shell:?}");
        assert_eq!(root.run(&[ENTRYPOINT_PATH, "/bin/sh", "-c", "exit 7"], &[]).status.code(), Some(7));
        assert_eq!(root.run(&[ENTRYPOINT_PATH, "/no/such"], &[]).status.code(), Some(127));
    }
}

#[test]
fn the_entrypoint_leaves_standard_input_to_the_command() {
    let Some(root) = Rootfs::new() else { return };
    for shell in [bash(), posix("/bin/dash")] {
        install(&root, &activation(shell, &[SCRIPT]), "read -r eaten || :\n");
        let output = root.run_with_input(&[ENTRYPOINT_PATH, "/bin/busybox", "cat"], &[], "one\ntwo\n");
        assert_eq!(stdout(&output), "one\ntwo\n");
    }
}

#[test]
fn the_entrypoint_activates_with_values_kept_byte_for_byte() {
    let Some(root) = Rootfs::new() else { return };
    install(&root, &activation(bash(), &[SCRIPT]), BASH_SCRIPT);
    let output = root.run(&[ENTRYPOINT_PATH, "/usr/bin/env", "-0"], &[("PATH", "/opt/x:/usr/bin")]);
    let env = environment_of(&Output { stdout: stdout(&output).replace("chatter\n", "").into(), ..output.clone() });
    assert_eq!(stderr(&output), "");
    assert_eq!(env["PATH"], format!("{BIN}:/opt/x:/usr/bin"));
    assert_eq!(env["SETTING"], "a'b \"c\"\n$HOME `id`");
    assert_eq!(env["CONDA_DEFAULT_ENV"], "it's a $workspace:gpu");
    assert_eq!(env["FROM_SCRIPT"], "a b it's $HOME `id`\nsecond \"line\"");
    assert_eq!(env["SCRIPT_PLACE"], format!("/{SCRIPT}"));
    assert_eq!((env["SCRIPT_SHELL"].as_str(), env["DECLARED"].as_str()), ("bash", "d"));
    assert!(!env.contains_key("HOME"));
}

#[test]
fn the_path_is_that_of_run_time_and_is_never_doubled() {
    // T17
    let Some(root) = Rootfs::new() else { return };
    for shell in [bash(), posix("/bin/dash")] {
        install(&root, &activation(shell, &[]), "");
        let print = ["/bin/sh", "-c", "printf %s \"$PATH\""];
        for (given, expected) in [
            (vec![("PATH", "/mine:/usr/bin")], format!("{BIN}:/mine:/usr/bin")),
            (vec![("PATH", "")], format!("{BIN}:{DEFAULT_PATH}")),
            (vec![("PATH", "/mine:/app/.pixi/envs/gpu/bin:/bin")], "/mine:/app/.pixi/envs/gpu/bin:/bin".to_owned()),
        ] {
            let output = root.run(&[&[ENTRYPOINT_PATH, ENTRYPOINT_PATH], &print[..]].concat(), &given);
            assert_eq!(stdout(&output), expected, "{given:?} {}", stderr(&output));
        }
    }
}

#[test]
fn nested_entrypoints_run_the_scripts_once() {
    let Some(root) = Rootfs::new() else { return };
    for shell in [bash(), posix("/bin/dash")] {
        install(&root, &activation(shell, &[SCRIPT]), "export COUNT=x$COUNT PATH=$PATH:/added\n");
        let words = [ENTRYPOINT_PATH, ENTRYPOINT_PATH, "/bin/sh", "-c", "printf %s \"$COUNT $PATH\""];
        assert_eq!(stdout(&root.run(&words, &[("PATH", "/bin")])), format!("x {BIN}:/bin:/added"));
    }
}

#[test]
fn a_setting_given_to_the_container_wins_and_where_the_environment_stands_does_not() {
    let Some(root) = Rootfs::new() else { return };
    install(&root, &activation(bash(), &[]), "");
    let given = [("CONDA_OVERRIDE_CUDA", "11"), ("PYTHONNOUSERSITE", ""), ("CONDA_PREFIX", "/home/u/conda")];
    let env = environment_of(&root.run(&[ENTRYPOINT_PATH, "/usr/bin/env", "-0"], &given));
    assert_eq!((env["CONDA_OVERRIDE_CUDA"].as_str(), env["PYTHONNOUSERSITE"].as_str()), ("11", ""));
    assert_eq!(env["CONDA_PREFIX"], PREFIX);
}

#[test]
fn without_a_command_there_is_a_shell_on_a_terminal_and_otherwise_usage_and_exit_64() {
    // T04
    let Some(root) = Rootfs::new() else { return };
    for shell in [bash(), posix("/bin/dash")] {
        install(&root, &activation(shell.clone(), &[SCRIPT]), "");
        for words in [&[ENTRYPOINT_PATH][..], &[ENTRYPOINT_PATH, "--help"], &[ENTRYPOINT_PATH, ""]] {
            let output = root.run(words, &[]);
            assert_eq!((output.status.code(), stdout(&output)), (Some(64), String::new()));
            assert!(stderr(&output).starts_with("usage: COMMAND"), "{}", stderr(&output));
        }
        let output = root.run_on_terminal(&[ENTRYPOINT_PATH], &[], "echo \"in $CONDA_PREFIX\"; exit 9\n");
        assert!(stdout(&output).contains(&format!("in {PREFIX}")), "{shell:?} {}", stdout(&output));
        assert_eq!(output.status.code(), Some(9), "{shell:?}");
    }
}

#[test]
fn scripts_for_bash_work_from_any_shell_that_reads_the_singularity_environment() {
    // T21
    let Some(root) = Rootfs::new() else { return };
    install(&root, &activation(bash(), &[SCRIPT]), BASH_SCRIPT);
    for shell in SHELLS {
        for options in ["+x", "-eu"] {
            let output = apptainer_like(&root, shell, options, &[("HOME", "/home/u"), ("BASH_ENV", "/no/such")]);
            assert_eq!(stderr(&output), "chatter\n", "{shell:?} {options}");
            let env = environment_of(&output);
            assert_eq!(env["PATH"], format!("{BIN}:{DEFAULT_PATH}"));
            assert_eq!(env["FROM_SCRIPT"], "a b it's $HOME `id`\nsecond \"line\"");
            assert_eq!(env["SCRIPT_PLACE"], format!("/{SCRIPT}"));
            assert_eq!((env["SCRIPT_SHELL"].as_str(), env["MATCHED"].as_str()), ("bash", "yes"));
            assert_eq!((env["SCRIPT_ARGUMENTS"].as_str(), env["DECLARED"].as_str()), ("0", "d"));
            assert_eq!((env["HOME"].as_str(), env["BASH_ENV"].as_str()), ("/home/u", "/no/such"));
            assert_eq!(env["SETTING"], "a'b \"c\"\n$HOME `id`");
            assert_eq!(env["LD_LIBRARY_PATH"], "/.singularity.d/libs");
            let ours = env.keys().filter(|name| name.starts_with("pixi_image")).count();
            assert_eq!(ours, 0, "{env:?}");
        }
    }
}

#[test]
fn what_scripts_remove_or_change_is_removed_and_changed_and_the_rest_left_alone() {
    let Some(root) = Rootfs::new() else { return };
    let script = "unset GONE; export CHANGED=new PATH=\"$PATH:/added\" LD_LIBRARY_PATH=/lib/x; cd /bin; unexported=1; export -n HIDDEN\n";
    install(&root, &activation(bash(), &[SCRIPT]), script);
    let given = [
        ("GONE", "1"),
        ("CHANGED", "old"),
        ("KEPT", "a\nexport CHANGED='evil'\ndeclare -x CHANGED=\"evil\""),
        ("HIDDEN", "1"),
    ];
    for shell in SHELLS {
        let output = apptainer_like(&root, shell, "-eu", &given);
        let env = environment_of(&output);
        assert_eq!(stderr(&output), "");
        assert!(!env.contains_key("GONE") && !env.contains_key("HIDDEN") && !env.contains_key("unexported"), "{env:?}");
        assert_eq!((env["CHANGED"].as_str(), env["KEPT"].as_str()), ("new", given[2].1));
        assert_eq!(env["PATH"], format!("{BIN}:{DEFAULT_PATH}:/added"));
        assert_eq!(env["LD_LIBRARY_PATH"], "/lib/x:/.singularity.d/libs");
        assert!(env.get("PWD").is_none_or(|directory| directory == "/"), "{env:?}");
    }
}

#[test]
fn a_script_that_exits_does_not_end_the_container() {
    let Some(root) = Rootfs::new() else { return };
    install(&root, &activation(bash(), &[SCRIPT]), "export LOST=1; exit 3\n");
    for shell in SHELLS {
        let output = apptainer_like(&root, shell, "-eu", &[]);
        assert!(stderr(&output).contains("ended early"), "{}", stderr(&output));
        let env = environment_of(&output);
        assert_eq!(env["CONDA_PREFIX"], PREFIX);
        assert!(!env.contains_key("LOST"));
    }
}

#[test]
fn without_scripts_no_bash_is_started() {
    let Some(root) = Rootfs::new() else { return };
    install(&root, &activation(bash(), &[]), "");
    std::fs::remove_file(root.path().join("bin/bash")).unwrap();
    for shell in &SHELLS[1..] {
        let output = apptainer_like(&root, shell, "-eu", &[]);
        assert_eq!(stderr(&output), "");
        assert_eq!(environment_of(&output)["CONDA_PREFIX"], PREFIX);
    }
}

#[test]
fn where_there_is_no_bash_a_script_that_needs_it_is_named_and_the_others_run() {
    let Some(root) = Rootfs::new() else { return };
    let good = "app/.pixi/envs/gpu/etc/conda/activate.d/zz.sh";
    for path in ["/bin/dash", "/bin/sh"] {
        install(&root, &activation(posix(path), &[SCRIPT, good]), "parts=(a b)\nexport FROM_SCRIPT=1\n");
        root.write(good, 0o644, "unset_is_fine=$no_such; false; export GOOD=\"$#\"\n");
        for output in
            [apptainer_like(&root, &["/bin/dash"], "-eu", &[]), root.run(&[ENTRYPOINT_PATH, "/usr/bin/env", "-0"], &[])]
        {
            assert_eq!(stderr(&output), format!("/{SCRIPT} cannot be read by this shell: not activated\n"));
            let env = environment_of(&output);
            assert_eq!(env["GOOD"], "0");
            assert!(!env.contains_key("FROM_SCRIPT"));
        }
    }
}

#[test]
fn the_callers_shell_options_are_what_they_were() {
    let Some(root) = Rootfs::new() else { return };
    for shell in [bash(), posix("/bin/dash")] {
        install(&root, &activation(shell, &[SCRIPT]), "set +eu\n");
        for (options, expected) in [("-eu", "eu"), ("+eu", "")] {
            let text = format!("set {options}; . /.singularity.d/env/90-environment.sh; printf %s \"$-\"");
            let options = stdout(&root.run(&["/bin/dash", "-c", &text], &[]));
            let mut kept: Vec<_> = options.chars().filter(|option| "eu".contains(*option)).collect();
            kept.sort_unstable();
            assert_eq!(kept.into_iter().collect::<String>(), expected);
        }
    }
}

#[test]
fn the_base_images_variables_and_directories_reach_apptainer_too() {
    let Some(root) = Rootfs::new() else { return };
    let base =
        ["PATH=/opt/a b/bin:/usr/local/cuda/bin:/usr/bin:/bin", "LANG=C.UTF-8", "odd.name=1", "LD_LIBRARY_PATH=/cuda"];
    install(&root, &try_activation(bash(), &[], &[], &base).unwrap(), "");
    for shell in SHELLS {
        let output = apptainer_like(&root, shell, "-eu", &[("PATH", "/usr/bin:/bin"), ("HOME", "/h")]);
        let env = environment_of(&output);
        assert_eq!(env["PATH"], format!("{BIN}:/opt/a b/bin:/usr/local/cuda/bin:/usr/bin:/bin"));
        assert_eq!((env["LANG"].as_str(), env["HOME"].as_str()), ("C.UTF-8", "/h"));
        assert_eq!(env["LD_LIBRARY_PATH"], "/cuda:/.singularity.d/libs");
    }
}

#[test]
fn every_text_is_clean_by_shellcheck() {
    for (shell, dialect) in [(bash(), "bash"), (posix("/bin/sh"), "sh")] {
        for scripts in [&[SCRIPT][..], &[]] {
            let activation = activation(shell.clone(), scripts);
            let entrypoint = String::from_utf8(activation.entrypoint().unwrap().content).unwrap();
            let mut texts = vec![(dialect, entrypoint), ("sh", activation.singularity_environment())];
            texts.extend(activation.hand_back().map(|text| ("bash", text)));
            for (dialect, text) in texts {
                let Some(complaints) = shellcheck(dialect, &text) else { return };
                assert_eq!(complaints, "", "{text}");
            }
        }
    }
}

/// Static: it changes what the base and the settings say, and prepends to PATH.
const STATIC_SCRIPT: &str = "
export FROM_SCRIPT=\"it's $CONDA_PREFIX\" GREETING=\"$LANG!\" SETTING=\"$SETTING+\"
export LD_LIBRARY_PATH=\"$CONDA_PREFIX/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\" PATH=\"$CONDA_PREFIX/extra bin:$PATH\"
unset GONE CONDA_OVERRIDE_CUDA
";
const STATIC_BASE: &[&str] =
    &["PATH=/opt/x:/usr/bin:/bin", "LANG=C.UTF-8", "GONE=1", "LD_LIBRARY_PATH=/base", "GREETING=no"];
const STATIC_SETTING: &[(&str, &str)] = &[("etc/conda/env_vars.d/a.json", r#"{"SETTING": "s"}"#)];

fn static_activation(shell: Option<Shell>, script: &str) -> Activation {
    try_activation_of(shell, &[(SCRIPT, Some(script))], STATIC_SETTING, STATIC_BASE).unwrap()
}

#[test]
fn what_static_scripts_set_is_in_the_environment_of_every_process() {
    let activation = static_activation(None, STATIC_SCRIPT);
    assert_eq!((activation.not_static(), activation.scripts_without_shell()), (None, &[][..]));
    assert_eq!(
        activation.oci_env(),
        [
            "PATH=/app/.pixi/envs/gpu/extra bin:/app/.pixi/envs/gpu/bin:/opt/x:/usr/bin:/bin",
            "LANG=C.UTF-8",
            "CONDA_PREFIX=/app/.pixi/envs/gpu",
            "CONDA_SHLVL=1",
            "CONDA_DEFAULT_ENV=it's a $workspace:gpu",
            "PIXI_PROJECT_NAME=it's a $workspace",
            "PIXI_PROJECT_ROOT=/app",
            "PIXI_PROJECT_MANIFEST=/app/pixi.toml",
            "PIXI_ENVIRONMENT_NAME=gpu",
            "PIXI_ENVIRONMENT_PLATFORMS=linux-64",
            "PIXI_IN_SHELL=1",
            "PYTHONNOUSERSITE=1",
            "SETTING=s+",
            "FROM_SCRIPT=it's /app/.pixi/envs/gpu",
            "GREETING=C.UTF-8!",
            "LD_LIBRARY_PATH=/app/.pixi/envs/gpu/lib:/base",
            "PIXI_IMAGE_ACTIVATED=/app/.pixi/envs/gpu",
        ]
    );
}

#[test]
fn the_entrypoint_and_a_sif_say_what_the_static_environment_says_without_the_scripts() {
    let Some(root) = Rootfs::new() else { return };
    for shell in [bash(), posix("/bin/dash")] {
        let activation = static_activation(shell, STATIC_SCRIPT);
        install(&root, &activation, "echo the script ran; exit 1\n");
        assert_eq!(activation.hand_back(), None);
        let mut expected = environment_of(&Output {
            stdout: activation.oci_env().join("\0").into(),
            ..root.run(&["/bin/sh", "-c", ":"], &[])
        });
        let env: Vec<_> = expected.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let output = root.run(&[ENTRYPOINT_PATH, "/usr/bin/env", "-0"], &env);
        let mut found = environment_of(&output);
        found.retain(|name, _| !["_", "PWD", "SHLVL", "OLDPWD"].contains(&name.as_str()));
        assert_eq!((stderr(&output), found), (String::new(), expected.clone()));
        // What a container is started with wins.
        let given = [&env[..], &[("FROM_SCRIPT", "mine"), ("PATH", "/mine:/bin")]].concat();
        let found = environment_of(&root.run(&[ENTRYPOINT_PATH, "/usr/bin/env", "-0"], &given));
        assert_eq!(found["FROM_SCRIPT"], "mine");
        assert_eq!(found["PATH"], format!("{PREFIX}/extra bin:{BIN}:/mine:/bin"));
        // In a SIF PATH is the caller's, and the runtime's libraries come last.
        expected.insert("PATH".into(), format!("{PREFIX}/extra bin:{BIN}:/opt/x:/caller:/bin"));
        expected.insert("LD_LIBRARY_PATH".into(), format!("{PREFIX}/lib:/base:/.singularity.d/libs"));
        for reader in SHELLS {
            let output = apptainer_like(&root, reader, "-eu", &[("PATH", "/caller:/bin")]);
            let mut found = environment_of(&output);
            found.retain(|name, _| !["_", "PWD", "SHLVL", "OLDPWD"].contains(&name.as_str()));
            assert_eq!((stderr(&output), found), (String::new(), expected.clone()), "{reader:?}");
        }
    }
}

#[test]
fn a_sif_runs_scripts_that_do_more_to_the_path_than_prepending() {
    for (script, hand_back) in [
        ("export PATH=$PATH:/after", true),
        ("export PATH=/only", true),
        ("export PATH=:$PATH", true),
        ("export PATH=relative:$PATH", true),
        ("export PATH=/a:/b:$PATH", false),
        ("export OTHER=1", false),
    ] {
        let activation = static_activation(bash(), script);
        assert_eq!((activation.not_static(), activation.hand_back().is_some()), (None, hand_back), "{script}");
        assert!(activation.oci_env().iter().any(|entry| entry.starts_with("PIXI_IMAGE_ACTIVATED=")), "{script}");
    }
    let all = static_activation(bash(), "export PATH=$PATH:/after").oci_env();
    assert_eq!(all[0], format!("PATH={BIN}:/opt/x:/usr/bin:/bin:/after"));
}

#[test]
fn values_of_packages_files_name_the_place_where_the_image_shows_its_environment() {
    let at = "/app/.pixi/environment";
    let script = format!(
        "export A={at} B={at}/lib:{at}:/x C=-L{at}/lib D={at}al/x E={at}.old F=\"$CONDA_PREFIX/x\" PATH={at}/extra:$PATH\n"
    );
    let settings = format!(r#"{{"SETTING": "{at}/etc"}}"#);
    let settings = [("etc/conda/env_vars.d/a.json", settings.as_str())];
    let activation = try_activation_of(None, &[(SCRIPT, Some(&script))], &settings, &[]).unwrap();
    assert_eq!(activation.not_static(), None);
    let env = activation.oci_env();
    for expected in [
        format!("A={PREFIX}"),
        format!("B={PREFIX}/lib:{PREFIX}:/x"),
        format!("C=-L{PREFIX}/lib"),
        format!("D={at}al/x"),
        format!("E={at}.old"),
        format!("F={PREFIX}/x"),
        format!("PATH={PREFIX}/extra:{BIN}:{DEFAULT_PATH}"),
        format!("SETTING={PREFIX}/etc"),
    ] {
        assert!(env.contains(&expected), "no {expected} in {env:?}");
    }
}

#[test]
fn one_script_that_is_not_static_leaves_all_of_them_to_the_start_of_the_container() {
    let other = "app/.pixi/envs/gpu/etc/conda/activate.d/a.sh";
    let scripts = [(SCRIPT, Some("\nexport B=$(date)\n")), (other, Some("export A=1\n"))];
    let activation = try_activation_of(bash(), &scripts, &[], &["PIXI_IMAGE_ACTIVATED=/app/.pixi/envs/gpu"]).unwrap();
    let reason = activation.not_static().unwrap().to_string();
    assert_eq!(reason, format!("/{SCRIPT}, line 2: a command substitution"));
    // The mark of a base image that was built alike is about the base's own scripts.
    assert!(!activation.oci_env().iter().any(|entry| entry.starts_with("A=") || entry.starts_with("PIXI_IMAGE_")));
    let entrypoint = String::from_utf8(activation.entrypoint().unwrap().content).unwrap();
    assert!(entrypoint.contains(SCRIPT) && entrypoint.contains(other));
    assert!(activation.hand_back().is_some());
}
