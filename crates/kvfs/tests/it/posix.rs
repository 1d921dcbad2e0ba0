//! What POSIX says, where a random workload does not look.

use kvfs::{FsError, RenameMode, SetAttr, XattrMode};
use tier_types::{FileKind, Ino, Timestamp};

use crate::common::{create, directory, file, name, node, open};

#[test]
fn cookies_are_stable_while_others_add_and_remove() {
    let (_dir, fs) = create();
    for i in 0..100 {
        file(&fs, Ino::ROOT, &format!("f{i:03}"));
    }
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = fs.readdir(Ino::ROOT, after, 7).unwrap();
        let Some(last) = page.last() else { break };
        after = last.cookie;
        seen.extend(page.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()));
        // One goes that was seen, one comes that may or may not be seen.
        if let Some(victim) = seen.iter().rev().find(|name| name.starts_with('f')).cloned() {
            drop(fs.unlink(Ino::ROOT, &name(&victim)));
        }
        if seen.len() < 50 {
            file(&fs, Ino::ROOT, &format!("new{}", seen.len()));
        }
    }
    assert_eq!(&seen[..2], [".", ".."]);
    let old: Vec<_> = seen.iter().filter(|name| name.starts_with('f')).cloned().collect();
    let expected: Vec<_> = (0..100).map(|i| format!("f{i:03}")).collect();
    assert_eq!(old, expected, "every entry that was there all the time, once");
}

#[test]
fn renames_do_what_their_mode_says() {
    let (_dir, fs) = create();
    let a = file(&fs, Ino::ROOT, "a");
    let d = directory(&fs, Ino::ROOT, "d");
    let rename = |from: &str, to: (Ino, &str), mode| {
        fs.rename((Ino::ROOT, &name(from)), (to.0, &name(to.1)), mode)
    };
    let root = Ino::ROOT;
    assert!(matches!(rename("a", (root, "d"), RenameMode::NoReplace), Err(FsError::Exists)));
    assert!(matches!(rename("a", (root, "d"), RenameMode::Replace), Err(FsError::IsDirectory)));
    assert!(matches!(rename("d", (root, "a"), RenameMode::Replace), Err(FsError::NotDirectory)));
    assert!(matches!(rename("d", (d, "x"), RenameMode::Replace), Err(FsError::Invalid(_))));
    assert!(matches!(rename("a", (root, "no"), RenameMode::Exchange), Err(FsError::NotFound)));
    rename("a", (root, "d"), RenameMode::Exchange).unwrap();
    assert_eq!(fs.lookup(root, &name("d")).unwrap().ino, a);
    assert_eq!(fs.lookup(root, &name("a")).unwrap().ino, d);
    rename("d", (d, "moved"), RenameMode::NoReplace).unwrap();
    assert_eq!(fs.lookup(d, &name("moved")).unwrap().ino, a);
}

#[test]
fn a_removed_directory_takes_no_new_entries() {
    let (_dir, fs) = create();
    let d = directory(&fs, Ino::ROOT, "d");
    let handle = fs.open_handle(d).unwrap();
    fs.rmdir(Ino::ROOT, &name("d")).unwrap();
    let made = fs.create_node(d, &name("x"), &node(FileKind::Regular));
    assert!(matches!(made, Err(FsError::NotFound)));
    assert_eq!(fs.getattr(d).unwrap().nlink, 0);
    drop(handle);
    assert!(matches!(fs.getattr(d), Err(FsError::NotFound)));
}

#[test]
fn attributes_and_extended_attributes_survive_reopening() {
    let (dir, fs) = create();
    let ino = file(&fs, Ino::ROOT, "f");
    let modified = Timestamp { seconds: -3, nanos: 7 };
    let set = SetAttr {
        mode: Some(0o4751),
        uid: Some(9),
        modified: Some(modified),
        ..SetAttr::default()
    };
    fs.setattr(ino, &set).unwrap();
    fs.setxattr(ino, b"user.a", b"1", XattrMode::Create).unwrap();
    let again = fs.setxattr(ino, b"user.a", b"2", XattrMode::Create);
    assert!(matches!(again, Err(FsError::Exists)));
    let missing = fs.setxattr(ino, b"user.b", b"2", XattrMode::Replace);
    assert!(matches!(missing, Err(FsError::NoXattr)));
    drop(fs);
    let fs = open(&dir);
    let attr = fs.getattr(ino).unwrap();
    assert_eq!((attr.mode, attr.uid, attr.gid, attr.modified), (0o4751, 9, 2, modified));
    assert_eq!(fs.getxattr(ino, b"user.a").unwrap(), b"1");
    fs.removexattr(ino, b"user.a").unwrap();
    assert!(matches!(fs.getxattr(ino, b"user.a"), Err(FsError::NoXattr)));
}

#[test]
fn holes_are_told_apart_from_data() {
    let (_dir, fs) = create();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 10 * 512, &[1; 600]).unwrap();
    fs.truncate(ino, 100 * 512).unwrap();
    assert_eq!(fs.data_ranges(ino, 0, 10).unwrap(), [(10 * 512, 12 * 512)]);
    fs.punch_hole(ino, 10 * 512, 512).unwrap();
    assert_eq!(fs.data_ranges(ino, 0, 10).unwrap(), [(11 * 512, 12 * 512)]);
    let content = fs.read(ino, 0, 200 * 512).unwrap();
    assert_eq!(content.len(), 100 * 512);
    let (hole, data) = content.split_at(11 * 512);
    assert!(hole.iter().all(|&byte| byte == 0));
    assert_eq!(data[..88], [1; 600 - 512]);
    assert!(fs.write(ino, u64::MAX - 5, b"too far").is_err());
}

#[test]
fn a_second_opening_is_refused() {
    let (dir, _fs) = create();
    let clock = std::sync::Arc::new(tier_testkit::VirtualClock::at(0));
    let second = kvfs::Kvfs::open(dir.path(), &crate::common::options(), clock);
    assert!(matches!(second, Err(FsError::Busy)), "{second:?}");
}
