//! Names: what creating, linking, renaming and removing them does to directories and inodes.

use std::sync::Arc;
use std::thread;

use kvfs::ops::{Caller, EntryRef, NewNode, RenameMode};
use kvfs::{FsError, Kvfs};
use tier_types::{DeviceNumber, FileKind, Ino, LogReader};

use crate::common::{create, directory, file, name, node, open};
use crate::fsck::check;

fn rename(fs: &Kvfs, from: (Ino, &str), to: (Ino, &str), mode: RenameMode) -> Result<(), FsError> {
    fs.rename(EntryRef::new(from.0, &name(from.1)), EntryRef::new(to.0, &name(to.1)), mode)
}

fn names(fs: &Kvfs, dir: Ino) -> Vec<String> {
    let entries = fs.readdir(dir, 0, usize::MAX).unwrap();
    let names = entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap());
    names.filter(|name| name != "." && name != "..").collect()
}

fn nlink(fs: &Kvfs, ino: Ino) -> u32 {
    fs.getattr(ino).unwrap().nlink
}

fn assert_consistent(fs: &Kvfs) {
    assert_eq!(check(fs).1, Vec::<String>::new());
}

#[test]
fn a_name_is_given_once() {
    let (_dir, fs) = create();
    let f = file(&fs, Ino::ROOT, "f");
    let again = fs.create_node(Ino::ROOT, &name("f"), &node(FileKind::Fifo));
    assert!(matches!(again, Err(FsError::Exists)));
    assert!(matches!(fs.link(f, Ino::ROOT, &name("f")), Err(FsError::Exists)));
    let below = fs.create_node(f, &name("g"), &node(FileKind::Regular));
    assert!(matches!(below, Err(FsError::NotDirectory)));
    assert!(matches!(fs.lookup(f, &name("g")), Err(FsError::NotDirectory)));
    assert!(matches!(fs.lookup(Ino::ROOT, &name("g")), Err(FsError::NotFound)));
    assert!(matches!(fs.readdir(f, 0, 1), Err(FsError::NotDirectory)));
    assert_eq!(names(&fs, Ino::ROOT), ["f"]);
}

#[test]
fn every_kind_of_node_is_what_it_was_made_as() {
    let (dir, fs) = create();
    let device = DeviceNumber { major: 8, minor: 1 };
    let kinds = [
        FileKind::Regular,
        FileKind::Directory,
        FileKind::Symlink(b"to/it".to_vec()),
        FileKind::Fifo,
        FileKind::Socket,
        FileKind::CharDevice(device),
        FileKind::BlockDevice(device),
    ];
    let made: Vec<_> = (0..)
        .zip(kinds)
        .map(|(number, kind)| {
            let new = node(kind);
            fs.create_node(Ino::ROOT, &name(&format!("n{number}")), &new).unwrap()
        })
        .collect();
    assert_eq!(made[2].size_bytes, 5, "the length of its target");
    assert_eq!((nlink(&fs, made[1].ino), nlink(&fs, Ino::ROOT)), (2, 3));
    for attr in &made {
        let is_file = matches!(attr.kind, FileKind::Regular);
        assert_eq!(fs.read(attr.ino, 0, 1).is_ok(), is_file, "{attr:?}");
        assert_eq!(fs.truncate(attr.ino, 1).is_ok(), is_file);
        assert_eq!(fs.allocate(attr.ino, 0, 1).is_ok(), is_file);
    }
    drop(fs);
    let fs = open(&dir);
    for attr in made.iter().filter(|attr| !matches!(attr.kind, FileKind::Regular)) {
        assert_eq!(fs.getattr(attr.ino).unwrap(), *attr);
    }
    assert_consistent(&fs);
}

#[test]
fn targets_of_links_are_checked() {
    let (_dir, fs) = create();
    let link = |target: &[u8]| {
        let new = node(FileKind::Symlink(target.to_vec()));
        fs.create_node(Ino::ROOT, &name("l"), &new)
    };
    assert!(matches!(link(b""), Err(FsError::Invalid(_))));
    assert!(matches!(link(b"a\0b"), Err(FsError::Invalid(_))));
    assert!(matches!(link(&[b'x'; 4096]), Err(FsError::TooLong(_))));
    link(&[b'x'; 4095]).unwrap();
}

#[test]
fn an_inode_lives_as_long_as_it_has_a_name() {
    let (_dir, fs) = create();
    let d = directory(&fs, Ino::ROOT, "d");
    let f = file(&fs, Ino::ROOT, "f");
    assert_eq!(fs.link(f, d, &name("second")).unwrap().nlink, 2);
    assert!(matches!(fs.link(d, d, &name("no")), Err(FsError::IsDirectory)));
    fs.unlink(Ino::ROOT, &name("f")).unwrap();
    assert_eq!((nlink(&fs, f), fs.lookup(d, &name("second")).unwrap().ino), (1, f));
    assert!(matches!(fs.rmdir(Ino::ROOT, &name("d")), Err(FsError::NotEmpty)));
    assert!(matches!(fs.unlink(Ino::ROOT, &name("d")), Err(FsError::IsDirectory)));
    assert!(matches!(fs.rmdir(d, &name("second")), Err(FsError::NotDirectory)));
    fs.unlink(d, &name("second")).unwrap();
    assert!(matches!(fs.getattr(f), Err(FsError::NotFound)));
    assert!(matches!(fs.unlink(d, &name("second")), Err(FsError::NotFound)));
    fs.rmdir(Ino::ROOT, &name("d")).unwrap();
    assert_eq!(nlink(&fs, Ino::ROOT), 2);
    assert_consistent(&fs);
}

#[test]
fn an_open_inode_outlives_its_names_and_a_crash_ends_it() {
    let (dir, fs) = create();
    let f = file(&fs, Ino::ROOT, "f");
    fs.write(f, 0, b"still here").unwrap();
    let (first, second) = (fs.open_handle(f).unwrap(), fs.open_handle(f).unwrap());
    assert_eq!(second.ino(), f);
    fs.unlink(Ino::ROOT, &name("f")).unwrap();
    assert_eq!(nlink(&fs, f), 0);
    drop(first);
    assert_eq!(fs.read(f, 0, 99).unwrap(), b"still here");
    fs.fsync().unwrap();
    // The handle is never closed, as in a crash.
    std::mem::forget(second);
    let copy = crate::publish::copy(&dir);
    let fs_after = open(&copy);
    crate::common::reap_all(&fs_after);
    assert!(matches!(fs_after.getattr(f), Err(FsError::NotFound)));
    assert_eq!(check(&fs_after).0.n_inodes, 1);
}

#[test]
fn a_file_without_a_name_can_get_one() {
    let (_dir, fs) = create();
    let (attr, handle) = fs.create_unnamed(&node(FileKind::Regular)).unwrap();
    assert_eq!(attr.nlink, 0);
    fs.write(attr.ino, 0, b"data").unwrap();
    fs.link(attr.ino, Ino::ROOT, &name("named")).unwrap();
    drop(handle);
    assert_eq!(fs.read(attr.ino, 0, 9).unwrap(), b"data");
    let (gone, handle) = fs.create_unnamed(&node(FileKind::Regular)).unwrap();
    drop(handle);
    assert!(matches!(fs.getattr(gone.ino), Err(FsError::NotFound)));
    assert!(matches!(fs.create_unnamed(&node(FileKind::Directory)), Err(FsError::Invalid(_))));
    assert_consistent(&fs);
}

#[test]
fn a_rename_replaces_what_it_may_and_counts_what_moved() {
    let (_dir, fs) = create();
    let (a, b) = (directory(&fs, Ino::ROOT, "a"), directory(&fs, Ino::ROOT, "b"));
    let sub = directory(&fs, a, "sub");
    let f = file(&fs, a, "f");
    let loser = file(&fs, b, "f");
    let replace = RenameMode::Replace;
    rename(&fs, (a, "f"), (b, "f"), replace).unwrap();
    assert!(matches!(fs.getattr(loser), Err(FsError::NotFound)));
    assert_eq!((names(&fs, a), names(&fs, b)), (vec!["sub".into()], vec!["f".to_string()]));
    // A directory replaces an empty one only.
    let target = directory(&fs, b, "sub");
    let inner = file(&fs, target, "inner");
    assert!(matches!(rename(&fs, (a, "sub"), (b, "sub"), replace), Err(FsError::NotEmpty)));
    fs.unlink(target, &name("inner")).unwrap();
    rename(&fs, (a, "sub"), (b, "sub"), replace).unwrap();
    assert!(matches!(fs.getattr(inner), Err(FsError::NotFound)));
    assert!(matches!(fs.getattr(target), Err(FsError::NotFound)));
    assert_eq!((nlink(&fs, a), nlink(&fs, b), nlink(&fs, sub)), (2, 3, 2));
    // Two names of one inode: nothing happens.
    fs.link(f, a, &name("again")).unwrap();
    rename(&fs, (a, "again"), (b, "f"), replace).unwrap();
    assert_eq!((nlink(&fs, f), names(&fs, a)), (2, vec!["again".to_string()]));
    let missing = rename(&fs, (a, "no"), (b, "f"), replace);
    assert!(matches!(missing, Err(FsError::NotFound)));
    assert_consistent(&fs);
}

#[test]
fn directories_and_files_change_places() {
    let (_dir, fs) = create();
    let (a, b) = (directory(&fs, Ino::ROOT, "a"), directory(&fs, Ino::ROOT, "b"));
    let sub = directory(&fs, a, "x");
    let f = file(&fs, b, "y");
    let cookie = |dir| fs.readdir(dir, 0, 9).unwrap().pop().unwrap().cookie;
    let places = (cookie(a), cookie(b));
    rename(&fs, (a, "x"), (b, "y"), RenameMode::Exchange).unwrap();
    assert_eq!(fs.lookup(a, &name("x")).unwrap().ino, f);
    assert_eq!(fs.lookup(b, &name("y")).unwrap().ino, sub);
    assert_eq!((nlink(&fs, a), nlink(&fs, b)), (2, 3));
    assert_eq!((cookie(a), cookie(b)), places, "names stay where they are listed");
    // Not below itself, either way.
    let deep = directory(&fs, sub, "deep");
    let circle = rename(&fs, (b, "y"), (deep, "z"), RenameMode::NoReplace);
    assert!(matches!(circle, Err(FsError::Invalid(_))));
    file(&fs, deep, "z");
    let circle = rename(&fs, (deep, "z"), (Ino::ROOT, "b"), RenameMode::Exchange);
    assert!(matches!(circle, Err(FsError::Invalid(_))));
    assert_consistent(&fs);
}

#[test]
fn a_listing_has_the_directory_itself_and_the_one_above() {
    let (_dir, fs) = create();
    let d = directory(&fs, Ino::ROOT, "d");
    let inner = directory(&fs, d, "inner");
    let inos = |dir| -> Vec<Ino> {
        fs.readdir(dir, 0, 9).unwrap().iter().map(|entry| entry.ino).collect()
    };
    assert_eq!(inos(inner), [inner, d]);
    assert_eq!(inos(Ino::ROOT)[..2], [Ino::ROOT, Ino::ROOT]);
    assert_eq!(fs.readdir(d, 0, 0).unwrap(), []);
    assert_eq!(fs.readdir(d, 0, 1).unwrap().len(), 1);
    let last = fs.readdir(d, 0, 9).unwrap().pop().unwrap();
    assert_eq!(fs.readdir(d, last.cookie, 9).unwrap(), []);
    assert_eq!(fs.readdir(d, u64::MAX, 9).unwrap(), []);
}

/// Moves of directories into each other, files that change hands and removals, all at once: in the
/// end the tree is one, and every inode is counted right.
#[test]
fn many_threads_leave_a_tree() {
    let (_dir, fs) = create();
    let dirs: Vec<_> =
        (0..4).map(|number| directory(&fs, Ino::ROOT, &format!("d{number}"))).collect();
    thread::scope(|scope| {
        for thread in 0..4_usize {
            let (fs, dirs) = (Arc::clone(&fs), &dirs);
            scope.spawn(move || {
                for step in 0..150_usize {
                    let from = dirs[(thread + step) % 4];
                    let to = dirs[(thread + step * 3 + 1) % 4];
                    let (old, new) = (format!("f{}", step % 3), format!("f{}", step % 2));
                    // Most of these fail, each for a reason that POSIX has.
                    let _ = fs.create_node(from, &name(&old), &node(FileKind::Regular));
                    let mode = match step % 3 {
                        0 => RenameMode::Replace,
                        1 => RenameMode::Exchange,
                        _ => RenameMode::NoReplace,
                    };
                    let _ = rename(&fs, (from, &old), (to, &new), mode);
                    let dir = format!("d{}", step % 4);
                    let _ = rename(&fs, (Ino::ROOT, &dir), (to, "moved"), RenameMode::NoReplace);
                    let _ = rename(&fs, (to, "moved"), (Ino::ROOT, &dir), RenameMode::NoReplace);
                    let _ = fs.unlink(to, &name(&old));
                }
            });
        }
    });
    assert_consistent(&fs);
    let kinds = NewNode { mode: 0o600, ..node(FileKind::Regular) };
    fs.create_node(Ino::ROOT, &name("it goes on"), &kinds).unwrap();
}

#[test]
fn a_name_that_stays_keeps_its_place_and_so_does_what_stays_in_its_directory() {
    let (_dir, fs) = create();
    let [dir, other] = ["d", "e"].map(|it| directory(&fs, Ino::ROOT, it));
    let [a, b, c] = ["a", "b", "c"].map(|it| file(&fs, dir, it));
    let rename = |from, to| rename(&fs, from, to, RenameMode::Replace).unwrap();
    let listed = |dir| {
        let entries = fs.readdir(dir, 2, 9).unwrap().into_iter();
        entries.map(|entry| (entry.name, entry.ino, entry.cookie)).collect::<Vec<_>>()
    };
    let places: Vec<_> = listed(dir).into_iter().map(|(_, _, cookie)| cookie).collect();
    let at = |index: usize, text: &str, ino| (text.as_bytes().to_vec(), ino, places[index]);
    rename((dir, "a"), (dir, "x"));
    assert_eq!(listed(dir), [at(0, "x", a), at(1, "b", b), at(2, "c", c)]);
    rename((dir, "c"), (dir, "b"));
    assert_eq!(listed(dir), [at(0, "x", a), at(1, "b", c)]);
    let f = file(&fs, other, "f");
    rename((other, "f"), (dir, "x"));
    assert_eq!(listed(dir), [at(0, "x", f), at(1, "b", c)]);
    rename((dir, "b"), (other, "g"));
    assert_eq!(listed(dir), [at(0, "x", f)]);
    assert!(listed(other)[0].2 > places[2], "in another directory it is a new one");
    assert_eq!(check(&fs).1, [""; 0]);
}

#[test]
fn a_rename_can_leave_a_whiteout() {
    let (_dir, fs) = create();
    let d = directory(&fs, Ino::ROOT, "d");
    let (f, replaced) = (file(&fs, Ino::ROOT, "f"), file(&fs, d, "g"));
    let (old, new) = (name("f"), name("g"));
    let [from, to] = [EntryRef::new(Ino::ROOT, &old), EntryRef::new(d, &new)];
    let owner = Some(Caller { uid: 7, gid: 8 });
    let last = fs.last_xid();
    fs.rename_leaving(from, to, RenameMode::Replace, owner).unwrap();
    assert_eq!(fs.lookup(d, &new).unwrap().ino, f);
    assert!(matches!(fs.getattr(replaced), Err(FsError::NotFound)));
    let whiteout = fs.lookup(Ino::ROOT, &old).unwrap();
    let device = DeviceNumber { major: 0, minor: 0 };
    assert_eq!((whiteout.kind, whiteout.mode), (FileKind::CharDevice(device), 0));
    assert_eq!((whiteout.uid, whiteout.gid, whiteout.nlink), (7, 8, 1));
    assert_eq!(whiteout.ino.get(), last.get() + 2, "made by the second of three operations");
    assert_eq!(fs.last_xid().get(), last.get() + 3);
    let same = fs.rename_leaving(to, to, RenameMode::Replace, owner);
    assert!(same.is_ok() && fs.lookup(d, &new).unwrap().ino == f, "nothing to do");
    assert_eq!(check(&fs).1, [""; 0]);
}
