//! A filesystem on a disk that another program fills to the last byte, at any moment, and frees
//! again: no error but `NoSpace`, nothing lost that was synced, and writing goes on by itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tier_types::{FileKind, Ino};

use crate::core::Core;
use crate::testing::{LoopDisk, StandingClock, name, node, options, wait_for};
use crate::{FsError, Kvfs, KvfsOptions, NoArchive};

const N_WRITERS: u64 = 2;
const N_ROUNDS: u64 = 3;

/// A writer's file of a round, with content that no compression makes less of.
fn content(writer: u64, round: u64) -> Vec<u8> {
    let mut state = (writer << 32) | (round << 1) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    };
    (0..20_000).map(|_| next()).collect()
}

/// Makes a file whole and durable, or says that there is no room.
fn write_file(fs: &Kvfs, text: &str, bytes: &[u8]) -> Result<(), FsError> {
    let ino = fs.create_node(Ino::ROOT, &name(text), &node(FileKind::Regular))?.ino;
    let written = fs.write(ino, 0, bytes).and_then(|()| fs.fsync());
    if written.is_err() {
        // It may not be told whether the name is durable: it goes, or it is none of the promised.
        let _ = fs.unlink(Ino::ROOT, &name(text));
    }
    written
}

/// Writes until it is told to stop, removes every third file, and returns what it was promised.
fn writer(
    fs: &Kvfs,
    number: u64,
    stop: &AtomicBool,
    n_refused: &AtomicU64,
) -> BTreeMap<String, u64> {
    let mut promised = BTreeMap::new();
    let mut n_files = 0;
    let (_never, timer) = mpsc::channel::<()>();
    while !stop.load(Ordering::SeqCst) {
        // Nothing is sent: the store must not fill the disk by itself.
        let _ = timer.recv_timeout(Duration::from_millis(10));
        n_files += 1;
        let text = format!("w{number}-{n_files}");
        match write_file(fs, &text, &content(number, n_files)) {
            Ok(()) => {
                promised.insert(text, n_files);
            }
            Err(FsError::NoSpace(_)) => {
                n_refused.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => panic!("{text}: {}", tier_types::with_causes(&error)),
        }
        if n_files % 3 == 0
            && let Some((text, _)) = promised.first_key_value()
        {
            let text = text.clone();
            match fs.unlink(Ino::ROOT, &name(&text)) {
                Ok(()) => drop(promised.remove(&text)),
                Err(FsError::NoSpace(_)) => {}
                Err(error) => panic!("unlink {text}: {}", tier_types::with_causes(&error)),
            }
        }
    }
    promised
}

#[test]
fn a_disk_that_another_program_fills_costs_nothing_that_was_promised() {
    let Some(disk) = LoopDisk::new(200 << 20) else { return };
    let path = disk.path().join("store");
    let options = KvfsOptions { chunk_bytes: 64 << 10, write_buffer_bytes: 4 << 20, ..options() };
    let core = Core::create(&path, &options, Arc::new(StandingClock)).unwrap();
    let fs = Kvfs::new(Arc::new(core), Arc::new(NoArchive));
    let (stop, n_refused) = (AtomicBool::new(false), AtomicU64::new(0));
    let promised: Vec<BTreeMap<String, u64>> = thread::scope(|scope| {
        let spawn = |number| {
            let (fs, stop, n_refused) = (&fs, &stop, &n_refused);
            scope.spawn(move || writer(fs, number, stop, n_refused))
        };
        let writers: Vec<_> = (0..N_WRITERS).map(spawn).collect();
        for _ in 0..N_ROUNDS {
            disk.fill();
            let before = n_refused.load(Ordering::SeqCst);
            wait_for(|| n_refused.load(Ordering::SeqCst) > before);
            disk.free();
            // It goes on by itself: two writes, because one may have been let through before.
            let last = fs.core().committer.last_xid();
            wait_for(|| fs.core().committer.last_xid().get() > last.get() + 4);
        }
        stop.store(true, Ordering::SeqCst);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    drop(fs);
    let core = Core::open(&path, &options, Arc::new(StandingClock)).unwrap();
    let fs = Kvfs::new(Arc::new(core), Arc::new(NoArchive));
    for (number, files) in (0..).zip(&promised) {
        assert!(!files.is_empty(), "writer {number} wrote nothing");
        for (text, round) in files {
            let ino = fs.lookup(Ino::ROOT, &name(text)).unwrap().ino;
            assert!(fs.read(ino, 0, 300_000).unwrap() == content(number, *round), "{text}");
        }
    }
}

#[test]
fn a_store_on_a_full_disk_opens_and_reads() {
    let Some(disk) = LoopDisk::new(100 << 20) else { return };
    let path = disk.path().join("store");
    let options = KvfsOptions { write_buffer_bytes: 4 << 20, ..options() };
    let core = Core::create(&path, &options, Arc::new(StandingClock)).unwrap();
    let fs = Kvfs::new(Arc::new(core), Arc::new(NoArchive));
    disk.take(40 << 20);
    fs.statfs().unwrap();
    write_file(&fs, "file", &content(1, 1)).unwrap();
    // Where room becomes short there is a ballast.
    assert!(path.join("ballast").exists());
    drop(fs);
    disk.fill();
    let core = Core::open(&path, &options, Arc::new(StandingClock)).unwrap();
    let fs = Kvfs::new(Arc::new(core), Arc::new(NoArchive));
    let ino = fs.lookup(Ino::ROOT, &name("file")).unwrap().ino;
    assert!(fs.read(ino, 0, 300_000).unwrap() == content(1, 1));
    assert!(matches!(fs.write(ino, 0, b"more"), Err(FsError::NoSpace(_))));
    disk.free();
    wait_for(|| fs.write(ino, 0, b"more").is_ok());
    fs.fsync().unwrap();
}
