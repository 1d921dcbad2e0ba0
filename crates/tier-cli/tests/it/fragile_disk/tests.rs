//! The disk itself: what it keeps, what it refuses, and what it forgets.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, statvfs};

use super::{DiskImage, FailedSync, FragileDisk, flip_bit};

const BLOCK: usize = 4096;

/// A disk and its directory; `None`, said loudly, on a machine that cannot mount.
fn disk() -> Option<(tempfile::TempDir, FragileDisk, PathBuf)> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        eprintln!("SKIPPED: this machine has no FUSE that this user may use ({error})");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let on = dir.path().join("disk");
    fs::create_dir(&on).unwrap();
    let disk = FragileDisk::mount(&on).unwrap();
    Some((dir, disk, on))
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn free_bytes(on: &Path) -> u64 {
    let stat = statvfs(on).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// What a loss of power leaves if nothing reached the disk that was not synced.
fn left(image: &DiskImage, dir: &Path, name: &str) -> PathBuf {
    let directory = dir.join(name);
    image.left(&mut || false).write(&directory).unwrap();
    directory
}

#[test]
fn a_full_disk_refuses_blocks_and_takes_them_again() {
    let Some((_dir, disk, on)) = disk() else { return };
    let (path, other) = (on.join("file"), on.join("other"));
    fs::write(&path, vec![1; 4 * BLOCK]).unwrap();
    assert_eq!(free_bytes(&on), FragileDisk::CAPACITY_BYTES - 4 * 4096);
    disk.leave_free(2 * 4096);
    assert_eq!(free_bytes(&on), 2 * 4096);
    let full = fs::write(&other, vec![2; 3 * BLOCK]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs::read(&other).unwrap(), vec![2; 2 * BLOCK], "it took what fits");
    // What has a block takes no other one.
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[3; 2 * BLOCK], 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 0, 2 * 4096).unwrap();
    assert_eq!(free_bytes(&on), 2 * 4096);
    assert_eq!(file.metadata().unwrap().blocks(), 2 * 8);
    fallocate(&file, FallocateFlags::KEEP_SIZE, 4 * 4096, 4096).unwrap();
    assert_eq!(file.metadata().unwrap().blocks(), 3 * 8, "preallocated behind the end");
    file.set_len(3 * 4096).unwrap();
    assert_eq!(free_bytes(&on), 3 * 4096);
    // A file without a name takes room until its last user is gone.
    let open = File::open(&other).unwrap();
    fs::remove_file(&other).unwrap();
    assert_eq!(free_bytes(&on), 3 * 4096);
    drop(open);
    while free_bytes(&on) != 5 * 4096 {
        std::thread::yield_now();
    }
    disk.leave_free(1 << 20);
    fs::write(&other, vec![2; 100 * BLOCK]).unwrap();
}

#[test]
fn a_sync_that_fails_promises_nothing() {
    let Some((dir, disk, on)) = disk() else { return };
    let path = on.join("file");
    fs::write(&path, vec![1; 2 * BLOCK]).unwrap();
    sync(&path).unwrap();
    sync(&on).unwrap();
    for (failed_sync, name) in [(FailedSync::Keeps, "keeps"), (FailedSync::Forgets, "forgets")] {
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.write_all_at(&[2; BLOCK], 0).unwrap();
        disk.fail_syncs(1, failed_sync);
        assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(5));
        let durable = left(&disk.lose_power(), dir.path(), &format!("{name}-failed"));
        assert_eq!(fs::read(durable.join("file")).unwrap(), vec![1; 2 * BLOCK]);
        // What was written is read, and the next sync says that all is well.
        let mut read = vec![0; BLOCK];
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, vec![2; BLOCK]);
        file.sync_all().unwrap();
        let durable = left(&disk.lose_power(), dir.path(), name);
        let expected = if failed_sync == FailedSync::Keeps { 2 } else { 1 };
        assert_eq!(fs::read(durable.join("file")).unwrap()[..BLOCK], vec![expected; BLOCK]);
        // Written again, it is synced.
        file.write_all_at(&[2; BLOCK], 0).unwrap();
        file.sync_all().unwrap();
        let durable = left(&disk.lose_power(), dir.path(), &format!("{name}-again"));
        assert_eq!(fs::read(durable.join("file")).unwrap()[..BLOCK], [2; BLOCK]);
        fs::write(&path, vec![1; 2 * BLOCK]).unwrap();
        sync(&path).unwrap();
    }
    assert_eq!(disk.n_failed_syncs(), 2);
}

#[test]
fn a_loss_of_power_takes_what_was_not_synced_and_may_leave_some_of_it() {
    let Some((dir, disk, on)) = disk() else { return };
    fs::create_dir(on.join("sub")).unwrap();
    fs::write(on.join("sub/old"), vec![1; 3 * BLOCK]).unwrap();
    sync(&on.join("sub/old")).unwrap();
    fs::hard_link(on.join("sub/old"), on.join("sub/same")).unwrap();
    sync(&on.join("sub")).unwrap();
    sync(&on).unwrap();
    fs::rename(on.join("sub/old"), on.join("sub/new")).unwrap();
    let file = OpenOptions::new().write(true).open(on.join("sub/new")).unwrap();
    file.write_all_at(&[2; 2 * BLOCK], u64::try_from(2 * BLOCK).unwrap()).unwrap();
    let image = disk.lose_power();
    let nothing = left(&image, dir.path(), "nothing");
    assert_eq!(fs::read(nothing.join("sub/old")).unwrap(), vec![1; 3 * BLOCK]);
    assert_eq!(fs::read(nothing.join("sub/same")).unwrap(), vec![1; 3 * BLOCK]);
    assert!(!nothing.join("sub/new").exists());
    // The names, the length, and the second of two blocks.
    let mut answers = [true, true, true, false, true].into_iter();
    let some = dir.path().join("some");
    image.left(&mut || answers.next().unwrap()).write(&some).unwrap();
    let content = [vec![1; 3 * BLOCK], vec![2; BLOCK]].concat();
    assert!(fs::read(some.join("sub/new")).unwrap() == content);
    // What is left is a disk.
    drop((file, disk));
    let again = FragileDisk::mount_image(&on, &image.left(&mut || true)).unwrap();
    assert_eq!(fs::read(on.join("sub/new")).unwrap()[2 * BLOCK..], vec![2; 2 * BLOCK]);
    assert_eq!(fs::metadata(on.join("sub/same")).unwrap().nlink(), 2);
    assert_eq!(free_bytes(&on), FragileDisk::CAPACITY_BYTES - 4 * 4096);
    drop(again);
}

#[test]
fn one_bit_is_flipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, [0; 4]).unwrap();
    let flip = flip_bit(&path, 32 + 13).unwrap().unwrap();
    assert_eq!(fs::read(&path).unwrap(), [0, 1 << 5, 0, 0]);
    assert!(flip.to_string().starts_with("bit 5 of byte 1 in /"), "{flip}");
    fs::write(&path, []).unwrap();
    assert!(flip_bit(&path, 7).unwrap().is_none());
}
