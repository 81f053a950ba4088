//! `pixi-image inspect`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use pixi_image::inspect::{self, Inspection, Oci, Sif};

/// Show what an image is made of: an OCI archive or layout, or a SIF.
///
/// Nothing is unpacked. Of an OCI archive or layout the first image is shown.
#[derive(clap::Args)]
pub struct Inspect {
    /// The image
    #[arg(value_name = "FILE")]
    image: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let inspection = inspect::inspect(&self.image)?;
        let text = match (self.json, &inspection) {
            (true, inspection) => serde_json::to_string_pretty(inspection)? + "\n",
            (false, Inspection::Oci(image)) => oci(image),
            (false, Inspection::Sif(image)) => sif(image),
        };
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::SUCCESS),
        }
    }
}

fn oci(image: &Oci) -> String {
    let mut text = facts(&[
        ("image", format!("{}: OCI, {} bytes", image.path.display(), image.bytes)),
        ("names", image.names.join(", ")),
        ("manifest", image.digest.map(|digest| digest.to_string()).unwrap_or_default()),
        ("configuration", format!("{}  {} bytes", image.config.digest, image.config.bytes)),
        ("platform", image.platform.clone()),
        ("created", image.created.clone().unwrap_or_default()),
        ("entrypoint", image.entrypoint.join(" ")),
        ("command", image.cmd.join(" ")),
        ("directory", image.working_directory.clone().unwrap_or_default()),
        ("user", image.user.clone().unwrap_or_default()),
    ]);
    text += &labels(&image.labels);
    text += &list("variables", &image.env);
    let _ = writeln!(text, "\n{} layers, the lowest first:", image.layers.len());
    let rows = image.layers.iter().enumerate().map(|(index, layer)| {
        let holds = match (layer.packages.as_slice(), &layer.created_by) {
            ([], created_by) => created_by.clone().unwrap_or_default(),
            (packages, _) => format!("packages: {}", packages.join(" ")),
        };
        let number = (index + 1).to_string();
        [number, layer.blob.digest.clone(), layer.blob.bytes.to_string(), layer.compression.to_owned(), holds]
    });
    text + &table(["layer", "digest", "bytes", "packed", "holds"], &rows.collect::<Vec<_>>())
}

fn sif(image: &Sif) -> String {
    let blocks = image.block_bytes.map(|bytes| format!(" in blocks of {bytes} bytes")).unwrap_or_default();
    let signatures = match image.signatures {
        0 => "none".to_owned(),
        count => format!("{count}, not verified"),
    };
    let mut text = facts(&[
        ("image", format!("{}: SIF, {} bytes", image.path.display(), image.bytes)),
        ("digest", image.digest.to_string()),
        ("architecture", image.architecture.clone()),
        ("compression", format!("{}{blocks}", image.compression.unwrap_or("unknown"))),
        ("signatures", signatures),
    ]);
    text += &labels(&image.labels);
    let _ = writeln!(text, "\n{} objects:", image.objects.len());
    let rows = image.objects.iter().map(|object| {
        let file_system = [object.role, object.file_system].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let holds = if object.name.is_empty() { file_system } else { object.name.clone() };
        [object.id.to_string(), object.offset.to_string(), object.bytes.to_string(), object.what.clone(), holds]
    });
    text + &table(["object", "offset", "bytes", "what", "holds"], &rows.collect::<Vec<_>>())
}

/// One fact a line; those that are not known are left out.
fn facts(facts: &[(&str, String)]) -> String {
    let known = facts.iter().filter(|(_, fact)| !fact.is_empty());
    known.map(|(name, fact)| format!("{name:13}  {}\n", shown(fact))).collect()
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    list("labels", &labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>())
}

fn list(name: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.iter().map(|line| format!("  {}\n", shown(line))).collect();
    format!("{name}:\n{lines}")
}

fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<_> =
        [head.map(str::to_owned)].iter().chain(rows).map(|row| row.each_ref().map(|cell| shown(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| {
            if cell.bytes().all(|byte| byte.is_ascii_digit()) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:width$}")
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// What an image says of itself cannot steer a terminal.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
