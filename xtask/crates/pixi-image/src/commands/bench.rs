//! `pixi-image bench`: what `cargo xtask bench` measures builds against.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use libdeflater::{CompressionLvl, Compressor};
use pixi_image::config::Config;
use pixi_image::fetch::{self, Archive};
use pixi_image::layout::ImageSource;
use pixi_image::lock;
use pixi_image::pack::{HARD_LEVEL, LAYER_LEVEL, LEVEL, LOOK_BACK, SMALL, level_of_block};
use pixi_image::progress::Silent;
use pixi_image::squashfs::BLOCK_SIZE;
use sha2::{Digest, Sha256};

use super::{cache, report};

/// Of the images that are compared, as Go calls it.
const ARCHITECTURE: &str = "amd64";

/// Show what builds are measured against.
#[derive(clap::Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Floor(Floor),
    Layers(Layers),
}

/// Do what no build of both formats can leave out, in one thread, and write nothing.
///
/// Each archive is read from the cache, hashed and decoded; the tar stream is hashed; files of 24 KiB and more are deflated
/// once, smaller ones twice, as the two formats lay them out differently; what is deflated is hashed, as the images' digests
/// need it. Prints `floor`, the number of packages, the bytes of their files, and the bytes that were deflated.
#[derive(clap::Args)]
struct Floor {
    /// The lock
    #[arg(long, value_name = "FILE", default_value = "pixi.lock")]
    lock: PathBuf,
    /// The environment
    #[arg(long, value_name = "NAME", default_value = "default")]
    environment: String,
    /// A platform of the lock: a conda subdir or the name of a row
    #[arg(long, value_name = "NAME", default_value = "linux-64")]
    platform: String,
    #[command(flatten)]
    cache: cache::CacheArgs,
}

/// Print the layers of an image: digest and bytes, separated by a tab, in the order in which they are stacked.
#[derive(clap::Args)]
struct Layers {
    /// An OCI archive or layout
    image: PathBuf,
    /// The architecture, as Go calls it
    #[arg(long, value_name = "NAME", default_value = ARCHITECTURE)]
    architecture: String,
}

impl Bench {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.what {
            What::Floor(floor) => floor.run()?,
            What::Layers(layers) => layers.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Layers {
    fn run(&self) -> anyhow::Result<()> {
        let image = ImageSource::open(&self.image)?.image(&self.architecture)?;
        let mut layers = image.manifest.layers().iter();
        layers.try_for_each(|layer| report::result(&format!("{}\t{}", layer.digest(), layer.size())))
    }
}

impl Floor {
    fn run(self) -> anyhow::Result<()> {
        let environment = lock::read(&self.lock, &self.environment, &self.platform)?;
        let config = Config::default();
        let options = fetch::Options { offline: true, config: &config };
        let archives = fetch::packages(&environment.packages, self.cache.store()?.root(), &options, &Silent)?;
        let mut work = Work::new();
        for Archive { file, .. } in &archives {
            let path = file.place();
            work.package(path).with_context(|| format!("cannot read {}", path.display()))?;
        }
        report::result(&format!("floor\t{}\t{}\t{}", archives.len(), work.raw, work.deflated))
    }
}

/// The codecs, and how much passed through them.
struct Work {
    /// By level.
    compressors: BTreeMap<i32, Compressor>,
    out: Vec<u8>,
    small: Vec<u8>,
    blobs: Sha256,
    raw: u64,
    deflated: u64,
}

impl Work {
    fn new() -> Self {
        let compressor = |level| (level, Compressor::new(CompressionLvl::new(level).unwrap_or_default()));
        let compressors = [LEVEL, LAYER_LEVEL, HARD_LEVEL].map(compressor).into();
        Self { compressors, out: Vec::new(), small: Vec::new(), blobs: Sha256::new(), raw: 0, deflated: 0 }
    }

    fn package(&mut self, archive: &Path) -> anyhow::Result<()> {
        let mut file = File::open(archive)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        let _ = hasher.finalize(); // the lock's digest is compared with it
        let (start, length) = contents(file)?;
        let mut file = File::open(archive)?;
        file.seek(SeekFrom::Start(start))?;
        let stored = BufReader::with_capacity(128 << 10, file.take(length));
        let decoder = zstd::stream::read::Decoder::with_buffer(stored)?;
        let mut tar = tar::Archive::new(Hashed { inner: decoder, hasher: Sha256::new() });
        for entry in tar.entries()? {
            self.file(&mut entry?)?;
        }
        let _ = tar.into_inner().hasher.finalize(); // the diff id
        self.flush_small()
    }

    /// One file.
    fn file(&mut self, content: &mut impl Read) -> anyhow::Result<()> {
        let mut block = vec![0; BLOCK_SIZE];
        let (mut is_large, mut blocks) = (false, Vec::new());
        loop {
            let length = fill(content, &mut block)?;
            self.raw += length as u64;
            is_large |= length >= SMALL;
            match (length, is_large) {
                (0, _) => return Ok(()),
                (_, true) => {
                    let earlier = blocks.len().checked_sub(LOOK_BACK).map(|at| blocks[at]);
                    blocks.push(self.deflate(&block[..length], level_of_block(earlier))?);
                }
                (_, false) => {
                    if self.small.len() + length > BLOCK_SIZE {
                        self.flush_small()?;
                    }
                    self.small.extend_from_slice(&block[..length]);
                }
            }
            if length < BLOCK_SIZE {
                return Ok(());
            }
        }
    }

    /// Small files, once for each format.
    fn flush_small(&mut self) -> anyhow::Result<()> {
        let small = std::mem::take(&mut self.small);
        self.deflate(&small, LEVEL)?;
        self.deflate(&small, LAYER_LEVEL)?;
        self.small = small;
        self.small.clear();
        Ok(())
    }

    /// The size of what `raw` became.
    fn deflate(&mut self, raw: &[u8], level: i32) -> anyhow::Result<u32> {
        let compressor = self.compressors.get_mut(&level).filter(|_| !raw.is_empty());
        let Some(compressor) = compressor else { return Ok(0) };
        self.out.resize(compressor.deflate_compress_bound(raw.len()), 0);
        let length = compressor.deflate_compress(raw, &mut self.out)?;
        self.blobs.update(&self.out[..length]);
        self.deflated += length as u64;
        Ok(length as u32)
    }
}

fn fill(content: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < block.len() {
        match content.read(&mut block[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// Where the part of a .conda archive lies that holds the files.
fn contents(file: File) -> anyhow::Result<(u64, u64)> {
    let mut zip = zip::ZipArchive::new(file)?;
    for index in 0..zip.len() {
        let member = zip.by_index_raw(index)?;
        if member.name()?.starts_with("pkg-") {
            ensure!(member.compression() == zip::CompressionMethod::Stored, "its parts are not stored");
            let start = member.data_start().context("it has no place for its files")?;
            return Ok((start, member.compressed_size()));
        }
    }
    bail!("it is no .conda archive\n  hint: the floor is measured of these alone")
}

struct Hashed<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
