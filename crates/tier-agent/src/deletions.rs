//! The deletion queue: objects in a cloud that nothing needs, and since when.
//!
//! What is in it was found out to be moot with the archive at hand, and is deleted after a grace
//! period, when that was found out once more. So an error of the first look has a day to be
//! noticed, and a copy of the cloud that lags behind has one to catch up.
//!
//! The queue is a text file: a first line `deletions 1`, then a line for each object with the
//! second since 1970 at which it became moot, the identity of the cloud and the name, and a last
//! line `end D` with the SHA-256 of all before it. It is written anew with each change, beside the
//! old one, synced, renamed over it, and its directory synced. A file that is not whole deletes
//! nothing: the objects stay, which costs their room and nothing else. One that cannot be read now
//! is left as it is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use ring::digest;
use tier_types::{Clock, CloudId, ErrorKind, ObjectName, PortError};

/// From when an object is moot until it is deleted, in seconds.
const GRACE_SECONDS: i64 = 24 * 60 * 60;

const HEADER: &str = "deletions 1";
const FOOTER: &str = "end ";

/// Objects that are to be deleted, and since when.
type Deletions = BTreeMap<(CloudId, ObjectName), i64>;

/// The deletion queue of a store.
pub struct DeletionQueue {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    /// `None` until it could be read.
    deletions: Mutex<Option<Deletions>>,
}

impl std::fmt::Debug for DeletionQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeletionQueue").field("path", &self.path).finish_non_exhaustive()
    }
}

impl DeletionQueue {
    /// The queue in a file, which need not be there, and is read when it is first needed.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use tier_agent::DeletionQueue;
    /// use tier_types::{CloudId, ObjectName, SystemClock};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// let queue = DeletionQueue::open(&dir.path().join("deletions"), Arc::new(SystemClock));
    /// let cloud = CloudId::from_bytes([1; 16]);
    /// queue.add(cloud, [ObjectName::new("moot").expect("a name")])?;
    /// assert_eq!(queue.due(cloud)?, [], "after a day");
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { path: path.to_path_buf(), clock, deletions: Mutex::default() }
    }

    /// Adds objects that are moot from now on, durably. Those that are in it are so since before.
    pub fn add(
        &self,
        cloud: CloudId,
        names: impl IntoIterator<Item = ObjectName>,
    ) -> Result<(), PortError> {
        let now = self.clock.now().seconds;
        self.change(|deletions| {
            for name in names {
                deletions.entry((cloud, name)).or_insert(now);
            }
        })
    }

    /// The objects of a cloud whose grace period is over.
    pub fn due(&self, cloud: CloudId) -> Result<Vec<ObjectName>, PortError> {
        let now = self.clock.now().seconds;
        let is_over = |since: i64| now.saturating_sub(since) >= GRACE_SECONDS;
        let mut deletions = self.deletions.lock();
        let deletions = self.read_once(&mut deletions)?;
        let due = deletions.iter().filter(|((of, _), since)| *of == cloud && is_over(**since));
        Ok(due.map(|((_, name), _)| name.clone()).collect())
    }

    /// Takes objects out that are deleted, durably.
    pub fn remove(&self, cloud: CloudId, names: &[ObjectName]) -> Result<(), PortError> {
        self.change(|deletions| {
            for name in names {
                deletions.remove(&(cloud, name.clone()));
            }
        })
    }

    /// Changes the queue on the disk first, so that it is never ahead of that.
    fn change(&self, change: impl FnOnce(&mut Deletions)) -> Result<(), PortError> {
        let mut deletions = self.deletions.lock();
        let deletions = self.read_once(&mut deletions)?;
        let mut changed = deletions.clone();
        change(&mut changed);
        if *deletions != changed {
            replace(&self.path, &text_of(&changed)).map_err(|error| self.failed("write", error))?;
            *deletions = changed;
        }
        Ok(())
    }

    /// The queue, which is read from the disk the first time.
    fn read_once<'a>(
        &self,
        deletions: &'a mut Option<Deletions>,
    ) -> Result<&'a mut Deletions, PortError> {
        let read = match deletions.take() {
            Some(known) => known,
            None => self.read()?,
        };
        Ok(deletions.insert(read))
    }

    fn read(&self) -> Result<Deletions, PortError> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Deletions::new()),
            read => read.map_err(|error| self.failed("read", error))?,
        };
        let whole = str::from_utf8(&bytes).ok().and_then(parse);
        Ok(whole.unwrap_or_else(|| {
            let path = self.path.display();
            tracing::warn!("{path} is damaged: what was to be deleted in the cloud stays");
            Deletions::new()
        }))
    }

    fn failed(&self, what: &str, error: io::Error) -> PortError {
        let problem = format!("cannot {what} the deletion queue {}", self.path.display());
        PortError::new(ErrorKind::of_io(&error), problem).with_source(error)
    }
}

fn text_of(deletions: &Deletions) -> String {
    let lines = deletions.iter().map(|((cloud, name), since)| format!("{since} {cloud} {name}"));
    let lines: Vec<_> = iter::once(HEADER.to_owned()).chain(lines).collect();
    let content = lines.join("\n") + "\n";
    let footer = footer_of(&content);
    content + &footer
}

/// The last line of a queue, which vouches for what is before it.
fn footer_of(content: &str) -> String {
    let digest = digest::digest(&digest::SHA256, content.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{FOOTER}{hex}\n")
}

/// `None` for what is not a whole queue.
fn parse(text: &str) -> Option<Deletions> {
    let (content, footer) = text.split_at(text.rfind(FOOTER)?);
    let deletions = content.lines().skip(1);
    if content.lines().next() != Some(HEADER) || footer != footer_of(content) {
        return None;
    }
    let deletions = deletions.map(|line| {
        let (since, rest) = line.split_once(' ')?;
        let (cloud, name) = rest.split_once(' ')?;
        Some(((CloudId::parse(cloud)?, ObjectName::new(name)?), since.parse().ok()?))
    });
    deletions.collect()
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    // The content first: a crash after the rename must not find a name without it.
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use tier_testkit::VirtualClock;

    use super::*;

    const CLOUD: CloudId = CloudId::from_bytes([1; 16]);
    const OTHER: CloudId = CloudId::from_bytes([2; 16]);

    fn name(text: &str) -> ObjectName {
        ObjectName::new(text).unwrap()
    }

    #[test]
    fn what_is_moot_is_due_after_its_grace_whatever_happens_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deletions");
        let open = |seconds| DeletionQueue::open(&path, Arc::new(VirtualClock::at(seconds)));
        open(1000).add(CLOUD, [name("a/b"), name("c")]).unwrap();
        open(2000).add(CLOUD, [name("c"), name("d")]).unwrap();
        let due = |seconds, cloud| open(seconds).due(cloud).unwrap();
        assert_eq!(due(GRACE_SECONDS + 999, CLOUD), []);
        assert_eq!(due(GRACE_SECONDS + 1000, CLOUD), [name("a/b"), name("c")]);
        assert_eq!(due(GRACE_SECONDS * 9, OTHER), []);
        assert_eq!(due(0, CLOUD), [], "a clock that was set back");
        open(0).remove(CLOUD, &[name("a/b"), name("d")]).unwrap();
        assert_eq!(due(GRACE_SECONDS * 9, CLOUD), [name("c")]);
    }

    #[test]
    fn of_a_file_that_is_not_whole_nothing_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deletions");
        let open = || DeletionQueue::open(&path, Arc::new(VirtualClock::at(GRACE_SECONDS * 9)));
        let due = || open().due(CLOUD).unwrap();
        let queue = DeletionQueue::open(&path, Arc::new(VirtualClock::at(0)));
        queue.add(CLOUD, [name("a"), name("b")]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(due().len(), 2);
        for len in 0..text.len() {
            fs::write(&path, &text[..len]).unwrap();
            assert_eq!(due(), [], "{len} bytes of it");
        }
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).unwrap();
            assert_eq!(due(), [], "a flipped bit at {bit}");
        }
        open().add(CLOUD, [name("c")]).unwrap();
        assert_eq!(due(), [], "it is a new one");
    }

    #[test]
    fn a_file_that_cannot_be_read_now_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("deletions"), dir.path().join("aside"));
        let open = |seconds| DeletionQueue::open(&path, Arc::new(VirtualClock::at(seconds)));
        open(0).add(CLOUD, [name("a")]).unwrap();
        let queue = open(GRACE_SECONDS);
        fs::rename(&path, &aside).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(queue.due(CLOUD).is_err());
        assert!(queue.add(CLOUD, [name("b")]).is_err());
        fs::remove_dir(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        assert_eq!(queue.due(CLOUD).unwrap(), [name("a")], "it is read again");
    }
}
