//! The shell texts of an activation. All but the hand-back are for any POSIX shell, and keep quiet.

use super::{ACTIVATED, Activation, DEFAULT_PATH, HAND_BACK_PATH, Shell, State, is_name};

const HAND_BACK: &str = include_str!("hand-back.bash");
const NO_COMMAND: &str = include_str!("no-command.sh");

/// One word for any POSIX shell, and for Apptainer's own, which keeps the backslash of the usual `'\''` (1.4.5).
pub fn quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_./:@%+,-".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r#"'"'"'"#))
}

/// `/app/entrypoint.sh`: variables are set each time, scripts run once, the command's arguments pass untouched.
pub fn entrypoint(activation: &Activation, shell: &Shell) -> String {
    let state = &activation.oci;
    let mut text = format!("#!{}\n# Activates the environment, then becomes the command it is given.\n", shell.path());
    text += &prepend_to_path(&state.first);
    text.push_str("export PATH\n");
    for variable in &state.variables {
        // A setting that the container was started with (`docker run -e`) stays.
        text += &export(&variable.name, &variable.value, variable.overridable);
    }
    if !state.scripts.is_empty() {
        let prefix = quote(&activation.prefix);
        text += &format!("if [ \"${{{ACTIVATED}:-}}\" != {prefix} ]; then\n");
        match shell {
            Shell::Bash(_) => text += &scripts_in_bash(state),
            Shell::Posix(path) => text += &scripts_in_posix(state, path),
        }
        text += &format!("\texport {ACTIVATED}={prefix}\nfi\n");
    }
    let example =
        quote(&format!("This image runs a command in the environment {}. For example:", activation.environment));
    text + &NO_COMMAND.replace("{shell}", &quote(shell.path())).replace("{what}", &example)
}

/// In bash the scripts are read at the top level, where `declare -x` is global; the arguments are kept from them.
fn scripts_in_bash(state: &State) -> String {
    let mut text = "\tpixi_image_arguments=(\"$@\")\n\tset --\n".to_owned();
    for script in &state.scripts {
        text += &format!("\t. {} </dev/null\n", quote(script));
    }
    text + "\tset +eu\n\tset -- \"${pixi_image_arguments[@]}\"\n\tunset pixi_image_arguments\n"
}

/// Elsewhere a function keeps the arguments, and a script that only bash can read is left out instead of ending the
/// shell, as a syntax error in a sourced file does.
fn scripts_in_posix(state: &State, shell: &str) -> String {
    let mut text = "pixi_image_activate() {\n".to_owned();
    for script in &state.scripts {
        let (script, shell) = (quote(script), quote(shell));
        let complaint = quote("cannot be read by this shell: not activated");
        text += &format!(
            "if {shell} -n {script} 2>/dev/null; then . {script} </dev/null; else printf '%s %s\\n' {script} {complaint} >&2; fi\n"
        );
    }
    text + "}\npixi_image_activate\nset +eu\nunset -f pixi_image_activate\n"
}

/// `90-environment.sh`. Apptainer clears the caller's variables before it and restores afterwards those not set here.
pub fn singularity_environment(activation: &Activation) -> String {
    let state = &activation.sif;
    let mut text =
        "# The activation of the environment, read before run, exec, shell, test and instance start.\n".to_owned();
    for (name, value) in state.base.iter().filter(|(name, _)| is_name(name)) {
        text += &export(name, value, true);
    }
    text += &prepend_to_path(&state.own);
    text += &prepend_to_path(&state.first);
    text.push_str("export PATH\n");
    for variable in &state.variables {
        text += &export(&variable.name, &variable.value, false);
    }
    if !state.scripts.is_empty() {
        match &activation.shell {
            None => {}
            Some(Shell::Bash(path)) => text += &take_back(path),
            Some(Shell::Posix(path)) => {
                text += "pixi_image_options=$-\nset +eu\n";
                text += &scripts_in_posix(state, path);
                text += "case $pixi_image_options in *e*) set -e ;; esac\n";
                text += "case $pixi_image_options in *u*) set -u ;; esac\nunset pixi_image_options\n";
            }
        }
        text += &format!("export {ACTIVATED}={}\n", quote(&activation.prefix));
    }
    text
}

/// Lets bash run the scripts and takes over what they changed; `BASH_ENV` of a host names files for other machines.
fn take_back(bash: &str) -> String {
    let complaint = quote("the activation scripts of this image ended early: their variables are not set");
    format!(
        "pixi_image_changes=$(BASH_ENV='' {} --noprofile --norc {HAND_BACK_PATH}) || :\n\
         case $pixi_image_changes in\n\
         *'# end of activation') eval \"$pixi_image_changes\" ;;\n\
         *) printf '%s\\n' {complaint} >&2 ;;\n\
         esac\n\
         unset pixi_image_changes\n",
        quote(bash)
    )
}

/// The file that [`take_back`] runs.
pub fn hand_back(state: &State) -> String {
    let lines: String = state.scripts.iter().map(|script| format!(". {}\n", quote(script))).collect();
    HAND_BACK.replace("{scripts}\n", &lines)
}

fn export(name: &str, value: &str, only_if_unset: bool) -> String {
    let guard = if only_if_unset { format!("[ -n \"${{{name}+set}}\" ] || ") } else { String::new() };
    format!("{guard}export {name}={}\n", quote(value))
}

/// Puts directories in front of `PATH`, the first as the first, but those that are in there: nested use must not double
/// them.
fn prepend_to_path(directories: &[String]) -> String {
    let prepend = |directory: &String| {
        let directory = quote(directory);
        format!("case \":${{PATH:-}}:\" in *:{directory}:*) ;; *) PATH={directory}:${{PATH:-{DEFAULT_PATH}}} ;; esac\n")
    };
    directories.iter().rev().map(prepend).collect()
}
