//! An object store in a directory: one file for each object, the slashes of its name as
//! subdirectories.
//!
//! An object becomes visible in one step and only when it is whole: it is written under a temporary
//! name, synced, renamed, and the directories up to the root are synced, so that a name that was
//! seen once is still there after a loss of power. Nothing changes a file that has its final name.
//! A crash leaves at most a temporary file, which no listing shows and
//! [`discard_staged`](StagingStore::discard_staged) removes.
//!
//! The order of these steps is what makes a crash harmless. Were the file renamed before it is
//! synced, a loss of power could leave a whole name with half the bytes; were the directories not
//! synced, an object that a manifest speaks of could be gone. Several writers may put one name at a
//! time: each has a temporary file of its own, and the last rename wins, with a whole object.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tier_types::{
    ErrorKind, Flush, ObjectName, ObjectStore, PortError, StagedObject, StagingStore, to_u64,
};

/// Files of this ending are not objects: a crash may leave them.
const TEMPORARY: &str = ".tmp";
const COPY_BYTES: usize = 1 << 20;
/// Temporary files made by this process.
static N_TEMPORARIES: AtomicU64 = AtomicU64::new(0);

/// A directory of objects.
///
/// ```
/// use tier_cloud::DirStore;
/// use tier_types::{ObjectName, ObjectStore};
///
/// let dir = tempfile::tempdir()?;
/// let store = DirStore::open(dir.path())?;
/// let name = ObjectName::new("fs-1/hello").unwrap();
/// store.put(&name, 5, &mut &b"hello"[..])?;
/// let mut middle = [0; 3];
/// store.read_range(&name, 1, &mut middle)?;
/// assert_eq!(&middle, b"ell");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DirStore {
    root: PathBuf,
}

impl DirStore {
    /// Objects below `root`, which is made if it is not there.
    pub fn open(root: &Path) -> Result<Self, PortError> {
        fs::create_dir_all(root).map_err(|source| failed("create directory", root, source))?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_directory(parent)?;
        }
        Ok(Self { root: root.to_path_buf() })
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        let path = self.root.join(name.as_str());
        assert!(path.starts_with(&self.root) && path != self.root, "a name stays below the root");
        path
    }

    /// Makes an object durable that is there.
    fn sync(&self, name: &ObjectName) -> Result<(), PortError> {
        let path = self.path(name);
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|source| failed("sync", &path, source))?;
        sync_directories(&path, &self.root)
    }

    #[expect(clippy::expect_used, reason = "an object's path is below the root")]
    fn create(&self, name: &ObjectName) -> Result<StagedFile, PortError> {
        let path = self.path(name);
        let directory = path.parent().expect("the directory of an object");
        fs::create_dir_all(directory)
            .map_err(|source| failed("create directory", directory, source))?;
        let temporary = temporary_beside(&path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(|source| failed("create", &temporary, source))?;
        tracing::trace!(path = %temporary.display(), "staging an object");
        Ok(StagedFile { file, temporary, path, root: self.root.clone(), committed: false })
    }
}

/// A name that no other writer has: not in this process, and not in another one that may run.
fn temporary_beside(path: &Path) -> PathBuf {
    let number = N_TEMPORARIES.fetch_add(1, Ordering::Relaxed);
    let mut name = path.as_os_str().to_os_string();
    name.push(format!(".{}-{number}{TEMPORARY}", std::process::id()));
    name.into()
}

impl StagingStore for DirStore {
    fn stage(&self, name: &ObjectName) -> Result<Box<dyn StagedObject>, PortError> {
        Ok(Box::new(self.create(name)?))
    }

    fn discard_staged(&self) -> Result<(), PortError> {
        let mut leftovers = Vec::new();
        walk(&self.root, &mut |path| {
            if path.as_os_str().as_encoded_bytes().ends_with(TEMPORARY.as_bytes()) {
                leftovers.push(path.to_path_buf());
            }
        })?;
        for path in leftovers {
            tracing::debug!(path = %path.display(), "removing what a crash left of an object");
            fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
        }
        Ok(())
    }
}

/// A file on its way to being an object.
#[derive(Debug)]
struct StagedFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    root: PathBuf,
    committed: bool,
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.committed {
            // What cannot be removed is removed at the next start.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

impl StagedFile {
    fn append(&mut self, bytes: &[u8]) -> Result<(), PortError> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| failed("write", &self.temporary, source))
    }

    fn finish(mut self) -> Result<(), PortError> {
        self.file.sync_all().map_err(|source| failed("sync", &self.temporary, source))?;
        fs::rename(&self.temporary, &self.path)
            .map_err(|source| failed("rename", &self.temporary, source))?;
        self.committed = true;
        sync_directories(&self.path, &self.root)
    }
}

impl StagedObject for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PortError> {
        self.append(bytes)
    }

    fn flush_handle(&self) -> Result<Flush, PortError> {
        let file =
            self.file.try_clone().map_err(|source| failed("duplicate", &self.temporary, source))?;
        let path = self.temporary.clone();
        Ok(Box::new(move || file.sync_data().map_err(|source| failed("sync", &path, source))))
    }

    fn commit(self: Box<Self>) -> Result<(), PortError> {
        self.finish()
    }
}

impl ObjectStore for DirStore {
    fn put(
        &self,
        name: &ObjectName,
        len_bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(), PortError> {
        match self.len_bytes(name) {
            // An earlier attempt may have failed between the rename and the syncs of directories:
            // what is there is not durable by being there.
            Ok(there) if there == len_bytes => {
                tracing::debug!(%name, len_bytes, "an object is there already");
                return self.sync(name);
            }
            Ok(_) => {
                let message = format!("object {name} exists with another length; it is kept");
                return Err(PortError::new(ErrorKind::Damaged, message));
            }
            Err(error) if error.kind() == ErrorKind::Missing => {}
            Err(error) => return Err(error),
        }
        let mut object = self.create(name)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut content = content.take(len_bytes);
        let mut written = 0;
        loop {
            let n = content.read(&mut buffer).map_err(|source| {
                failed("read the content of", Path::new(name.as_str()), source)
            })?;
            if n == 0 {
                break;
            }
            let (filled, _) = buffer.split_at(n);
            object.append(filled)?;
            written += to_u64(n);
        }
        if written != len_bytes {
            let message = format!("the content of {name} ended after {written} bytes");
            return Err(PortError::new(ErrorKind::Failed, message));
        }
        tracing::debug!(%name, len_bytes, "object put");
        object.finish()
    }

    fn len_bytes(&self, name: &ObjectName) -> Result<u64, PortError> {
        let path = self.path(name);
        let metadata = fs::metadata(&path).map_err(|source| failed("find", &path, source))?;
        Ok(metadata.len())
    }

    fn read_range(
        &self,
        name: &ObjectName,
        offset_bytes: u64,
        buffer: &mut [u8],
    ) -> Result<(), PortError> {
        let path = self.path(name);
        let file = File::open(&path).map_err(|source| failed("open", &path, source))?;
        tracing::trace!(%name, offset_bytes, n_bytes = buffer.len(), "reading a range");
        let read = file.read_exact_at(buffer, offset_bytes);
        read.map_err(|source| failed("read", &path, source))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectName>, PortError> {
        let mut names = Vec::new();
        walk(&self.root, &mut |path| {
            let relative = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
            let name =
                relative.filter(|name| name.starts_with(prefix) && !name.ends_with(TEMPORARY));
            names.extend(name.and_then(ObjectName::new));
        })?;
        names.sort();
        Ok(names)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), PortError> {
        tracing::debug!(%name, "deleting an object");
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(failed("delete", &path, source))
            }
            _ => Ok(()),
        }
    }
}

fn walk(directory: &Path, visit: &mut dyn FnMut(&Path)) -> Result<(), PortError> {
    let entries = fs::read_dir(directory).map_err(|source| failed("list", directory, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| failed("list", directory, source))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|source| failed("look at", &path, source))?;
        if kind.is_dir() {
            walk(&path, visit)?;
        } else {
            visit(&path);
        }
    }
    Ok(())
}

/// Makes the name of a file durable: a directory above it that is new must itself be found again.
fn sync_directories(path: &Path, root: &Path) -> Result<(), PortError> {
    let above = path.ancestors().skip(1).take_while(|directory| directory.starts_with(root));
    above.into_iter().try_for_each(sync_directory)
}

fn sync_directory(path: &Path) -> Result<(), PortError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|source| failed("sync directory", path, source))
}

fn failed(operation: &str, path: &Path, source: io::Error) -> PortError {
    let object = path.display();
    let kind = source.kind();
    let error = if kind == io::ErrorKind::NotFound {
        PortError::new(ErrorKind::Missing, format!("object {object} is missing"))
    } else if kind == io::ErrorKind::UnexpectedEof {
        PortError::new(ErrorKind::Damaged, format!("object {object} ends too early"))
    } else {
        PortError::new(ErrorKind::of_io(&source), format!("cannot {operation} {object}"))
    };
    error.with_source(source)
}
