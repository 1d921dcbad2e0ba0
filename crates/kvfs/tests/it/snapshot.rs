//! Mounted snapshots: one moment of the filesystem, in order of inodes.

use std::sync::Arc;

use kvfs::Kvfs;
use kvfs::ops::{EntryRef, RenameMode, SetAttr, XattrMode};
use parking_lot::Mutex;
use tier_types::{
    ChunkNo, ChunkState, ErrorKind, FileKind, Ino, LogService, MountedInstance, MountedSnapshot,
    Publication, Xid,
};

use crate::common::{CHUNK, create, directory, file, name, node, open};

fn publish(fs: &Kvfs) -> (Publication, Arc<dyn MountedSnapshot>) {
    let publication = fs.publish().unwrap().unwrap();
    let snapshot = fs.open_snapshot(&publication).unwrap();
    (publication, snapshot)
}

#[test]
fn an_inode_is_shown_with_all_that_belongs_to_it() {
    let (_dir, fs) = create();
    let d = directory(&fs, Ino::ROOT, "d");
    let f = file(&fs, d, "f");
    fs.link(f, Ino::ROOT, &name("second")).unwrap();
    fs.setxattr(f, b"user.b", b"2", XattrMode::Set).unwrap();
    fs.setxattr(f, b"user.a", b"1", XattrMode::Set).unwrap();
    let attr = fs.getattr(f).unwrap();
    let (publication, snapshot) = publish(&fs);
    assert_eq!((snapshot.xid(), snapshot.chunk_bytes()), (publication.range.last(), CHUNK));
    fs.setattr(f, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    fs.removexattr(f, b"user.a").unwrap();
    let mut reader = snapshot.reader();
    let state = reader.inode(f).unwrap().unwrap();
    assert_eq!(state.attr, attr);
    let links: Vec<_> =
        state.links.iter().map(|link| (link.parent, link.name.to_string())).collect();
    assert_eq!(links, [(Ino::ROOT, "second".into()), (d, "f".to_string())]);
    let xattrs: Vec<_> = state.xattrs.iter().map(|xattr| xattr.name.as_slice()).collect();
    assert_eq!(xattrs, [b"user.a", b"user.b"], "sorted");
    assert_eq!(reader.inode(Ino::new(99)).unwrap(), None);
}

#[test]
fn paths_are_those_of_the_moment() {
    let (_dir, fs) = create();
    let mut dirs = vec![Ino::ROOT];
    for depth in 0..20 {
        dirs.push(directory(&fs, *dirs.last().unwrap(), &format!("d{depth}")));
    }
    let deep = *dirs.last().unwrap();
    let files: Vec<_> = (0..5).map(|number| file(&fs, deep, &format!("f{number}"))).collect();
    let (unnamed, _handle) = fs.create_unnamed(&node(FileKind::Regular)).unwrap();
    let (_publication, snapshot) = publish(&fs);
    let (old, new) = (name("d0"), name("renamed"));
    let (from, to) = (EntryRef::new(Ino::ROOT, &old), EntryRef::new(Ino::ROOT, &new));
    fs.rename(from, to, RenameMode::Replace).unwrap();
    let mut reader = snapshot.reader();
    let above: String = (0..20).map(|depth| format!("d{depth}/")).collect();
    let mut path = |ino| reader.path(ino).unwrap().map(|path| String::from_utf8(path).unwrap());
    for (number, &ino) in files.iter().enumerate() {
        assert_eq!(path(ino).unwrap(), format!("{above}f{number}"));
    }
    assert_eq!(path(Ino::ROOT).unwrap(), "");
    assert_eq!(path(dirs[2]).unwrap(), "d0/d1");
    assert_eq!(path(unnamed.ino), None);
    assert_eq!(path(Ino::new(999)), None);
}

#[test]
fn a_map_is_total_and_read_in_pages() {
    let (_dir, fs) = create();
    let f = file(&fs, Ino::ROOT, "f");
    for number in [1, 3, 4, 9] {
        fs.write(f, number * u64::from(CHUNK), &[1; 512]).unwrap();
    }
    let (_publication, snapshot) = publish(&fs);
    let mut reader = snapshot.reader();
    let all = reader.chunk_runs(f, ChunkNo::new(0), 100).unwrap();
    let states: Vec<_> =
        all.iter().map(|run| (run.chunks.start().get(), run.state == ChunkState::Hot)).collect();
    let expected = [
        (0, false),
        (1, true),
        (2, false),
        (3, true),
        (4, true),
        (5, false),
        (9, true),
        (10, false),
    ];
    assert_eq!(states, expected);
    assert_eq!(all.last().unwrap().chunks.end(), ChunkNo::END);
    // The same in pages of every size.
    for n_max in 1..5 {
        let mut paged = Vec::new();
        let mut from = ChunkNo::new(0);
        while from < ChunkNo::END {
            let page = reader.chunk_runs(f, from, n_max).unwrap();
            assert!(page.len() <= n_max);
            from = page.last().unwrap().chunks.end();
            paged.extend(page);
        }
        assert_eq!(paged, all, "{n_max}");
    }
    // From within a run it is cut; of an inode without data it is one hole.
    let within = reader.chunk_runs(f, ChunkNo::new(7), 1).unwrap();
    assert_eq!((within[0].chunks.start().get(), within[0].chunks.end().get()), (7, 9));
    let nothing = reader.chunk_runs(Ino::ROOT, ChunkNo::new(5), 9).unwrap();
    assert_eq!((nothing.len(), nothing[0].data_xid), (1, Xid::new(0)));
}

#[test]
fn chunks_that_are_not_there_are_damage() {
    let (_dir, fs) = create();
    let f = file(&fs, Ino::ROOT, "f");
    fs.write(f, 0, &[1; 700]).unwrap();
    let (_publication, snapshot) = publish(&fs);
    let mut reader = snapshot.reader();
    let mut data = Vec::new();
    let run = reader.chunk_runs(f, ChunkNo::new(0), 1).unwrap()[0];
    reader.read_chunks(f, run.chunks, &mut data).unwrap();
    assert_eq!(data, [1; 700], "the last one ends where its bytes do");
    let hole = reader.chunk_runs(f, run.chunks.end(), 1).unwrap()[0];
    let error = reader.read_chunks(f, hole.chunks, &mut data).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "never zeros");
}

#[test]
fn a_snapshot_that_was_let_go_is_the_present_or_missing() {
    let (dir, fs) = create();
    let f = file(&fs, Ino::ROOT, "f");
    let (publication, snapshot) = publish(&fs);
    drop(snapshot);
    fs.release(&publication).unwrap();
    fs.release(&publication).unwrap();
    assert!(fs.open_snapshot(&publication).is_ok(), "nothing was logged since");
    drop(fs);
    // Nor after a restart, which lets go of every snapshot.
    let fs = open(&dir);
    let reopened = fs.open_snapshot(&publication).unwrap();
    assert_eq!(reopened.xid(), publication.range.last());
    fs.write(f, 0, b"x").unwrap();
    assert!(fs.open_snapshot(&publication).is_ok(), "it is held again");
    fs.release(&publication).unwrap();
    let gone = fs.open_snapshot(&publication).err().unwrap();
    assert_eq!(gone.kind(), ErrorKind::Missing);
    assert!(reopened.reader().inode(f).unwrap().is_some(), "for a reader that has it");
}

#[test]
fn listeners_hear_of_every_publication() {
    let (_dir, fs) = create();
    let heard = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..2 {
        let hears = Arc::clone(&heard);
        fs.on_publication(Box::new(move |publication| hears.lock().push(*publication)));
    }
    let (first, _) = publish(&fs);
    assert_eq!(fs.publish().unwrap(), None);
    file(&fs, Ino::ROOT, "f");
    let (second, _) = publish(&fs);
    assert_eq!(*heard.lock(), [first, first, second, second]);
}

#[test]
fn foreground_activity_is_told_to_background_readers() {
    let (_dir, fs) = create();
    let (_publication, snapshot) = publish(&fs);
    fs.getattr(Ino::ROOT).unwrap();
    // Where space is low nothing yields.
    assert!(snapshot.foreground_active(), "or the disk of temporary files is nearly full");
    // Reading the snapshot is none: it ends by itself.
    while snapshot.foreground_active() {
        snapshot.reader().inode(Ino::ROOT).unwrap();
    }
}
