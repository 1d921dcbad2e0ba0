//! Losses: transactions that a store had, and has not any more.
//!
//! Every batch of the key-value store says the last transaction id, so that a store that lost its
//! newest batches looks whole by itself: it is an earlier state of the same filesystem. Going on
//! from there would give out ids, and with them inode numbers, for a second time, and the archive
//! and every log segment would hold other files under them. What shows the loss lies outside the
//! key-value store: its published segments, the witness, the archive. A contradiction between them
//! is one of the losses here. Each names what is missing and what proves that it was there.

use std::path::PathBuf;

use tier_types::{Xid, XidRange};

/// Transactions are missing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// The key-value store ends before a transaction that was durable.
    #[error(
        "xids {missing} are missing: the key-value store ends before them, and {} proves that \
         they were durable; it was put back to an earlier state, or its write-ahead log is \
         damaged. Put its files back, or make a new store from the archive (tier restore)",
        proof.display()
    )]
    RolledBack {
        /// What is missing.
        missing: XidRange,
        /// The file that proves it.
        proof: PathBuf,
    },
    /// Changes that have no transaction, such as evictions and recalls, were durable and are not
    /// there.
    #[error(
        "the key-value store is {n_missing} writes behind what {} proves to have been durable; it \
         was put back to an earlier state, or its write-ahead log is damaged. Put its files back, \
         or make a new store from the archive (tier restore)",
        proof.display()
    )]
    Writes {
        /// How many rows were written in them.
        n_missing: u64,
        /// The file that proves it.
        proof: PathBuf,
    },
    /// The write-ahead log is damaged, and what it held is not known.
    #[error(
        "the write-ahead log of the key-value store is damaged after xid {last}, and {} cannot be \
         read, so that it is not known what is missing. Put the files back, or make a new store \
         from the archive (tier restore)",
        witness.display()
    )]
    Unknown {
        /// The last transaction before the damage.
        last: Xid,
        /// The file that would tell.
        witness: PathBuf,
    },
    /// A published log segment is not where it was written.
    #[error(
        "log segment {} of xids {range} is missing. Put the file back, or make a new store from \
         the archive (tier restore)",
        path.display()
    )]
    Segment {
        /// Its transactions.
        range: XidRange,
        /// Where it should be.
        path: PathBuf,
    },
    /// Log records that were not published yet are missing from the key-value store.
    #[error(
        "the log records of xids {range} are missing from the key-value store. Put its files back, \
         or make a new store from the archive (tier restore)"
    )]
    Records {
        /// Their transactions.
        range: XidRange,
    },
    /// The archive knows later transactions of this filesystem than the filesystem does.
    #[error(
        "the filesystem ends at xid {last} and its archive at xid {archived}: it was put back to \
         an earlier state, and writing would give out the same ids for other operations. What is \
         in it can be read; to go on, make a new store from the archive (tier restore)"
    )]
    BehindArchive {
        /// The filesystem's last transaction.
        last: Xid,
        /// The archive's.
        archived: Xid,
    },
}
