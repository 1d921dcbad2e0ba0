//! The life cycle over a cloud that lies: no byte is ever wrong, nothing is evicted that is not
//! there, and once the cloud is honest everything is well.

use std::collections::BTreeMap;

use kvfs::Kvfs;
use proptest::prelude::*;
use tier_persist::{Claim, Claims, WriterToken};
use tier_testkit::{Model, TierOp, TreeEntry, WorkloadOp, workload};
use tier_types::{Call, Clock, Epoch, FileKind, Ino, ObjectStore, with_causes};

use crate::harness::{Harness, Sizes, apply, file_name, node, tree};
use crate::life::check_end;

/// Bytes of the largest file.
const SIZE_MAX: usize = 1 << 20;

/// Reads all files. Each has the right bytes, or an error that names what cannot be read.
fn check_each(fs: &Kvfs, expected: &BTreeMap<String, TreeEntry>) -> usize {
    let mut n_failed = 0;
    for (path, entry) in expected {
        let names = path.split('/').filter(|name| !name.is_empty());
        let mut at = fs.getattr(Ino::ROOT).unwrap();
        for name in names {
            at = fs.lookup(at.ino, &file_name(name)).unwrap();
        }
        if !matches!(at.kind, FileKind::Regular) {
            continue;
        }
        match fs.read(at.ino, 0, SIZE_MAX) {
            Ok(content) => assert!(Some(&content) == entry.content.as_ref(), "{path} is wrong"),
            Err(error) => {
                let text = with_causes(&error);
                let is_named = text.contains(&format!("inode {}", at.ino)) || text.contains("tar");
                assert!(is_named, "{path}: {text}");
                n_failed += 1;
            }
        }
    }
    n_failed
}

/// Does the operations over lies. What an honest cloud is left with.
fn run(ops: &[WorkloadOp], seed: u64) -> (Harness, Model) {
    let mut harness = Harness::with_sizes(Sizes::small());
    let mut model = Model::default();
    run_on(&mut harness, &mut model, ops, seed);
    (harness, model)
}

/// Another store takes the archive over.
fn claim_by_another(harness: &Harness) {
    let (keys, filesystem) = (&harness.keys, harness.filesystem);
    let claim = Claim {
        filesystem,
        epoch: Epoch::new(2),
        writer: WriterToken::from_bytes([2; 16]),
        machine: "another".into(),
        created: harness.time.now(),
        signer: keys.signer(),
    };
    let claims = Claims::new(harness.memory.as_ref(), keys, filesystem);
    claims.create(&Call::bulk(), &claim).unwrap();
}

/// Does more of them.
fn run_on(harness: &mut Harness, model: &mut Model, ops: &[WorkloadOp], seed: u64) {
    for (step, op) in ops.iter().enumerate() {
        harness.lies.lie(seed.wrapping_add(step as u64), 6);
        match op {
            WorkloadOp::Fs(op) => {
                let expected = model.apply(op);
                let mut done = apply(harness.fs(), op);
                if done.is_err() && expected.is_ok() {
                    // It needed cold data, and is done again as its caller would.
                    harness.lies.be_honest();
                    done = apply(harness.fs(), op);
                }
                assert_eq!(done.is_ok(), expected.is_ok(), "step {step}, {op:?}: {done:?}");
            }
            // Whether a lie was met or not.
            WorkloadOp::Tier(TierOp::Snapshot) => {
                drop(harness.perform(tier_agent::Task::Snapshot));
            }
            WorkloadOp::Tier(TierOp::Evict) => {
                let all = tier_agent::SpaceGoal::Everything;
                drop(harness.perform(tier_agent::Task::Evict(all)));
            }
            WorkloadOp::Tier(TierOp::Recall(_)) => {
                check_each(harness.fs(), &model.tree());
            }
            WorkloadOp::Tier(TierOp::Reopen) => harness.reopen(),
            WorkloadOp::Tier(TierOp::CrashInSnapshot(n)) => harness.crash_in_snapshot(*n),
        }
    }
    harness.lies.be_honest();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_is_lost_over_a_cloud_that_lies(ops in workload(40, 6000), seed: u64) {
        let (harness, model) = run(&ops, seed);
        let n_failed = check_each(harness.fs(), &model.tree());
        assert_eq!(n_failed, 0, "what was evicted is there: {:#?}", harness.lies.told());
        // It may have to be asked twice: what a lie has left is looked at first.
        let snapshot = harness.perform(tier_agent::Task::Snapshot);
        let snapshot = snapshot.or_else(|_| harness.perform(tier_agent::Task::Snapshot));
        assert!(snapshot.is_ok(), "{snapshot:?} after {:#?}", harness.lies.told());
        check_end(&harness, &model, BTreeMap::new());
    }

    #[test]
    fn a_cloud_that_comes_back_with_other_content_gives_no_wrong_byte(
        ops in workload(40, 6000),
        seed: u64,
        victims in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        is_lost: bool,
    ) {
        let (harness, model) = run(&ops, seed);
        drop(harness.perform(tier_agent::Task::Snapshot));
        drop(harness.perform(tier_agent::Task::Evict(tier_agent::SpaceGoal::Everything)));
        let names = harness.memory.names(&Call::bulk(), "").unwrap();
        for victim in victims {
            if names.is_empty() {
                continue;
            }
            let name = victim.get(&names);
            match is_lost {
                true => harness.memory.delete(&Call::bulk(), name, None).unwrap(),
                // Of the same length.
                false if harness.memory.metadata(&Call::bulk(), name).is_ok() => {
                    harness.memory.tamper(name, |bytes| bytes.fill(7));
                }
                false => {}
            }
        }
        check_each(harness.fs(), &model.tree());
        harness.lies.lie(seed, 6);
        check_each(harness.fs(), &model.tree());
    }

    #[test]
    fn what_comes_after_a_second_writer_is_evicted_by_neither(
        before in workload(30, 6000),
        after in workload(30, 6000),
        seed: u64,
    ) {
        let (mut harness, mut model) = run(&before, seed);
        claim_by_another(&harness);
        // What was safe then may be evicted, and nothing else is.
        let names = harness.memory.names(&Call::bulk(), "").unwrap();
        run_on(&mut harness, &mut model, &after, seed);
        drop(harness.perform(tier_agent::Task::Snapshot));
        drop(harness.perform(tier_agent::Task::Evict(tier_agent::SpaceGoal::Everything)));
        for name in harness.memory.names(&Call::bulk(), "").unwrap() {
            if !names.contains(&name) {
                harness.memory.delete(&Call::bulk(), &name, None).unwrap();
            }
        }
        let n_failed = check_each(harness.fs(), &model.tree());
        assert_eq!(n_failed, 0, "{:#?}", harness.lies.told());
    }
}

/// What each step asks of a cloud.
#[test]
fn each_step_asks_no_more_than_it_needs() {
    let harness = Harness::with_sizes(Sizes { cache_bytes: 1 << 20, ..Sizes::default() });
    let mut before = harness.lies.counts();
    let mut text = String::new();
    let mut step = |what: &str| {
        let now = harness.lies.counts();
        let n = |count: fn(&tier_testkit::CallCounts) -> u64| count(&now) - count(&before);
        text.push_str(&format!(
            "{what:<28} {} put, {} created, {} asked for, {} read, {} streamed, {} listed, {} deleted\n",
            n(|c| c.n_puts), n(|c| c.n_creations), n(|c| c.n_questions), n(|c| c.n_reads),
            n(|c| c.n_streams), n(|c| c.n_listings), n(|c| c.n_deletions),
        ));
        before = now;
    };
    let write = |name: &str, content: &[u8]| {
        let made =
            harness.fs().create_node(Ino::ROOT, &file_name(name), &node(FileKind::Regular, 0o644));
        harness.fs().write(made.unwrap().ino, 0, content).unwrap();
    };
    for number in 0..4 {
        write(&format!("small-{number}"), &[number; 700]);
    }
    write("large", &tier_testkit::noise(30_000, 1));
    harness.snapshot();
    step("the first snapshot");
    harness.snapshot();
    step("nothing new");
    write("later", b"later");
    harness.snapshot();
    step("one small file");
    harness.evict();
    step("evicting");
    // Also what is read ahead: each frame once.
    tree(harness.fs());
    step("reading all frames");
    insta::assert_snapshot!(text);
}
