//! Objects in a folder: temporary file, fsync, rename, fsync of the folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tier_types::{ErrorKind, ObjectName, ObjectStore, PortError};

/// Files of this ending are not objects: a crash may leave them.
const TEMPORARY: &str = ".tmp";
const COPY_BYTES: usize = 1 << 20;
/// Temporary files made by this process.
static N_TEMPORARIES: AtomicU64 = AtomicU64::new(0);

/// A folder of objects. The slashes of names are folders.
#[derive(Clone, Debug)]
pub struct LocalStore {
    root: PathBuf,
}

impl LocalStore {
    /// Objects below `root`, which is made if it is not there.
    pub fn open(root: &Path) -> Result<Self, PortError> {
        fs::create_dir_all(root).map_err(|source| failed("create folder", root, source))?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let synced = File::open(parent).and_then(|folder| folder.sync_all());
            synced.map_err(|source| failed("sync folder", parent, source))?;
        }
        Ok(Self { root: root.to_path_buf() })
    }

    /// Starts an object, whose name becomes visible when it is finished.
    pub(crate) fn create(&self, name: &ObjectName) -> Result<NewObject, PortError> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.root).to_path_buf();
        fs::create_dir_all(&folder).map_err(|source| failed("create folder", &folder, source))?;
        // No two writers ever share a temporary file.
        let number = N_TEMPORARIES.fetch_add(1, Ordering::Relaxed);
        let mut temporary = path.clone().into_os_string();
        temporary.push(format!(".{}-{number}{TEMPORARY}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary);
        let file = file.map_err(|source| failed("create", &temporary, source))?;
        Ok(NewObject { file, temporary, path, root: self.root.clone(), finished: false })
    }

    /// Removes what a crash left half written, below the objects that start with `prefix`.
    pub fn remove_temporaries(&self) -> Result<(), PortError> {
        let mut leftovers = Vec::new();
        walk(&self.root, &mut |path| {
            if path.as_os_str().as_encoded_bytes().ends_with(TEMPORARY.as_bytes()) {
                leftovers.push(path.to_path_buf());
            }
        })?;
        for path in leftovers {
            fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
        }
        Ok(())
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.as_str())
    }
}

/// An object that is being written. Dropped before it is finished, it leaves nothing; a crash leaves a
/// temporary file that no reader takes for an object.
#[derive(Debug)]
pub(crate) struct NewObject {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    root: PathBuf,
    finished: bool,
}

impl Drop for NewObject {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed is removed at the next start.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

impl NewObject {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), PortError> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| failed("write", &self.temporary, source))
    }

    /// The same file, for a thread that sends it to the disk while more is written.
    pub(crate) fn duplicate(&self) -> Result<WriteBack, PortError> {
        let file = self.file.try_clone();
        let file = file.map_err(|source| failed("duplicate", &self.temporary, source))?;
        Ok(WriteBack { file, path: self.temporary.clone() })
    }

    /// Makes the object durable under its name.
    pub(crate) fn finish(mut self) -> Result<(), PortError> {
        self.file.sync_all().map_err(|source| failed("sync", &self.temporary, source))?;
        fs::rename(&self.temporary, &self.path)
            .map_err(|source| failed("rename", &self.temporary, source))?;
        self.finished = true;
        let mut folder = self.path.parent();
        // A folder that is new must itself be found again.
        while let Some(path) = folder.filter(|path| path.starts_with(&self.root)) {
            let synced = File::open(path).and_then(|folder| folder.sync_all());
            synced.map_err(|source| failed("sync folder", path, source))?;
            folder = path.parent();
        }
        Ok(())
    }
}

/// Another handle on an object that is being written.
#[derive(Debug)]
pub(crate) struct WriteBack {
    file: File,
    path: PathBuf,
}

impl WriteBack {
    /// Waits until what was written so far is on disk, so that not all of it is written at the end.
    pub(crate) fn write_back(&self) -> Result<(), PortError> {
        self.file.sync_data().map_err(|source| failed("sync", &self.path, source))
    }
}

impl ObjectStore for LocalStore {
    fn put(
        &self,
        name: &ObjectName,
        len_bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(), PortError> {
        match self.len_bytes(name) {
            Ok(there) if there == len_bytes => return Ok(()),
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
            object.write(buffer.get(..n).unwrap_or_default())?;
            written += tier_types::to_u64(n);
        }
        if written != len_bytes {
            let message = format!("the content of {name} ended after {written} bytes");
            return Err(PortError::new(ErrorKind::Failed, message));
        }
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
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(failed("delete", &path, source))
            }
            _ => Ok(()),
        }
    }
}

fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) -> Result<(), PortError> {
    let entries = fs::read_dir(folder).map_err(|source| failed("list", folder, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| failed("list", folder, source))?;
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

fn failed(operation: &str, path: &Path, source: io::Error) -> PortError {
    let object = path.display();
    let kind = source.kind();
    let error = if kind == io::ErrorKind::NotFound {
        PortError::new(ErrorKind::Missing, format!("object {object} is missing"))
    } else if kind == io::ErrorKind::UnexpectedEof {
        PortError::new(ErrorKind::Damaged, format!("object {object} ends too early"))
    } else {
        PortError::new(ErrorKind::Failed, format!("cannot {operation} {object}"))
    };
    error.with_source(source)
}
