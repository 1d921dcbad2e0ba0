//! Another index takes the place of one that is being read.

use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;

use tier_index::{Applied, Contents, Entry, Index, IndexError, IndexOptions, TarballId};
use tier_types::{Epoch, Ino, SnapshotId, Xid};

const CHUNK: u32 = 16;

/// Puts one inode of this number into the index, and calls that a snapshot.
fn apply(index: &Index, number: u32) {
    let snapshot = SnapshotId::new(u64::from(number));
    let tarball = TarballId { epoch: Epoch::new(1), snapshot, part: 0 };
    let (ino, xid) = (Ino::new(u64::from(number)), Xid::new(u64::from(number)));
    let entries = vec![Entry::Inode { ino, xid, frame: 0, offset: 0 }];
    let mut writer = index.writer();
    writer.add_tarball(tarball, b"row").unwrap();
    writer.apply(&Contents { tarball, chunk_bytes: CHUNK, entries }).unwrap();
    let epoch = Epoch::new(1);
    writer.set_applied(&Applied { epoch, snapshot, manifest_digest: [0; 32] }, b"step").unwrap();
    writer.flush().unwrap();
}

/// An index in its own directory that knows one inode and one snapshot, both of this number.
fn index(directory: &Path, number: u32) -> Index {
    let index = Index::open(directory, CHUNK, &IndexOptions::default()).unwrap();
    apply(&index, number);
    index
}

/// A sink that replaces the index while its dump is being written.
struct Interrupted<'a> {
    index: &'a Index,
    new: Option<Index>,
    directory: &'a Path,
    text: Vec<u8>,
}

impl Write for Interrupted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(new) = self.new.take() {
            self.index.writer().replace_by(new).unwrap();
        }
        // What is being read stays where it is.
        assert!(self.directory.join("CURRENT").exists());
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn dump(index: &Index) -> String {
    let mut out = Vec::new();
    index.dump(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_reader_goes_on_with_the_index_that_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let (old_dir, new_dir) = (dir.path().join("old"), dir.path().join("new"));
    let (live, new) = (index(&old_dir, 1), index(&new_dir, 2));
    let (old_dump, new_dump) = (dump(&live), dump(&new));
    assert_ne!(old_dump, new_dump);
    let (new, text) = (Some(new), Vec::new());
    let mut out = Interrupted { index: &live, new, directory: &old_dir, text };
    live.dump(&mut out).unwrap();
    assert_eq!(String::from_utf8(out.text).unwrap(), old_dump);
    assert_eq!(dump(&live), new_dump);
    assert_eq!(live.generation(), 1);
    assert!(live.inode(Ino::new(1)).unwrap().is_none());
    assert!(!old_dir.exists(), "nothing reads it any more");
}

#[test]
fn a_writer_that_waited_writes_into_the_new_index() {
    let dir = tempfile::tempdir().unwrap();
    let new_dir = dir.path().join("new");
    let (live, new) = (index(&dir.path().join("old"), 1), index(&new_dir, 2));
    let writer = live.writer();
    thread::scope(|scope| {
        let (begun, begins) = channel();
        let waiting = scope.spawn({
            let live = &live;
            move || {
                begun.send(()).unwrap();
                apply(live, 3);
            }
        });
        begins.recv().unwrap();
        writer.replace_by(new).unwrap();
        waiting.join().unwrap();
    });
    let whole = dump(&live);
    drop(live);
    let again = Index::open(&new_dir, CHUNK, &IndexOptions::default()).unwrap();
    assert_eq!(dump(&again), whole);
    assert_eq!(again.applied().unwrap().unwrap().snapshot, SnapshotId::new(3));
    assert!(again.inode(Ino::new(2)).unwrap().is_some());
    assert!(again.inode(Ino::new(3)).unwrap().is_some());
}

#[test]
fn an_index_that_includes_less_or_has_other_chunks_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let live = index(&dir.path().join("live"), 3);
    let before = dump(&live);
    let less = index(&dir.path().join("less"), 2);
    let refused = live.writer().replace_by(less).unwrap_err();
    assert!(matches!(refused, IndexError::Behind), "{refused}");
    let empty = Index::open(&dir.path().join("empty"), CHUNK, &IndexOptions::default()).unwrap();
    assert!(matches!(live.writer().replace_by(empty), Err(IndexError::Behind)));
    let other = Index::open(&dir.path().join("other"), 2 * CHUNK, &IndexOptions::default());
    let refused = live.writer().replace_by(other.unwrap());
    assert!(matches!(refused, Err(IndexError::ChunkSize { .. })));
    assert_eq!(dump(&live), before);
    assert_eq!(live.generation(), 0);
}
