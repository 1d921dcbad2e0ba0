//! The oracle: a naive filesystem, what a real one must look like.
//!
//! It keeps every byte in memory and has no tiers, no log and no crash, and so hardly any way to be
//! wrong. The same operations are done to it and to a real filesystem; both must refuse the same
//! ones and have the same tree, whatever was snapshotted, evicted, recalled or reopened in between.

use std::collections::BTreeMap;

use crate::workload::{FsOp, Name};

/// An inode of the model. Numbers are the model's own.
type NodeId = usize;

/// Why the model refuses an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModelError {
    /// No such entry.
    NotFound,
    /// The name is taken.
    Exists,
    /// Something else that the real filesystem must refuse as well.
    Refused,
}

/// One inode.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Node {
    /// Content of a file, entries of a directory.
    content: Content,
    /// Permission bits.
    pub mode: u16,
    /// One extended attribute, if it is set.
    pub xattr: Option<Vec<u8>>,
}

/// What a node holds.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    /// A file's bytes.
    File(Vec<u8>),
    /// A symbolic link's target.
    Symlink(Vec<u8>),
    /// A directory's entries.
    Directory(BTreeMap<String, NodeId>),
}

/// An entry of a tree, for comparing: what a walk of the real filesystem finds.
#[derive(Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Content; a directory's is empty.
    pub content: Option<Vec<u8>>,
    /// Permission bits.
    pub mode: u16,
    /// The extended attribute.
    pub xattr: Option<Vec<u8>>,
    /// Names of the same inode.
    pub nlink: usize,
}

impl std::fmt::Debug for TreeEntry {
    /// Content as runs of equal bytes, so that a failed comparison can be read.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let content = self.content.as_ref().map(|bytes| {
            let runs = bytes.chunk_by(|a, b| a == b).take(20);
            runs.map(|run| (run[0], run.len())).collect::<Vec<_>>()
        });
        let Self { mode, xattr, nlink, .. } = self;
        write!(f, "{content:?} {mode:o} {xattr:?} {nlink}")
    }
}

/// The model.
#[derive(Clone, Debug)]
pub struct Model {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
}

const ROOT: NodeId = 0;

impl Default for Model {
    fn default() -> Self {
        let content = Content::Directory(BTreeMap::new());
        let root = Node { content, mode: 0o755, xattr: None };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1 }
    }
}

impl Model {
    /// Does an operation, or says why not.
    pub fn apply(&mut self, op: &FsOp) -> Result<(), ModelError> {
        match op {
            FsOp::Create(name) => self.insert(*name, Content::File(Vec::new()), 0o644),
            FsOp::Mkdir(name) => self.insert(*name, Content::Directory(BTreeMap::new()), 0o755),
            FsOp::Symlink(name, target) => {
                self.insert(*name, Content::Symlink(vec![*target; 5]), 0o777)
            }
            FsOp::Link(from, to) => {
                let node = self.find(*from)?;
                if matches!(self.nodes[&node].content, Content::Directory(_)) {
                    return Err(ModelError::Refused);
                }
                self.add_entry(*to, node)
            }
            FsOp::Unlink(name) => self.remove(*name, false),
            FsOp::Rmdir(name) => self.remove(*name, true),
            FsOp::Rename(from, to) => self.rename(*from, *to),
            FsOp::Exchange(a, b) => self.exchange(*a, *b),
            FsOp::Write { name, offset, len, byte } => self.file(*name, |content| {
                let end = offset + len;
                content.resize(content.len().max(end), 0);
                content[*offset..end].fill(*byte);
            }),
            FsOp::Truncate { name, size } => self.file(*name, |content| content.resize(*size, 0)),
            FsOp::Punch { name, offset, len } => self.file(*name, |content| {
                let end = (offset + len).min(content.len());
                if let Some(hole) = content.get_mut(*offset..end) {
                    hole.fill(0);
                }
            }),
            FsOp::Chmod(name, mode) => {
                let node = self.find(*name)?;
                self.nodes.get_mut(&node).unwrap().mode = *mode;
                Ok(())
            }
            FsOp::SetXattr(name, byte) => {
                let node = self.find(*name)?;
                self.nodes.get_mut(&node).unwrap().xattr = Some(vec![*byte; 10]);
                Ok(())
            }
        }
    }

    /// Everything, by path.
    pub fn tree(&self) -> BTreeMap<String, TreeEntry> {
        let mut tree = BTreeMap::new();
        self.walk(ROOT, "", &mut tree);
        tree
    }

    fn walk(&self, node: NodeId, path: &str, tree: &mut BTreeMap<String, TreeEntry>) {
        let Node { content, mode, xattr } = &self.nodes[&node];
        let bytes = match content {
            Content::File(bytes) | Content::Symlink(bytes) => Some(bytes.clone()),
            Content::Directory(entries) => {
                for (name, child) in entries {
                    self.walk(*child, &format!("{path}/{name}"), tree);
                }
                None
            }
        };
        let nlink = self.count_names(node);
        let entry = TreeEntry { content: bytes, mode: *mode, xattr: xattr.clone(), nlink };
        tree.insert(path.to_string(), entry);
    }

    fn count_names(&self, node: NodeId) -> usize {
        let names = |n: &Node| match &n.content {
            Content::Directory(entries) => entries.values().filter(|id| **id == node).count(),
            Content::File(_) | Content::Symlink(_) => 0,
        };
        self.nodes.values().map(names).sum()
    }

    fn dir(&mut self, name: Name) -> Result<&mut BTreeMap<String, NodeId>, ModelError> {
        let mut at = ROOT;
        if let Some(dir) = name.dir() {
            let Content::Directory(entries) = &self.nodes[&ROOT].content else { unreachable!() };
            at = *entries.get(dir).ok_or(ModelError::NotFound)?;
        }
        match &mut self.nodes.get_mut(&at).unwrap().content {
            Content::Directory(entries) => Ok(entries),
            Content::File(_) | Content::Symlink(_) => Err(ModelError::Refused),
        }
    }

    fn find(&mut self, name: Name) -> Result<NodeId, ModelError> {
        self.dir(name)?.get(name.base()).copied().ok_or(ModelError::NotFound)
    }

    fn insert(&mut self, name: Name, content: Content, mode: u16) -> Result<(), ModelError> {
        let node = self.next;
        self.add_entry(name, node)?;
        self.nodes.insert(node, Node { content, mode, xattr: None });
        self.next += 1;
        Ok(())
    }

    fn add_entry(&mut self, name: Name, node: NodeId) -> Result<(), ModelError> {
        let entries = self.dir(name)?;
        if entries.contains_key(name.base()) {
            return Err(ModelError::Exists);
        }
        entries.insert(name.base().to_string(), node);
        Ok(())
    }

    fn is_dir(&self, node: NodeId) -> bool {
        matches!(self.nodes[&node].content, Content::Directory(_))
    }

    fn is_empty(&self, node: NodeId) -> bool {
        matches!(&self.nodes[&node].content, Content::Directory(entries) if entries.is_empty())
    }

    fn remove(&mut self, name: Name, dir: bool) -> Result<(), ModelError> {
        let node = self.find(name)?;
        if self.is_dir(node) != dir || (dir && !self.is_empty(node)) {
            return Err(ModelError::Refused);
        }
        self.dir(name)?.remove(name.base());
        self.drop_unnamed(node);
        Ok(())
    }

    fn drop_unnamed(&mut self, node: NodeId) {
        if self.count_names(node) == 0 {
            self.nodes.remove(&node);
        }
    }

    fn rename(&mut self, from: Name, to: Name) -> Result<(), ModelError> {
        let node = self.find(from)?;
        let target = self.dir(to)?.get(to.base()).copied();
        if self.is_dir(node) && to.dir() == Some(from.base()) && from.dir().is_none() {
            return Err(ModelError::Refused);
        }
        if let Some(target) = target {
            if target == node {
                return Ok(());
            }
            if self.is_dir(node) != self.is_dir(target)
                || (self.is_dir(target) && !self.is_empty(target))
            {
                return Err(ModelError::Refused);
            }
        }
        self.dir(from)?.remove(from.base());
        self.dir(to)?.insert(to.base().to_string(), node);
        if let Some(target) = target {
            self.drop_unnamed(target);
        }
        Ok(())
    }

    fn exchange(&mut self, a: Name, b: Name) -> Result<(), ModelError> {
        let (node_a, node_b) = (self.find(a)?, self.find(b)?);
        let into_itself = |dir: bool, from: Name, to: Name| {
            dir && to.dir() == Some(from.base()) && from.dir().is_none()
        };
        if into_itself(self.is_dir(node_a), a, b) || into_itself(self.is_dir(node_b), b, a) {
            return Err(ModelError::Refused);
        }
        self.dir(a)?.insert(a.base().to_string(), node_b);
        self.dir(b)?.insert(b.base().to_string(), node_a);
        Ok(())
    }

    fn file(&mut self, name: Name, change: impl FnOnce(&mut Vec<u8>)) -> Result<(), ModelError> {
        let node = self.find(name)?;
        match &mut self.nodes.get_mut(&node).unwrap().content {
            Content::File(content) => {
                change(content);
                Ok(())
            }
            Content::Symlink(_) | Content::Directory(_) => Err(ModelError::Refused),
        }
    }
}
