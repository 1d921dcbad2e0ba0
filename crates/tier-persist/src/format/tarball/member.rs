//! A member as a value: what it says of one inode, and which of the inode's data follows it.
//!
//! A member is either a whole inode under the inode's own path, for the sake of stock tar, or it
//! lies under `.tier/` and says one thing: the metadata, a part of the data, or that the inode is
//! gone. The path is a help to people; what counts is in the records.

use tier_types::{ChunkRange, FileKind, Ino, InodeState, Xid};

use crate::format::tarball::layout::{BLOCK_BYTES, TIER_DIR};

/// A run of chunks and the transaction that wrote or unmapped them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) chunks: ChunkRange,
    pub(crate) data_xid: Xid,
}

/// What one member says of an inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) ino: Ino,
    /// The transaction that ended the inode.
    pub(crate) gone: Option<Xid>,
    pub(crate) metadata: Option<InodeState>,
    /// The inode's own path, if the member is the whole inode.
    pub(crate) whole_path: Option<Vec<u8>>,
    /// Its other paths, which stock tar makes hard links of.
    pub(crate) other_paths: Vec<Vec<u8>>,
    /// Runs whose data follows, in order.
    pub(crate) data: Vec<Run>,
    /// Length of that data: whole chunks but for the end of the file.
    pub(crate) data_bytes: u64,
    /// Runs that were unmapped.
    pub(crate) holes: Vec<Run>,
    /// Runs that cannot be read, now or since an earlier snapshot: neither data nor zeros.
    pub(crate) lost: Vec<Run>,
}

impl Member {
    /// A member that says nothing yet.
    pub(crate) fn of(ino: Ino) -> Self {
        Self {
            ino,
            gone: None,
            metadata: None,
            whole_path: None,
            other_paths: Vec::new(),
            data: Vec::new(),
            data_bytes: 0,
            holes: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// The member without runs of its data that turned out to be lost, in order, of so many bytes.
    /// It is no longer the whole inode: stock tar would put zeros where data was, over an older
    /// copy that may have it, and so the member lies under `.tier/`.
    pub(crate) fn without(&self, lost: &[Run], lost_bytes: u64) -> Self {
        assert!(lost_bytes <= self.data_bytes, "only what was to be read can be lost");
        let mut data = Vec::new();
        for run in &self.data {
            let mut at = run.chunks.start();
            for gone in lost.iter().filter_map(|lost| lost.chunks.intersection(run.chunks)) {
                let before = ChunkRange::new(at, gone.start());
                data.extend(before.map(|chunks| Run { chunks, ..*run }));
                at = gone.end();
            }
            let rest = ChunkRange::new(at, run.chunks.end());
            data.extend(rest.map(|chunks| Run { chunks, ..*run }));
        }
        let mut all_lost = [&self.lost[..], lost].concat();
        // What was lost before and what is lost now may alternate.
        all_lost.sort_by_key(|run| run.chunks.start());
        Self {
            gone: self.gone,
            metadata: self.metadata.clone(),
            data,
            data_bytes: self.data_bytes - lost_bytes,
            holes: self.holes.clone(),
            lost: all_lost,
            ..Self::of(self.ino)
        }
    }

    /// The path under which stock tar sees the member.
    pub(crate) fn path(&self) -> Vec<u8> {
        if let Some(path) = &self.whole_path {
            let directory = self
                .metadata
                .as_ref()
                .is_some_and(|inode| matches!(inode.attr.kind, FileKind::Directory));
            // As tar writes directories, and the root among them.
            return if path.is_empty() {
                b"./".to_vec()
            } else if directory {
                [path, &b"/"[..]].concat()
            } else {
                path.clone()
            };
        }
        // A name of its own for everything, so that unpacking all tarballs in order never
        // overwrites a file with less than it was.
        let ino = self.ino;
        let runs = self.data.first().or(self.holes.first()).or(self.lost.first());
        let first = runs.map(|run| run.chunks.start());
        match (self.gone, &self.metadata, first) {
            (Some(_), _, _) => format!("{TIER_DIR}/gone/{ino}"),
            (None, Some(_), _) | (None, None, None) => format!("{TIER_DIR}/inode/{ino}"),
            (None, None, Some(first)) => format!("{TIER_DIR}/extent/{ino}/{first}"),
        }
        .into_bytes()
    }
}

/// How many bytes a member's header blocks will about take.
pub(crate) fn header_bytes_about(member: &Member) -> usize {
    // Metadata with one link fits into the blocks that every member has.
    let more = member.metadata.as_ref().map_or(0, |inode| {
        let xattrs = inode.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 32);
        let links = inode.links.iter().map(|link| link.name.as_bytes().len() + 32);
        xattrs.chain(links.skip(1)).sum::<usize>()
    });
    let n_runs = member.data.len() + member.holes.len() + member.lost.len();
    let runs = n_runs * RUN_BYTES_ABOUT;
    3 * BLOCK_BYTES + more + runs
}

/// A run in a pax record, twice for one that is in the map of a sparse file.
const RUN_BYTES_ABOUT: usize = 64;
