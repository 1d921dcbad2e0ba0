//! Every writer asks for room: each class of them once, and a property over all of them together.

mod world;

use std::collections::BTreeMap;

use proptest::prelude::*;
use tier_types::{ByteRange, ErrorKind, FileKind, Ino, LogService, MountedInstance, Timestamp};

use super::*;
use crate::Kvfs;
use crate::ops::{Blocking, EntryRef, FilePosition, RenameMode, SetAttr, XattrMode};
use crate::testing::{evict, name, node};
use world::{MB, World};

type Operation<'a> = (&'static str, Box<dyn Fn() -> Result<(), FsError> + 'a>);

fn named<'a>(what: &'static str, run: impl Fn() -> Result<(), FsError> + 'a) -> Operation<'a> {
    (what, Box::new(run))
}

/// What makes a store larger, each kind of caller once.
fn growing(fs: &Kvfs, ino: Ino) -> Vec<Operation<'_>> {
    let root = |text: &'static str| name(text);
    let make = |text: &'static str, kind: FileKind| {
        fs.create_node(Ino::ROOT, &name(text), &node(kind)).map(drop)
    };
    vec![
        named("write", move || fs.write(ino, 0, b"more")),
        named("create", move || make("new", FileKind::Regular)),
        named("mkdir", move || make("new", FileKind::Directory)),
        named("symlink", move || make("new", FileKind::Symlink(b"target".to_vec()))),
        named("create unnamed", move || fs.create_unnamed(&node(FileKind::Regular)).map(drop)),
        named("link", move || fs.link(ino, Ino::ROOT, &root("linked")).map(drop)),
        named("rename", move || {
            let from = name("file");
            let to = name("renamed");
            fs.rename(
                EntryRef { dir: Ino::ROOT, name: &from },
                EntryRef { dir: Ino::ROOT, name: &to },
                RenameMode::Replace,
            )
        }),
        named("setxattr", move || fs.setxattr(ino, b"user.b", b"value", XattrMode::Set)),
        named("chmod", move || {
            fs.setattr(ino, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).map(drop)
        }),
        named("extend", move || fs.truncate(ino, 1 << 20)),
        named("fallocate", move || fs.allocate(ino, 0, 1 << 20)),
        named("copy", move || {
            let at = |offset| FilePosition { ino, offset };
            fs.copy_range(Blocking::Blocking, at(0), at(4096), 10).map(drop)
        }),
        named("recall for good", move || {
            let cold = fs.lookup(Ino::ROOT, &name("cold"))?.ino;
            fs.recall_file(cold, &AtomicBool::new(false)).map(drop)
        }),
    ]
}

/// What takes something away.
fn removing(fs: &Kvfs, ino: Ino) -> Vec<Operation<'_>> {
    vec![
        named("truncate", move || fs.truncate(ino, 10)),
        named("punch", move || fs.punch_hole(ino, 0, 4)),
        named("removexattr", move || fs.removexattr(ino, b"user.a")),
        named("rmdir", move || fs.rmdir(Ino::ROOT, &name("directory"))),
        named("unlink", move || fs.unlink(Ino::ROOT, &name("file"))),
        named("unpin", move || fs.set_pin(fs.lookup(Ino::ROOT, &name("cold"))?.ino, false)),
    ]
}

/// A file with data and an attribute, a directory, and an evicted file that is pinned.
fn populate(world: &World) -> Ino {
    let fs = &world.fs;
    let ino = world.file("file");
    fs.write(ino, 0, &[1; 3000]).unwrap();
    fs.setxattr(ino, b"user.a", b"value", XattrMode::Set).unwrap();
    fs.create_node(Ino::ROOT, &name("directory"), &node(FileKind::Directory)).unwrap();
    let cold = world.file("cold");
    fs.write(cold, 0, &[7; 1024]).unwrap();
    evict(fs, cold);
    fs.set_pin(cold, true).unwrap();
    ino
}

#[test]
fn every_writer_is_refused_at_its_own_mark() {
    let world = World::new(0);
    let ino = populate(&world);
    let fs = &world.fs;
    let refused = |run: &Operation<'_>| matches!(run.1(), Err(FsError::NoSpace(_)));
    // Below the reserve, which is 10 MB; removals have half of it.
    world.set_left(4 * MB);
    for run in growing(fs, ino).iter().chain(&removing(fs, ino)) {
        assert!(refused(run), "{}", run.0);
    }
    assert_eq!(fs.check_room(1000).unwrap_err().kind(), ErrorKind::NoSpace, "the archive");
    world.set_left(8 * MB);
    for run in growing(fs, ino) {
        assert!(refused(&run), "{}", run.0);
    }
    fs.check_room(1000).unwrap();
    // A reader has its data all the same, and it is not stored; what it reads is not held up by a
    // time that cannot be noted.
    let cold = fs.lookup(Ino::ROOT, &name("cold")).unwrap().ino;
    assert_eq!(fs.read(cold, 0, 1024).unwrap(), [7; 1024]);
    assert_eq!(fs.resident_bytes(cold).unwrap(), 0);
    fs.note_access(cold).unwrap();
    for run in removing(fs, ino) {
        run.1().unwrap_or_else(|error| panic!("{}: {error}", run.0));
    }
    world.set_left(150 * MB);
    let ino = world.file("file");
    for run in growing(fs, ino) {
        let made = run.1();
        assert!(matches!(made, Ok(()) | Err(FsError::Exists)), "{}: {made:?}", run.0);
        let _ = fs.unlink(Ino::ROOT, &name("new"));
        let _ = fs.rmdir(Ino::ROOT, &name("new"));
    }
}

#[test]
fn what_is_refused_has_changed_nothing_and_a_cut_sets_its_attributes() {
    let world = World::new(0);
    let ino = populate(&world);
    let fs = &world.fs;
    let modified = Some(Timestamp { seconds: 7, nanos: 7 });
    let set = SetAttr { modified, changed: modified, mode: Some(0o600), ..SetAttr::default() };
    let cut = |size| fs.truncate_with(Blocking::Blocking, ino, size, &set);
    let attr = fs.getattr(ino).unwrap();
    // With room for removals neither: nothing. With room for those, and for no growth: all of it.
    world.set_left(4 * MB);
    assert!(matches!(cut(10), Err(FsError::NoSpace(_))));
    assert_eq!(fs.getattr(ino).unwrap(), attr);
    assert_eq!(fs.read(ino, 0, 3000).unwrap(), [1; 3000]);
    world.set_left(8 * MB);
    assert!(matches!(cut(4000), Err(FsError::NoSpace(_))), "it grows");
    let zero = |len| {
        let range = ByteRange { offset: 1000, len };
        fs.zero_range(Blocking::Blocking, ino, range, false)
    };
    assert!(matches!(zero(3000), Err(FsError::NoSpace(_))), "it grows");
    assert_eq!(fs.getattr(ino).unwrap(), attr);
    assert_eq!(fs.read(ino, 0, 3000).unwrap(), [1; 3000]);
    zero(1000).unwrap();
    let last = fs.core().committer.last_xid();
    cut(10).unwrap();
    let after = fs.getattr(ino).unwrap();
    assert_eq!((after.size_bytes, after.mode), (10, 0o600));
    assert_eq!((Some(after.modified), Some(after.changed)), (modified, modified));
    assert_eq!(fs.core().committer.last_xid(), last.next(), "one operation");
    world.check();
}

#[test]
fn what_makes_room_goes_on_without_a_reserve() {
    let world = World::new(0);
    let fs = &world.fs;
    let (evicted, orphan) = (world.file("evicted"), world.file("orphan"));
    fs.write(evicted, 0, &[7; 4096]).unwrap();
    let handle = fs.open_handle(orphan).unwrap();
    fs.unlink(Ino::ROOT, &name("orphan")).unwrap();
    world.set_left(2 * MB);
    evict(fs, evicted);
    assert_eq!(fs.resident_bytes(evicted).unwrap(), 0);
    drop(handle);
    assert!(matches!(fs.getattr(orphan), Err(FsError::NotFound)));
}

#[test]
fn a_capacity_is_what_df_shows_and_what_all_parts_of_a_store_count_against() {
    let world = World::new(20 * MB);
    let fs = &world.fs;
    let before = fs.statfs().unwrap();
    assert_eq!(before.limit_bytes, 19 * MB);
    assert!(before.used_bytes < 2 * MB && before.free_bytes > 16 * MB, "{before:?}");
    fs.count_also(Box::new(|| Ok(10 * MB)));
    let after = fs.statfs().unwrap();
    assert!(after.used_bytes >= 10 * MB && after.free_bytes < 9 * MB, "{after:?}");
    world.set_left(12 * MB);
    let after = fs.statfs().unwrap();
    assert!(after.free_bytes <= 2 * MB, "the disk has less: {after:?}");
}

#[test]
fn what_was_promised_and_written_counts_before_it_is_seen() {
    let world = World::new(0);
    world.set_left(14 * MB);
    let room = &world.fs.core().room;
    // 4 MB above the reserve, and each byte is in the log and in memory.
    let first = room.admit(Purpose::Growth, MB).unwrap();
    assert!(room.admit(Purpose::Growth, MB + MB / 2).is_err(), "it is promised to another");
    drop(first);
    drop(room.admit(Purpose::Growth, MB + MB / 2).unwrap());
    room.wrote(MB);
    let look = room.state.lock().last_look.unwrap();
    let account = look.account.after(room.written_bytes.load(Ordering::Relaxed));
    assert!(!account.fits(Purpose::Growth, MB + MB / 2), "no look shows it yet");
}

#[test]
fn the_store_goes_on_by_itself_after_an_error_of_its_disk() {
    let world = World::new(0);
    let fs = &world.fs;
    let ino = world.file("file");
    fs.write(ino, 0, b"before").unwrap();
    let publication = fs.publish().unwrap().unwrap();
    let snapshot = fs.open_snapshot(&publication).unwrap();
    fs.core().committer.poison();
    // A snapshot in use holds the database open: it is ended first.
    assert!(matches!(fs.write(ino, 0, b"not yet"), Err(FsError::Poisoned)));
    assert!(snapshot.reader().inode(ino).is_err(), "the snapshot ended");
    drop(snapshot);
    fs.core().committer.forget_reopening();
    fs.write(ino, 0, b"after!").unwrap();
    fs.fsync().unwrap();
    assert_eq!(fs.read(ino, 0, 10).unwrap(), b"after!");
    fs.publish().unwrap().unwrap();
    world.check();
}

/// One step of the property.
#[derive(Clone, Debug)]
enum Step {
    Write {
        file: u8,
        offset: u64,
        len: usize,
    },
    Create {
        file: u8,
    },
    Cut {
        file: u8,
    },
    Punch {
        file: u8,
    },
    Unlink {
        file: u8,
    },
    SetXattr {
        file: u8,
    },
    /// Other programs leave so many MB of the disk.
    Others {
        left: u64,
    },
    Publish,
    Evict {
        file: u8,
    },
    Read {
        file: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0_u8..6;
    prop_oneof![
        8 => (file.clone(), 0..4_000_000_u64, 1..300_000_usize)
            .prop_map(|(file, offset, len)| Step::Write { file, offset, len }),
        3 => file.clone().prop_map(|file| Step::Create { file }),
        1 => file.clone().prop_map(|file| Step::Cut { file }),
        1 => file.clone().prop_map(|file| Step::Punch { file }),
        1 => file.clone().prop_map(|file| Step::Unlink { file }),
        1 => file.clone().prop_map(|file| Step::SetXattr { file }),
        1 => prop_oneof![Just(8_u64), Just(150)].prop_map(|left| Step::Others { left }),
        1 => Just(Step::Publish),
        1 => file.clone().prop_map(|file| Step::Evict { file }),
        1 => file.prop_map(|file| Step::Read { file }),
    ]
}

/// Takes a snapshot that is persisted at once: held, it would keep what is removed.
fn publish(fs: &Kvfs) -> Result<(), FsError> {
    let failed = |source| FsError::Recall { ino: Ino::ROOT, source };
    match fs.publish().map_err(failed)? {
        Some(publication) => fs.release(&publication).map_err(failed),
        None => Ok(()),
    }
}

/// Carries a step out. Whether it may be refused for want of room.
fn run(world: &World, files: &BTreeMap<u8, Ino>, step: &Step) -> (bool, Result<(), FsError>) {
    let fs = &world.fs;
    let of = |file: &u8| files.get(file).copied();
    let text = |file: &u8| name(&format!("f{file}"));
    match step {
        Step::Write { file, offset, len } => (
            true,
            of(file)
                .map_or(Ok(()), |ino| fs.write(ino, *offset, &tier_testkit::noise(*len, *offset))),
        ),
        Step::Create { file } if files.contains_key(file) => (true, Ok(())),
        Step::Create { file } => {
            let node = node(FileKind::Regular);
            (true, fs.create_node(Ino::ROOT, &text(file), &node).map(drop))
        }
        Step::SetXattr { file } => (
            true,
            of(file).map_or(Ok(()), |ino| fs.setxattr(ino, b"user.x", b"value", XattrMode::Set)),
        ),
        Step::Cut { file } => (
            false,
            of(file).map_or(Ok(()), |ino| {
                let size = fs.getattr(ino)?.size_bytes;
                // Growing it is another class.
                fs.truncate(ino, size / 2)
            }),
        ),
        Step::Punch { file } => {
            (false, of(file).map_or(Ok(()), |ino| fs.punch_hole(ino, 1000, 500_000)))
        }
        Step::Unlink { file } => {
            (false, of(file).map_or(Ok(()), |_| fs.unlink(Ino::ROOT, &text(file))))
        }
        Step::Others { left } => {
            world.disk.set_left(*left * MB);
            world.forget();
            (false, Ok(()))
        }
        Step::Publish => (false, publish(fs)),
        Step::Evict { file } => (
            false,
            of(file).map_or(Ok(()), |ino| {
                evict(fs, ino);
                Ok(())
            }),
        ),
        Step::Read { file } => {
            (false, of(file).map_or(Ok(()), |ino| fs.read(ino, 0, 100_000).map(drop)))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn a_small_store_stays_within_its_limit_and_takes_every_removal(
        steps in prop::collection::vec(step(), 300),
    ) {
        const CAPACITY: u64 = 5 * MB;
        // Chunks of a size that lies outside the tree of tables, which is compacted as a whole.
        let world = World::with_chunks(CAPACITY, 16 << 10);
        world.set_left(150 * MB);
        let mut disk_is_full = false;
        let mut n_refused = 0;
        for step in &steps {
            if let Step::Others { left } = step {
                disk_is_full = *left < 10;
            }
            let files: BTreeMap<_, _> = (0..6_u8)
                .filter_map(|file| {
                    let found = world.fs.lookup(Ino::ROOT, &name(&format!("f{file}"))).ok()?;
                    Some((file, found.ino))
                })
                .collect();
            let (may_be_refused, done) = run(&world, &files, step);
            match done {
                Ok(()) => {}
                Err(FsError::NoSpace(_)) => {
                    prop_assert!(may_be_refused, "{step:?} was refused");
                    n_refused += 1;
                    let look = world.fs.core().room.state.lock().last_look;
                    let account = look.unwrap().account;
                    // Not before the limit, but for the write itself and what a flush is not worth.
                    let asked = 2 * (300_000 + 2 * crate::core::ROWS_BYTES);
                    let slack = asked + account.flush_bytes_min();
                    let free = account.free_bytes();
                    prop_assert!(disk_is_full || free <= slack, "{step:?}: {free} are free");
                }
                Err(error) => prop_assert!(false, "{step:?}: {error}"),
            }
            let own = world.disk.db.physical_bytes().unwrap();
            prop_assert!(own <= CAPACITY + 4 * MB, "{step:?}: {own} bytes");
        }
        eprintln!("{n_refused} writes were refused");
        // Room appears, and everything goes on.
        world.set_left(150 * MB);
        for file in 0..6 {
            let _ = world.fs.unlink(Ino::ROOT, &name(&format!("f{file}")));
        }
        world.fs.reclaim(&|| false).unwrap();
        world.forget();
        let ino = world.file("after");
        world.fs.write(ino, 0, &vec![9; 100_000]).unwrap();
        prop_assert_eq!(world.fs.read(ino, 0, 100_000).unwrap(), vec![9; 100_000]);
        world.check();
    }
}

#[test]
fn a_writer_that_finds_no_room_deletes_what_is_dying_first() {
    let world = World::with_chunks(0, 4096);
    let fs = &world.fs;
    world.set_left(60 * MB);
    // So many runs that their end is left to the reaper, which has no thread here.
    let (ino, other) = (world.file("old"), world.file("other"));
    for number in 0..400_u64 {
        fs.write(ino, number * 8192, &vec![1; 4096]).unwrap();
    }
    fs.unlink(Ino::ROOT, &name("old")).unwrap();
    assert!(fs.dying_bytes() > 0);
    world.set_left(4 * MB);
    let written = fs.write(other, 0, &[2; 100]);
    assert!(matches!(written, Err(FsError::NoSpace(_))), "as full as before: {written:?}");
    assert_eq!(fs.dying_bytes(), 0, "and nothing more can come");
    world.set_left(60 * MB);
    fs.write(other, 0, &[2; 100]).unwrap();
    world.check();
}
