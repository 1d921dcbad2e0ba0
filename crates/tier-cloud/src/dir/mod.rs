//! An object store in a directory: one file for each object, the slashes of its name as
//! subdirectories.
//!
//! An object becomes visible in one step and only when it is whole: it is written under a temporary
//! name, synced, renamed, and the directories up to the root are synced, so that a name that was
//! seen once is still there after a loss of power. Nothing changes a file that has its final name.
//! A crash leaves at most a temporary file, which no listing shows and
//! [`discard_staged`](StagingStore::discard_staged) removes.
//!
//! The root is made by [`DirStore::create`] and by nothing else. A root that is not there is a disk
//! that is not mounted: were it made anew, objects would go to the disk below, be found there, and
//! be gone when the right one is back. So everything is `Away` then.
//!
//! Several writers may put or create one name at a time: each has a temporary file of its own,
//! which gets the name by a rename that replaces nothing, or by a hard link where the filesystem
//! has no such rename. Either is one step of the filesystem, which one of all writers takes. Only a
//! staged object replaces what has its name, and it is this machine's alone.

mod disk;
mod staged;
mod walk;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use tier_types::{
    Call, Created, ErrorKind, ListPage, ObjectContent, ObjectMetadata, ObjectName, ObjectStore,
    ObjectVersion, PortError, RangeRead, StagedObject, StagingStore, StorageClass, to_u64,
    to_usize,
};

use crate::conflict;
use disk::{failed, sync_directories, sync_directory};
use staged::StagedFile;

const COPY_BYTES: usize = 1 << 20;

/// Objects that a page of a listing has: each page reads its directory from the start.
const N_PAGE: usize = 64 << 10;

/// A directory of objects.
///
/// ```
/// use tier_cloud::DirStore;
/// use tier_types::{Call, ErrorKind, ObjectName, ObjectStore};
///
/// let dir = tempfile::tempdir()?;
/// let store = DirStore::create(&dir.path().join("objects"))?;
/// let name = ObjectName::new("fs-1/hello").unwrap();
/// store.put(&Call::bulk(), &name, &&b"hello"[..])?;
/// let mut middle = [0; 3];
/// store.read_range(&Call::interactive(), &name, 1, &mut middle)?;
/// assert_eq!(&middle, b"ell");
/// // A directory that is not there is not made.
/// let unmounted = DirStore::at(&dir.path().join("elsewhere"));
/// let error = unmounted.metadata(&Call::bulk(), &name).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Away);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DirStore {
    root: PathBuf,
}

impl DirStore {
    /// Objects below `root`, whether it is there or not. Nothing is looked at.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Objects below `root`, which is made if it is not there.
    pub fn create(root: &Path) -> Result<Self, PortError> {
        let n_missing = root.ancestors().take_while(|directory| !directory.exists()).count();
        fs::create_dir_all(root)
            .map_err(|source| failed(root, "create directory", root, source))?;
        // The root's own name must outlive a loss of power too, and with it those of directories
        // that were made above it: every object is found through them, however well what lies below
        // was synced.
        for parent in root.ancestors().skip(1).take(n_missing.max(1)) {
            if !parent.as_os_str().is_empty() {
                sync_directory(parent, parent)?;
            }
        }
        Ok(Self::at(root))
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        let path = self.root.join(name.as_str());
        assert!(path.starts_with(&self.root) && path != self.root, "a name stays below the root");
        path
    }

    fn failed(&self, operation: &str, path: &Path, source: io::Error) -> PortError {
        failed(&self.root, operation, path, source)
    }

    /// Makes an object durable that is there.
    fn sync(&self, name: &ObjectName) -> Result<(), PortError> {
        let path = self.path(name);
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|source| self.failed("sync", &path, source))?;
        sync_directories(&path, &self.root)
    }

    /// Begins a file for an object, in its directory, which is made; the root is not.
    fn begin(&self, name: &ObjectName) -> Result<StagedFile, PortError> {
        let path = self.path(name);
        let mut above: Vec<_> =
            path.ancestors().skip(1).take_while(|directory| **directory != *self.root).collect();
        above.reverse();
        // `above` leaves the root out, and each call makes one level: while the disk of the root is
        // not mounted the first call fails, and nothing is made on the disk below.
        for directory in above {
            // A directory that another writer made meanwhile is as good. A file in its place makes
            // the next creation fail.
            match fs::create_dir(directory) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(self.failed("create directory", directory, source));
                }
                _ => {}
            }
        }
        StagedFile::create(path, &self.root)
            .map_err(|(path, source)| self.failed("create", &path, source))
    }

    /// A file with this content, which is not yet there under its name.
    fn stage_content(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<StagedFile, PortError> {
        let mut staged = self.begin(name)?;
        let len_bytes = content.len_bytes();
        let mut buffer = vec![0; to_usize(len_bytes.min(to_u64(COPY_BYTES)))];
        let mut at = 0;
        while at < len_bytes {
            // Between pieces, so that a stop does not wait for a whole tarball; the temporary file
            // goes when it is dropped.
            call.check(name)?;
            let n = to_usize((len_bytes - at).min(to_u64(COPY_BYTES)));
            let (piece, _) = buffer.split_at_mut(n);
            content.read_at(call, at, piece)?;
            staged.append(piece)?;
            at += to_u64(n);
        }
        Ok(staged)
    }

    /// A put finds an object under the name. An earlier attempt may have failed between the rename
    /// and the syncs of directories: what is there is not durable by being there.
    fn taken(
        &self,
        name: &ObjectName,
        len_bytes: u64,
        there: &ObjectMetadata,
    ) -> Result<(), PortError> {
        conflict::check_length(name, len_bytes, there)?;
        self.sync(name)
    }

    fn open(&self, name: &ObjectName) -> Result<(PathBuf, File), PortError> {
        let path = self.path(name);
        let file = File::open(&path).map_err(|source| self.failed("open", &path, source))?;
        Ok((path, file))
    }
}

impl StagingStore for DirStore {
    fn stage(&self, name: &ObjectName) -> Result<Box<dyn StagedObject>, PortError> {
        Ok(Box::new(self.begin(name)?))
    }

    fn discard_staged(&self) -> Result<(), PortError> {
        for path in walk::temporaries(&self.root, &self.root)? {
            tracing::debug!(path = %path.display(), "removing what a crash left of an object");
            fs::remove_file(&path).map_err(|source| self.failed("remove", &path, source))?;
        }
        Ok(())
    }
}

impl ObjectStore for DirStore {
    fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }

    fn put(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError> {
        let len_bytes = content.len_bytes();
        // This look spares the copying and is no guard: an object that appears after it is not
        // replaced either, because taking the name fails then.
        match self.metadata(call, name) {
            Ok(there) => return self.taken(name, len_bytes, &there),
            Err(error) if error.kind() == ErrorKind::Missing => {}
            Err(error) => return Err(error),
        }
        if self.stage_content(call, name, content)?.finish_new()? {
            tracing::debug!(%name, len_bytes, "object put");
            return Ok(());
        }
        // Another writer was faster.
        self.taken(name, len_bytes, &self.metadata(call, name)?)
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        let is_free = match self.metadata(call, name) {
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::Missing => true,
            Err(error) => return Err(error),
        };
        if is_free && self.stage_content(call, name, content)?.finish_new()? {
            tracing::debug!(%name, len_bytes = content.len_bytes(), "object created");
            return Ok(Created::New);
        }
        // Its own creator may have stopped before it was durable, and this caller may take it for
        // its own.
        self.sync(name)?;
        Ok(Created::Exists(self.metadata(call, name)?))
    }

    fn metadata(&self, call: &Call<'_>, name: &ObjectName) -> Result<ObjectMetadata, PortError> {
        call.check(name)?;
        let path = self.path(name);
        let metadata = fs::metadata(&path).map_err(|source| self.failed("find", &path, source))?;
        // Names share prefixes, which are directories here: there is no object of that name, and no
        // fault of the disk.
        if !metadata.is_file() {
            return Err(self.failed("find", &path, io::ErrorKind::NotFound.into()));
        }
        Ok(ObjectMetadata {
            len_bytes: metadata.len(),
            checksum: None,
            class: StorageClass::Online,
            version: version_of(&metadata),
        })
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        call.check(name)?;
        // Opened once for all ranges: a staged object may take the name meanwhile, and pieces of
        // both would be no object at all.
        let (path, file) = self.open(name)?;
        for RangeRead { offset_bytes, buffer } in ranges {
            tracing::trace!(%name, offset_bytes, n_bytes = buffer.len(), "reading a range");
            let read = file.read_exact_at(buffer, *offset_bytes);
            read.map_err(|source| self.failed("read", &path, source))?;
        }
        Ok(())
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        call.check(name)?;
        let (path, mut file) = self.open(name)?;
        let read = |source| self.failed("read", &path, source);
        // A seek behind the end succeeds, and the read after it finds nothing: an object that is
        // too short would look like one that ends here.
        if file.metadata().map_err(read)?.len() < offset_bytes {
            return Err(self.failed("read", &path, io::ErrorKind::UnexpectedEof.into()));
        }
        file.seek(SeekFrom::Start(offset_bytes)).map_err(read)?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            call.check(name)?;
            let n = file.read(&mut buffer).map_err(read)?;
            if n == 0 {
                return Ok(());
            }
            let (piece, _) = buffer.split_at(n);
            take(piece)?;
        }
    }

    fn list(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<ListPage, PortError> {
        let wanted = walk::Wanted { prefix, after, n_max: N_PAGE };
        walk::page(&self.root, call, &wanted)
    }

    fn delete(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        only: Option<&ObjectVersion>,
    ) -> Result<(), PortError> {
        match self.metadata(call, name) {
            Err(error) if error.kind() == ErrorKind::Missing => return Ok(()),
            Err(error) => return Err(error),
            // Not one step with the removal: no filesystem has that. Names are used once, so that
            // there is no other object to come between.
            Ok(there) => only.map_or(Ok(()), |only| conflict::check_version(name, only, &there))?,
        }
        tracing::debug!(%name, "deleting an object");
        // Another deletion may come first, to the same end. The directory is not synced: a deletion
        // that a loss of power undoes costs space, and can be repeated.
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("delete", &path, source))
            }
            _ => Ok(()),
        }
    }
}

fn version_of(file: &fs::Metadata) -> ObjectVersion {
    let (ino, seconds, nanoseconds) = (file.ino(), file.mtime(), file.mtime_nsec());
    ObjectVersion(format!("{ino}-{}-{seconds}.{nanoseconds}", file.len()))
}
