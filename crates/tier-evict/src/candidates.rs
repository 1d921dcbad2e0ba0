//! The candidates of an eviction pass: three ordered streams, merged into one.
//!
//! Changed inodes come from the log, or, where that cannot tell, are all that the filesystem has;
//! carried-over candidates come from the list of the last pass, warm inodes from the filesystem.
//! Each stream ascends by inode, so that a merge with one head for each of them gives every inode
//! once, in order, in memory that does not depend on their number. An inode that is in several
//! streams is one candidate.
//!
//! The warm inodes are read while the pass evicts, a page at a time from the last one on. One that
//! becomes warm behind the merge is not a candidate of this pass; the filesystem still lists it in
//! the next one.

use std::vec;

use tier_log::NetChanges;
use tier_types::{Change, ErrorKind, FileUpdate, Ino, InstanceView, PortError};

use crate::EvictError;
use crate::carried_over::CarriedOver;

/// Inodes that a filesystem is asked for at a time.
const N_LISTED_MAX: usize = 1024;

/// Every inode that changed, was carried over or is warm: once, in order of inodes.
pub(crate) struct Candidates<'a> {
    changed: Box<dyn Iterator<Item = Result<Ino, EvictError>> + 'a>,
    carried_over: CarriedOver,
    warm: Listed<'a>,
    heads: Option<Heads>,
    last: Option<Ino>,
}

/// The next inode of each stream.
#[derive(Clone, Copy)]
struct Heads {
    changed: Option<Ino>,
    carried_over: Option<Ino>,
    warm: Option<Ino>,
}

/// Which inodes may have changed.
pub(crate) enum Changed {
    /// None.
    Nothing,
    /// Those of the log.
    Logged(NetChanges),
    /// All there are: the log cannot tell.
    All,
}

impl<'a> Candidates<'a> {
    pub(crate) fn new(
        changed: Changed,
        carried_over: CarriedOver,
        instance: &'a dyn InstanceView,
    ) -> Self {
        let changed: Box<dyn Iterator<Item = Result<Ino, EvictError>> + 'a> = match changed {
            Changed::Nothing => Box::new(std::iter::empty()),
            // An inode that is gone has nothing that could be evicted.
            Changed::Logged(changes) => Box::new(changes.filter_map(|update| match update {
                Ok(FileUpdate { ino, change: Change::Touched(_) }) => Some(Ok(ino)),
                Ok(FileUpdate { change: Change::Gone(_), .. }) => None,
                Err(error) => Some(Err(error.into())),
            })),
            Changed::All => {
                let mut all = Listed::new(instance, Listing::All);
                Box::new(std::iter::from_fn(move || {
                    all.next_ino().map_err(EvictError::from).transpose()
                }))
            }
        };
        let warm = Listed::new(instance, Listing::Warm);
        Self { changed, carried_over, warm, heads: None, last: None }
    }

    fn step(&mut self) -> Result<Option<Ino>, EvictError> {
        let mut heads = match self.heads {
            Some(heads) => heads,
            // With the first candidate and not before: a stream may fail at its first inode, and
            // only an iterator's item can say so.
            None => Heads {
                changed: self.changed.next().transpose()?,
                carried_over: self.carried_over.next().transpose()?,
                warm: self.warm.next_ino()?,
            },
        };
        let Heads { changed, carried_over, warm } = heads;
        let next = [changed, carried_over, warm].into_iter().flatten().min();
        if let Some(next) = next {
            // Each stream ascends: the log's by its contract, the others were checked when read.
            assert!(self.last.is_none_or(|last| last < next), "candidates ascend");
            self.last = Some(next);
            // Every stream that has it moves on, so that it comes once.
            if changed == Some(next) {
                heads.changed = self.changed.next().transpose()?;
            }
            if carried_over == Some(next) {
                heads.carried_over = self.carried_over.next().transpose()?;
            }
            if warm == Some(next) {
                heads.warm = self.warm.next_ino()?;
            }
        }
        self.heads = Some(heads);
        Ok(next)
    }
}

impl Iterator for Candidates<'_> {
    type Item = Result<Ino, EvictError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// Which of its inodes a filesystem lists.
#[derive(Clone, Copy, Debug)]
enum Listing {
    /// Those with warm data.
    Warm,
    All,
}

/// Inodes that a filesystem lists, a page at a time.
struct Listed<'a> {
    instance: &'a dyn InstanceView,
    listing: Listing,
    page: vec::IntoIter<Ino>,
    last: Ino,
}

impl<'a> Listed<'a> {
    fn new(instance: &'a dyn InstanceView, listing: Listing) -> Self {
        // Zero is below every inode number: the root's is 1.
        Self { instance, listing, page: Vec::new().into_iter(), last: Ino::new(0) }
    }

    fn next_ino(&mut self) -> Result<Option<Ino>, PortError> {
        // At first, and when a page is used up; an answer without inodes is the end.
        if self.page.len() == 0 {
            let page = match self.listing {
                Listing::Warm => self.instance.warm_inodes(self.last, N_LISTED_MAX)?,
                Listing::All => self.instance.inodes_after(self.last, N_LISTED_MAX)?,
            };
            self.page = page.into_iter();
        }
        let Some(ino) = self.page.next() else { return Ok(None) };
        if ino <= self.last {
            let (last, listing) = (self.last, self.listing);
            let message =
                format!("asked for inodes ({listing:?}) above {last}, the filesystem gave {ino}");
            return Err(PortError::new(ErrorKind::Failed, message));
        }
        self.last = ino;
        Ok(Some(ino))
    }
}
