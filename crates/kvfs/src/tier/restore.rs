//! Putting a lost filesystem back, inode by inode.

use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ChunkState, ErrorKind, FileAttr, Ino, InodeState, Link,
    PortError, Xid,
};

use crate::FsError;
use crate::commit::Draft;
use crate::db::Changes;
use crate::fs::Kvfs;
use crate::inode::put_link_with_cookie;
use crate::schema::{self, META_XID_FLOOR, Table};
use crate::value;

/// Runs that go into one batch.
const N_RUNS_BATCH: usize = 10_000;

impl Kvfs {
    /// No transaction id up to `xid`, and so no inode number, is given out from the next opening
    /// on. For a filesystem that is to be restored into.
    pub fn set_xid_floor(&self, xid: Xid) -> Result<(), FsError> {
        let mut changes = Changes::default();
        changes.put(Table::Meta, META_XID_FLOOR, xid.get().to_le_bytes().to_vec());
        self.db.write(changes)?;
        self.db.sync()
    }

    pub(crate) fn put_back(
        &self,
        inode: &InodeState,
        runs: &mut dyn Iterator<Item = Result<ChunkRun, PortError>>,
    ) -> Result<(), PortError> {
        let ino = inode.attr.ino;
        if self.live().find_attr(ino)?.is_some() {
            let message = format!("inode {ino} is there already; restore into an empty filesystem");
            return Err(PortError::new(ErrorKind::Failed, message));
        }
        let mut at = ChunkNo::new(0);
        let mut batch = Vec::new();
        for run in runs {
            let run = run?;
            if run.chunks.start() < at || matches!(run.state, ChunkState::Hot | ChunkState::Warm) {
                let message =
                    format!("the chunk map of inode {ino} to be restored is not in order");
                return Err(PortError::new(ErrorKind::Damaged, message));
            }
            batch.extend(never_written(at, run.chunks.start()));
            at = run.chunks.end();
            batch.push(run);
            if batch.len() >= N_RUNS_BATCH {
                self.put_runs(&inode.attr, std::mem::take(&mut batch))?;
            }
        }
        batch.extend(never_written(at, ChunkNo::END));
        self.put_runs(&inode.attr, batch)?;
        self.put_state(inode)
    }

    fn put_runs(&self, attr: &FileAttr, runs: Vec<ChunkRun>) -> Result<(), PortError> {
        let (ino, file_bytes, chunk_bytes) = (attr.ino, attr.size_bytes, self.chunk_bytes);
        self.committer.commit(0, move |draft| {
            for run in &runs {
                let bytes = run.chunks.len_bytes(chunk_bytes, file_bytes);
                draft.counters.count(run.state, bytes, 1);
                let key = schema::chunk(ino, run.chunks.start());
                draft.changes.put(Table::Map, &key, value::run_to_bytes(run.state, run.data_xid));
            }
        })?;
        Ok(())
    }

    /// The attributes come last: an inode that a crash cut off is not there.
    fn put_state(&self, inode: &InodeState) -> Result<(), PortError> {
        let inode = inode.clone();
        let first_cookie = {
            let mut last = self.restored_cookies.lock();
            let first = *last + 1;
            *last += tier_types::to_u64(inode.links.len());
            first
        };
        self.committer.commit(0, move |draft| {
            let ino = inode.attr.ino;
            draft.counters.n_inodes += 1;
            put_links(draft, ino, &inode.links, first_cookie);
            for xattr in inode.xattrs {
                draft.changes.put(Table::Xattrs, &schema::named(ino, &xattr.name), xattr.value);
            }
            if inode.links.is_empty() && inode.attr.nlink == 0 {
                draft.changes.put(Table::Orphans, &schema::ino(ino), Vec::new());
            }
            let attr = value::attr_to_bytes(&inode.attr);
            draft.changes.put(Table::Inodes, &schema::ino(ino), attr);
        })?;
        Ok(())
    }
}

/// The cookies of restored entries count from the first one up. There are never more names than
/// transactions that made them, so that later entries, whose cookie is their transaction's, come
/// after them.
fn put_links(draft: &mut Draft, ino: Ino, links: &[Link], first_cookie: u64) {
    for (link, cookie) in links.iter().zip(first_cookie..) {
        put_link_with_cookie(draft, ino, link, cookie);
    }
}

fn never_written(from: ChunkNo, until: ChunkNo) -> Option<ChunkRun> {
    let chunks = ChunkRange::new(from, until)?;
    Some(ChunkRun { chunks, state: ChunkState::Hole, data_xid: Xid::new(0) })
}
