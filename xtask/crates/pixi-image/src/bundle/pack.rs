//! Making a bundle: the same inputs give the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{
    BASE, BLOCK, BaseImage, BundleError, END, FORMAT, LIST, LOCK, Manifest, Member, PACKAGES, PROGRAMS, SUMS,
    architecture, check_path,
};
use crate::config::Config;
use crate::fetch::{self, Archive};
use crate::lock;
use crate::model::Digest;
use crate::progress::Progress;
use crate::publish::{Pending, PublishError};
use crate::registry::{self, Reach};

/// What a bundle is made of.
pub struct Contents<'a> {
    /// The word for where it all comes from.
    pub source: &'a str,
    /// The lock whose packages are put in.
    pub lock: Option<&'a Path>,
    /// Environments of the lock; none: all that the platform has.
    pub environments: &'a [String],
    /// The platform of the images.
    pub platform: &'a str,
    /// A base image of a registry to pull, and the reference that means it afterwards.
    pub base: Option<(&'a str, &'a str)>,
    /// Files and directories by their place in the bundle.
    pub files: &'a [(String, PathBuf)],
    /// The cache.
    pub cache: &'a Path,
    /// How packages and the base are brought into the cache.
    pub config: &'a Config,
    /// Nothing is downloaded: all must be in the cache.
    pub offline: bool,
}

/// A bundle that was made.
pub struct Packed {
    /// The digest of its list.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Files in it, the list apart.
    pub members: usize,
}

/// What a member is made of.
enum Origin {
    File(PathBuf),
    Text(String),
}

/// Writes a bundle; it appears only when it is whole.
pub fn pack(contents: &Contents<'_>, out: &Path, progress: &dyn Progress) -> Result<Packed, BundleError> {
    let mut pending = Pending::create(out)?;
    let mut origins: BTreeMap<String, Origin> = BTreeMap::new();
    let environments = add_packages(contents, &mut origins, progress)?;
    let base = add_base(contents, &mut origins, progress)?;
    for (place, path) in contents.files {
        add(place, path, &mut origins)?;
    }
    progress.phase(&format!("Checking {} files", origins.len()));
    let mut members = list(&origins)?;
    for (path, sums) in sums(&members) {
        members.push(Member { path: path.clone(), size: sums.len() as u64, sha256: Digest::of(sums.as_bytes()) });
        origins.insert(path, Origin::Text(sums));
    }
    members.sort_by(|a, b| a.path.cmp(&b.path));
    let manifest = Manifest { format: FORMAT, source: contents.source.to_owned(), environments, base, members };
    manifest.check().map_err(|reason| unfit(out, reason, "leave it out"))?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| unfit(out, error.to_string(), "leave it out"))?;
    let size =
        manifest.length(text.len() as u64).ok_or_else(|| unfit(out, "it is too large".into(), "leave it out"))?;
    progress.phase(&format!("Writing {}, {:.1} MB", out.display(), size as f64 / 1e6));
    write(&mut pending, &manifest, &text, &origins)?;
    pending.publish(0o644)?;
    Ok(Packed { digest: Digest::of(&text), size, members: manifest.members.len() })
}

fn unfit(path: &Path, reason: String, hint: &'static str) -> BundleError {
    BundleError::Unfit { path: path.to_owned(), reason, hint }
}

/// The packages of the environments, and the lock; the environments' names.
fn add_packages(
    contents: &Contents<'_>,
    origins: &mut BTreeMap<String, Origin>,
    progress: &dyn Progress,
) -> Result<Vec<String>, BundleError> {
    let Some(path) = contents.lock else { return Ok(contents.environments.to_vec()) };
    let mut names = contents.environments.to_vec();
    if names.is_empty() {
        names = lock::environments(path, contents.platform)?;
    }
    names.sort();
    names.dedup();
    let options = fetch::Options { config: contents.config, offline: contents.offline || contents.config.offline };
    // All at once, so that what two environments share is counted and downloaded once.
    let mut packages = BTreeMap::new();
    for name in &names {
        let environment = lock::read(path, name, contents.platform)?;
        packages.extend(environment.packages.into_iter().map(|package| (package.sha256(), package)));
    }
    let packages: Vec<_> = packages.into_values().collect();
    for Archive { file, .. } in fetch::packages(&packages, contents.cache, &options, progress)? {
        origins.insert(format!("{PACKAGES}/{}", file.file_name()), Origin::File(file.place().to_owned()));
    }
    origins.insert(LOCK.to_owned(), Origin::File(path.to_owned()));
    Ok(names)
}

fn add_base(
    contents: &Contents<'_>,
    origins: &mut BTreeMap<String, Origin>,
    progress: &dyn Progress,
) -> Result<Option<BaseImage>, BundleError> {
    let Some((reference, name)) = contents.base else { return Ok(None) };
    let architecture = architecture(contents.platform);
    let how = Reach { config: contents.config, offline: contents.offline || contents.config.offline };
    let pulled = registry::pull(reference, architecture, contents.cache, how, progress)?;
    add(BASE, &pulled.layout, origins)?;
    Ok(Some(BaseImage { reference: name.to_owned(), digest: pulled.digest, architecture: architecture.to_owned() }))
}

/// A file, or all files of a directory.
fn add(place: &str, path: &Path, origins: &mut BTreeMap<String, Origin>) -> Result<(), BundleError> {
    let read = |source| BundleError::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(read)?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).map_err(read)? {
            let name = entry.map_err(read)?.file_name();
            let Some(text) = name.to_str() else {
                return Err(unfit(&path.join(&name), "its name is no text".to_owned(), "rename it"));
            };
            // What a killed process left is no part of anything.
            if !(text.starts_with('.') && text.ends_with(".partial")) {
                add(&format!("{place}/{text}"), &path.join(text), origins)?;
            }
        }
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(unfit(path, "it is neither a file nor a directory".to_owned(), "leave it out"));
    }
    check_path(place).map_err(|reason| unfit(path, format!("as `{place}`: {reason}"), "rename it, or leave it out"))?;
    match origins.insert(place.to_owned(), Origin::File(path.to_owned())) {
        None => Ok(()),
        Some(_) => Err(unfit(path, format!("`{place}` is taken"), "name each place once")),
    }
}

fn list(origins: &BTreeMap<String, Origin>) -> Result<Vec<Member>, BundleError> {
    let member = |(path, origin): (&String, &Origin)| {
        let (size, sha256) =
            copy(origin, &mut io::sink(), &|source| BundleError::Publish(PublishError { path: path.into(), source }))?;
        Ok(Member { path: path.clone(), size, sha256 })
    };
    origins.iter().map(member).collect()
}

/// For each directory of programs their digests, as sha256sum reads them.
fn sums(members: &[Member]) -> BTreeMap<String, String> {
    let mut sums: BTreeMap<String, String> = BTreeMap::new();
    for member in members.iter().filter(|member| member.path.starts_with(&format!("{PROGRAMS}/"))) {
        if let Some((directory, name)) = member.path.rsplit_once('/') {
            let line = format!("{}  {name}\n", member.sha256.hex());
            sums.entry(format!("{directory}/{SUMS}")).or_default().push_str(&line);
        }
    }
    sums
}

fn write(
    pending: &mut Pending,
    manifest: &Manifest,
    list: &[u8],
    origins: &BTreeMap<String, Origin>,
) -> Result<(), BundleError> {
    let file = pending.file().try_clone().map_err(|source| pending.error(source))?;
    let mut out = io::BufWriter::with_capacity(1 << 20, file);
    let fail = |source| BundleError::Publish(pending.error(source));
    start(&mut out, LIST, list.len() as u64).map_err(fail)?;
    out.write_all(list).and_then(|()| pad(&mut out, list.len() as u64)).map_err(fail)?;
    for member in &manifest.members {
        let Some(origin) = origins.get(&member.path) else { continue };
        start(&mut out, &member.path, member.size).map_err(fail)?;
        let (size, sha256) = copy(origin, &mut out, &fail)?;
        if (size, sha256) != (member.size, member.sha256) {
            let path = match origin {
                Origin::File(path) => path.as_path(),
                Origin::Text(_) => Path::new(&member.path),
            };
            return Err(unfit(path, "it changed while it was read".to_owned(), "try again when nothing writes to it"));
        }
        pad(&mut out, size).map_err(fail)?;
    }
    out.write_all(&[0; END as usize]).and_then(|()| out.flush()).map_err(fail)
}

/// Copies what a member is made of; its size and digest. `fail` is for what cannot be written.
fn copy(
    origin: &Origin,
    out: &mut dyn Write,
    fail: &dyn Fn(io::Error) -> BundleError,
) -> Result<(u64, Digest), BundleError> {
    let path = match origin {
        Origin::Text(text) => {
            out.write_all(text.as_bytes()).map_err(fail)?;
            return Ok((text.len() as u64, Digest::of(text.as_bytes())));
        }
        Origin::File(path) => path,
    };
    let read = |source| BundleError::Read { path: path.clone(), source };
    let mut file = File::open(path).map_err(read)?;
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok((size, Digest(hasher.finalize().into()))),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read(error)),
        };
        hasher.update(&buffer[..count]);
        size += count as u64;
        out.write_all(&buffer[..count]).map_err(fail)?;
    }
}

/// The header of a member: the same for every maker, moment and machine.
fn start(out: &mut dyn Write, path: &str, size: u64) -> io::Result<()> {
    let is_program = path.starts_with(PROGRAMS) && !path.ends_with(SUMS);
    let mut header = tar::Header::new_ustar();
    header.set_path(path)?;
    header.set_size(size);
    header.set_mode(if is_program { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    out.write_all(header.as_bytes())
}

/// Fills the last block of a member.
fn pad(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let rest = size.next_multiple_of(BLOCK) - size;
    out.write_all(&[0; BLOCK as usize][..rest as usize])
}
