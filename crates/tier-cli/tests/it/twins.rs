//! The same done to a mount and to a directory of the host, by several threads, while the mount is
//! persisted, evicted and recalled: the two cannot be told apart.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{FallocateFlags, XattrFlags, fallocate, getxattr, lsetxattr};

use crate::harness::Store;
use crate::mount::Mounted;

const N_THREADS: u64 = 4;
const N_OPERATIONS: usize = 1500;
/// Names are few, so that they meet again.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const OFFSET_MAX: u64 = 300_000;

/// Numbers by chance, the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn path(&mut self) -> PathBuf {
        let mut path = PathBuf::new();
        for _ in 0..=self.below(2) {
            path.push(NAMES[usize::try_from(self.below(8)).unwrap()]);
        }
        path
    }
}

/// Something that can be done to a tree.
#[derive(Debug)]
enum Deed {
    Write { path: PathBuf, offset: u64, len: usize, byte: u8 },
    Truncate { path: PathBuf, size: u64 },
    Punch { path: PathBuf, offset: u64, len: u64 },
    Read { path: PathBuf },
    MakeDirectory { path: PathBuf },
    Remove { path: PathBuf },
    RemoveDirectory { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Link { from: PathBuf, to: PathBuf },
    Symlink { target: PathBuf, path: PathBuf },
    Mode { path: PathBuf, mode: u32 },
    Owner { path: PathBuf, id: u32 },
    Xattr { path: PathBuf, value: u8 },
    Sync { path: PathBuf },
}

impl Deed {
    fn by(chance: &mut Chance) -> Self {
        let path = chance.path();
        match chance.below(20) {
            0..=5 => {
                let (offset, len) = (chance.below(OFFSET_MAX), chance.below(100_000));
                let (len, byte) = (usize::try_from(len).unwrap(), chance.below(256));
                Self::Write { path, offset, len, byte: u8::try_from(byte).unwrap() }
            }
            6 => Self::Truncate { path, size: chance.below(OFFSET_MAX) },
            7 => {
                let (offset, len) = (chance.below(OFFSET_MAX), 1 + chance.below(200_000));
                Self::Punch { path, offset, len }
            }
            8..=10 => Self::Read { path },
            11 => Self::MakeDirectory { path },
            12 => Self::Remove { path },
            13 => Self::RemoveDirectory { path },
            14 => Self::Rename { from: path, to: chance.path() },
            15 => Self::Link { from: path, to: chance.path() },
            16 => Self::Symlink { target: chance.path(), path },
            17 => Self::Mode { path, mode: u32::try_from(chance.below(0o1000)).unwrap() },
            18 => match chance.below(2) {
                0 => Self::Owner { path, id: u32::try_from(chance.below(3)).unwrap() },
                _ => Self::Xattr { path, value: u8::try_from(chance.below(256)).unwrap() },
            },
            _ => Self::Sync { path },
        }
    }

    /// Does it below a directory, and says what came of it.
    fn on(&self, root: &Path) -> Result<Vec<u8>, Option<i32>> {
        self.attempt(root).map_err(|error| error.raw_os_error())
    }

    fn attempt(&self, root: &Path) -> io::Result<Vec<u8>> {
        let at = |path: &Path| root.join(path);
        let writable = |path: &Path| OpenOptions::new().write(true).open(at(path));
        match self {
            Self::Write { path, offset, len, byte } => {
                let mut options = OpenOptions::new();
                let file = options.write(true).create(true).truncate(false).open(at(path))?;
                file.write_all_at(&vec![*byte; *len], *offset)?;
            }
            Self::Truncate { path, size } => writable(path)?.set_len(*size)?,
            Self::Punch { path, offset, len } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(writable(path)?, flags, *offset, *len)?;
            }
            Self::Read { path } => return fs::read(at(path)),
            Self::MakeDirectory { path } => fs::create_dir(at(path))?,
            Self::Remove { path } => fs::remove_file(at(path))?,
            Self::RemoveDirectory { path } => fs::remove_dir(at(path))?,
            Self::Rename { from, to } => fs::rename(at(from), at(to))?,
            Self::Link { from, to } => fs::hard_link(at(from), at(to))?,
            Self::Symlink { target, path } => symlink(target, at(path))?,
            Self::Mode { path, mode } => {
                fs::set_permissions(at(path), fs::Permissions::from_mode(*mode))?;
            }
            Self::Owner { path, id } => lchown(at(path), Some(*id), Some(*id))?,
            Self::Xattr { path, value } => {
                lsetxattr(at(path), "user.twin", &[*value], XattrFlags::empty())?;
            }
            Self::Sync { path } => File::open(at(path))?.sync_all()?,
        }
        Ok(Vec::new())
    }
}

/// Everything that can be seen of a tree, but times.
fn seen(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    look(root, Path::new(""), &mut first_names, &mut seen);
    seen
}

fn look(
    root: &Path,
    path: &Path,
    first_names: &mut BTreeMap<u64, PathBuf>,
    seen: &mut BTreeMap<PathBuf, String>,
) {
    let full = root.join(path);
    let data = fs::symlink_metadata(&full).unwrap();
    let content = if data.is_symlink() {
        format!("to {}", fs::read_link(&full).unwrap().display())
    } else if data.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&full).unwrap().map(|e| e.unwrap()).collect();
        names.sort_by_key(fs::DirEntry::file_name);
        for name in names {
            look(root, &path.join(name.file_name()), first_names, seen);
        }
        "directory".to_string()
    } else {
        let bytes = fs::read(&full).unwrap();
        let sum = bytes.iter().fold(17_u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
        format!("{} bytes, {sum:x}", bytes.len())
    };
    let twin = first_names.entry(data.ino()).or_insert_with(|| path.to_path_buf()).clone();
    let mut value = [0; 4];
    let xattr = match data.is_symlink() {
        true => None,
        false => getxattr(&full, "user.twin", &mut value).ok().map(|_| value),
    };
    // How many links a directory has differs from one filesystem to the next.
    let n_links = if data.is_dir() { 0 } else { data.nlink() };
    let (mode, uid, gid) = (data.mode(), data.uid(), data.gid());
    let line = format!("{mode:o} {uid} {gid} {n_links} {twin:?} {xattr:?} {content}");
    seen.insert(path.to_path_buf(), line);
}

fn assert_twins(host: &Path, mount: &Path) {
    let (host, mount) = (seen(host), seen(mount));
    for (path, line) in &host {
        assert_eq!(Some(line), mount.get(path), "{}", path.display());
    }
    assert_eq!(host.len(), mount.len());
}

/// One thread's deeds, in its own directory of both.
fn work(number: u64, host: &Path, mount: &Path) {
    let mut chance = Chance(0x1234_5678_9abc_def1 ^ (number << 40));
    let name = format!("thread-{number}");
    let (host, mount) = (host.join(&name), mount.join(&name));
    fs::create_dir(&host).unwrap();
    fs::create_dir(&mount).unwrap();
    for step in 0..N_OPERATIONS {
        let deed = Deed::by(&mut chance);
        let (on_host, on_mount) = (deed.on(&host), deed.on(&mount));
        assert!(on_host == on_mount, "thread {number}, step {step}: {deed:?}");
    }
    File::open(&mount).unwrap().sync_all().unwrap();
}

#[test]
fn a_mount_that_is_tiered_all_the_time_is_like_a_directory_of_the_host() {
    let store = Store::new(&[]);
    let host = PathBuf::from(store.at("host"));
    fs::create_dir(&host).unwrap();
    let Some(mounted) = Mounted::new(&store, &["--no-agent"]) else { return };
    let ended = AtomicBool::new(false);
    let directories = (host.as_path(), mounted.directory());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..N_THREADS)
            .map(|number| scope.spawn(move || work(number, directories.0, directories.1)))
            .collect();
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                store.run("snapshot", &[]).ok();
                store.run("evict", &["--all"]).ok();
                // What is removed meanwhile is not missed.
                store.run("recall", &["/"]).ok();
            }
        });
        scope.spawn(|| {
            for how in [[].as_slice(), &["--full-scan"], &["--from-cloud"]].iter().cycle() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                store.run("index rebuild", how).ok();
            }
        });
        let done: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        ended.store(true, Ordering::SeqCst);
        assert!(done.iter().all(Result::is_ok));
    });
    assert_twins(&host, mounted.directory());
    mounted.evict_all();
    assert_twins(&host, mounted.directory());
    // All of it was synced.
    mounted.kill();
    store.run("fsck", &[]).ok();
    store.run("index check", &[]).ok();
    let mounted = Mounted::new(&store, &[]).unwrap();
    assert_twins(&host, mounted.directory());
    mounted.unmount();
    store.run("fsck", &[]).ok();
}
