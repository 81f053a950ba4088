//! Programs that somebody sits before.

use std::process::Command;

use super::command::{command, run, wrap};
use super::probe::PREFIX;

/// Starts the command that follows on a new terminal, types a question until the answer comes (whatever is typed before
/// the shell is there may get lost), then a way to leave, and ends with its exit code.
const DRIVER: &str = r#"
import os, pty, select, sys, time
question, answer, goodbye = (word.encode() for word in sys.argv[1:4])
child, terminal = pty.fork()
if child == 0:
    os.execvp(sys.argv[4], sys.argv[4:])
said, asked, left, begun = b"", 0.0, False, time.monotonic()
while time.monotonic() - begun < 300:
    if not left and time.monotonic() - asked > 3:
        os.write(terminal, question)
        asked = time.monotonic()
    if select.select([terminal], [], [], 0.5)[0]:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            piece = b""
        if not piece:
            break
        said += piece
        if answer in said and not left:
            os.write(terminal, goodbye)
            left = True
else:
    os.kill(child, 9)
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

/// Whether `container`, started on a terminal and without a command, is an interactive shell in the environment, whose
/// exit code it passes on.
pub fn shell(container: &Command) -> anyhow::Result<()> {
    let mut driver = command!("python3", "-c", DRIVER);
    // The question as it is echoed does not hold the answer.
    driver.args(["echo \"<$CONDA_PREFIX:$REHEARSAL_ACTIVATED>\"\n", &format!("<{PREFIX}:1>"), "exit 7\n"]);
    run(wrap(driver, container))?.exits(7).map(drop)
}
