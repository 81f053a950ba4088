//! Where two OCI archives differ.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use serde_json::Value;

use super::facts::{Facts, printable};
use super::layer::{self, Compression, HEADER_FIELDS};
use super::{Difference, Section, bytes, field, json, section, some_of};
use crate::layers;
use crate::model::Digest;

/// A JSON document larger than this is refused as hostile, in bytes.
const JSON_LIMIT: u64 = 4 << 20;

/// A member of an archive.
struct Member {
    name: String,
    /// Where its header begins.
    header: u64,
    /// Where its content begins.
    start: u64,
    size: u64,
}

impl Member {
    /// Where the next one begins.
    fn end(&self) -> u64 {
        self.start.saturating_add(self.size).checked_next_multiple_of(512).unwrap_or(u64::MAX)
    }
}

/// An archive with its image, as far as it holds together.
struct Archive {
    file: File,
    members: Vec<Member>,
    /// The digest of the manifest, as the index has it.
    digest: String,
    manifest: Value,
    config: Value,
}

impl Archive {
    /// Reads the parts that are JSON and compares manifest and configuration with their digests.
    fn read(file: &mut File) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let file = file.try_clone().map_err(text)?;
        let members = members(&file).map_err(text)?;
        let mut archive = Self { file, members, digest: String::new(), manifest: Value::Null, config: Value::Null };
        let index: Value = archive.json("index.json")?;
        let digest = index["manifests"][0]["digest"].as_str().ok_or("index.json names no manifest")?;
        archive.manifest = archive.json_blob(digest)?;
        archive.digest = digest.to_owned();
        let config = archive.manifest["config"]["digest"].as_str().ok_or("the manifest names no configuration")?;
        archive.config = archive.json_blob(config)?;
        Ok(archive)
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The names of its members. A name that was changed fits no checksum: whoever wrote others meant them.
    fn names(&self) -> Vec<&str> {
        self.members.iter().map(|member| member.name.as_str()).collect()
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, String> {
        let member = self.member(name).ok_or_else(|| format!("it has no {name}"))?;
        if member.size > JSON_LIMIT {
            return Err(format!("{name} is too large for JSON"));
        }
        bytes(&self.file, member.start, member.size, JSON_LIMIT).map_err(|error| error.to_string())
    }

    fn json(&self, name: &str) -> Result<Value, String> {
        serde_json::from_slice(&self.bytes(name)?).map_err(|error| format!("{name}: {error}"))
    }

    fn json_blob(&self, digest: &str) -> Result<Value, String> {
        let name = blob_name(digest);
        if Digest::of(&self.bytes(&name)?).to_string() != digest {
            return Err(format!("{name} has another digest"));
        }
        self.json(&name)
    }

    /// The digests of the layers, lowest first.
    fn layers(&self) -> Vec<&str> {
        let layers = self.manifest["layers"].as_array().into_iter().flatten();
        layers.map(|layer| layer["digest"].as_str().unwrap_or_default()).collect()
    }

    fn compression(&self, layer: usize) -> Compression {
        Compression::of(self.manifest["layers"][layer]["mediaType"].as_str().unwrap_or_default())
    }

    /// Opens the blob of a layer.
    fn layer(&self, layer: usize) -> io::Result<Section> {
        let digest = self.layers().get(layer).map_or(String::new(), |digest| blob_name(digest));
        let member = self.member(&digest).ok_or_else(|| io::Error::other(format!("it has no {digest}")))?;
        section(&self.file, member.start, member.size)
    }

    fn tar(&self, layer: usize) -> io::Result<Box<dyn Read>> {
        self.compression(layer).inflated(self.layer(layer)?)
    }

    /// What made each layer, as the history has it.
    fn history(&self) -> Vec<&str> {
        let history = self.config["history"].as_array().into_iter().flatten();
        let filled = history.filter(|line| line["empty_layer"] != Value::Bool(true));
        filled.map(|line| line["created_by"].as_str().unwrap_or_default()).collect()
    }

    /// What a layer holds: its packages, the application, or the base image.
    fn title(&self, layer: usize) -> String {
        let by = self.history().get(layer).copied().unwrap_or_default();
        match layers::packages_of(by).as_slice() {
            [] if by == layers::APPLICATION => "the application".to_owned(),
            [] => "the base image".to_owned(),
            names => some_of(&names.iter().map(|name| printable(name)).collect::<Vec<_>>()),
        }
    }

    fn facts(&self) -> Facts {
        let labels = self.config["config"]["Labels"].as_object().into_iter().flatten();
        let labels: BTreeMap<String, String> =
            labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
        let mut facts = Facts { labels, ..Facts::default() };
        let history = self.config["history"].as_array().and_then(|history| history.last());
        facts.maker = history.and_then(|line| line["comment"].as_str()).map(printable);
        let last = self.layers().len().saturating_sub(1);
        let tar = self.tar(last).map(|tar| layer::contents(tar, &["app/pixi.lock", "app/pixi.toml"]));
        for (path, content) in tar.into_iter().flatten() {
            match path.as_str() {
                "app/pixi.lock" => facts.lock = Some(content),
                _ => facts.manifest = Some(content),
            }
        }
        facts
    }
}

fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn members(file: &File) -> io::Result<Vec<Member>> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut members = Vec::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (header, start, size) = (entry.raw_header_position(), entry.raw_file_position(), entry.size());
        members.push(Member { name, header, start, size });
    }
    Ok(members)
}

/// What made the layers of an archive, as its history has it.
pub fn makers(file: &mut File) -> Result<Vec<String>, String> {
    Ok(Archive::read(file)?.history().into_iter().map(str::to_owned).collect())
}

/// Says where an archive differs from ours, which is whole; `byte` is the first that does.
pub fn explain(theirs: &mut File, ours: &mut File, byte: u64) -> io::Result<Difference> {
    let ours = Archive::read(ours).map_err(io::Error::other)?;
    match Archive::read(theirs) {
        Ok(theirs) if theirs.digest != ours.digest => another(&theirs, &ours),
        Ok(theirs) if theirs.names() != ours.names() => {
            let mut difference = Difference::new("the archive", "its members are others, or in another order");
            difference
                .causes
                .push(format!("another program wrote it, of the same image: its manifest is {}", ours.digest));
            Ok(difference)
        }
        read => {
            let mut difference = damage(theirs, &ours, byte)?;
            difference.causes.extend(read.ok().and_then(|theirs| another_name(&theirs, &ours)));
            Ok(difference)
        }
    }
}

/// An image that was named otherwise says so in both of its indexes.
fn another_name(theirs: &Archive, ours: &Archive) -> Option<String> {
    let names = |archive: &Archive| {
        let docker = archive.json("manifest.json").ok()?;
        let index = archive.json("index.json").ok()?;
        let tag = docker[0]["RepoTags"][0].as_str()?.to_owned();
        Some((tag, index["manifests"][0]["annotations"]["io.containerd.image.name"].as_str()?.to_owned()))
    };
    let ((theirs, full), (ours, our_full)) = (names(theirs)?, names(ours)?);
    (theirs != ours && full != our_full)
        .then(|| format!("it is called {}, and was to be called {}", printable(&theirs), printable(&ours)))
}

/// An archive that holds together: another image.
fn another(theirs: &Archive, ours: &Archive) -> io::Result<Difference> {
    let (left, right) = (theirs.layers(), ours.layers());
    let differs = |layer: &usize| left.get(*layer) != right.get(*layer);
    let mut difference = match (0..left.len().max(right.len())).find(differs) {
        Some(layer) => {
            let place = format!("layer {} of {} ({})", layer + 1, right.len(), ours.title(layer));
            let titles = (theirs.history(), ours.history());
            match (titles.0.get(layer), titles.1.get(layer)) {
                _ if layer >= right.len() => {
                    let place = format!("layer {} of {} ({})", layer + 1, left.len(), theirs.title(layer));
                    Difference::new(place, "there should be no such layer")
                }
                _ if layer >= left.len() => Difference::new(place, "the file has no such layer"),
                (one, other) if one != other => {
                    Difference::new(place, format!("it is the one of {} instead", theirs.title(layer)))
                }
                _ => in_layer(theirs, ours, layer, &place)?,
            }
        }
        None => document(theirs, ours),
    };
    difference.causes = theirs.facts().causes(&ours.facts());
    if difference.causes.is_empty() {
        difference.causes.push("it is whole, but another image: something else that goes into it was another".into());
    }
    Ok(difference)
}

/// Two images of the same layers.
fn document(theirs: &Archive, ours: &Archive) -> Difference {
    let said = |left: &Value, right: &Value| json::between(left, right);
    match said(&theirs.config, &ours.config) {
        Some(what) => Difference::new("the configuration", what),
        None => {
            let what = said(&theirs.manifest, &ours.manifest);
            Difference::new("the manifest", what.unwrap_or_else(|| "it is written otherwise".into()))
        }
    }
}

fn in_layer(theirs: &Archive, ours: &Archive, layer: usize, place: &str) -> io::Result<Difference> {
    let found = match theirs.tar(layer) {
        Err(error) => Some((String::new(), error.to_string())),
        Ok(_) => layer::difference(&|| theirs.tar(layer), &|| ours.tar(layer))?,
    };
    Ok(match found {
        Some((path, what)) if path.is_empty() => Difference::new(place, what),
        Some((path, what)) => Difference::new(format!("{place}, {path}"), what),
        None => Difference::new(place, "it holds the same files, compressed otherwise"),
    })
}

/// An archive whose bytes no longer fit its digests, or lie otherwise than they should.
fn damage(theirs: &File, ours: &Archive, byte: u64) -> io::Result<Difference> {
    let Some(member) = ours.members.iter().find(|member| byte < member.end()) else {
        return Ok(Difference::new("the end of the archive", "it should be blocks of zeros"));
    };
    let title = title(member, ours);
    if byte < member.start {
        let field = field(&HEADER_FIELDS, byte - member.header).unwrap_or("rest");
        return Ok(Difference::new(format!("the tar header of {title}"), format!("its {field} differs")));
    }
    if byte >= member.start + member.size {
        return Ok(Difference::new(format!("the padding behind {title}"), "it should be zeros"));
    }
    let layer = ours.layers().iter().position(|digest| blob_name(digest) == member.name);
    if let Some(layer) = layer {
        let open = |file: &File| section(file, member.start, member.size);
        let (path, what) =
            layer::damage(ours.compression(layer), &|| open(theirs), &|| open(&ours.file), byte - member.start)?;
        return Ok(Difference::new(format!("{title}, {path}"), what));
    }
    let document = |file: &File| bytes(file, member.start, member.size, JSON_LIMIT);
    let what = json::difference(&document(theirs)?, &document(&ours.file)?);
    Ok(Difference::new(title, what.unwrap_or_else(|| "it says the same, but is written otherwise".into())))
}

/// What a member is, in plain words.
fn title(member: &Member, ours: &Archive) -> String {
    let layers = ours.layers();
    if let Some(layer) = layers.iter().position(|digest| blob_name(digest) == member.name) {
        return format!("layer {} of {} ({})", layer + 1, layers.len(), ours.title(layer));
    }
    let is = |digest: &Value| digest.as_str().is_some_and(|digest| blob_name(digest) == member.name);
    match member.name.as_str() {
        "index.json" => "index.json, which names the image".into(),
        "manifest.json" => "manifest.json, which docker reads".into(),
        name if name == blob_name(&ours.digest) => "the manifest".into(),
        _ if is(&ours.manifest["config"]["digest"]) => "the configuration".into(),
        name => name.to_owned(),
    }
}
