//! What POSIX says, where a random workload does not look.

use kvfs::FsError;
use kvfs::ops::{
    Blocking, EntryRef, FilePosition, NewFile, NewNode, RenameMode, SetAttr, XattrMode,
};
use tier_types::{ByteRange, FileAttr, FileKind, Ino, LogReader, Timestamp, Xattr};

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
    let root = Ino::ROOT;
    let rename = |from: &str, to: (Ino, &str), mode| {
        fs.rename(EntryRef::new(root, &name(from)), EntryRef::new(to.0, &name(to.1)), mode)
    };
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
    assert_eq!(fs.data_ranges(ino, 0, 10).unwrap(), [ByteRange::between(10 * 512, 12 * 512)]);
    fs.punch_hole(ino, 10 * 512, 512).unwrap();
    assert_eq!(fs.data_ranges(ino, 0, 10).unwrap(), [ByteRange::between(11 * 512, 12 * 512)]);
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
    let second = kvfs::Core::open(dir.path(), &crate::common::options(), clock);
    assert!(matches!(second, Err(FsError::Busy)), "{second:?}");
}

#[test]
fn a_file_in_one_step_is_the_same_as_in_several() {
    let (_dir, fs) = create();
    let content: Vec<u8> = (0..2000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let time = |seconds| Timestamp { seconds, nanos: 5 };
    let xattr = Xattr { name: b"user.a".to_vec(), value: b"1".to_vec() };
    let new = NewFile {
        node: node(FileKind::Regular),
        accessed: time(-1),
        modified: time(7),
        xattrs: vec![xattr],
        content: content.clone(),
    };
    let one = fs.create_file(Ino::ROOT, &name("one"), &new).unwrap();
    assert_eq!(fs.getattr(one.ino).unwrap(), one);
    let several = file(&fs, Ino::ROOT, "several");
    fs.write(several, 0, &content).unwrap();
    fs.setxattr(several, b"user.a", b"1", XattrMode::Set).unwrap();
    let set = SetAttr { accessed: Some(time(-1)), modified: Some(time(7)), ..SetAttr::default() };
    let several = fs.setattr(several, &set).unwrap();
    assert_eq!(
        FileAttr {
            ino: one.ino,
            xid: one.xid,
            changed: one.changed,
            created: one.created,
            ..several
        },
        one
    );
    for ino in [one.ino, several.ino] {
        assert_eq!(fs.read(ino, 0, 9999).unwrap(), content);
        assert_eq!(fs.getxattr(ino, b"user.a").unwrap(), b"1");
        assert_eq!(fs.resident_bytes(ino).unwrap(), 2000);
    }
    assert!(matches!(fs.create_file(Ino::ROOT, &name("one"), &new), Err(FsError::Exists)));
}

#[test]
fn small_writes_add_up() {
    let (dir, fs) = create();
    let ino = file(&fs, Ino::ROOT, "f");
    let mut model = vec![0; 3000];
    fs.write(ino, 0, &model).unwrap();
    for i in 0..500_usize {
        let (at, byte) = (i * 37 % 2900, u8::try_from(i % 256).unwrap());
        fs.write(ino, u64::try_from(at).unwrap(), &[byte; 90]).unwrap();
        model[at..at + 90].fill(byte);
        if i % 100 == 0 {
            // What was cut off does not come back under a patch.
            fs.truncate(ino, 1000).unwrap();
            fs.truncate(ino, 3000).unwrap();
            model[1000..].fill(0);
        }
    }
    assert_eq!(fs.read(ino, 0, 9999).unwrap(), model);
    drop(fs);
    assert_eq!(open(&dir).read(ino, 0, 9999).unwrap(), model);
}

#[test]
fn a_directory_hands_its_group_and_its_list_on() {
    let (_dir, fs) = create();
    let d = directory(&fs, Ino::ROOT, "d");
    let set = SetAttr { mode: Some(0o2755), gid: Some(77), ..SetAttr::default() };
    fs.setattr(d, &set).unwrap();
    let by = |kind| NewNode { mode: 0o666, inherit: Some(0o022), ..node(kind) };
    let plain = fs.create_node(d, &name("plain"), &by(FileKind::Regular)).unwrap();
    assert_eq!((plain.gid, plain.mode), (77, 0o644));

    // Owner rwx, user 9 rwx, group r-x, mask rwx, others nothing.
    let mut list = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [(1, 7, !0), (2, 7, 9), (4, 5, !0), (16, 7, !0), (32, 0, !0)] {
        list.extend([tag, 0, permissions, 0]);
        list.extend(u32::to_le_bytes(id));
    }
    fs.setxattr(d, b"system.posix_acl_default", &list, XattrMode::Set).unwrap();
    let below = fs.create_node(d, &name("below"), &by(FileKind::Directory)).unwrap();
    assert_eq!((below.gid, below.mode), (77, 0o2660), "the list stands in for the umask");
    assert_eq!(fs.getxattr(below.ino, b"system.posix_acl_default").unwrap(), list);
    let access = fs.getxattr(below.ino, b"system.posix_acl_access").unwrap();
    assert_eq!(access[4 + 3 * 8 + 2], 6, "the mask is what the mode leaves");
    fs.setattr(below.ino, &SetAttr { mode: Some(0o700), ..SetAttr::default() }).unwrap();
    let access = fs.getxattr(below.ino, b"system.posix_acl_access").unwrap();
    assert_eq!(access[4 + 3 * 8 + 2], 0, "chmod changes the mask");

    // A list that says no more than a mode becomes one.
    let minimal: Vec<u8> = [&list[..12], &list[20..28], &list[36..]].concat();
    fs.setxattr(plain.ino, b"system.posix_acl_access", &minimal, XattrMode::Set).unwrap();
    assert_eq!(fs.getattr(plain.ino).unwrap().mode, 0o750);
    assert!(fs.listxattr(plain.ino).unwrap().is_empty());
    assert!(fs.setxattr(d, b"system.posix_acl_access", b"no list", XattrMode::Set).is_err());
}

#[test]
fn ranges_are_cut_at_the_ends_of_files_and_of_numbers() {
    let (_dir, fs) = create();
    let ino = file(&fs, Ino::ROOT, "f");
    let last = fs.last_xid();
    fs.write(ino, 5, b"").unwrap();
    fs.punch_hole(ino, 0, u64::MAX).unwrap();
    assert_eq!(fs.last_xid(), last, "there is nothing to do");
    fs.write(ino, 0, &[1; 1000]).unwrap();
    assert_eq!(fs.read(ino, 1000, 10).unwrap(), b"");
    assert_eq!(fs.read(ino, u64::MAX, usize::MAX).unwrap(), b"");
    assert_eq!(fs.read(ino, 990, usize::MAX).unwrap(), [1; 10]);
    fs.punch_hole(ino, 500, u64::MAX).unwrap();
    assert_eq!(fs.read(ino, 499, 3).unwrap(), [1, 0, 0]);
    let range = |offset, len| ByteRange { offset, len };
    fs.zero_range(Blocking::Blocking, ino, range(400, 5000), true).unwrap();
    assert_eq!(
        (fs.getattr(ino).unwrap().size_bytes, fs.read(ino, 399, 2).unwrap()),
        (1000, vec![1, 0])
    );
    fs.zero_range(Blocking::Blocking, ino, range(400, 5000), false).unwrap();
    assert_eq!(fs.getattr(ino).unwrap().size_bytes, 5400);
    fs.allocate(ino, 0, 10).unwrap();
    assert_eq!(fs.getattr(ino).unwrap().size_bytes, 5400, "it is long enough");
    let max = i64::MAX.unsigned_abs();
    for done in [
        fs.truncate(ino, max + 1),
        fs.allocate(ino, max, 1),
        fs.allocate(ino, u64::MAX, 1),
        fs.write(ino, max, b"x"),
    ] {
        assert!(matches!(done, Err(FsError::TooLarge(_))), "{done:?}");
    }
    fs.truncate(ino, max).unwrap();
    fs.write(ino, max - 1, b"x").unwrap();
    assert_eq!(fs.read(ino, max - 2, 9).unwrap(), [0, b'x']);
    assert_eq!(fs.next_hole(ino, max - 1).unwrap(), Some(max), "the end of the file");
}

#[test]
fn a_copy_within_a_file_does_not_go_on_with_what_it_wrote() {
    let (_dir, fs) = create();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &[1; 1000]).unwrap();
    let at = |offset| FilePosition { ino, offset };
    assert_eq!(fs.copy_range(Blocking::Blocking, at(500), at(5000), 4000).unwrap(), 500);
    assert_eq!(fs.getattr(ino).unwrap().size_bytes, 5500);
    assert_eq!(fs.copy_range(Blocking::Blocking, at(5500), at(0), 10).unwrap(), 0);
    assert_eq!(fs.copy_range(Blocking::Blocking, at(u64::MAX), at(0), 10).unwrap(), 0);
}
