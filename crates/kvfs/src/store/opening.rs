//! Making a store, and opening one: all of its parts, compared before anything is written.
//!
//! # A write-ahead log that is damaged
//! RocksDB has two ways with a write-ahead log that cannot be read to its end. The tolerant one
//! stops where it became unreadable and opens what it has, which is right after a loss of power,
//! when the end of the log had never been synced, and wrong after a flipped bit, when synced
//! batches lie behind it. It also drops the rest for good. The strict one refuses, and changes
//! nothing. RocksDB cannot tell the two cases apart; the witness can. So a store is opened
//! strictly. If that meets damage it is opened for a look: only to read, tolerantly. If its parts
//! agree then, nothing that was synced lies behind the damage, and it is opened tolerantly for
//! good; if not, the error names the loss, and every file is as it was.
//!
//! The mode in between (of which RocksDB says that it tolerates a torn tail) is no choice: it goes
//! on with the next log behind a torn one, and leaves a hole.
//!
//! # A write-ahead log with a hole
//! A loss of power may leave a hole of zeros in what was not synced. RocksDB steps over it in every
//! mode, and what it replays lacks transactions in the middle. So the log is looked at first (see
//! `wal`), and if it has a hole, it is cut there, provided that everything that was synced lies
//! before it. That is tried on a copy of links, so that a store of which synced batches lie behind
//! the hole, because its disk is damaged, is left as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tier_types::{ErrorKind, HasKind, Xid};

use super::agreement::{self, Agreed, Facts, Places};
use super::db::Db;
use super::segments::{self, Segments};
use super::tuning::OpenAs;
use super::wal::{self, Hole};
use super::witness::Witness;
use crate::{FsError, KvfsOptions, Loss};

/// A store that is open, and whole.
#[derive(Debug)]
pub(crate) struct OpenedStore {
    pub(crate) db: Arc<Db>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) witness: Witness,
    /// Everything up to this transaction was synced by an earlier process.
    pub(crate) synced: Xid,
    /// The filesystem begins behind this transaction.
    pub(crate) floor: Xid,
    /// Its last transaction.
    pub(crate) last: Xid,
}

/// The parts of a store, by their paths.
struct StoreFiles<'a> {
    root: &'a Path,
    kvs: PathBuf,
    /// The extent files, which belong to the key-value store.
    chunks: PathBuf,
    segments: PathBuf,
    witness: PathBuf,
}

impl<'a> StoreFiles<'a> {
    fn new(root: &'a Path) -> Self {
        let (kvs, chunks) = (root.join("kvs"), root.join("chunks"));
        Self { root, kvs, chunks, segments: root.join("segments"), witness: Witness::path(root) }
    }

    /// Compares all parts, of which the key-value store is open.
    fn agree(&self, db: &Db) -> Result<(Agreed, Xid, Xid), FsError> {
        let reader = db.reader();
        let (floor, last) = (reader.xid_floor()?, reader.last_xid()?);
        let facts = Facts {
            floor,
            last,
            recorded: reader.published_segments()?,
            logged: reader.first_logged()?.zip(reader.last_logged()?),
            found: segments::find(&self.segments)?,
            n_writes: db.n_writes()?,
            synced: Witness::read(self.root),
        };
        let places = Places { segments: &self.segments, witness: &self.witness };
        Ok((agreement::agree(facts, places)?, floor, last))
    }
}

/// Makes an empty store whose first transaction is the one behind `floor`.
pub(crate) fn create(root: &Path, options: &KvfsOptions, floor: Xid) -> Result<(), FsError> {
    let failed = |operation| move |source| FsError::io(operation, source);
    let files = StoreFiles::new(root);
    // The parts of an earlier filesystem would be taken for those of the new one.
    for part in [&files.kvs, &files.chunks, &files.segments, &files.witness] {
        if part.exists() && std::fs::read_dir(part).map_or(true, |mut dir| dir.next().is_some()) {
            return Err(FsError::NotNew { path: part.clone() });
        }
    }
    segments::make_directory(&files.segments)?;
    Db::open(&files.kvs, options, OpenAs::New)?.initialise(options.chunk_bytes, floor)?;
    Witness::create(root, floor)?;
    // Each part has made its content durable, and a loss of power could still take their names.
    let synced = std::fs::File::open(root).and_then(|directory| directory.sync_all());
    synced.map_err(failed("sync the directory of"))
}

/// Opens a store. An error if anything of it is lost.
pub(crate) fn open(root: &Path, options: &KvfsOptions) -> Result<OpenedStore, FsError> {
    let files = StoreFiles::new(root);
    cut_torn_log(&files, options)?;
    let db = match Db::open(&files.kvs, options, OpenAs::Strict) {
        Err(error) if error.kind() == ErrorKind::Damaged => {
            look(&files, options, error)?;
            Db::open(&files.kvs, options, OpenAs::Tolerant)?
        }
        opened => opened?,
    };
    let (Agreed { segments, leftovers }, floor, last) = files.agree(&db)?;
    // Only after the parts agree: a file that is not recorded may be the one proof of a loss.
    segments::remove_leftovers(&leftovers);
    segments::make_directory(&files.segments)?;
    let segments = Arc::new(Segments::new(&files.segments, segments));
    let synced = Witness::read(root).map_or(floor, |synced| synced.xid);
    let witness = Witness::open(root)?;
    Ok(OpenedStore { db: Arc::new(db), segments, witness, synced, floor, last })
}

/// Opens the database again in its place, after an error of the disk, and goes by what is recorded
/// in it: a publication that seemed to fail may be there. Returns the last transaction.
#[expect(clippy::expect_used, reason = "the path was made by joining")]
pub(crate) fn reopen(db: &Db, segments: &Segments) -> Result<Xid, FsError> {
    let root = segments.directory().parent().expect("segments lie in a filesystem's directory");
    let files = StoreFiles::new(root);
    // Asked of the open database, because the check runs when it is closed.
    let needed = db.first_needed_log()?;
    let check = || match find_hole(&files, needed)? {
        // What is missing was committed: only a start may go back behind it.
        Some(hole) => {
            let source = format!("a hole in {} at {}", hole.file.display(), hole.offset);
            let kind = ErrorKind::Damaged;
            Err(FsError::Store { operation: "open", kind, source: source.into() })
        }
        None => Ok(()),
    };
    db.reopen(check, |damage| look(&files, db.options(), damage))?;
    let (agreed, _, last) = files.agree(db)?;
    segments.replace(agreed.segments);
    Ok(last)
}

/// Whether a store whose write-ahead log is damaged has all the same everything that was synced.
/// Changes nothing.
fn look(files: &StoreFiles<'_>, options: &KvfsOptions, damage: FsError) -> Result<(), FsError> {
    // Damage of another part than the log is met here again; the first error is the better one.
    let Ok(db) = Db::open(&files.kvs, options, OpenAs::Look) else { return Err(damage) };
    let (_, _, last) = files.agree(&db)?;
    // Without the witness the agreement says too little: the damage may hide what was synced.
    if Witness::read(files.root).is_none() {
        return Err(Loss::Unknown { last, witness: files.witness.clone() }.into());
    }
    let cause = tier_types::with_causes(&damage);
    tracing::warn!(%last, "the write-ahead log was cut behind what was synced: {cause}");
    Ok(())
}

/// Ends the write-ahead log before a hole that a loss of power left in it.
fn cut_torn_log(files: &StoreFiles<'_>, options: &KvfsOptions) -> Result<(), FsError> {
    let trial = files.root.join("wal-trial");
    // What a crash in the middle left: links that keep the space of tables.
    remove_trial(&trial)?;
    // All logs are looked at first, needed or not, because that takes no open database; an opening
    // without a hole is done here.
    if !files.kvs.is_dir() || find_hole(files, 0)?.is_none() {
        return Ok(());
    }
    let needed = match Db::open(&files.kvs, options, OpenAs::Look) {
        Ok(db) => db.first_needed_log()?,
        // Damage of another part is told by the opening that follows.
        Err(error) if error.is_damage() => return Ok(()),
        Err(error) => return Err(error),
    };
    // A log that is not needed any more may end as it likes.
    let Some(hole) = find_hole(files, needed)? else { return Ok(()) };
    let tried = try_cut(files, options, &hole, &trial);
    remove_trial(&trial)?;
    let (last, path, offset) = (tried?, hole.file.display(), hole.offset);
    tracing::warn!(%last, %path, offset, "the write-ahead log ends at a hole, behind all that was synced");
    hole.cut().map_err(not_looked_at)
}

/// The last transaction before a hole; an error if something that was synced lies behind it.
fn try_cut(
    files: &StoreFiles<'_>,
    options: &KvfsOptions,
    hole: &Hole,
    trial: &Path,
) -> Result<Xid, FsError> {
    std::fs::create_dir(trial).map_err(not_looked_at)?;
    let copy = trial.join("kvs");
    hole.try_cut(&files.kvs, &copy).map_err(not_looked_at)?;
    let (_, _, last) = files.agree(&Db::open(&copy, options, OpenAs::Look)?)?;
    match Witness::read(files.root) {
        Some(_) => Ok(last),
        None => Err(Loss::Unknown { last, witness: files.witness.clone() }.into()),
    }
}

fn find_hole(files: &StoreFiles<'_>, first_number: u64) -> Result<Option<Hole>, FsError> {
    wal::find_hole(&files.kvs, first_number).map_err(not_looked_at)
}

fn remove_trial(trial: &Path) -> Result<(), FsError> {
    match std::fs::remove_dir_all(trial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(not_looked_at(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn not_looked_at(source: std::io::Error) -> FsError {
    if ErrorKind::of_io(&source) == ErrorKind::NoSpace {
        return FsError::NoSpace("the disk of the store is full");
    }
    FsError::io("look at the write-ahead log of", source)
}
