//! `pixi-image probe`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use pixi_image::config::Config;
use pixi_image::http;

use super::report;

/// Ask whether addresses can be reached, or a mirror of them; exit 0 only if all can.
#[derive(clap::Args)]
pub struct Probe {
    /// http or https URLs; they are asked at the same time.
    #[arg(required = true)]
    urls: Vec<String>,
    /// Wait this many seconds for all answers.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    timeout: Duration,
    /// A workspace whose .pixi/config.toml counts, too.
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
}

/// Seconds on the command line: a positive number, up to a day.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a number of seconds above 0 and not above 86400".to_owned()),
    }
}

impl Probe {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let answers = http::probe(&Config::load(self.workspace.as_deref())?, &self.urls, self.timeout)?;
        for answer in &answers {
            match &answer.reason {
                None => report::result(&format!("reachable\t{}", answer.url))?,
                Some(reason) => {
                    report::result(&format!("unreachable\t{}\t{}", answer.url, reason.replace(['\n', '\t'], " ")))?;
                }
            }
        }
        Ok(if answers.iter().all(|answer| answer.reason.is_none()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
