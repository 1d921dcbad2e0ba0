//! Whether everything that was committed is still what it was.

use ring::digest::{Context, SHA256};
use tier_types::{ErrorKind, HasKind, Ino, ObjectName, ObjectStore, to_u64, to_usize};

use crate::derive::rebuild::read_table;
use crate::error::PersistError;
use crate::format::names;
use crate::format::tarball::row::TarballRow;
use crate::format::tarball::toc::entry::TocEntry;
use crate::progress::Watch;
use crate::read::chain::{Archive, Link, StoredObject};
use crate::read::scanner::{Expected, ScanVisitor, scan};
use crate::read::tarball_reader::TarballReader;

const READ_BYTES: usize = 1 << 20;

/// One object that is not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// Whether it is not there at all.
    pub missing: bool,
}

/// What was checked and found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Objects checked.
    pub n_objects: u64,
    /// Their length.
    pub bytes: u64,
    /// Members checked, if data was read.
    pub n_members: u64,
    /// What is damaged or missing.
    pub damages: Vec<Damage>,
}

/// The SHA-256 of a stored object, read through in pieces.
fn object_sha256(store: &dyn ObjectStore, object: &StoredObject) -> Result<[u8; 32], PersistError> {
    let mut digest = Context::new(&SHA256);
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < object.len_bytes {
        let n = to_usize((object.len_bytes - at).min(to_u64(READ_BYTES)));
        let piece = buffer.get_mut(..n).unwrap_or_default();
        store.read_range(&object.name, at, piece).map_err(PersistError::Store)?;
        digest.update(piece);
        at += to_u64(n);
    }
    Ok(digest.finish().as_ref().first_chunk().copied().unwrap_or_default())
}

/// Checks that an object is there with the right length and digest.
pub fn check_object(store: &dyn ObjectStore, object: &StoredObject) -> Result<(), PersistError> {
    let len_bytes = store.len_bytes(&object.name).map_err(PersistError::Store)?;
    if len_bytes != object.len_bytes {
        return Err(PersistError::damaged(&object.name, "its length is wrong"));
    }
    if object_sha256(store, object)? != object.sha256 {
        return Err(PersistError::damaged(&object.name, "its digest is wrong"));
    }
    Ok(())
}

impl Archive<'_> {
    /// Checks every object of every snapshot: there, with the right length and digest; with
    /// `read_data` also every byte decrypted and decompressed, every member parsed, and the tables
    /// of contents compared with the members. Damage is reported, not an error; `watch` hears the
    /// length of each object done.
    pub fn verify(
        &self,
        read_data: bool,
        watch: &mut Watch<'_>,
    ) -> Result<VerifyReport, PersistError> {
        let mut report = VerifyReport::default();
        for link in self.links() {
            for object in self.objects(link.summary.snapshot)? {
                watch.check_stop()?;
                report.n_objects += 1;
                report.bytes += object.len_bytes;
                let checked = check_object(self.store(), &object);
                note(&mut report, &object.name, checked)?;
                watch.tell(object.len_bytes);
            }
            if read_data {
                self.read_members(link, watch, &mut report)?;
            }
        }
        Ok(report)
    }

    fn read_members(
        &self,
        link: &Link,
        watch: &Watch<'_>,
        report: &mut VerifyReport,
    ) -> Result<(), PersistError> {
        for row in &self.manifest(link)?.tarballs {
            watch.check_stop()?;
            let name = names::tarball_name(self.filesystem(), row.id, row.encrypted);
            let known = report.damages.iter().any(|damage| damage.object == name.as_str());
            if !known {
                let checked = self.compare_members(row, link.chunk_bytes);
                let checked = checked.map(|n_members| report.n_members += n_members);
                note(report, &name, checked)?;
            }
        }
        Ok(())
    }

    /// The members of a tarball, which must be what its table of contents says.
    fn compare_members(&self, row: &TarballRow, chunk_bytes: u32) -> Result<u64, PersistError> {
        let stores = [self.store()];
        let (filesystem, source) = (self.filesystem(), (stores.as_slice(), self.keys()));
        let name = names::tarball_name(filesystem, row.id, row.encrypted);
        let (mut tables, mut members) = (Digester::default(), Digester::default());
        read_table(source, (filesystem, row), &mut |entry| tables.entry(entry))?;
        let reader = TarballReader::with_row(self.store(), &name, row, self.keys())?;
        scan(&reader, Some(Expected { filesystem, id: row.id, chunk_bytes }), &mut members)?;
        if tables.digest.finish().as_ref() != members.digest.finish().as_ref() {
            let problem = "its table of contents does not fit its members";
            return Err(PersistError::damaged(name, problem));
        }
        Ok(members.n_members)
    }
}

/// Digests what was found, in order.
struct Digester {
    digest: Context,
    bytes: Vec<u8>,
    n_members: u64,
}

impl Default for Digester {
    fn default() -> Self {
        Self { digest: Context::new(&SHA256), bytes: Vec::new(), n_members: 0 }
    }
}

impl ScanVisitor for Digester {
    fn entry(&mut self, entry: TocEntry) -> Result<(), PersistError> {
        self.bytes.clear();
        entry.append_to(Ino::new(0), &mut self.bytes);
        self.digest.update(&self.bytes);
        self.n_members += 1;
        Ok(())
    }

    fn damage(&mut self, damage: PersistError) -> Result<(), PersistError> {
        Err(damage)
    }
}

impl Damage {
    /// The error as damage of an object, if it is one of its own.
    pub(crate) fn of(object: &ObjectName, error: PersistError) -> Result<Self, PersistError> {
        let missing = error.kind() == ErrorKind::Missing;
        if missing || error.kind() == ErrorKind::Damaged {
            let (object, problem) = (object.to_string(), error.to_string());
            return Ok(Self { object, problem, missing });
        }
        Err(error)
    }
}

fn note(
    report: &mut VerifyReport,
    object: &ObjectName,
    checked: Result<(), PersistError>,
) -> Result<(), PersistError> {
    if let Err(error) = checked {
        report.damages.push(Damage::of(object, error)?);
    }
    Ok(())
}
