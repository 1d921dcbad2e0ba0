//! Attributes and extended attributes, their limits, and what the filesystem tells of itself.

use std::sync::Arc;

use kvfs::ops::{Caller, NewFile, SetAttr, XattrMode};
use kvfs::{Core, FsError, Kvfs, KvfsOptions, NoArchive};
use tier_testkit::VirtualClock;
use tier_types::{FileKind, Ino, LogReader, LogService, Timestamp, Xattr, Xid};

use crate::common::{CHUNK, create, directory, file, name, node, options};
use crate::fsck::check;

fn mode(fs: &Kvfs, ino: Ino) -> u16 {
    fs.getattr(ino).unwrap().mode
}

#[test]
fn a_change_of_owner_takes_privileges_off_files() {
    let (_dir, fs) = create();
    let f = file(&fs, Ino::ROOT, "f");
    let privileged = SetAttr { mode: Some(0o6755), ..SetAttr::default() };
    fs.setattr(f, &privileged).unwrap();
    fs.setxattr(f, b"security.capability", b"x", XattrMode::Set).unwrap();
    fs.setattr(f, &SetAttr { uid: Some(5), strip: true, ..SetAttr::default() }).unwrap();
    assert_eq!((mode(&fs, f), fs.getattr(f).unwrap().uid), (0o755, 5));
    assert!(matches!(fs.getxattr(f, b"security.capability"), Err(FsError::NoXattr)));
    // Nothing is written where there is nothing to take.
    let last = fs.last_xid();
    fs.strip_privileges(f).unwrap();
    assert_eq!(fs.last_xid(), last);
    fs.setattr(f, &privileged).unwrap();
    fs.strip_privileges(f).unwrap();
    assert_eq!(mode(&fs, f), 0o755);
    let d = directory(&fs, Ino::ROOT, "d");
    fs.setattr(d, &SetAttr { mode: Some(0o2755), strip: true, ..SetAttr::default() }).unwrap();
    assert_eq!(mode(&fs, d), 0o2755, "of a directory it is no privilege");
}

#[test]
fn an_access_is_noted_once_after_each_change_and_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(VirtualClock::at(1_480_000_000));
    let core = Core::create(dir.path(), &options(), clock.clone()).unwrap();
    let fs = Kvfs::new(Arc::new(core), Arc::new(NoArchive));
    let f = file(&fs, Ino::ROOT, "f");
    fs.write(f, 0, b"x").unwrap();
    let noted = |fs: &Kvfs| {
        clock.pass(1);
        let (last, before) = (fs.last_xid(), fs.getattr(f).unwrap());
        fs.note_access(f).unwrap();
        let after = fs.getattr(f).unwrap();
        assert_eq!((fs.last_xid(), after.xid), (last, before.xid), "a read is no operation");
        after.accessed != before.accessed
    };
    assert!(noted(&fs), "it changed since the last access");
    assert!(!noted(&fs));
    fs.write(f, 0, b"y").unwrap();
    assert!(noted(&fs));
    let long_ago = Timestamp { seconds: 1_480_000_000 - 25 * 60 * 60, nanos: 0 };
    let before = Timestamp { seconds: 5, nanos: 0 };
    let set = SetAttr {
        accessed: Some(long_ago),
        modified: Some(before),
        changed: Some(before),
        ..SetAttr::default()
    };
    fs.setattr(f, &set).unwrap();
    assert!(noted(&fs), "a day ago");
    assert!(!noted(&fs));
}

#[test]
fn access_times_are_written_along_with_a_change_or_when_asked_and_lost_in_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(VirtualClock::at(1_480_000_000));
    let open = |core: Core| Kvfs::new(Arc::new(core), Arc::new(NoArchive));
    let fs = open(Core::create(dir.path(), &options(), clock.clone()).unwrap());
    let [written, changed, set, lost] = ["a", "b", "c", "d"].map(|it| file(&fs, Ino::ROOT, it));
    let made = fs.getattr(written).unwrap().accessed.seconds;
    clock.pass(60);
    for ino in [written, changed, set] {
        fs.note_access(ino).unwrap();
    }
    let noted = fs.getattr(written).unwrap().accessed.seconds;
    assert_eq!(noted, made + 60);
    let by_program = Timestamp { seconds: 5, nanos: 6 };
    fs.setattr(set, &SetAttr { accessed: Some(by_program), ..SetAttr::default() }).unwrap();
    fs.setattr(changed, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    fs.write_access_times().unwrap();
    fs.write_access_times().unwrap();
    fs.note_access(lost).unwrap();
    assert_eq!(fs.getattr(lost).unwrap().accessed.seconds, noted);
    let n_operations = fs.last_xid();
    drop(fs);
    let fs = open(Core::open(dir.path(), &options(), clock).unwrap());
    assert_eq!(fs.last_xid(), n_operations);
    let accessed = |ino| fs.getattr(ino).unwrap().accessed.seconds;
    assert_eq!([written, changed, set, lost].map(accessed), [noted, noted, 5, made]);
}

#[test]
fn extended_attributes_have_limits() {
    let (_dir, fs) = create();
    let f = file(&fs, Ino::ROOT, "f");
    let set = |name: &[u8], len| fs.setxattr(f, name, &vec![1; len], XattrMode::Set);
    assert!(matches!(set(b"", 1), Err(FsError::TooLong(_))));
    assert!(matches!(set(&[b'x'; 256], 1), Err(FsError::TooLong(_))));
    assert!(matches!(set(b"user.a\0", 1), Err(FsError::TooLong(_))));
    assert!(matches!(set(b"user.a", (64 << 10) + 1), Err(FsError::XattrsFull(_))));
    for number in 0..15 {
        set(format!("user.{number}").as_bytes(), 64 << 10).unwrap();
    }
    set(b"user.last", 60 << 10).unwrap();
    assert!(matches!(set(b"user.more", 64 << 10), Err(FsError::XattrsFull(_))), "all together");
    set(b"user.last", 10).unwrap();
    assert_eq!(fs.listxattr(f).unwrap().len(), 16);
    assert!(matches!(fs.removexattr(f, b"user.no"), Err(FsError::NoXattr)));
    assert!(matches!(fs.getxattr(Ino::new(99), b"user.a"), Err(FsError::NotFound)));
    assert!(matches!(fs.listxattr(Ino::new(99)), Err(FsError::NotFound)));
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

#[test]
fn a_caller_of_another_group_loses_set_group_id_by_a_list() {
    let (_dir, fs) = create();
    let mut list = vec![2, 0, 0, 0];
    for (tag, permissions) in [(1, 7), (4, 5), (32, 0)] {
        list.extend([tag, 0, permissions, 0]);
        list.extend(u32::to_le_bytes(u32::MAX));
    }
    for (caller, expected) in [
        (Caller::ROOT, 0o2750),
        (Caller { uid: 1, gid: 2 }, 0o2750),
        (Caller { uid: 1, gid: 3 }, 0o0750),
    ] {
        let f = file(&fs, Ino::ROOT, &format!("{}-{}", caller.uid, caller.gid));
        fs.setattr(f, &SetAttr { mode: Some(0o2777), ..SetAttr::default() }).unwrap();
        let access = b"system.posix_acl_access";
        fs.setxattr_as(caller, f, access, &list, XattrMode::Set).unwrap();
        assert_eq!(mode(&fs, f), expected, "{caller:?}");
    }
}

#[test]
fn a_file_in_one_step_is_checked_like_one_in_several() {
    let (_dir, fs) = create();
    let new = |kind| NewFile {
        node: node(kind),
        accessed: Timestamp::default(),
        modified: Timestamp::default(),
        xattrs: Vec::new(),
        content: b"data".to_vec(),
    };
    let made = fs.create_file(Ino::ROOT, &name("d"), &new(FileKind::Directory));
    assert!(matches!(made, Err(FsError::Invalid(_))), "a directory has no data");
    let xattr = Xattr { name: b"user.a".to_vec(), value: vec![0; (64 << 10) + 1] };
    let large = NewFile { xattrs: vec![xattr], ..new(FileKind::Regular) };
    assert!(matches!(fs.create_file(Ino::ROOT, &name("f"), &large), Err(FsError::XattrsFull(_))));
    let many = (0..17).map(|number| Xattr {
        name: format!("user.{number}").into_bytes(),
        value: vec![0; 64 << 10],
    });
    let many = NewFile { xattrs: many.collect(), ..new(FileKind::Regular) };
    assert!(matches!(fs.create_file(Ino::ROOT, &name("f"), &many), Err(FsError::XattrsFull(_))));
    let empty = NewFile { content: Vec::new(), ..new(FileKind::Directory) };
    let dir = fs.create_file(Ino::ROOT, &name("d"), &empty).unwrap();
    assert_eq!(fs.getattr(dir.ino).unwrap(), dir);
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

#[test]
fn sizes_of_chunks_are_checked_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    for chunk_bytes in [0, 511, (1 << 20) + 1] {
        let options = KvfsOptions { chunk_bytes, ..options() };
        let made = Core::create_empty(dir.path(), &options, Xid::new(0));
        assert!(matches!(made, Err(FsError::Invalid(_))), "{chunk_bytes}");
    }
    let (dir, fs) = create();
    drop(fs);
    let clock = Arc::new(VirtualClock::at(0));
    let other = KvfsOptions { chunk_bytes: 4096, ..options() };
    let core = Core::open(dir.path(), &other, clock).unwrap();
    assert_eq!(core.chunk_bytes(), CHUNK, "fixed when it was made");
}

#[test]
fn the_store_can_be_shown() {
    let (_dir, fs) = create();
    let f = file(&fs, Ino::ROOT, "f");
    fs.write(f, 0, b"data").unwrap();
    fs.setxattr(f, b"user.a", b"1\n", XattrMode::Set).unwrap();
    let dump = |prefix: &str| {
        let mut out = Vec::new();
        fs.dump(prefix, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    insta::assert_snapshot!(dump("entries"), @"entries 1 f ino=2 at=4");
    insta::assert_snapshot!(dump("x"), @r"xattrs 2 user.a 1\n");
    insta::assert_snapshot!(dump("chunks"), @"chunks 2 0 4 bytes");
    insta::assert_snapshot!(dump("map"), @r"
    map 2 0 Hot xid=3
    map 2 1 Hole xid=0
    ");
    insta::assert_snapshot!(dump("res"), @"resident 2 4 bytes, 0 recalled, 0 evicted");
    insta::assert_snapshot!(dump("links"), @"links 2 1 f");
    let all = dump("");
    assert!(all.contains("\nlog 3 Write { ino: Ino(2), offset: 0, len: 4 }\n"), "{all}");
    let tables = fs.statistics().unwrap();
    assert_eq!(tables.len(), 18);
    assert!(tables.iter().any(|table| table.table == "inodes" && table.n_keys >= 2));
}

#[test]
fn records_that_are_not_published_can_be_visited() {
    let (_dir, fs) = create();
    file(&fs, Ino::ROOT, "a");
    let visited = |from: u64| {
        let mut xids = Vec::new();
        let visit = &mut |record: tier_log::LogRecord| {
            xids.push(record.xid.get());
            Ok(())
        };
        fs.unpublished_records(Xid::new(from), visit).unwrap();
        xids
    };
    assert_eq!((visited(0), visited(2)), (vec![1, 2], vec![2]));
    fs.publish().unwrap();
    assert_eq!(visited(0), [0; 0]);
    let stopped = fs.unpublished_records(Xid::new(0), &mut |_| Err(FsError::Interrupted));
    assert!(stopped.is_ok(), "there is none");
    file(&fs, Ino::ROOT, "b");
    let stopped = fs.unpublished_records(Xid::new(0), &mut |_| Err(FsError::Interrupted));
    assert!(matches!(stopped, Err(FsError::Interrupted)));
}
