//! The merged file tree of an image: what is left once every layer has been applied.
//!
//! Layers are applied as container runtimes do it: what comes later wins, and parents that are symbolic links to
//! directories are followed inside the root (base images have `bin -> usr/bin`). Nothing here touches a disk.

use std::collections::BTreeMap;

use crate::entry::{ImagePath, Mode};

#[cfg(test)]
mod tests;

/// How many symbolic links one path may lead through: Linux' own limit (path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// The longest path of an entry in bytes; what [`ImagePath`] holds at most.
const MAX_PATH: usize = 4095;

/// A node of a [`Tree`]. Two names with one id are hard links of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The root directory of every tree.
    pub const ROOT: Self = Self(0);

    /// The position among all nodes that the tree ever held: less than [`Tree::capacity`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A file, directory or symbolic link, without its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is and what it holds.
    pub kind: NodeKind,
    /// Its permission bits.
    pub mode: Mode,
    /// Seconds since 1970-01-01 UTC.
    pub mtime: u32,
}

/// The entries of a directory by name, in byte order.
pub type Children = BTreeMap<Box<[u8]>, NodeId>;

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory(Children),
    /// A file.
    File(FileData),
    /// A symbolic link and its target, as the link holds it.
    Symlink(Vec<u8>),
}

/// Where the content of a file lies in a squashfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileData {
    /// The length of the content in bytes.
    pub size: u64,
    /// Where the first block lies, in bytes from the start of the file system. Means nothing without blocks.
    pub start: u64,
    /// The size of each block on the disk, in file order. Bit 24 is set where the block is stored as it is; 0 is a block
    /// of zeros that takes no room. Empty for a file that lies wholly in a fragment.
    pub blocks: Vec<u32>,
    /// Where the bytes after the last full block lie, if not in a block of their own.
    pub fragment: Option<FragmentRef>,
    /// How many bytes of the content are in blocks of zeros.
    pub sparse: u64,
}

/// A place in a fragment, which is a block shared by the ends of several files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentRef {
    /// The fragment's place in the list of all fragments.
    pub index: u32,
    /// Where the bytes begin in the uncompressed fragment.
    pub offset: u32,
}

/// Why an entry cannot be put into the tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A parent of the path is a file.
    #[error("cannot place `{path}` in the image: `{parent}` is not a directory")]
    NotADirectory {
        /// The entry.
        path: ImagePath,
        /// What stands in the way, made printable.
        parent: String,
    },
    /// The parents lead through a loop of symbolic links, or through very many.
    #[error("cannot place `{0}` in the image: its path leads through more than {MAX_LINKS} symbolic links, or a loop")]
    TooManyLinks(ImagePath),
    /// The path is too long once the symbolic links among its parents are followed.
    #[error("cannot place `{0}` in the image: with its symbolic links followed it is longer than {MAX_PATH} bytes")]
    TooLong(ImagePath),
    /// A symbolic link that no file system can hold.
    #[error("the symbolic link `{path}` {reason}")]
    BadSymlink {
        /// The link.
        path: ImagePath,
        /// What is wrong with its target, as the end of the sentence.
        reason: &'static str,
    },
    /// A hard link to nothing.
    #[error("cannot make `{path}` a hard link to `{target}`: there is no such file in the image so far")]
    NoTarget {
        /// The new name.
        path: ImagePath,
        /// The file it should be.
        target: ImagePath,
    },
    /// A hard link to a directory.
    #[error("cannot make `{path}` a hard link to `{target}`: that is a directory")]
    TargetIsDirectory {
        /// The new name.
        path: ImagePath,
        /// The directory.
        target: ImagePath,
    },
    /// More nodes than a squashfs can number.
    #[error("cannot place `{0}` in the image: it already holds 4294967295 entries")]
    Full(ImagePath),
}

/// The merged file tree of an image.
///
/// The nodes stand in one arena. One that is replaced or removed stays there without a name, for what layers replace is
/// little beside what they add.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    /// A tree with nothing but a root directory.
    pub fn new(mode: Mode, mtime: u32) -> Self {
        Self { nodes: vec![Node { kind: NodeKind::Directory(Children::new()), mode, mtime }] }
    }

    /// The node of an id that this tree gave out.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// One more than the largest [`NodeId::index`] in use.
    pub fn capacity(&self) -> usize {
        self.nodes.len()
    }

    /// Puts a directory. One that is there already keeps its entries and takes the new mode and time; anything else in
    /// its place, a symbolic link too, is replaced.
    pub fn insert_directory(&mut self, path: &ImagePath, mode: Mode, mtime: u32) -> Result<(), TreeError> {
        let parent = self.make_parents(path)?;
        if let Some(id) = self.child(parent, path.file_name())
            && let Node { kind: NodeKind::Directory(_), mode: old_mode, mtime: old_mtime } = &mut self.nodes[id.index()]
        {
            (*old_mode, *old_mtime) = (mode, mtime);
            return Ok(());
        }
        let id = self.push(path, Node { kind: NodeKind::Directory(Children::new()), mode, mtime })?;
        self.link(parent, path, id)
    }

    /// Puts a file in the place of whatever is there.
    pub fn insert_file(&mut self, path: &ImagePath, mode: Mode, mtime: u32, data: FileData) -> Result<(), TreeError> {
        self.insert(path, Node { kind: NodeKind::File(data), mode, mtime })
    }

    /// Puts a symbolic link in the place of whatever is there. The target may point anywhere, or to nothing.
    pub fn insert_symlink(
        &mut self,
        path: &ImagePath,
        target: impl Into<Vec<u8>>,
        mtime: u32,
    ) -> Result<(), TreeError> {
        let target = target.into();
        let bad = |reason| Err(TreeError::BadSymlink { path: path.clone(), reason });
        match target.len() {
            0 => bad("has no target"),
            1..=MAX_PATH if target.contains(&0) => bad("has a target with a NUL byte"),
            1..=MAX_PATH => self.insert(path, Node { kind: NodeKind::Symlink(target), mode: Mode::SYMLINK, mtime }),
            _ => bad("has a target of more than 4095 bytes"),
        }
    }

    /// Gives the file or symbolic link `target` a second name, in the place of whatever is there.
    pub fn insert_hardlink(&mut self, path: &ImagePath, target: &ImagePath) -> Result<(), TreeError> {
        let id = match self.get(target) {
            Some((id, node)) if !matches!(node.kind, NodeKind::Directory(_)) => id,
            Some(_) => return Err(TreeError::TargetIsDirectory { path: path.clone(), target: target.clone() }),
            None => return Err(TreeError::NoTarget { path: path.clone(), target: target.clone() }),
        };
        let parent = self.make_parents(path)?;
        self.link(parent, path, id)
    }

    /// Moves what stands at `from`, and all below it, to `to`, in the place of whatever is there; says whether there was
    /// anything.
    pub fn rename(&mut self, from: &ImagePath, to: &ImagePath) -> Result<bool, TreeError> {
        let Some((id, _)) = self.get(from) else { return Ok(false) };
        if to.as_bytes().len() + self.longest_below(id) > MAX_PATH {
            return Err(TreeError::TooLong(to.clone()));
        }
        self.remove(from);
        let parent = self.make_parents(to)?;
        self.link(parent, to, id)?;
        Ok(true)
    }

    /// Takes away what stands at `path` and all below it (a whiteout); says whether there was anything.
    ///
    /// A whiteout means the layers below its own (OCI image-spec, layer.md, "Whiteouts"): apply those of a layer before
    /// its entries.
    pub fn remove(&mut self, path: &ImagePath) -> bool {
        let Some(parent) = self.find_parent(path) else { return false };
        match &mut self.nodes[parent.index()].kind {
            NodeKind::Directory(children) => children.remove(path.file_name()).is_some(),
            _ => false,
        }
    }

    /// Takes away all that stands in a directory, but not the directory (an opaque whiteout). None is the root.
    ///
    /// A symbolic link to a directory is followed. What [`Tree::remove`] says of layers holds here too.
    pub fn clear(&mut self, directory: Option<&ImagePath>) {
        let mut walker = Walker::new(directory.map_or(b"", ImagePath::as_bytes));
        if walker.advance(self) == Stop::Arrived
            && let NodeKind::Directory(children) = &mut self.nodes[walker.here().index()].kind
        {
            children.clear();
        }
    }

    /// What stands at `path`. Symbolic links among its parents are followed inside the root, the last part is not.
    pub fn get(&self, path: &ImagePath) -> Option<(NodeId, &Node)> {
        let id = self.child(self.find_parent(path)?, path.file_name())?;
        Some((id, self.node(id)))
    }

    /// Where `path` leads to with every symbolic link followed inside the root, so that an absolute target starts at the
    /// root and `..` stops there. None if that is nothing, a loop, or the root itself, which has no [`ImagePath`].
    pub fn resolve(&self, path: &ImagePath) -> Option<ImagePath> {
        let mut walker = Walker::new(path.as_bytes());
        match walker.advance(self) {
            Stop::Arrived => ImagePath::new(walker.path).ok(),
            _ => None,
        }
    }

    /// Every entry but the root: each directory before what it holds, the names of one directory in byte order.
    pub fn walk(&self) -> Walk<'_> {
        let stack = match &self.node(NodeId::ROOT).kind {
            NodeKind::Directory(children) => vec![(children.iter(), 0)],
            _ => Vec::new(),
        };
        Walk { tree: self, stack, path: Vec::new() }
    }

    /// The length of the longest path below a node, with the `/` before it.
    fn longest_below(&self, id: NodeId) -> usize {
        let (mut longest, mut pending) = (0, vec![(id, 0)]);
        while let Some((id, length)) = pending.pop() {
            longest = longest.max(length);
            if let NodeKind::Directory(children) = &self.node(id).kind {
                pending.extend(children.iter().map(|(name, child)| (*child, length + 1 + name.len())));
            }
        }
        longest
    }

    fn insert(&mut self, path: &ImagePath, node: Node) -> Result<(), TreeError> {
        let parent = self.make_parents(path)?;
        let id = self.push(path, node)?;
        self.link(parent, path, id)
    }

    fn push(&mut self, path: &ImagePath, node: Node) -> Result<NodeId, TreeError> {
        // Inode numbers begin at 1 and the root's parent takes one after the last: two fewer than there are u32.
        match u32::try_from(self.nodes.len()) {
            Ok(next) if next < u32::MAX - 1 => {
                self.nodes.push(node);
                Ok(NodeId(next))
            }
            _ => Err(TreeError::Full(path.clone())),
        }
    }

    /// Names `id` by the last part of `path`, in the directory `parent`.
    fn link(&mut self, parent: NodeId, path: &ImagePath, id: NodeId) -> Result<(), TreeError> {
        match &mut self.nodes[parent.index()].kind {
            NodeKind::Directory(children) => {
                children.insert(path.file_name().into(), id);
                Ok(())
            }
            _ => Err(TreeError::NotADirectory { path: path.clone(), parent: "its parent".into() }),
        }
    }

    fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(directory).kind {
            NodeKind::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    fn find_parent(&self, path: &ImagePath) -> Option<NodeId> {
        let mut walker = Walker::to_parent_of(path);
        (walker.advance(self) == Stop::Arrived).then(|| walker.here())
    }

    /// Finds the directory that holds `path`; what is missing on the way, also behind a symbolic link, is made.
    fn make_parents(&mut self, path: &ImagePath) -> Result<NodeId, TreeError> {
        let mut walker = Walker::to_parent_of(path);
        loop {
            let stop = walker.advance(self);
            let is_directory = matches!(self.node(walker.here()).kind, NodeKind::Directory(_));
            let name = if stop == Stop::Missing { walker.part() } else { path.file_name() };
            if walker.path.len() + 1 + name.len() > MAX_PATH {
                return Err(TreeError::TooLong(path.clone()));
            }
            match stop {
                Stop::TooManyLinks => return Err(TreeError::TooManyLinks(path.clone())),
                Stop::Arrived if is_directory => return Ok(walker.here()),
                Stop::Missing if name.len() <= 255 => {
                    let name = name.into();
                    let made = Node { kind: NodeKind::Directory(Children::new()), mode: Mode::EXECUTABLE, mtime: 0 };
                    let made = self.push(path, made)?;
                    if let NodeKind::Directory(children) = &mut self.nodes[walker.here().index()].kind {
                        children.insert(name, made);
                    }
                }
                Stop::Missing => return Err(TreeError::TooLong(path.clone())),
                Stop::Arrived | Stop::NotADirectory => {
                    let parent = String::from_utf8_lossy(&walker.path).into_owned();
                    return Err(TreeError::NotADirectory { path: path.clone(), parent });
                }
            }
        }
    }
}

/// The entries of a [`Tree`], see [`Tree::walk`].
pub struct Walk<'a> {
    tree: &'a Tree,
    /// The open directories: what is left of each, and the length of its path.
    stack: Vec<(<&'a Children as IntoIterator>::IntoIter, usize)>,
    path: Vec<u8>,
}

impl<'a> Iterator for Walk<'a> {
    type Item = (ImagePath, NodeId, &'a Node);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (children, length) = self.stack.last_mut()?;
            self.path.truncate(*length);
            let Some((name, &id)) = children.next() else {
                self.stack.pop();
                continue;
            };
            push_part(&mut self.path, name);
            let node = self.tree.node(id);
            if let NodeKind::Directory(children) = &node.kind {
                self.stack.push((children.iter(), self.path.len()));
            }
            let path = ImagePath::new(&self.path).expect("every name came from an ImagePath, the length was checked");
            return Some((path, id, node));
        }
    }
}

fn push_part(path: &mut Vec<u8>, part: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(part);
}

/// Walks from the root along a path and follows every symbolic link inside the root.
struct Walker {
    /// The directories from the root to where the walk stands.
    stack: Vec<NodeId>,
    /// The path of where it stands, without symbolic links.
    path: Vec<u8>,
    /// What is still to be walked begins at `at` in `rest`.
    rest: Vec<u8>,
    at: usize,
    links: u32,
}

/// Why a walk came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Every part was walked.
    Arrived,
    /// There is no entry for [`Walker::part`] in the directory where the walk stands; once there is, it can go on.
    Missing,
    /// The walk stands at a file and there are parts left.
    NotADirectory,
    TooManyLinks,
}

impl Walker {
    fn new(path: &[u8]) -> Self {
        Self { stack: vec![NodeId::ROOT], path: Vec::new(), rest: path.to_vec(), at: 0, links: 0 }
    }

    fn to_parent_of(path: &ImagePath) -> Self {
        let parent = path.as_bytes().len() - path.file_name().len();
        Self::new(&path.as_bytes()[..parent])
    }

    fn here(&self) -> NodeId {
        self.stack.last().copied().unwrap_or(NodeId::ROOT)
    }

    /// The next part to walk; empty at the end.
    fn part(&self) -> &[u8] {
        let rest = &self.rest[self.at..];
        rest.split(|byte| *byte == b'/').next().unwrap_or(rest)
    }

    fn advance(&mut self, tree: &Tree) -> Stop {
        loop {
            while self.rest.get(self.at) == Some(&b'/') {
                self.at += 1;
            }
            if self.at == self.rest.len() {
                return Stop::Arrived;
            }
            let NodeKind::Directory(children) = &tree.node(self.here()).kind else { return Stop::NotADirectory };
            let part = self.part();
            let after = self.at + part.len();
            match part {
                b"." => {}
                b".." => self.up(),
                part => {
                    let Some(&id) = children.get(part) else { return Stop::Missing };
                    if let NodeKind::Symlink(target) = &tree.node(id).kind {
                        if !self.follow(target, after) {
                            return Stop::TooManyLinks;
                        }
                        continue;
                    }
                    push_part(&mut self.path, &self.rest[self.at..after]);
                    self.stack.push(id);
                }
            }
            self.at = after;
        }
    }

    /// To the directory above; the root is above itself.
    fn up(&mut self) {
        if self.stack.len() > 1 {
            self.stack.pop();
        }
        let slash = self.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.path.truncate(slash);
    }

    /// Goes on with `target`, then with what is left from `after` on. False if that leads nowhere.
    fn follow(&mut self, target: &[u8], after: usize) -> bool {
        self.links += 1;
        let rest = [target, b"/", &self.rest[after..]].concat();
        // Links that each bring a long rest would cost memory long before there are 40 of them.
        if self.links > MAX_LINKS || rest.len() > 2 * (MAX_PATH + 1) {
            return false;
        }
        if target.starts_with(b"/") {
            self.stack.truncate(1);
            self.path.clear();
        }
        (self.rest, self.at) = (rest, 0);
        true
    }
}
