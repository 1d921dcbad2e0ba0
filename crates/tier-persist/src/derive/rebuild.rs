//! The index as a function of the committed tarballs: the one way in which contents reach it,
//! after a snapshot, after a crash, and when it is regenerated.

use std::thread;

use crossbeam_channel::{Sender, bounded};
use tier_index::{Applied, Contents, Index, IndexError, IndexWriter};
use tier_types::{ErrorKind, HasKind, ObjectName, ObjectStore};

use crate::derive::verify::Damage;
use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::manifest::ManifestRef;
use crate::format::names::{self, FilesystemId, ObjectKind};
use crate::format::tarball::row::TarballRow;
use crate::format::tarball::toc::entry::TocEntry;
use crate::progress::Watch;
use crate::read::chain::{Archive, Link, store_with};
use crate::read::scanner::{Expected, ScanVisitor, scan};
use crate::read::tarball_reader::TarballReader;

/// Entries that are applied to the index at a time.
const N_BATCH: usize = 16 << 10;
/// Batches that are read while one is applied.
const N_BATCHES_AHEAD: usize = 2;

/// How the contents of tarballs are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanMode {
    /// From their tables of contents: a small part of the bytes.
    Tables,
    /// From their members, all of them.
    Full,
}

impl Archive<'_> {
    /// Brings an index up to the newest snapshot: applies the manifests after the last one that it
    /// knows. An index of another history is an error.
    pub fn catch_up(&self, index: &Index) -> Result<(), PersistError> {
        let mut writer = index.writer();
        let applied = index.applied()?;
        let first = match applied {
            None => 0,
            Some(applied) => {
                let is_known = |link: &Link| {
                    link.reference.digest == applied.manifest_digest
                        && link.reference.snapshot == applied.snapshot
                };
                let position = self.links().iter().position(is_known);
                let object = format!("the manifest of snapshot {}", applied.snapshot);
                let problem =
                    "the index includes it, and it is not here; copy it back from the cloud";
                position.ok_or_else(|| PersistError::damaged(object, problem))? + 1
            }
        };
        let watch = &mut Watch::default();
        self.apply_from(first, &mut writer, ScanMode::Tables, watch).map(drop)
    }

    /// Fills an empty index from all snapshots; `watch` hears the length of each tarball. A full
    /// scan goes past what is damaged or missing, and returns it; by tables, damage is an error.
    pub fn rebuild_index(
        &self,
        index: &Index,
        mode: ScanMode,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Damage>, PersistError> {
        self.apply_from(0, &mut index.writer(), mode, watch)
    }

    fn apply_from(
        &self,
        first: usize,
        writer: &mut IndexWriter<'_>,
        mode: ScanMode,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Damage>, PersistError> {
        let mut damages = Vec::new();
        for link in self.links().iter().skip(first) {
            check_chunk_bytes(writer, link.chunk_bytes)?;
            let manifest = self.manifest(link)?;
            damages.extend(self.source(mode).apply(writer, &manifest.tarballs, watch)?);
            set_applied(writer, &link.reference)?;
        }
        // Most stores are opened with nothing to catch up with.
        if self.links().len() > first {
            writer.flush()?;
        }
        Ok(damages)
    }

    /// Adds what can be read of all members to an index that was filled from another copy of these
    /// tarballs, and returns what is damaged in this one. What the index says it includes stays.
    pub fn add_to_index(
        &self,
        index: &Index,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Damage>, PersistError> {
        let mut writer = index.writer();
        let mut damages = Vec::new();
        for link in self.links() {
            check_chunk_bytes(&writer, link.chunk_bytes)?;
            let manifest = self.manifest(link)?;
            let source = self.source(ScanMode::Full);
            damages.extend(source.apply(&mut writer, &manifest.tarballs, watch)?);
        }
        writer.flush()?;
        Ok(damages)
    }

    fn source(&self, mode: ScanMode) -> Source<'_> {
        let (stores, keys, filesystem) = (self.tarballs(), self.keys(), self.filesystem());
        Source { stores, keys, filesystem, mode }
    }
}

/// Chunks of another size have other numbers.
fn check_chunk_bytes(writer: &IndexWriter<'_>, contents: u32) -> Result<(), PersistError> {
    let index = writer.chunk_bytes();
    if index == contents { Ok(()) } else { Err(IndexError::ChunkSize { index, contents }.into()) }
}

/// The emergency: fills an empty index from tarballs alone, because the manifests are lost.
/// Returns how many tarballs there were, and what is damaged.
pub fn rebuild_without_manifests(
    index: &Index,
    store: &dyn ObjectStore,
    keys: &Keys,
    filesystem: FilesystemId,
    watch: &mut Watch<'_>,
) -> Result<(u64, Vec<Damage>), PersistError> {
    let (mut n_tarballs, mut damages) = (0, Vec::new());
    let mut writer = index.writer();
    let source = Source { stores: &[store], keys, filesystem, mode: ScanMode::Full };
    for name in store.list(&format!("{filesystem}/")).map_err(PersistError::Store)? {
        if let Some((_, ObjectKind::Tarball(id))) = names::parse(&name) {
            n_tarballs += 1;
            match TarballReader::recovered_row(store, &name, id, keys) {
                Ok(row) => {
                    let rows = std::slice::from_ref(&row);
                    damages.extend(source.apply(&mut writer, rows, watch)?);
                }
                Err(error) => damages.push(Damage::of(&name, error)?),
            }
        }
    }
    writer.flush()?;
    Ok((n_tarballs, damages))
}

/// Records that a manifest was applied.
pub(crate) fn set_applied(
    writer: &mut IndexWriter<'_>,
    manifest: &ManifestRef,
) -> Result<(), PersistError> {
    Ok(writer.set_applied(&Applied {
        epoch: manifest.epoch,
        snapshot: manifest.snapshot,
        manifest_digest: manifest.digest,
    })?)
}

/// Where tarballs are, and how they are read.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// Looked into in this order.
    pub(crate) stores: &'a [&'a dyn ObjectStore],
    pub(crate) keys: &'a Keys,
    pub(crate) filesystem: FilesystemId,
    pub(crate) mode: ScanMode,
}

/// What the thread that reads tarballs finds.
enum Found<'a> {
    /// A tarball, before its contents.
    Tarball(&'a TarballRow),
    Contents(Contents),
}

impl<'a> Source<'a> {
    /// Applies all of these tarballs: one thread reads while this one writes the index.
    pub(crate) fn apply(
        self,
        writer: &mut IndexWriter<'_>,
        tarballs: &'a [TarballRow],
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Damage>, PersistError> {
        let chunk_bytes = writer.chunk_bytes();
        let (found, arrived) = bounded(N_BATCHES_AHEAD);
        thread::scope(|scope| {
            let reader = scope.spawn(move || self.read(tarballs, chunk_bytes, &found));
            let applied = arrived.iter().try_for_each(|found| {
                watch.check_stop()?;
                match found {
                    Found::Tarball(row) => {
                        writer.add_tarball(row.id, &row.to_bytes())?;
                        watch.tell(row.object_bytes);
                    }
                    Found::Contents(contents) => writer.apply(&contents)?,
                }
                Ok(())
            });
            // A reader that waits for room sees that nobody wants more.
            drop(arrived);
            let read = reader.join().unwrap_or(Err(PersistError::Pipeline));
            match (applied, read) {
                (Err(error), _) => Err(error),
                (Ok(()), read) => read,
            }
        })
    }

    fn read(
        self,
        tarballs: &'a [TarballRow],
        chunk_bytes: u32,
        found: &Sender<Found<'a>>,
    ) -> Result<Vec<Damage>, PersistError> {
        let mut damages = Vec::new();
        for row in tarballs {
            found.send(Found::Tarball(row)).map_err(|_| PersistError::Pipeline)?;
            let contents = Contents { tarball: row.id, chunk_bytes, entries: Vec::new() };
            let name = names::tarball_name(self.filesystem, row.id, row.encrypted);
            let mut batch = Batch { found, contents, name, damages: Vec::new() };
            batch.read(self, row)?;
            batch.flush()?;
            damages.append(&mut batch.damages);
        }
        Ok(damages)
    }
}

/// Calls `visit` for everything that the table of contents of a tarball says of inodes.
pub(crate) fn read_table(
    (stores, keys): (&[&dyn ObjectStore], &Keys),
    (filesystem, row): (FilesystemId, &TarballRow),
    visit: &mut dyn FnMut(TocEntry) -> Result<(), PersistError>,
) -> Result<(), PersistError> {
    let name = names::tarball_name(filesystem, row.id, row.encrypted);
    let reader = TarballReader::with_row(store_with(stores, &name)?, &name, row, keys)?;
    reader.read_toc(&mut |entry| Some(visit(entry.decode()?))).map(drop)
}

/// Collects entries of one tarball for the index.
struct Batch<'a, 'b> {
    found: &'a Sender<Found<'b>>,
    contents: Contents,
    name: ObjectName,
    damages: Vec<Damage>,
}

impl Batch<'_, '_> {
    fn read(&mut self, source: Source<'_>, row: &TarballRow) -> Result<(), PersistError> {
        let Source { stores, keys, filesystem, mode } = source;
        let store = store_with(stores, &self.name)?;
        if mode == ScanMode::Tables {
            return self.read_table(&TarballReader::with_row(store, &self.name, row, keys)?);
        }
        let chunk_bytes = self.contents.chunk_bytes;
        let expected = Expected { filesystem, id: row.id, chunk_bytes };
        let name = self.name.clone();
        let scanned = TarballReader::with_row(store, &name, row, keys)
            .and_then(|reader| scan(&reader, Some(expected), self));
        scanned.map(drop).or_else(|error| self.damage(error))?;
        if self.damages.is_empty() {
            return Ok(());
        }
        // The table of contents, if it can be read, knows what the damaged frames hold: with it the
        // index finds that in another copy, or in this one when it is repaired.
        let reader = TarballReader::with_row(store, &name, row, keys);
        reader.and_then(|reader| self.read_table(&reader)).or_else(|error| match error.kind() {
            ErrorKind::Damaged | ErrorKind::Missing => Ok(()),
            ErrorKind::WrongKey
            | ErrorKind::Busy
            | ErrorKind::Unavailable
            | ErrorKind::Cancelled
            | ErrorKind::Failed => Err(error),
        })
    }

    fn read_table(&mut self, reader: &TarballReader<'_>) -> Result<(), PersistError> {
        let read = reader.read_toc(&mut |entry| {
            entry.index_entries(&mut self.contents.entries)?;
            Some(self.flush_full())
        });
        read.map(drop)
    }

    /// Sends the batch on if it is large enough.
    fn flush_full(&mut self) -> Result<(), PersistError> {
        if self.contents.entries.len() >= N_BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), PersistError> {
        let next = Contents { entries: Vec::with_capacity(N_BATCH), ..self.contents };
        let contents = std::mem::replace(&mut self.contents, next);
        self.found.send(Found::Contents(contents)).map_err(|_| PersistError::Pipeline)
    }
}

impl ScanVisitor for Batch<'_, '_> {
    fn entry(&mut self, entry: TocEntry) -> Result<(), PersistError> {
        self.contents.entries.extend(entry.index_entries());
        self.flush_full()
    }

    fn damage(&mut self, damage: PersistError) -> Result<(), PersistError> {
        self.damages.push(Damage::of(&self.name, damage)?);
        Ok(())
    }
}
