//! Which inodes come up in a pass: what changed, what was carried over and what is warm, each once
//! and in order.

use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;
use tier_evict::PassGoal;
use tier_testkit::FakeKvs;
use tier_types::{ErrorKind, HasKind, Ino, LogReader, LogService, Xid, to_u64};

use crate::fixture::{CHUNK, Fixture, chunk};
use crate::stub::{RecordingPolicy, StubArchive};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A pass that evicts everything; the candidates that the policy saw, without the root directory,
/// which every new name changes.
fn candidates(fixture: &Fixture) -> Vec<Ino> {
    let policy = RecordingPolicy::default();
    let evicter = fixture.evicter(policy.clone());
    fixture.evict(&evicter, PassGoal::Everything, &StubArchive::complete()).unwrap();
    policy.candidates().into_iter().filter(|ino| *ino != Ino::ROOT).collect()
}

#[test]
fn changed_carried_over_and_warm_inodes_come_once_and_in_order() {
    let fixture = Fixture::with_files(&NAMES);
    let [a, b, c, d] = NAMES.map(|name| fixture.ino(name));
    fixture.carry_over(c.get(), &[a, c]);
    fixture.instance.warm.lock().extend([b, d]);
    assert_eq!(candidates(&fixture), [a, b, c, d], "c and d changed since the cursor");
}

#[test]
fn without_a_list_everything_since_the_first_transaction_comes_up() {
    let fixture = Fixture::with_files(&NAMES);
    assert_eq!(candidates(&fixture), fixture.inos(&NAMES));
}

#[test]
fn what_a_pass_went_through_does_not_come_up_again() {
    let fixture = Fixture::with_files(&NAMES);
    candidates(&fixture);
    assert_eq!(candidates(&fixture), []);
    drop(fixture.kvs.clone().write("b", 0, &chunk(2)));
    fixture.publish();
    assert_eq!(candidates(&fixture), [fixture.ino("b")], "it changed since");
}

#[test]
fn an_inode_that_is_gone_is_no_candidate() {
    let fixture = Fixture::with_files(&NAMES);
    let (b, d) = (fixture.ino("b"), fixture.ino("d"));
    drop(fixture.kvs.clone().remove("b").remove("d"));
    fixture.publish();
    fixture.carry_over(1, &[d]);
    let expected = fixture.inos(&["a", "c"]);
    assert_eq!(candidates(&fixture), expected, "not {b:?} from the log, nor {d:?} from the list");
    assert_eq!(fixture.carried_over(), [], "and is not carried over again");
}

#[test]
fn the_log_is_read_from_where_it_begins() {
    let mut fixture = Fixture::with_files(&["a", "b"]);
    let first_segment = fixture.kvs.log().last_xid();
    drop(fixture.kvs.clone().file("c", &chunk(1)));
    fixture.publish();
    fixture.kvs.log().retire_segments(first_segment).unwrap();
    fixture.first = first_segment.next();
    assert_eq!(candidates(&fixture), [fixture.ino("c")]);
}

#[test]
fn where_the_log_cannot_tell_all_inodes_come_up() {
    let fixture = Fixture::with_files(&["a", "b"]);
    let first_segment = fixture.kvs.log().last_xid();
    drop(fixture.kvs.clone().file("c", &chunk(1)));
    fixture.publish();
    fixture.kvs.log().retire_segments(first_segment).unwrap();
    assert_eq!(candidates(&fixture), fixture.inos(&["a", "b", "c"]));
}

#[test]
fn more_warm_inodes_come_up_than_are_asked_for_at_a_time() {
    let fixture = Fixture::with_files(&[]);
    fixture.instance.warm.lock().extend((1000..3500).map(Ino::new));
    let evicter = fixture.evicter(RecordingPolicy::default());
    let report = fixture.evict(&evicter, PassGoal::Everything, &StubArchive::complete()).unwrap();
    assert_eq!(report.n_candidates, 1 + 2500, "the root and the warm ones");
}

#[test]
fn warm_inodes_out_of_order_are_an_error_and_no_endless_pass() {
    let mut fixture = Fixture::with_files(&["a"]);
    fixture.instance.warm_answer = Some([3, 5].map(Ino::new).to_vec());
    let evicter = fixture.evicter(RecordingPolicy::default());
    let archive = StubArchive::complete();
    let error = fixture.evict(&evicter, PassGoal::Everything, &archive).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("inodes (Warm) above 5"), "{error}");
}

#[test]
fn with_a_damaged_list_every_inode_comes_up_again() {
    let fixture = Fixture::with_files(&NAMES);
    // The cursor is behind everything: with this list only one would come up.
    let whole = format!("tier-evict 1 cursor=9999\n{}\nend 1\n", fixture.ino("b"));
    for len in 0..whole.len() {
        fs::write(fixture.list_path(), &whole[..len]).unwrap();
        let evicter = fixture.evicter(RecordingPolicy::default());
        assert_eq!(evicter.cursor().unwrap(), Xid::new(1), "{len} bytes");
        assert_eq!(candidates(&fixture), fixture.inos(&NAMES), "{len} bytes");
    }
    fs::write(fixture.list_path(), &whole).unwrap();
    assert_eq!(candidates(&fixture), fixture.inos(&["b"]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn candidates_are_the_union_of_the_three_streams(
        changed in prop::collection::btree_set(0..12_usize, 0..12),
        carried_over in prop::collection::btree_set(0..12_usize, 0..12),
        warm in prop::collection::btree_set(0..12_usize, 0..12),
        n_page_max in 1..5_usize,
    ) {
        let names: Vec<String> = (0..12).map(|number| format!("f{number}")).collect();
        let fixture = Fixture::of(FakeKvs::new(CHUNK));
        for name in &names {
            drop(fixture.kvs.clone().file(name, &chunk(1)));
        }
        let cursor = fixture.publish().next();
        for number in &changed {
            drop(fixture.kvs.clone().write(&names[*number], 0, &chunk(2)));
        }
        fixture.publish();
        let inos = |numbers: &BTreeSet<usize>| -> Vec<Ino> {
            numbers.iter().map(|number| fixture.ino(&names[*number])).collect()
        };
        fixture.carry_over(cursor.get(), &inos(&carried_over));
        fixture.instance.warm.lock().extend(inos(&warm));
        let union: BTreeSet<Ino> =
            [&changed, &carried_over, &warm].into_iter().flat_map(inos).collect();

        let policy = RecordingPolicy::default();
        let evicter = fixture.evicter(policy.clone()).with_page_candidates_max(n_page_max);
        let report = fixture.evict(&evicter, PassGoal::Everything, &StubArchive::complete());
        let report = report.unwrap();

        let pages = policy.pages();
        prop_assert!(pages.iter().all(|page| (1..=n_page_max).contains(&page.len())));
        prop_assert_eq!(pages.concat(), union.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(report.n_candidates, to_u64(union.len()));
        prop_assert_eq!(evicter.cursor().unwrap(), Xid::new(fixture.kvs.log().last_xid().get() + 1));
    }
}
