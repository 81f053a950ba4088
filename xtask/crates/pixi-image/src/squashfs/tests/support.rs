//! A small packer, and the readers that judge what comes out.

use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::*;

pub fn path(text: &str) -> ImagePath {
    ImagePath::new(text).unwrap()
}

/// Bytes that do not compress, the same at each call.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(size).collect()
}

/// An image whose data lies in memory.
pub struct Image {
    pub tree: Tree,
    /// The file system so far, with room for the superblock.
    data: Vec<u8>,
    fragments: Vec<Fragment>,
    open_fragment: Vec<u8>,
    contents: BTreeMap<NodeId, Vec<u8>>,
}

/// What a reader sees of an entry: its mode, time and kind with content or target.
pub type Contents = BTreeMap<Vec<u8>, (u16, u32, Kind)>;

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
}

impl Image {
    pub fn new() -> Self {
        Self {
            tree: Tree::new(Mode::EXECUTABLE, 0),
            data: vec![0; SUPERBLOCK_SIZE as usize],
            fragments: Vec::new(),
            open_fragment: Vec::new(),
            contents: BTreeMap::new(),
        }
    }

    pub fn file(&mut self, at: &str, mode: u16, content: &[u8]) {
        self.try_file(&path(at), Mode(mode), content).unwrap();
    }

    pub fn try_file(&mut self, at: &ImagePath, mode: Mode, content: &[u8]) -> Result<(), crate::tree::TreeError> {
        let data = self.pack(content);
        self.tree.insert_file(at, mode, 1_700_000_000, data)?;
        let id = self.tree.get(at).unwrap().0;
        self.contents.insert(id, content.to_vec());
        Ok(())
    }

    /// Tails go to fragments, but for those of files of an odd number of full blocks: both forms must be readable.
    fn pack(&mut self, content: &[u8]) -> FileData {
        let mut data = FileData { size: content.len() as u64, start: self.data.len() as u64, ..FileData::default() };
        let full = content.len() / BLOCK_SIZE * BLOCK_SIZE;
        let (blocks, tail) = if full / BLOCK_SIZE % 2 == 1 { (content, [].as_slice()) } else { content.split_at(full) };
        for block in blocks.chunks(BLOCK_SIZE) {
            let size = if block.iter().all(|byte| *byte == 0) {
                data.sparse += block.len() as u64;
                0
            } else {
                self.write_block(block)
            };
            data.blocks.push(size);
        }
        if !tail.is_empty() {
            if self.open_fragment.len() + tail.len() > BLOCK_SIZE {
                self.close_fragment();
            }
            let offset = self.open_fragment.len() as u32;
            data.fragment = Some(FragmentRef { index: self.fragments.len() as u32, offset });
            self.open_fragment.extend_from_slice(tail);
        }
        data
    }

    fn write_block(&mut self, block: &[u8]) -> u32 {
        let mut compressed = vec![0; block.len()];
        match libdeflater::Compressor::default().zlib_compress(block, &mut compressed) {
            Ok(size) if size < block.len() => {
                self.data.extend_from_slice(&compressed[..size]);
                size as u32
            }
            _ => {
                self.data.extend_from_slice(block);
                block.len() as u32 | STORED_RAW
            }
        }
    }

    fn close_fragment(&mut self) {
        if !self.open_fragment.is_empty() {
            let block = std::mem::take(&mut self.open_fragment);
            let start = self.data.len() as u64;
            let size = self.write_block(&block);
            self.fragments.push(Fragment { start, size });
        }
    }

    /// The whole file system.
    pub fn bytes(&self, mtime: u32) -> Vec<u8> {
        let mut whole = Self {
            tree: self.tree.clone(),
            data: self.data.clone(),
            fragments: self.fragments.clone(),
            open_fragment: self.open_fragment.clone(),
            contents: BTreeMap::new(),
        };
        whole.close_fragment();
        let tables = tables(&whole.tree, &whole.fragments, whole.data.len() as u64, mtime).unwrap();
        whole.data[..SUPERBLOCK_SIZE as usize].copy_from_slice(&tables.superblock);
        [whole.data, tables.tail].concat()
    }

    pub fn contents(&self) -> Contents {
        let kind = |id, node: &Node| match &node.kind {
            NodeKind::Directory(_) => Kind::Directory,
            NodeKind::File(_) => Kind::File(self.contents[&id].clone()),
            NodeKind::Symlink(target) => Kind::Symlink(target.clone()),
        };
        let entries = self.tree.walk();
        entries.map(|(path, id, node)| (path.as_bytes().to_vec(), (node.mode.0, node.mtime, kind(id, node)))).collect()
    }

    /// Writes the tree to a directory without the help of any squashfs code.
    pub fn extract(&self, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for (path, (_, _, kind)) in self.contents() {
            let place = to.join(std::ffi::OsStr::from_bytes(&path));
            match kind {
                Kind::Directory => std::fs::create_dir(place).unwrap(),
                Kind::File(content) => std::fs::write(place, content).unwrap(),
                Kind::Symlink(target) => {
                    std::os::unix::fs::symlink(std::ffi::OsString::from_vec(target), place).unwrap();
                }
            }
        }
    }

    /// What `find` should print of the tree, see [`listing`].
    pub fn listing(&self, mode_mask: u16, links_of_directories: bool) -> Vec<String> {
        let mut links = BTreeMap::new();
        for (_, id, _) in self.tree.walk() {
            *links.entry(id).or_insert(0) += 1;
        }
        let line = |(path, id, node): (ImagePath, NodeId, &Node)| {
            let text = String::from_utf8_lossy(path.as_bytes()).into_owned();
            let (kind, number, size) = match &node.kind {
                NodeKind::Directory(children) => {
                    let is_directory = |id: &&NodeId| matches!(self.tree.node(**id).kind, NodeKind::Directory(_));
                    ("d", 2 + children.values().filter(is_directory).count(), 0)
                }
                NodeKind::File(data) => ("f", links[&id], data.size),
                NodeKind::Symlink(target) => ("l", links[&id], target.len() as u64),
            };
            let mode = node.mode.0 & mode_mask;
            match kind {
                "d" if links_of_directories => format!("{text} d {mode:o} {} {number}", node.mtime),
                "d" => format!("{text} d {mode:o} {}", node.mtime),
                kind => format!("{text} {kind} {mode:o} {} {number} {size}", node.mtime),
            }
        };
        let mut lines: Vec<String> = self.tree.walk().map(line).collect();
        lines.sort();
        lines
    }
}

/// One of every sort of entry that needs an encoding of its own.
pub fn zoo() -> Image {
    let mut image = Image::new();
    image.tree.insert_directory(&path("empty"), Mode(0o700), 12).unwrap();
    image.tree.insert_directory(&path("tmp"), Mode(0o1777), u32::MAX).unwrap();
    image.file("files/empty", 0o644, b"");
    image.file("files/one byte", 0o755, b"x");
    image.file("files/setuid", 0o4755, b"#!/bin/sh\n");
    for (name, size) in [("exact", BLOCK_SIZE), ("two", 2 * BLOCK_SIZE), ("below", BLOCK_SIZE - 1)] {
        image.file(&format!("files/{name} noise"), 0o644, &noise(size));
        image.file(&format!("files/{name} text"), 0o644, &b"0123456789abcde\n".repeat(size)[..size]);
    }
    for blocks in 1..=3 {
        image.file(&format!("files/{blocks} blocks and a tail"), 0o600, &noise(blocks * BLOCK_SIZE + 77));
        image.file(&format!("zeros/{blocks}"), 0o644, &vec![0; blocks * BLOCK_SIZE]);
        image.file(&format!("zeros/{blocks} and a tail"), 0o644, &vec![0; blocks * BLOCK_SIZE + 5]);
    }
    for number in 0..400 {
        image.file(&format!("small/{number}"), 0o644, format!("number {number}\n").repeat(number).as_bytes());
        image.file(&format!("dirs/{}/{number}", number % 37), 0o644, b"");
        image.file(&format!("long/{number}-{}", "n".repeat(251)), 0o644, b"long");
    }
    image.file("small/last in a full fragment", 0o644, &noise(BLOCK_SIZE / 2));
    for (name, target) in
        [("relative", "../files/empty"), ("absolute", "/files"), ("nowhere", "no/such"), ("loop", "loop")]
    {
        image.tree.insert_symlink(&path(&format!("links/{name}")), target, 1).unwrap();
    }
    image.tree.insert_symlink(&path("links/long"), "t".repeat(255), 1).unwrap();
    for name in [b"bytes/\xff\xfe".as_slice(), b"bytes/\xc3\xa9", b"bytes/new\nline", b"bytes/\x01", b"bytes/ "] {
        image.try_file(&ImagePath::new(name).unwrap(), Mode::FILE, name).unwrap();
    }
    image.file(&format!("{}end", "d/".repeat(100)), 0o644, b"deep");
    image.tree.insert_hardlink(&path("a hard link"), &path("files/two text")).unwrap();
    image.tree.insert_hardlink(&path("zz hard link"), &path("files/one byte")).unwrap();
    image
}

pub fn backhand_contents(image: &[u8]) -> Contents {
    let filesystem = FilesystemReader::from_reader(Cursor::new(image)).unwrap();
    let mut contents = Contents::new();
    for node in filesystem.files().filter(|node| node.fullpath != Path::new("/")) {
        let kind = match &node.inner {
            InnerNode::Dir(_) => Kind::Directory,
            InnerNode::Symlink(link) => Kind::Symlink(link.link.as_os_str().as_bytes().to_vec()),
            InnerNode::File(file) => {
                let mut content = Vec::new();
                filesystem.file(file).reader().read_to_end(&mut content).unwrap();
                Kind::File(content)
            }
            other => panic!("{other:?}"),
        };
        let header = node.header;
        assert_eq!((header.uid, header.gid), (0, 0));
        let path = node.fullpath.as_os_str().as_bytes()[1..].to_vec();
        assert!(contents.insert(path, (header.permissions, header.mtime, kind)).is_none(), "{:?}", node.fullpath);
    }
    contents
}

/// The uncompressed metadata blocks between two places, by where each begins after the first.
pub fn metadata_blocks(image: &[u8], start: u64, end: u64) -> BTreeMap<u64, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    let mut at = start as usize;
    while at < end as usize {
        let header = u16::from_le_bytes(image[at..at + 2].try_into().unwrap());
        let stored = &image[at + 2..at + 2 + usize::from(header & 0x7fff)];
        let block = if header & 0x8000 != 0 {
            stored.to_vec()
        } else {
            let mut block = vec![0; 8192];
            let size = libdeflater::Decompressor::new().zlib_decompress(stored, &mut block).unwrap();
            block.truncate(size);
            block
        };
        blocks.insert(at as u64 - start, block);
        at += 2 + stored.len();
    }
    blocks
}

/// The records of a lookup table whose list of places stands at `list`.
pub fn lookup_records(image: &[u8], list: u64) -> Vec<u8> {
    let first = u64::from_le_bytes(image[list as usize..][..8].try_into().unwrap());
    metadata_blocks(image, first, list).into_values().flatten().collect()
}

/// A reader that is not part of this workspace, and may be absent.
#[derive(Clone, Copy, Debug)]
pub enum Reader {
    Unsquashfs,
    /// A mount by the running kernel, in a mount namespace of its own; needs root.
    Linux,
}

impl Reader {
    /// The command to run it, or none after a line that says so. Where engines are required that is a failure.
    pub fn command(self) -> Option<Command> {
        let (command, trial) = match self {
            Self::Unsquashfs => (Command::new("unsquashfs"), "unsquashfs -version | grep -q unsquashfs"),
            Self::Linux => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-euc"]);
                (
                    command,
                    "losetup --find && unshare --mount mount -t tmpfs none /mnt && grep -qw squashfs /proc/filesystems",
                )
            }
        };
        let works = Command::new("sh").args(["-c", trial]).output().is_ok_and(|tried| tried.status.success());
        if !works {
            assert!(
                std::env::var_os("XTASK_REQUIRE_ENGINES").is_none_or(|set| set != "1"),
                "{self:?} is required here"
            );
            println!("skipped: this machine cannot read a squashfs with {self:?}");
        }
        works.then_some(command)
    }
}

pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Mounts the image and runs `script` inside, with `$SOURCE`; none if this machine cannot.
pub fn kernel(image: &[u8], source: &Path, script: &str) -> Option<String> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(image).unwrap();
    kernel_file(&file, source, script)
}

pub fn kernel_file(image: &File, source: &Path, script: &str) -> Option<String> {
    use std::os::fd::AsRawFd;
    let mut command = Reader::Linux.command()?;
    let place = tempfile::tempdir().unwrap();
    let name = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
    let mount = r#"mount -t squashfs -o loop,ro "$IMAGE" "$PLACE"; cd "$PLACE"; set +e"#;
    command.arg(format!("{mount}\n{script}\n")).env("IMAGE", name).env("PLACE", place.path()).env("SOURCE", source);
    Some(output(&mut command))
}

/// Prints path, kind, mode, time, and for all but directories links and size.
const LIST: &str = r"find . -mindepth 1 '(' -type d -printf '%P d %m %Ts\0' -o -printf '%P %y %m %Ts %n %s\0' ')'";
/// The same with the links of directories, which some file systems of the host do not count.
pub const LIST_WITH_LINKS: &str =
    r"find . -mindepth 1 '(' -type d -printf '%P d %m %Ts %n\0' -o -printf '%P %y %m %Ts %n %s\0' ')'";

pub fn sorted(listing: &str) -> Vec<String> {
    let mut lines: Vec<String> = listing.split_terminator('\0').map(str::to_owned).collect();
    lines.sort();
    lines
}

/// What `find` sees of a directory, as [`Image::listing`] says it without the links of directories.
pub fn listing(directory: &Path) -> Vec<String> {
    sorted(&output(Command::new("sh").args(["-c", LIST]).current_dir(directory)))
}
