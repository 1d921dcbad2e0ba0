//! Applying: the one way in which the contents of committed tarballs reach an index.
//!
//! The index is a function of the committed tarballs. A snapshot that was just written, one that a
//! crash kept from the index, and an index that is regenerated from nothing all run through
//! [`Apply::tarballs`]; so each of them tests the others, and a live index is the same, byte for
//! byte in its dump, as one that was made from the tarballs alone.
//!
//! **How contents are merged.** A tarball's contents are entries: metadata of an inode, data of a
//! run of chunks, a hole, the end of an inode, each with the transaction that made it so. For each
//! chunk the entry with the highest transaction wins, for each inode the metadata with the highest
//! one, and the end of an inode wins over all. Where two copies of the same data compete (a file
//! that was rewritten whole without a change), the later tarball wins. That is a maximum over a
//! total order, and a maximum is commutative, associative and idempotent. So contents may come in
//! any order, in batches of any size, and twice: none of these changes the result. It is what makes
//! everything else here simple:
//!
//! - **Nothing need be remembered between batches.** A reader thread reads tables of contents, or
//!   members, and sends batches of [`BATCH_ENTRIES`]; this thread applies them. At most
//!   [`BATCHES_AHEAD`] wait, so that memory is bounded whatever a tarball holds.
//! - **A crash in the middle is harmless.** The index has no log of its own. What was applied
//!   reaches the disk with the next flush, and the word that a manifest was applied
//!   ([`set_applied`]) reaches it in the same flush or a later one, never an earlier one. If it is
//!   there, all of the manifest is; if not, all of the manifest is applied again, whatever part of
//!   it is there already.
//! - **Damage can be gone past.** What a full scan cannot read it takes from the table of contents,
//!   and what neither has, from another copy of the tarball that is applied later.
//!
//! **Order within a manifest.** A tarball's row goes in before any entry that points into it, so
//! that a recall which finds an entry finds its tarball. Nothing of a manifest goes in before the
//! manifest is durable: an index must not know what may never be committed, because the evicter
//! believes it.

use std::thread;

use crossbeam_channel::{Sender, bounded};
use tier_index::{Applied, Contents, Index, IndexError, IndexWriter, TarballId};
use tier_types::{ErrorKind, HasKind, ObjectName};

use crate::damage::Damage;
use crate::error::PersistError;
use crate::format::manifest::{Manifest, ManifestRef};
use crate::format::tarball::row::{TarballObject, TarballRow};
use crate::format::tarball::toc::entry::TocEntry;
use crate::format::tarball::toc::root::TocRoot;
use crate::progress::Watch;
use crate::read::chain::Archive;
use crate::read::link::ChainLink;
use crate::read::scanner::{Expected, ScanVisitor, scan};
use crate::read::tarball_reader::TarballReader;
use crate::read::tarball_source::TarballSource;

/// Entries that are applied to the index at a time.
const BATCH_ENTRIES: usize = 16 << 10;
/// Batches that are read while one is applied.
const BATCHES_AHEAD: usize = 2;

/// How the contents of tarballs are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanMode {
    /// From the newest checkpoint, and the tables of contents behind it.
    Checkpoint,
    /// From their tables of contents: a small part of the bytes.
    Tables,
    /// From their members, all of them.
    Full,
}

/// Where tarballs are, and how they are read.
#[derive(Clone, Copy)]
pub(crate) struct Apply<'a> {
    pub(crate) source: TarballSource<'a>,
    pub(crate) mode: ScanMode,
}

impl Archive<'_> {
    /// Applies the manifests of the chain from the one of this number on; those before a checkpoint
    /// together, if it may be used and nothing was applied.
    pub(crate) fn apply_from(
        &self,
        first: usize,
        writer: &mut IndexWriter<'_>,
        mode: ScanMode,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Damage>, PersistError> {
        let mut damages = Vec::new();
        let apply = Apply { source: self.tarballs(), mode };
        let by_checkpoint = first == 0 && mode == ScanMode::Checkpoint;
        let first_by_tables =
            if by_checkpoint { self.load_checkpoint(writer, watch)?.n_steps } else { first };
        for link in self.links().iter().skip(first_by_tables) {
            same_chunk_bytes(writer.chunk_bytes(), link.chunk_bytes)?;
            // One manifest in memory at a time. Of one that is lost nothing is in any index.
            let n_damages = damages.len();
            if !link.is_lost() {
                let manifest = match mode {
                    ScanMode::Full => self.manifest_past_damage(link, &mut damages)?,
                    ScanMode::Tables | ScanMode::Checkpoint => Some(self.manifest(link)?),
                };
                if let Some(manifest) = manifest {
                    damages.extend(apply.tarballs(writer, listed(&manifest), watch)?);
                }
            }
            let is_doubtful = link.is_doubtful || damages.len() > n_damages;
            // After its contents: a crash before this word applies the manifest again.
            set_applied(writer, &ChainLink { is_doubtful, ..ChainLink::clone(link) })?;
        }
        // Most stores are opened with nothing to catch up with.
        if self.links().len() > first {
            writer.flush()?;
        }
        Ok(damages)
    }
}

/// The tarballs of a manifest.
pub(crate) fn listed(manifest: &Manifest) -> impl Iterator<Item = Input<'_>> + Send {
    manifest.tarballs.iter().map(Input::Listed)
}

/// Records that all tarballs of a manifest were applied.
pub(crate) fn set_applied(
    writer: &mut IndexWriter<'_>,
    link: &ChainLink,
) -> Result<(), PersistError> {
    let ManifestRef { epoch, snapshot, digest } = link.reference;
    let applied = Applied { epoch, snapshot, manifest_digest: digest };
    Ok(writer.set_applied(&applied, &link.to_bytes())?)
}

/// Chunks of another size have other numbers.
pub(crate) fn check_chunk_bytes(index: &Index, contents: u32) -> Result<(), PersistError> {
    same_chunk_bytes(index.chunk_bytes(), contents)
}

pub(super) fn same_chunk_bytes(index: u32, contents: u32) -> Result<(), PersistError> {
    if index == contents { Ok(()) } else { Err(IndexError::ChunkSize { index, contents }.into()) }
}

/// A tarball whose contents are to be applied.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    /// A manifest lists it.
    Listed(&'a TarballObject),
    /// Its manifest is lost.
    Recovered(&'a TarballRow),
}

/// What the thread that reads tarballs finds.
enum Found {
    /// A tarball, before its contents.
    Tarball {
        row: TarballRow,
        /// Whether its frames are known from what a manifest vouches for.
        vouched: bool,
    },
    Contents(Contents),
}

impl Apply<'_> {
    /// Applies all of these tarballs: one thread reads while this one writes the index. `watch`
    /// hears the length of each. By tables, damage is an error; a full scan returns it.
    pub(crate) fn tarballs<'i>(
        self,
        writer: &mut IndexWriter<'_>,
        tarballs: impl IntoIterator<Item = Input<'i>> + Send,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Damage>, PersistError> {
        let chunk_bytes = writer.chunk_bytes();
        let (found, arrived) = bounded(BATCHES_AHEAD);
        thread::scope(|scope| {
            // Reading decrypts and decompresses, and writing merges: each takes about a core.
            let reader = scope.spawn(move || self.read(tarballs, chunk_bytes, &found));
            // For the assertion only: contents without a row would send a recall to an unknown
            // tarball.
            let mut current: Option<TarballId> = None;
            let applied = arrived.iter().try_for_each(|found| {
                // Between batches, so that a large tarball can be stopped as well.
                watch.check_stop()?;
                match found {
                    Found::Tarball { row, vouched } => {
                        current = Some(row.id);
                        // What is guessed of a damaged copy never replaces what is known of a
                        // whole one.
                        if vouched || !writer.has_tarball(row.id)? {
                            writer.add_tarball(row.id, &row.to_bytes())?;
                        }
                        // When the row comes, because nothing marks the end of a tarball's
                        // contents.
                        watch.report(row.object.content.len_bytes);
                    }
                    Found::Contents(contents) => {
                        assert_eq!(current, Some(contents.tarball), "a row precedes its contents");
                        writer.apply(&contents)?;
                    }
                }
                Ok(())
            });
            // A reader that waits for room sees that no more is wanted.
            drop(arrived);
            let read = reader.join().unwrap_or(Err(PersistError::Pipeline));
            // If the index failed the reader only says that its channel was closed.
            let damages = applied.and(read)?;
            let by_tables = self.mode != ScanMode::Full;
            assert!(damages.is_empty() || !by_tables, "by tables, damage is an error");
            Ok(damages)
        })
    }

    fn read<'i>(
        self,
        tarballs: impl IntoIterator<Item = Input<'i>>,
        chunk_bytes: u32,
        found: &Sender<Found>,
    ) -> Result<Vec<Damage>, PersistError> {
        let mut damages = Vec::new();
        for input in tarballs {
            let (id, object) = match input {
                Input::Listed(object) => (object.name.id, object),
                Input::Recovered(row) => (row.id, &row.object),
            };
            let contents = Contents { tarball: id, chunk_bytes, entries: Vec::new() };
            let name = self.source.name_of(object);
            let mut batch = Batch { found, contents, name, damages: Vec::new() };
            match (self.mode, input) {
                (ScanMode::Full, _) | (_, Input::Recovered(_)) => {
                    batch.read_members(self, input)?;
                }
                (ScanMode::Checkpoint | ScanMode::Tables, Input::Listed(object)) => {
                    batch.read_table(self, object)?;
                }
            }
            // A batch is of one tarball: its entries' frames are that tarball's.
            batch.flush()?;
            damages.append(&mut batch.damages);
        }
        Ok(damages)
    }
}

/// Collects entries of one tarball for the index.
struct Batch<'a> {
    found: &'a Sender<Found>,
    contents: Contents,
    name: ObjectName,
    damages: Vec<Damage>,
}

impl Batch<'_> {
    fn read_table(&mut self, apply: Apply<'_>, object: &TarballObject) -> Result<(), PersistError> {
        apply.source.first_whole(|source| {
            let (reader, root) = source.open(object)?;
            self.send_row(TarballRow::new(object.clone(), root.frames()), true)?;
            self.read_entries(&reader, &root)
        })
    }

    fn read_members(&mut self, apply: Apply<'_>, input: Input<'_>) -> Result<(), PersistError> {
        // A tarball that cannot even be opened is damage like any other.
        let (row, vouched) = match self.row(apply.source, input) {
            Ok(found) => found,
            Err(error) => return self.damage(error),
        };
        self.send_row(row.clone(), vouched)?;
        let TarballSource { keys, filesystem, .. } = apply.source;
        let store = apply.source.store_with(&self.name)?;
        let reader = TarballReader::with_row(store, &self.name, &row, keys)?;
        let chunk_bytes = self.contents.chunk_bytes;
        let expected = Expected { filesystem, id: row.object.name.id, chunk_bytes };
        let scanned = scan(&reader, Some(expected), self);
        scanned.map(drop).or_else(|error| self.damage(error))?;
        if self.damages.is_empty() {
            return Ok(());
        }
        // The table of contents, if it can be read, knows what the damaged frames hold: with it the
        // index finds that in another copy, or in this one when it is repaired.
        let table = reader.root().and_then(|root| self.read_entries(&reader, &root));
        // What is wrong with the tarball is in the list of damage already.
        table.or_else(|error| if_damage(error, &self.name))
    }

    /// What is known of a tarball, and whether a manifest vouches for it.
    fn row(
        &mut self,
        source: TarballSource<'_>,
        input: Input<'_>,
    ) -> Result<(TarballRow, bool), PersistError> {
        let object = match input {
            Input::Recovered(row) => return Ok((row.clone(), true)),
            Input::Listed(object) => object,
        };
        match source.open(object) {
            Ok((_, root)) => Ok((TarballRow::new(object.clone(), root.frames()), true)),
            Err(error) if error.kind() == ErrorKind::Damaged => {
                tracing::debug!(name = %self.name, %error, "frames are taken from the seek table");
                let row = row_past_damage(source, object)?;
                // A scan tells the damage of the root only where it finds it.
                if row.frames.last() != Some(&object.root) {
                    self.damage(error)?;
                }
                Ok((row, false))
            }
            Err(error) => Err(error),
        }
    }

    fn send_row(&self, row: TarballRow, vouched: bool) -> Result<(), PersistError> {
        assert_eq!(row.id, self.contents.tarball, "the row is that of the contents");
        let found = Found::Tarball { row, vouched };
        self.found.send(found).map_err(|_| PersistError::Pipeline)
    }

    fn read_entries(
        &mut self,
        reader: &TarballReader<'_>,
        root: &TocRoot,
    ) -> Result<(), PersistError> {
        reader.read_toc(root, &mut |entry| {
            entry.index_entries(&mut self.contents.entries)?;
            Some(self.flush_full())
        })
    }

    /// Sends the batch on if it is large enough.
    fn flush_full(&mut self) -> Result<(), PersistError> {
        if self.contents.entries.len() >= BATCH_ENTRIES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), PersistError> {
        // A tarball that could not be opened has none, and its row is not known.
        if self.contents.entries.is_empty() {
            return Ok(());
        }
        let next = Contents { entries: Vec::with_capacity(BATCH_ENTRIES), ..self.contents };
        let contents = std::mem::replace(&mut self.contents, next);
        self.found.send(Found::Contents(contents)).map_err(|_| PersistError::Pipeline)
    }
}

impl ScanVisitor for Batch<'_> {
    fn entry(&mut self, entry: TocEntry) -> Result<(), PersistError> {
        self.contents.entries.extend(entry.index_entries());
        self.flush_full()
    }

    fn damage(&mut self, damage: PersistError) -> Result<(), PersistError> {
        self.damages.push(Damage::of(&self.name, damage)?);
        Ok(())
    }
}

/// The row of a tarball whose root cannot be read: with the frames as its seek table says, or as
/// they follow each other.
pub(crate) fn row_past_damage(
    source: TarballSource<'_>,
    object: &TarballObject,
) -> Result<TarballRow, PersistError> {
    let (name, tarball) = (source.name_of(object), object.name);
    let store = source.store_with(&name)?;
    let mut row = TarballReader::recovered_row(store, &name, tarball, tarball.id, source.keys)?;
    // With what the manifest says of the root, so that a scan tells the damage; but only if it is
    // the root that was found last, because the others keep their numbers.
    if let Some(last) = row.frames.last_mut()
        && last.offset == object.root.offset
    {
        *last = object.root;
    }
    Ok(TarballRow { object: object.clone(), ..row })
}

/// Nothing, if the error is damage that was told already.
fn if_damage(error: PersistError, name: &ObjectName) -> Result<(), PersistError> {
    match error.kind() {
        ErrorKind::Damaged | ErrorKind::Missing => {
            tracing::debug!(%name, %error, "the table of a damaged tarball is lost as well");
            Ok(())
        }
        ErrorKind::WrongKey
        | ErrorKind::Busy
        | ErrorKind::Away
        | ErrorKind::Throttled { .. }
        | ErrorKind::Frozen { .. }
        | ErrorKind::Denied
        | ErrorKind::Conflict
        | ErrorKind::NoSpace
        | ErrorKind::Cancelled
        | ErrorKind::Failed => Err(error),
    }
}
