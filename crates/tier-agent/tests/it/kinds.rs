//! Every kind of file update: what each writes, and that each comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use kvfs::Kvfs;
use kvfs::ops::{EntryRef, NewNode, RenameMode, SetAttr, XattrMode};
use tier_agent::Task;
use tier_persist::PersistReport;
use tier_types::{DeviceNumber, FileKind, FileName, Ino, Timestamp};

use crate::harness::{CHUNK, Harness};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

fn name(bytes: &[u8]) -> FileName {
    FileName::new(bytes).unwrap()
}

fn make(fs: &Kvfs, dir: Ino, name_bytes: &[u8], kind: FileKind) -> Ino {
    let node = NewNode { kind, mode: 0o4751, uid: 70_000, gid: u32::MAX - 1, inherit: None };
    fs.create_node(dir, &name(name_bytes), &node).unwrap().ino
}

fn snapshot(harness: &Harness) -> PersistReport {
    harness.perform(Task::Snapshot).unwrap().persisted.unwrap().report
}

/// Everything about every inode, by path, as text; of files what is not a hole.
fn describe(fs: &Arc<Kvfs>) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![(Ino::ROOT, Vec::new())];
    while let Some((ino, path)) = todo.pop() {
        let attr = fs.getattr(ino).unwrap();
        let mut text = format!("{attr:?}");
        for name in fs.listxattr(ino).unwrap() {
            let value = fs.getxattr(ino, &name).unwrap();
            text.push_str(&format!(" {}={}", name.escape_ascii(), value.escape_ascii()));
        }
        if matches!(attr.kind, FileKind::Regular) {
            for range in fs.data_ranges(ino, 0, 1000).unwrap() {
                let data = fs.read(ino, range.offset, range.len as usize).unwrap();
                text.push_str(&format!(" {}:{}", range.offset, data.escape_ascii()));
            }
        }
        if matches!(attr.kind, FileKind::Directory) {
            for entry in fs.readdir(ino, 0, 1000).unwrap().into_iter().skip(2) {
                todo.push((entry.ino, [&path[..], b"/", &entry.name].concat()));
            }
        }
        found.insert(path, text);
    }
    found
}

fn check_restored(harness: &Harness) {
    let before = describe(harness.fs());
    harness.check_index();
    harness.with_restored(|restored| assert_eq!(describe(restored), before));
}

#[test]
fn every_kind_of_inode_comes_back() {
    let harness = Harness::new();
    let fs = harness.fs();
    let device = DeviceNumber { major: 259, minor: 1 << 18 };
    let dir = make(fs, Ino::ROOT, b"dir\xff\n= \\", FileKind::Directory);
    let kinds = [
        FileKind::Regular,
        FileKind::Directory,
        FileKind::Symlink(b"to/\xfe\n".to_vec()),
        FileKind::Symlink(vec![b'x'; 4000]),
        FileKind::Fifo,
        FileKind::Socket,
        FileKind::CharDevice(device),
        FileKind::BlockDevice(device),
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        let ino = make(fs, dir, format!("{number}\t\u{e9}").as_bytes(), kind.clone());
        if !matches!(kind, FileKind::Symlink(_)) {
            fs.setxattr(ino, b"user.a=b", b"1\n2\0", XattrMode::Set).unwrap();
        }
        let before_epoch = Timestamp { seconds: -9, nanos: 999_999_999 };
        let times = SetAttr {
            accessed: Some(before_epoch),
            modified: Some(Timestamp { seconds: 1 << 40, nanos: 1 }),
            ..SetAttr::default()
        };
        fs.setattr(ino, &times).unwrap();
    }
    // Owner rwx, user 1000 r-x, group r-x, mask rwx, others nothing.
    let entries = [(1, 7, u32::MAX), (2, 5, 1000), (4, 5, u32::MAX), (16, 7, u32::MAX)];
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries.into_iter().chain([(32, 0, u32::MAX)]) {
        acl.extend([tag, 0, permissions, 0]);
        acl.extend(u32::to_le_bytes(id));
    }
    let file = make(fs, dir, &[b'n'; 255], FileKind::Regular);
    fs.setxattr(file, b"system.posix_acl_access", &acl, XattrMode::Set).unwrap();
    fs.setxattr(file, b"security.capability", &[0xff; 20], XattrMode::Set).unwrap();
    fs.write(file, 0, b"content").unwrap();
    fs.link(file, Ino::ROOT, &name(b"another name")).unwrap();
    fs.link(file, dir, &name(b"a third")).unwrap();
    let report = snapshot(&harness);
    assert_eq!((report.n_inodes, report.data_bytes, report.failed), (11, 7, Vec::new()));
    check_restored(&harness);
}

#[test]
fn an_update_writes_what_changed_and_no_more() {
    let harness = Harness::new();
    let fs = harness.fs();
    let chunk = u64::from(CHUNK);
    let dir = make(fs, Ino::ROOT, b"dir", FileKind::Directory);
    let large = make(fs, dir, b"large", FileKind::Regular);
    for number in 0..100 {
        fs.write(large, number * (GIB / 8), &[number as u8; 3 * CHUNK as usize]).unwrap();
    }
    for number in 0..20_u8 {
        make(fs, dir, &[b'f', number + 1], FileKind::Regular);
    }
    snapshot(&harness);

    fs.write(large, GIB / 8 + chunk, &[0xee; CHUNK as usize]).unwrap();
    let report = snapshot(&harness);
    assert_eq!((report.n_inodes, report.data_bytes), (1, chunk), "one extent of a file of 10 GiB");

    fs.setattr(large, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    let report = snapshot(&harness);
    assert_eq!((report.n_inodes, report.data_bytes), (1, 0), "metadata only");

    let (old, new) = (name(b"dir"), name(b"moved"));
    let (from, to) = (EntryRef::new(Ino::ROOT, &old), EntryRef::new(Ino::ROOT, &new));
    fs.rename(from, to, RenameMode::Replace).unwrap();
    let report = snapshot(&harness);
    let written = (report.n_inodes, report.data_bytes);
    assert_eq!(written, (2, 0), "the directory and its parent, and nothing below it");

    fs.link(large, Ino::ROOT, &name(b"second name")).unwrap();
    assert_eq!(snapshot(&harness).data_bytes, 0, "a new name");

    fs.punch_hole(large, 0, 2 * chunk).unwrap();
    fs.truncate(large, 5 * GIB).unwrap();
    assert_eq!(snapshot(&harness).data_bytes, 0, "an unmapped range, and the end cut off");

    fs.unlink(dir, &name(&[b'f', 1])).unwrap();
    assert_eq!(snapshot(&harness).data_bytes, 0, "a tombstone");
    check_restored(&harness);
}

#[test]
fn a_file_with_thousands_of_names_needs_no_giant_frame() {
    let harness = Harness::new();
    let fs = harness.fs();
    let file = make(fs, Ino::ROOT, b"first", FileKind::Regular);
    fs.write(file, 0, &[7; 1000]).unwrap();
    for number in 0..900 {
        fs.link(file, Ino::ROOT, &name(format!("name {number}").as_bytes())).unwrap();
    }
    assert_eq!(snapshot(&harness).failed, Vec::new());
    check_restored(&harness);
}

#[test]
fn a_file_of_many_tib_lies_across_tarballs() {
    let harness = Harness::new();
    let fs = harness.fs();
    let file = make(fs, Ino::ROOT, b"huge", FileKind::Regular);
    for number in 0..40_u64 {
        let noise: Vec<u8> =
            (0..CHUNK).map(|i| (i.wrapping_mul(2_654_435_761) >> 9) as u8 ^ number as u8).collect();
        fs.write(file, number * (TIB / 5) + 7, &noise).unwrap();
    }
    fs.truncate(file, 9 * TIB).unwrap();
    let report = snapshot(&harness);
    assert!(report.n_tarballs > 1, "{report:?}");
    check_restored(&harness);
}
