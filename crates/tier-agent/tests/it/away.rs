//! A cloud that is away for a week.

use tier_agent::{AgentError, Task};
use tier_testkit::Fault;
use tier_types::{ErrorKind, FileKind, HasKind, Ino};

use crate::harness::{Harness, file_name, node, tree};

/// Attempts of a week, one each half an hour.
const N_ATTEMPTS: u64 = 7 * 24 * 2;

#[test]
fn what_was_safe_stays_so_and_everything_goes_up_when_it_is_back() {
    let mut harness = Harness::new();
    let write = |harness: &Harness, name: &str, offset: u64, content: &[u8]| {
        let node = node(FileKind::Regular, 0o644);
        let known = harness.fs().lookup(Ino::ROOT, &file_name(name));
        let attr = known.or_else(|_| harness.fs().create_node(Ino::ROOT, &file_name(name), &node));
        harness.fs().write(attr.unwrap().ino, offset, content).unwrap();
    };
    write(&harness, "before", 0, &[1; 3000]);
    let first = harness.snapshot();
    harness.evict();
    harness.cloud.break_at(0, Fault::Crash);
    for attempt in 0..N_ATTEMPTS {
        write(&harness, "during", attempt * 8, &attempt.to_le_bytes());
        let error = harness.perform(Task::Snapshot).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Away | ErrorKind::Failed), "{error}");
        let AgentError::NotUploaded(not_uploaded) = error else { panic!("{error}") };
        assert!(not_uploaded.done.persisted.is_some(), "local snapshots go on");
        if attempt % 100 == 7 {
            // Another process, before which the cloud is away as well.
            harness.reopen();
            harness.cloud.break_at(0, Fault::Crash);
        }
    }
    // Hot data is read all the while.
    let length = usize::try_from(N_ATTEMPTS * 8).unwrap();
    let hot = harness.fs().lookup(Ino::ROOT, &file_name("during")).unwrap().ino;
    assert_eq!(harness.fs().read(hot, 0, 2 * length).unwrap().len(), length);
    assert_eq!(harness.restored_tree(first).len(), 2, "what is in the cloud is what was safe");
    harness.cloud.break_at(u64::MAX / 2, Fault::Error);
    let during = tree(harness.fs());
    harness.perform(Task::Snapshot).unwrap();
    assert_eq!(harness.perform(Task::Upload).unwrap().uploaded, [], "all of it is safe");
    harness.evict();
    assert_eq!(tree(harness.fs()), during);
    assert_eq!(harness.restored_tree(None), during);
}
