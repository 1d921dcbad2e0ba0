//! Conversions of types and error numbers, from the filesystem's to the kernel's and back.
//!
//! An error number says little. Errors that are an answer to a question (no such file) are nothing
//! but the number; those that mean trouble become `EIO` and are logged here, where they end, with
//! their causes. An operation on an inode that the kernel knows and the filesystem does not is
//! `ESTALE`, so that the kernel looks the path up again.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileType, INodeNo};
use tier_types::{
    DeviceNumber, ErrorKind, FileAttr, FileKind, FileName, Ino, Timestamp, with_causes,
};

use crate::FsError;

const BLOCK_BYTES: u64 = 512;

pub(super) fn ino(number: INodeNo) -> Ino {
    Ino::new(number.0)
}

pub(super) fn number(ino: Ino) -> INodeNo {
    INodeNo(ino.get())
}

pub(super) fn name(name: &OsStr) -> Result<FileName, Errno> {
    let bytes = name.as_bytes();
    let too_long = bytes.len() > FileName::BYTES_MAX;
    let error = if too_long { Errno::ENAMETOOLONG } else { Errno::EINVAL };
    FileName::new(bytes).ok_or(error)
}

/// An entry as the kernel names it.
#[derive(Clone, Copy)]
pub(super) struct EntryName<'a> {
    pub(super) parent: INodeNo,
    pub(super) name: &'a OsStr,
}

/// The kernel leaves it to the filesystem to take set-id bits off where a user other than root
/// changes data by another way than a write.
pub(super) fn strips(req: &fuser::Request) -> bool {
    req.uid() != 0
}

/// What the kernel gets for an error. Those that are no answer to a question but trouble are
/// logged, because the number alone does not say what is wrong.
pub(super) fn errno(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotDirectory => Errno::ENOTDIR,
        FsError::IsDirectory => Errno::EISDIR,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::TooLong(_) => Errno::ENAMETOOLONG,
        FsError::TooLarge(_) => Errno::EFBIG,
        FsError::NoSpace(_)
        | FsError::XattrsFull(_)
        | FsError::Store { kind: ErrorKind::NoSpace, .. } => Errno::ENOSPC,
        FsError::Invalid(_) => Errno::EINVAL,
        FsError::TooManyLinks => Errno::EMLINK,
        FsError::NoXattr => Errno::ENODATA,
        FsError::Cold { .. } => Errno::EAGAIN,
        // It comes by itself, after hours.
        FsError::Recall { source, .. } if matches!(source.kind(), ErrorKind::Frozen { .. }) => {
            Errno::EAGAIN
        }
        FsError::Interrupted => Errno::EINTR,
        FsError::Extents { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            Errno::ENOSPC
        }
        FsError::Recall { .. }
        | FsError::Damaged { .. }
        | FsError::LostRange { .. }
        | FsError::Unreadable { .. }
        | FsError::Lost(_)
        | FsError::NotNew { .. }
        | FsError::Store { .. }
        | FsError::Extents { .. }
        | FsError::Log(_)
        | FsError::Contended { .. }
        | FsError::Poisoned
        | FsError::Reopened
        | FsError::LeaderPanicked
        | FsError::Busy => {
            tracing::error!("{}", with_causes(error));
            Errno::EIO
        }
    }
}

/// The error of an operation on an inode that the kernel knows: if it is gone, the kernel looks
/// the path up again.
pub(super) fn errno_by_ino(error: &FsError) -> Errno {
    if matches!(error, FsError::NotFound) { Errno::ESTALE } else { errno(error) }
}

pub(super) fn file_type(kind: &FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink(_) => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice(_) => FileType::CharDevice,
        FileKind::BlockDevice(_) => FileType::BlockDevice,
    }
}

/// What a listing says of an inode: one that cannot be read has to be of some kind.
pub(super) fn listed_type(attr: Option<&FileAttr>) -> FileType {
    attr.map_or(FileType::RegularFile, |attr| file_type(&attr.kind))
}

/// What is made by mknod with this mode and device.
pub(super) fn node_kind(mode: u32, device: u32) -> Option<FileKind> {
    let device = device_number(device);
    Some(match mode & 0o170_000 {
        0o100_000 | 0 => FileKind::Regular,
        0o010_000 => FileKind::Fifo,
        0o140_000 => FileKind::Socket,
        0o020_000 => FileKind::CharDevice(device),
        0o060_000 => FileKind::BlockDevice(device),
        _ => return None,
    })
}

/// The permission, set-id and sticky bits.
#[expect(clippy::expect_used, reason = "twelve bits are left")]
pub(super) fn mode(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).expect("twelve bits")
}

/// Linux's `new_decode_dev`.
fn device_number(device: u32) -> DeviceNumber {
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    DeviceNumber { major, minor }
}

/// Linux's `new_encode_dev`.
fn device(number: DeviceNumber) -> u32 {
    let DeviceNumber { major, minor } = number;
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

pub(super) fn attr(attr: &FileAttr, allocated_bytes: u64, block_bytes: u32) -> fuser::FileAttr {
    let rdev = match attr.kind {
        FileKind::CharDevice(number) | FileKind::BlockDevice(number) => device(number),
        FileKind::Regular
        | FileKind::Directory
        | FileKind::Symlink(_)
        | FileKind::Fifo
        | FileKind::Socket => 0,
    };
    fuser::FileAttr {
        ino: number(attr.ino),
        size: attr.size_bytes,
        blocks: allocated_bytes.div_ceil(BLOCK_BYTES),
        atime: system_time(attr.accessed),
        mtime: system_time(attr.modified),
        ctime: system_time(attr.changed),
        crtime: system_time(attr.created),
        kind: file_type(&attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev,
        blksize: block_bytes,
        flags: 0,
    }
}

/// What stands for a name that is not there.
pub(super) fn no_inode() -> fuser::FileAttr {
    fuser::FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    // Only a damaged time has so many nanoseconds that the system cannot express it.
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(time.nanos.into())))
        .unwrap_or(UNIX_EPOCH)
}

/// The time that the kernel sent. The library (0.18) reads a time before 1970 as if its
/// nanoseconds counted backwards as well; here that is undone.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    let (sign, since) = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (1, since),
        Err(error) => (-1, error.duration()),
    };
    // The earliest second of all has no counterpart; the next one stands for it.
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds: sign * seconds, nanos: since.subsec_nanos() }
}

#[cfg(test)]
mod tests {
    use std::io;
    use tier_types::ChunkRange;

    use super::*;

    #[test]
    fn device_numbers_survive() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (4095, 0xf_ffff)] {
            let number = DeviceNumber { major, minor };
            assert_eq!(device_number(device(number)), number);
        }
    }

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let time = Timestamp { seconds: -2, nanos: 800_000_000 };
        let expected = UNIX_EPOCH - Duration::new(1, 200_000_000);
        assert_eq!(system_time(time), expected);
        // What the library makes of the same on the way in.
        assert_eq!(timestamp(UNIX_EPOCH - Duration::new(2, 800_000_000)), time);
    }

    #[test]
    fn names_are_checked_as_the_kernel_would() {
        let name = |bytes: &[u8]| name(OsStr::from_bytes(bytes));
        assert_eq!(name(b"a").unwrap().as_bytes(), b"a");
        assert_eq!(name(&[b'x'; 256]).unwrap_err(), Errno::ENAMETOOLONG);
        assert_eq!(name(b"..").unwrap_err(), Errno::EINVAL);
        assert_eq!(name(b"").unwrap_err(), Errno::EINVAL);
    }

    #[test]
    fn a_mode_says_what_is_to_be_made() {
        assert_eq!(node_kind(0o100_644, 0), Some(FileKind::Regular));
        assert_eq!(node_kind(0o644, 0), Some(FileKind::Regular), "as mknod(2) has it");
        assert_eq!(node_kind(0o010_644, 0), Some(FileKind::Fifo));
        assert_eq!(node_kind(0o140_644, 0), Some(FileKind::Socket));
        let number = DeviceNumber { major: 8, minor: 1 };
        assert_eq!(node_kind(0o020_644, 0x801), Some(FileKind::CharDevice(number)));
        assert_eq!(node_kind(0o060_644, 0x801), Some(FileKind::BlockDevice(number)));
        for other in [0o040_755, 0o120_777, 0o170_000] {
            assert_eq!(node_kind(other, 0), None, "made by other requests");
        }
        assert_eq!(mode(0o106_755), 0o6755);
    }

    #[test]
    fn errors_are_the_numbers_that_posix_has_for_them() {
        let ino = Ino::new(7);
        let damage = crate::Damage::Attributes;
        for (error, number) in [
            (FsError::NotFound, Errno::ENOENT),
            (FsError::Exists, Errno::EEXIST),
            (FsError::NotDirectory, Errno::ENOTDIR),
            (FsError::IsDirectory, Errno::EISDIR),
            (FsError::NotEmpty, Errno::ENOTEMPTY),
            (FsError::TooLong("a name"), Errno::ENAMETOOLONG),
            (FsError::TooLarge("a file"), Errno::EFBIG),
            (FsError::NoSpace("the disk"), Errno::ENOSPC),
            (FsError::Invalid("an argument"), Errno::EINVAL),
            (FsError::TooManyLinks, Errno::EMLINK),
            (FsError::NoXattr, Errno::ENODATA),
            (FsError::Cold { ino }, Errno::EAGAIN),
            (FsError::Interrupted, Errno::EINTR),
            (FsError::Contended { ino, problem: "changes" }, Errno::EIO),
            (FsError::Damaged { ino: Some(ino), damage }, Errno::EIO),
            (FsError::lost_range(ino, ChunkRange::ALL, 512, 700), Errno::EIO),
            (FsError::io("sync", io::ErrorKind::StorageFull.into()), Errno::ENOSPC),
            (FsError::io("sync", io::ErrorKind::Other.into()), Errno::EIO),
            (FsError::Poisoned, Errno::EIO),
            (FsError::LeaderPanicked, Errno::EIO),
            (FsError::Busy, Errno::EIO),
        ] {
            assert_eq!(errno(&error), number, "{error:?}");
            let of_ino = if number == Errno::ENOENT { Errno::ESTALE } else { number };
            assert_eq!(errno_by_ino(&error), of_ino, "{error:?}");
        }
    }

    #[test]
    fn attributes_are_those_that_stat_shows() {
        let kind = FileKind::BlockDevice(DeviceNumber { major: 8, minor: 1 });
        let inode = FileAttr { size_bytes: 9, ..crate::testing::attr(7, kind) };
        let shown = attr(&inode, 1025, 4096);
        assert_eq!((shown.ino, shown.size, shown.blocks), (INodeNo(7), 9, 3));
        assert_eq!((shown.kind, shown.rdev, shown.blksize), (FileType::BlockDevice, 0x801, 4096));
        assert_eq!((shown.perm, shown.uid, shown.gid, shown.nlink), (0o644, 1, 2, 1));
        let file = attr(&crate::testing::attr(8, FileKind::Regular), 0, 4096);
        assert_eq!((file.rdev, file.blocks), (0, 0));
        assert_eq!((ino(number(Ino::new(5))), no_inode().ino), (Ino::new(5), INodeNo(0)));
    }

    #[test]
    fn times_that_nothing_can_express_are_the_epoch() {
        let far = Timestamp { seconds: i64::MAX, nanos: u32::MAX };
        assert_eq!(system_time(far), UNIX_EPOCH);
        let first = Timestamp { seconds: i64::MIN, nanos: 0 };
        assert!(system_time(first) < UNIX_EPOCH);
    }
}
