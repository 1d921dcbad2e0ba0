//! Verifying: whether everything that was committed is still what it was.
//!
//! Two depths. The digest of every object says whether its bytes are those that were written; that
//! is all that a store can spoil. Reading the data as well decrypts and decompresses every frame,
//! parses every member, and compares what the members say with the table of contents, entry by
//! entry: it would also find what was written wrongly. Damage is a result and not an error, so that
//! one damaged object does not hide the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use tier_types::{
    Call, ErrorKind, HasKind, Ino, ObjectChecksum, ObjectName, ObjectStore, PortError, RangeRead,
    SnapshotId, to_u64, to_usize,
};

use crate::damage::Damage;
use crate::error::PersistError;
use crate::format::digest::Sha256Stream;
use crate::format::names::PackedKind;
use crate::format::packed::PackedObject;
use crate::format::tarball::row::TarballObject;
use crate::format::tarball::toc::entry::TocEntry;
use crate::progress::Watch;
use crate::read::ahead::read_ahead;
use crate::read::chain::Archive;
use crate::read::contents::read_table;
use crate::read::link::{ChainLink, StoredObject};
use crate::read::scanner::{Expected, ScanVisitor, scan};
use crate::read::small::is_of_the_object;

/// What was checked and found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Objects checked.
    pub n_objects: u64,
    /// Their length.
    pub bytes: u64,
    /// Members checked, if data was read.
    pub n_members: u64,
    /// Objects that are frozen, of which nothing but the length was compared.
    pub frozen: BTreeSet<ObjectName>,
    /// What is damaged or missing.
    pub damages: Vec<Damage>,
    /// The snapshots that it belongs to.
    pub damaged: BTreeSet<SnapshotId>,
}

/// The SHA-256 of a stored object, read through once.
fn object_sha256(
    call: &Call<'_>,
    store: &dyn ObjectStore,
    object: &StoredObject,
) -> Result<[u8; 32], PersistError> {
    let mut digest = Sha256Stream::default();
    let mut left = object.content.len_bytes;
    let streamed = store.stream(call, &object.name, 0, &mut |piece| {
        // A store that goes on for ever must not be read for ever.
        left = left.checked_sub(to_u64(piece.len())).ok_or_else(|| {
            let message = format!("object {} goes on behind its end", object.name);
            PortError::new(ErrorKind::Damaged, message)
        })?;
        digest.update(piece);
        Ok(())
    });
    streamed.map_err(PersistError::Store)?;
    Ok(digest.finish())
}

/// Checks that an object is there with the right length and digest.
pub fn check_object(
    call: &Call<'_>,
    store: &dyn ObjectStore,
    object: &StoredObject,
) -> Result<(), PersistError> {
    // The cheap question first; it also tells a missing object from a damaged one.
    let len_bytes = store.metadata(call, &object.name).map_err(PersistError::Store)?.len_bytes;
    if len_bytes != object.content.len_bytes {
        return Err(PersistError::damaged(&object.name, "its length is wrong"));
    }
    if object_sha256(call, store, object)? != object.content.sha256 {
        return Err(PersistError::damaged(&object.name, "its digest is wrong"));
    }
    Ok(())
}

/// Steps whose objects are checked in one go.
const N_STEPS_AT_A_TIME: usize = 64;

/// An object that is to be checked.
struct ToCheck {
    /// The step that wrote it.
    snapshot: SnapshotId,
    object: StoredObject,
    /// If it is to be read as well.
    reading: Option<Reading>,
}

/// What an object is read as.
enum Reading {
    Tarball { tarball: TarballObject, chunk_bytes: u32 },
    Packed(PackedObject),
}

/// Of an object that arrived by its checksum so many bytes are read, at each of three places.
const SAMPLE_BYTES: u64 = 4096;

/// Checks an object that was put a moment ago, from there, into a store that refuses what changed
/// on its way: that it has the right length, and the checksum if the store says one; and some of
/// its bytes, by which it is seen that they can be read.
pub fn check_sample(
    call: &Call<'_>,
    store: &dyn ObjectStore,
    object: &StoredObject,
    from: &dyn ObjectStore,
) -> Result<(), PersistError> {
    let StoredObject { name, content } = object;
    if content.len_bytes <= 4 * SAMPLE_BYTES {
        return check_object(call, store, object);
    }
    let found = store.metadata(call, name).map_err(PersistError::Store)?;
    if found.len_bytes != content.len_bytes {
        return Err(PersistError::damaged(name, "its length is wrong"));
    }
    if matches!(found.checksum, Some(ObjectChecksum::Sha256(sha256)) if sha256 != content.sha256) {
        return Err(PersistError::damaged(name, "its checksum is wrong"));
    }
    let last = content.len_bytes - SAMPLE_BYTES;
    // The middle one is another place for each object, and the same one if it is looked at again.
    let middle = content.sha256.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) % last;
    let read = |store: &dyn ObjectStore| {
        let mut buffers = [0, middle, last].map(|at| (at, vec![0; to_usize(SAMPLE_BYTES)]));
        let mut ranges = buffers
            .each_mut()
            .map(|(offset_bytes, buffer)| RangeRead { offset_bytes: *offset_bytes, buffer });
        store.read_ranges(call, name, &mut ranges).map_err(PersistError::Store)?;
        Ok::<_, PersistError>(buffers)
    };
    if read(store)? != read(from)? {
        return Err(PersistError::damaged(name, "it has other bytes than were put"));
    }
    Ok(())
}

impl Archive<'_> {
    /// Checks every object of every snapshot in the archive's own store, several at a time: there,
    /// with the right length and digest; with `read_data` also every byte decrypted and
    /// decompressed, every member parsed, and the tables of contents compared with the members.
    /// Damage is reported, not an error; `watch` hears the length of each object done.
    pub fn verify(
        &self,
        read_data: bool,
        watch: &mut Watch<'_>,
    ) -> Result<VerifyReport, PersistError> {
        let mut report = VerifyReport::default();
        for links in self.links().chunks(N_STEPS_AT_A_TIME) {
            let mut to_check = Vec::new();
            for link in links {
                self.list_step(link, read_data, &mut to_check, &mut report)?;
            }
            let stop = watch.stop();
            let check = |number: usize| Ok((number, self.check(to_check.get(number), stop)?));
            read_ahead(to_check.len(), &check, &mut |(number, checked)| {
                watch.check_stop()?;
                let Some(ToCheck { snapshot, object, .. }) = to_check.get(number) else {
                    return Err(PersistError::Pipeline);
                };
                report.n_objects += 1;
                // A manifest may say any length, with which the object was compared.
                report.bytes = report.bytes.saturating_add(object.content.len_bytes);
                let counted = checked.map(|n_members| report.n_members += n_members);
                note(&mut report, *snapshot, &object.name, counted)?;
                watch.report(object.content.len_bytes);
                Ok(())
            })?;
        }
        let VerifyReport { n_objects, bytes, ref damages, .. } = report;
        tracing::info!(n_objects, bytes, n_damages = damages.len(), read_data, "archive verified");
        Ok(report)
    }

    /// Lists what a step wrote.
    fn list_step(
        &self,
        link: &ChainLink,
        read_data: bool,
        to_check: &mut Vec<ToCheck>,
        report: &mut VerifyReport,
    ) -> Result<(), PersistError> {
        let (snapshot, chunk_bytes) = (link.summary.snapshot, link.chunk_bytes);
        let manifest = link.object(self.filesystem());
        let objects = match self.objects(snapshot) {
            // A manifest that no store has says nothing of the others: it is the damage.
            Err(error) if is_of_the_object(&error) => {
                report.n_objects += 1;
                return note(report, snapshot, &manifest.name, Err(error));
            }
            objects => objects?,
        };
        let mut readings = BTreeMap::new();
        if read_data {
            let manifest = self.manifest(link)?;
            for tarball in manifest.tarballs {
                let name = tarball.object_name(self.filesystem());
                readings.insert(name, Reading::Tarball { tarball, chunk_bytes });
            }
            for packed in manifest.packed {
                readings.insert(packed.object_name(self.filesystem()), Reading::Packed(packed));
            }
        }
        // What is of earlier steps is read with them.
        to_check.extend(objects.own().map(|object| ToCheck {
            snapshot,
            object: object.clone(),
            reading: readings.remove(&object.name),
        }));
        Ok(())
    }

    /// The members that were read of an object, or what is wrong with it. What is damaged is not
    /// read: that would only say it again.
    fn check(
        &self,
        to_check: Option<&ToCheck>,
        stop: Option<&AtomicBool>,
    ) -> Result<Result<u64, PersistError>, PersistError> {
        let ToCheck { object, reading, .. } = to_check.ok_or(PersistError::Pipeline)?;
        let call = stop.map_or(Call::bulk(), |stop| Call::bulk().cancelled_by(stop));
        if let Err(error) = check_object(&call, self.store(), object) {
            return Ok(Err(error));
        }
        let stores = [self.store()];
        let source = self.tarballs_in(&stores);
        Ok(match reading {
            None => Ok(0),
            Some(Reading::Tarball { tarball, chunk_bytes }) => {
                self.compare_members(tarball, *chunk_bytes)
            }
            Some(Reading::Packed(packed)) => match packed.name.kind {
                PackedKind::Inodes => source.read_inodes(packed).map(|_| 0),
                PackedKind::Steps => source.read_steps(packed).map(|_| 0),
                PackedKind::Segment => source.read_packed(packed).map(|_| 0),
            },
        })
    }

    /// The members of a tarball, which must be what its table of contents says. Only the copy in
    /// the archive's own store is looked at.
    fn compare_members(
        &self,
        tarball: &TarballObject,
        chunk_bytes: u32,
    ) -> Result<u64, PersistError> {
        let stores = [self.store()];
        let source = self.tarballs_in(&stores);
        // Both in the order of the tarball, and both streamed: what is compared is their digests.
        let (mut tables, mut members) = (Digester::default(), Digester::default());
        read_table(source, tarball, &mut |entry| tables.entry(entry))?;
        let id = tarball.name.id;
        let expected = Expected { filesystem: self.filesystem(), id, chunk_bytes };
        // Opened by its manifest, so that each frame must have the digest that it should as well.
        let (reader, _) = source.open(tarball)?;
        scan(&reader, Some(expected), &mut members)?;
        if tables.digest.finish() != members.digest.finish() {
            let problem = "its table of contents does not fit its members";
            return Err(PersistError::damaged(tarball.object_name(self.filesystem()), problem));
        }
        Ok(members.n_members)
    }
}

/// Digests what was found, in order.
#[derive(Default)]
struct Digester {
    digest: Sha256Stream,
    /// Kept from entry to entry.
    bytes: Vec<u8>,
    n_members: u64,
}

impl ScanVisitor for Digester {
    fn entry(&mut self, entry: TocEntry) -> Result<(), PersistError> {
        // In the form of the table, which has all of an entry, and relative to nothing.
        self.bytes.clear();
        entry.append_to(Ino::new(0), &mut self.bytes);
        self.digest.update(&self.bytes);
        self.n_members += 1;
        Ok(())
    }

    fn damage(&mut self, damage: PersistError) -> Result<(), PersistError> {
        // The first damage ends the comparison: behind a gap the two digests can never be equal.
        Err(damage)
    }
}

fn note(
    report: &mut VerifyReport,
    snapshot: SnapshotId,
    object: &ObjectName,
    checked: Result<(), PersistError>,
) -> Result<(), PersistError> {
    match checked {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::Frozen { .. }) => {
            report.frozen.insert(object.clone());
        }
        // What is no damage (the store is away, the key is wrong) ends the verification.
        Err(error) => {
            report.damages.push(Damage::of(object, error)?);
            report.damaged.insert(snapshot);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tier_testkit::{MemoryStore, noise};
    use tier_types::HasKind;

    use super::*;
    use crate::format::digest::ContentDigest;

    #[test]
    fn a_sample_finds_what_is_short_or_cannot_be_read() {
        let (from, there, call) = (MemoryStore::default(), MemoryStore::default(), Call::bulk());
        let bytes = noise(100_000, 1);
        let name = ObjectName::new("a").unwrap();
        let object = StoredObject { name: name.clone(), content: ContentDigest::of(&bytes) };
        let check = || check_sample(&call, &there, &object, &from).map_err(|error| error.kind());
        from.put(&call, &name, &bytes.as_slice()).unwrap();
        assert_eq!(check(), Err(ErrorKind::Missing));
        there.put(&call, &name, &bytes.as_slice()).unwrap();
        assert_eq!(check(), Ok(()));
        for at in [0, bytes.len() - 1] {
            there.tamper(&name, |bytes| bytes[at] ^= 1);
            assert_eq!(check(), Err(ErrorKind::Damaged), "byte {at}");
            there.tamper(&name, |bytes| bytes[at] ^= 1);
        }
        there.tamper(&name, |bytes| bytes.truncate(99_999));
        assert_eq!(check(), Err(ErrorKind::Damaged));
    }
}
