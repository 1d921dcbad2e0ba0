//! A directory with many names, listed while others come and go.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::Store;
use crate::mount::Mounted;

const N_STAY: usize = 20_000;
const N_CHANGERS: usize = 2;
const N_READERS: usize = 2;
const N_LISTINGS: usize = 4;

/// Makes and removes names, each of them once.
fn change(directory: &Path, changer: usize, ended: &AtomicBool) {
    let path = |number: usize| directory.join(format!("comes-{changer}-{number}"));
    let mut number = 0;
    while !ended.load(Ordering::SeqCst) {
        File::create(path(number)).unwrap();
        if number >= 100 {
            fs::remove_file(path(number - 100)).unwrap();
        }
        number += 1;
    }
}

fn list(directory: &Path) {
    let mut names = HashSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.insert(name.clone()), "{name} is listed twice");
    }
    let missing = (0..N_STAY).find(|number| !names.contains(&format!("stays-{number}")));
    assert_eq!(missing, None, "a name that stays is not listed");
}

#[test]
fn a_listing_shows_every_name_that_stays_once_while_others_come_and_go() {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &["--no-agent"]) else { return };
    let directory = mounted.directory().join("crowd");
    fs::create_dir(&directory).unwrap();
    for number in 0..N_STAY {
        File::create(directory.join(format!("stays-{number}"))).unwrap();
    }
    let (ended, directory) = (AtomicBool::new(false), directory.as_path());
    thread::scope(|scope| {
        for changer in 0..N_CHANGERS {
            let ended = &ended;
            scope.spawn(move || change(directory, changer, ended));
        }
        let readers: Vec<_> = (0..N_READERS)
            .map(|_| scope.spawn(|| (0..N_LISTINGS).for_each(|_| list(directory))))
            .collect();
        let listed: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        ended.store(true, Ordering::SeqCst);
        assert!(listed.iter().all(Result::is_ok));
    });
    mounted.unmount();
    store.run("fsck", &[]).ok();
}
