//! The command line of the rehearsal: makes it, puts a pixi into its base image, or serves its channel.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, anyhow};
use clap::{Args, Parser, Subcommand};
use pixi_image::bars::Bars;
use pixi_image::progress::Progress;
use pixi_image::publish;
use rehearsal::serve::{self, Served};
use rehearsal::{Rehearsal, Request, cache, pixi_base};

/// Makes a conda channel and a base image out of Debian's mirror, for places that cannot reach conda-forge.
#[derive(Parser)]
#[command(name = "rehearsal", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the channel and the base image
    Make(Make),
    /// Put a pixi into the base image, for the lesson's own recipes
    AddPixi(AddPixi),
    /// Serve a channel on 127.0.0.1 until stdin is closed
    Serve(Serve),
}

#[derive(Args)]
struct Make {
    /// The directory for channel, base.oci.tar and rehearsal.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The mirror [default: DEBIAN_MIRROR, else that of apt]
    #[arg(long, value_name = "URL")]
    debian_mirror: Option<String>,
    /// Keeps downloads [default: pixi-image/debian in the user's cache]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Use only what is in the cache
    #[arg(long, conflicts_with = "refresh")]
    offline: bool,
    /// Look for a newer index even when everything is there
    #[arg(long)]
    refresh: bool,
}

#[derive(Args)]
struct AddPixi {
    /// The base image, as `make` wrote it
    #[arg(long, value_name = "FILE")]
    base: PathBuf,
    /// The program that becomes /usr/local/bin/pixi
    #[arg(long, value_name = "FILE")]
    pixi: PathBuf,
    /// Where the OCI archive goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct Serve {
    /// The channel's directory, as `make` wrote it
    #[arg(long, value_name = "DIR")]
    channel: PathBuf,
    /// An OCI archive to serve too, as the image rehearsal/pixi:trixie of a registry
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The port; 0 takes any that is free
    #[arg(long, default_value_t = 8765)]
    port: u16,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Make(command) => command.run(),
        Command::AddPixi(command) => command.run(),
        Command::Serve(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Each message tells its cause itself.
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Make {
    fn run(self) -> anyhow::Result<()> {
        let default = || cache::default_directory(|name| std::env::var_os(name).map(PathBuf::from));
        let cache = self.cache.or_else(default);
        let mirror = self.debian_mirror.or_else(|| std::env::var("DEBIAN_MIRROR").ok().filter(|url| !url.is_empty()));
        let request = Request {
            out: self.out,
            mirror,
            cache: cache
                .context("no cache directory is known: HOME is not set\n  hint: name one with `--cache DIR`")?,
            offline: self.offline,
            refresh: self.refresh,
        };
        let made = match Bars::on_terminal() {
            Some(bars) => make_with(&request, bars)?,
            None => rehearsal::make(&request, &Lines::default())?,
        };
        if made.unchanged {
            eprintln!("nothing to do: {} is complete", request.out.display());
        }
        println!("channel\t{}\t{}", made.digest, made.channel.display());
        println!("oci\t{}\t{}", made.base_digest, made.base.display());
        Ok(())
    }
}

/// Ctrl-C takes the bar away, too: a shell, or xtask, writes on.
fn make_with(request: &Request, bars: Bars) -> anyhow::Result<Rehearsal> {
    let bars = Arc::new(bars);
    let shown = Arc::clone(&bars);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            let _nothing_new = publish::abandon();
            shown.stopped();
            std::process::exit(130);
        }
    });
    let made = rehearsal::make(request, &*bars);
    if made.is_ok() {
        bars.finished()
    } else {
        bars.stopped()
    }
    Ok(made?)
}

impl AddPixi {
    fn run(self) -> anyhow::Result<()> {
        let made = pixi_base::add_pixi(&self.base, &self.pixi, &self.out)?;
        if made.unchanged {
            eprintln!("nothing to do: {} is complete", self.out.display());
        }
        println!("oci\t{}\t{}", made.digest, self.out.display());
        Ok(())
    }
}

impl Serve {
    fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| anyhow!("cannot start the server: {error}"))?;
        runtime.block_on(async {
            match serve::listen(&self.channel, self.image.as_deref(), self.port).await? {
                Served::Elsewhere(url) => {
                    eprintln!("this channel is served already");
                    println!("{url}");
                }
                Served::Here(server) => {
                    println!("{}", server.url());
                    let end = async {
                        tokio::select! {
                            () = serve::stdin_closed() => {}
                            _ = tokio::signal::ctrl_c() => {}
                        }
                    };
                    server.run(end).await?;
                }
            }
            Ok(())
        })
    }
}

/// Progress as plain lines on stderr; of a download, one at each quarter.
#[derive(Default)]
struct Lines {
    expected: AtomicU64,
    downloaded: AtomicU64,
}

impl Progress for Lines {
    fn phase(&self, text: &str) {
        eprintln!("{text}");
    }

    fn expect_download(&self, bytes: u64) {
        self.expected.fetch_add(bytes, Ordering::Relaxed);
    }

    fn downloaded(&self, bytes: u64) {
        let before = self.downloaded.fetch_add(bytes, Ordering::Relaxed);
        let expected = self.expected.load(Ordering::Relaxed).max(1);
        let quarter = |done: u64| 4 * done / expected;
        if quarter(before + bytes) > quarter(before) {
            eprintln!("downloaded {} of {} MB", (before + bytes) / 1_000_000, expected / 1_000_000);
        }
    }

    fn packed(&self, identity: &str, bytes: u64, _cached: bool) {
        eprintln!("packed {identity}, {:.1} MB", bytes as f64 / 1e6);
    }

    fn warn(&self, text: &str) {
        eprintln!("warning: {text}");
    }
}
