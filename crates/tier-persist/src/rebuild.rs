//! The index as a function of the committed tarballs: the one way in which contents reach it,
//! after a snapshot, after a crash, and when it is regenerated.

use std::thread;

use crossbeam_channel::{Sender, bounded};
use tier_index::{Applied, Contents, Index, IndexError};
use tier_types::{ErrorKind, ObjectName, ObjectStore};

use crate::archive::Archive;
use crate::manifest::{Manifest, ManifestRef};
use crate::names::{self, ObjectKind};
use crate::tarball::{Expected, ScanVisitor, TarballReader, TarballRow, TocEntry, scan};
use crate::verify::Damage;
use crate::{FilesystemId, Keys, PersistError};

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
        let applied = index.applied()?;
        let known = applied.map(|applied| {
            self.links().iter().position(|link| {
                link.reference.digest == applied.manifest_digest
                    && link.reference.snapshot == applied.snapshot
            })
        });
        let first = match known {
            None => 0,
            Some(Some(position)) => position + 1,
            Some(None) => {
                return Err(PersistError::damaged(
                    "the archive",
                    "the newest manifest that the index knows is not in it; copy it back from the \
                     cloud, or rebuild the index without it",
                ));
            }
        };
        self.apply_from(first, index, ScanMode::Tables).map(drop)
    }

    /// Fills an empty index from all snapshots. A full scan goes past what is damaged or missing,
    /// and returns it; by tables, damage is an error.
    pub fn rebuild_index(
        &self,
        index: &Index,
        mode: ScanMode,
    ) -> Result<Vec<Damage>, PersistError> {
        self.apply_from(0, index, mode)
    }

    fn apply_from(
        &self,
        first: usize,
        index: &Index,
        mode: ScanMode,
    ) -> Result<Vec<Damage>, PersistError> {
        let mut damages = Vec::new();
        for link in self.links().iter().skip(first) {
            check_chunk_bytes(index, link.chunk_bytes)?;
            let manifest = self.manifest(link)?;
            let applied = apply_manifest(index, self.store(), self.keys(), &manifest, mode)?;
            damages.extend(applied);
            set_applied(index, &link.reference)?;
        }
        // Most stores are opened with nothing to catch up with.
        if self.links().len() > first {
            index.flush()?;
        }
        Ok(damages)
    }

    /// Adds what can be read of all members to an index that was filled from another copy of these
    /// tarballs, and returns what is damaged in this one. What the index says it includes stays.
    pub fn add_to_index(&self, index: &Index) -> Result<Vec<Damage>, PersistError> {
        let mut damages = Vec::new();
        for link in self.links() {
            check_chunk_bytes(index, link.chunk_bytes)?;
            let manifest = self.manifest(link)?;
            let (store, keys) = (self.store(), self.keys());
            damages.extend(apply_manifest(index, store, keys, &manifest, ScanMode::Full)?);
        }
        index.flush()?;
        Ok(damages)
    }
}

/// Chunks of another size have other numbers.
fn check_chunk_bytes(index: &Index, contents: u32) -> Result<(), PersistError> {
    let index = index.chunk_bytes();
    if index == contents { Ok(()) } else { Err(IndexError::ChunkSize { index, contents }.into()) }
}

/// The emergency: fills an empty index from tarballs alone, because the manifests are lost.
/// Returns how many tarballs there were, and what is damaged.
pub fn rebuild_without_manifests(
    index: &Index,
    store: &dyn ObjectStore,
    keys: &Keys,
    filesystem: FilesystemId,
) -> Result<(u64, Vec<Damage>), PersistError> {
    let (mut n_tarballs, mut damages) = (0, Vec::new());
    for name in store.list(&format!("{filesystem}/")).map_err(PersistError::Store)? {
        if let Some((_, ObjectKind::Tarball(id))) = names::parse(&name) {
            n_tarballs += 1;
            match TarballReader::recovered_row(store, &name, id, keys) {
                Ok(row) => {
                    let rows = std::slice::from_ref(&row);
                    let source = (store, keys);
                    damages.extend(apply_tarballs(
                        index,
                        source,
                        filesystem,
                        rows,
                        ScanMode::Full,
                    )?);
                }
                Err(error) => damages.push(Damage::of(&name, error)?),
            }
        }
    }
    index.flush()?;
    Ok((n_tarballs, damages))
}

/// Applies all tarballs of a manifest.
pub(crate) fn apply_manifest(
    index: &Index,
    store: &dyn ObjectStore,
    keys: &Keys,
    manifest: &Manifest,
    mode: ScanMode,
) -> Result<Vec<Damage>, PersistError> {
    apply_tarballs(index, (store, keys), manifest.filesystem, &manifest.tarballs, mode)
}

/// Records that a manifest was applied.
pub(crate) fn set_applied(index: &Index, manifest: &ManifestRef) -> Result<(), PersistError> {
    Ok(index.set_applied(&Applied {
        epoch: manifest.epoch,
        snapshot: manifest.snapshot,
        manifest_digest: manifest.digest,
    })?)
}

/// One thread reads while this one writes the index.
fn apply_tarballs(
    index: &Index,
    (store, keys): (&dyn ObjectStore, &Keys),
    filesystem: FilesystemId,
    tarballs: &[TarballRow],
    mode: ScanMode,
) -> Result<Vec<Damage>, PersistError> {
    let chunk_bytes = index.chunk_bytes();
    let (batches, arrived) = bounded::<Contents>(N_BATCHES_AHEAD);
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut damages = Vec::new();
            for row in tarballs {
                let (tarball, entries) = (row.id, Vec::new());
                let contents = Contents { tarball, chunk_bytes, entries };
                let name = names::tarball_name(filesystem, row.id, row.encrypted);
                let mut batch = Batch { batches: &batches, contents, name, damages: Vec::new() };
                // An empty one first: it makes the tarball known.
                batch.flush()?;
                batch.read((store, keys), (filesystem, row), mode)?;
                batch.flush()?;
                damages.append(&mut batch.damages);
            }
            Ok(damages)
        });
        let applied = arrived.iter().try_for_each(|contents| apply(index, tarballs, &contents));
        // A reader that waits for room sees that nobody wants more.
        drop(arrived);
        let read = reader.join().unwrap_or(Err(PersistError::Pipeline));
        match (applied, read) {
            (Err(error), _) => Err(error),
            (Ok(()), read) => read,
        }
    })
}

fn apply(index: &Index, tarballs: &[TarballRow], contents: &Contents) -> Result<(), PersistError> {
    if contents.entries.is_empty() {
        let row = tarballs.iter().find(|row| row.id == contents.tarball);
        return row.map_or(Ok(()), |row| Ok(index.add_tarball(row.id, &row.to_bytes())?));
    }
    Ok(index.apply(contents)?)
}

/// Calls `visit` for everything that the table of contents of a tarball says of inodes.
pub(crate) fn read_table(
    (store, keys): (&dyn ObjectStore, &Keys),
    (filesystem, row): (FilesystemId, &TarballRow),
    visit: &mut dyn FnMut(TocEntry) -> Result<(), PersistError>,
) -> Result<(), PersistError> {
    let name = names::tarball_name(filesystem, row.id, row.encrypted);
    let reader = TarballReader::with_row(store, &name, row, keys)?;
    reader.read_toc(&mut |entry| Some(visit(entry.decode()?))).map(drop)
}

/// Collects entries of one tarball for the index.
struct Batch<'a> {
    batches: &'a Sender<Contents>,
    contents: Contents,
    name: ObjectName,
    damages: Vec<Damage>,
}

impl Batch<'_> {
    fn read(
        &mut self,
        (store, keys): (&dyn ObjectStore, &Keys),
        (filesystem, row): (FilesystemId, &TarballRow),
        mode: ScanMode,
    ) -> Result<(), PersistError> {
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
        self.batches.send(contents).map_err(|_| PersistError::Pipeline)
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
