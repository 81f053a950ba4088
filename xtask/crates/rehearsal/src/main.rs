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
use rehearsal::{Rehearsal, Request, cache, pixi_base, shape, variant, workspace};

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
    /// Make packages with the names and sizes of a lock, and made-up contents
    Shape(Shape),
    /// Make another build of one package, and a workspace that has it
    Variant(Variant),
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

#[derive(Args)]
struct Shape {
    /// The lock whose packages are imitated
    #[arg(long, value_name = "FILE")]
    lock: PathBuf,
    /// Its environment
    #[arg(long, value_name = "NAME", default_value = "default")]
    environment: String,
    /// A platform of the lock
    #[arg(long, value_name = "NAME", default_value = "linux-64")]
    platform: String,
    /// The directory for channel, workspace and changed
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Each archive gets this share of its real size
    #[arg(long, value_name = "SHARE", default_value = "1", value_parser = permille)]
    scale: u64,
    /// Make another build of this package, and the workspace `changed` that has it
    #[arg(long, value_name = "package=NAME", value_parser = package)]
    variant: Option<String>,
    /// Where the channel will be served
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8765")]
    url: String,
    /// A channel of real packages, as `make` wrote it: what is made up is made of pieces of their files
    #[arg(long, value_name = "DIR")]
    like: PathBuf,
}

#[derive(Args)]
struct Variant {
    /// The channel's directory, as `make` or `shape` wrote it
    #[arg(long, value_name = "DIR")]
    channel: PathBuf,
    /// The package
    #[arg(long, value_name = "NAME")]
    package: String,
    /// A manifest that asks for it
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The directory for channel, workspace and changed
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where the manifest says that the channel is served
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8765")]
    url: String,
}

/// A share of 1, in permille.
fn permille(text: &str) -> Result<u64, String> {
    let share: f64 = text.parse().map_err(|_| "a share reads like 1 or 0.1".to_owned())?;
    if !(0.001..=1.0).contains(&share) {
        return Err("a share lies between 0.001 and 1".to_owned());
    }
    Ok((share * 1000.0).round() as u64)
}

fn package(text: &str) -> Result<String, String> {
    match text.strip_prefix("package=") {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err("expected package=NAME".to_owned()),
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Make(command) => command.run(),
        Command::AddPixi(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Shape(command) => command.run(),
        Command::Variant(command) => command.run(),
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

impl Shape {
    fn run(self) -> anyhow::Result<()> {
        let request = shape::Request {
            lock: self.lock,
            environment: self.environment,
            platform: self.platform,
            out: self.out,
            permille: self.scale,
            url: self.url,
            variant: self.variant,
            like: self.like,
        };
        let made = shape::shape(&request, &Lines::default())?;
        if made.unchanged {
            eprintln!("nothing to do: {} is complete", request.out.display());
        }
        println!("shape\t{}\t{}\t{}", made.packages, request.out.display(), made.bytes);
        Ok(())
    }
}

impl Variant {
    fn run(self) -> anyhow::Result<()> {
        let manifest = std::fs::read_to_string(&self.manifest)
            .map_err(|error| anyhow!("cannot read {}: {error}", self.manifest.display()))?;
        let channel = self.out.join("channel");
        workspace::write(&self.out.join("workspace"), &manifest, &self.channel, &self.url, &Lines::default())?;
        let other = variant::add(&self.channel, &channel, &self.package)?;
        workspace::write(&self.out.join("changed"), &manifest, &channel, &self.url, &Lines::default())?;
        println!("variant\t{}\t{}\t{}", other.sha256, self.out.display(), other.size);
        Ok(())
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
