//! The whole pass: pages, goal, dry run, stop, errors and what each leaves to the next pass.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tier_evict::{
    AgeAndSize, EvictError, EvictPlan, EvictReport, PassGoal, RetainReason, Retained,
    RetainedCounts,
};
use tier_types::{Ino, LogReader, Xid};

use crate::fixture::{CHUNK, Fixture};
use crate::instance::Question;
use crate::stub::{BrokenSink, FixedPlan, RecordingPolicy, StubArchive};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn next_xid(fixture: &Fixture) -> Xid {
    fixture.kvs.log().last_xid().next()
}

#[test]
fn pages_ascend_and_so_does_what_they_carry_over() {
    let fixture = Fixture::with_files(&NAMES);
    let policy = RecordingPolicy::default();
    let retained = fixture.inos(&["e", "a", "d"]);
    policy.retain(retained);
    let evicter = fixture.evicter(policy.clone()).with_page_candidates_max(3);
    // In the page of c, d and e one is not safe and two are retained, and the first of them is last
    // to be known.
    let c = fixture.ino("c");
    let archive = StubArchive::answering(move |extent| extent.ino != c);
    let report = fixture.evict(&evicter, PassGoal::Everything, &archive).unwrap();
    let first = [&[Ino::ROOT], &fixture.inos(&["a", "b"])[..]].concat();
    assert_eq!(policy.pages(), [first, fixture.inos(&["c", "d", "e"]), fixture.inos(&["f"])]);
    assert_eq!(fixture.evicted(&NAMES), ["b", "f"]);
    assert_eq!(fixture.carried_over(), fixture.inos(&["a", "c", "d", "e"]));
    let expected = EvictReport {
        n_candidates: 7,
        n_evicted: 2,
        bytes: 2 * u64::from(CHUNK),
        n_not_safe: 1,
        n_damaged: 0,
        ..EvictReport::default()
    };
    assert_eq!(report.retained.n_inodes(), 3);
    assert_eq!(EvictReport { retained: RetainedCounts::default(), ..report }, expected);
    assert_eq!(fixture.recorded_passes(), [(2, 20)]);
}

#[test]
fn a_page_that_is_just_full_is_followed_by_no_empty_one() {
    let fixture = Fixture::with_files(&["a", "b", "c"]);
    let policy = RecordingPolicy::default();
    let evicter = fixture.evicter(policy.clone()).with_page_candidates_max(2);
    fixture.evict(&evicter, PassGoal::Everything, &StubArchive::complete()).unwrap();
    assert_eq!(policy.pages().iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn a_goal_that_is_reached_half_way_still_processes_the_whole_batch() {
    let fixture = Fixture::with_files(&NAMES);
    let evicter = fixture.evicter(AgeAndSize::default()).with_page_candidates_max(1);
    let archive = StubArchive::complete();
    let report = fixture.evict(&evicter, PassGoal::Bytes(25), &archive).unwrap();
    assert_eq!(fixture.evicted(&NAMES), ["a", "b", "c"], "as much as is needed, of the oldest");
    assert_eq!((report.n_candidates, report.n_evicted, report.retained.n_inodes()), (7, 3, 3));
    assert_eq!(fixture.carried_over(), fixture.inos(&["d", "e", "f"]));
    assert_eq!(evicter.cursor().unwrap(), next_xid(&fixture), "the cursor moves on");

    let report = fixture.evict(&evicter, PassGoal::Bytes(5), &archive).unwrap();
    assert_eq!((report.n_candidates, report.n_evicted, report.retained.n_inodes()), (3, 1, 2));
    assert_eq!(fixture.evicted(&NAMES), ["a", "b", "c", "d"]);
    assert_eq!(fixture.carried_over(), fixture.inos(&["e", "f"]));
}

#[test]
fn what_could_not_go_does_not_count_towards_the_goal() {
    let fixture = Fixture::with_files(&NAMES);
    let evicter = fixture.evicter(AgeAndSize::default()).with_page_candidates_max(1);
    let (a, b) = (fixture.ino("a"), fixture.ino("b"));
    let archive = StubArchive::answering(move |extent| extent.ino != a && extent.ino != b);
    let report = fixture.evict(&evicter, PassGoal::Bytes(20), &archive).unwrap();
    assert_eq!(fixture.evicted(&NAMES), ["c", "d"]);
    assert_eq!((report.n_evicted, report.n_not_safe, report.retained.n_inodes()), (2, 2, 2));
    assert_eq!(fixture.carried_over(), fixture.inos(&["a", "b", "e", "f"]));
}

#[test]
fn a_dry_run_says_what_a_pass_would_do_and_changes_nothing() {
    let fixture = Fixture::with_files(&NAMES);
    fixture.carry_over(fixture.ino("c").get(), &[fixture.ino("a")]);
    let before = fs::read(fixture.list_path()).unwrap();
    let evicter = fixture.evicter(AgeAndSize::default()).with_page_candidates_max(1);
    let archive = StubArchive::complete();
    for goal in [PassGoal::Bytes(25), PassGoal::Everything] {
        let said = fixture.dry_run(&evicter, goal).unwrap();
        assert_eq!(fixture.evicted(&NAMES), Vec::<&str>::new());
        assert_eq!(fs::read(fixture.list_path()).unwrap(), before);
        assert_eq!(fixture.recorded_passes(), []);
        assert_eq!((archive.asked(), fixture.instance.asked_to_evict()), (vec![], vec![]));
        let n_going = if goal == PassGoal::Everything { 5 } else { 3 };
        assert_eq!((said.n_candidates, said.n_evicted), (6, n_going), "and the root");
        assert_eq!((said.bytes, said.retained.n_inodes()), (n_going * 10, 5 - n_going));
    }
    let said = fixture.dry_run(&evicter, PassGoal::Bytes(25)).unwrap();
    assert_eq!(fixture.evict(&evicter, PassGoal::Bytes(25), &archive).unwrap(), said);
}

#[test]
fn a_stop_half_way_leaves_the_cursor_and_the_list() {
    let mut fixture = Fixture::with_files(&NAMES);
    let stop = Arc::new(AtomicBool::new(false));
    let (flag, n_evicted) = (Arc::clone(&stop), AtomicU64::new(0));
    fixture.instance.before_eviction(move |_| {
        if n_evicted.fetch_add(1, Ordering::Relaxed) == 1 {
            flag.store(true, Ordering::Relaxed);
        }
    });
    fixture.carry_over(2, &[fixture.ino("b")]);
    let before = fs::read(fixture.list_path()).unwrap();
    // What is evicted together is not stopped in between.
    let evicter = fixture.evicter(AgeAndSize::default()).with_page_candidates_max(1);
    let archive = StubArchive::complete();
    let request = fixture.request(PassGoal::Everything, &archive, &fixture.status);
    let error = evicter
        .evict(&tier_evict::EvictRequest {
            is_stopped: &|| stop.load(Ordering::Relaxed),
            ..request
        })
        .unwrap_err();
    assert!(matches!(error, EvictError::Cancelled), "{error:?}");
    assert_eq!(fixture.evicted(&NAMES), ["a", "b"], "what was evicted stays evicted");
    assert_eq!(evicter.cursor().unwrap(), Xid::new(2));
    assert_eq!(fs::read(fixture.list_path()).unwrap(), before);
    let n_files = fs::read_dir(fixture.list_path().parent().unwrap()).unwrap().count();
    assert_eq!(n_files, 1, "and no temporary file");
    assert_eq!(fixture.recorded_passes(), []);

    let report = fixture.evict(&evicter, PassGoal::Everything, &archive).unwrap();
    assert_eq!((report.n_candidates, report.n_evicted), (7, 4), "the next pass does the rest");
    assert_eq!(fixture.evicted(&NAMES), NAMES);
    assert_eq!(evicter.cursor().unwrap(), next_xid(&fixture));
}

#[test]
fn a_pass_that_has_nothing_to_do_moves_on_and_is_recorded() {
    let fixture = Fixture::with_files(&[]);
    let evicter = fixture.evicter(AgeAndSize::default());
    let report = fixture.evict(&evicter, PassGoal::Everything, &StubArchive::complete()).unwrap();
    assert_eq!(report, EvictReport { n_candidates: 1, ..EvictReport::default() });
    assert_eq!(evicter.cursor().unwrap(), next_xid(&fixture));
    assert_eq!(fixture.recorded_passes(), [(0, 0)]);
}

#[test]
fn the_cursor_never_goes_back() {
    let fixture = Fixture::with_files(&["a"]);
    fixture.carry_over(500, &[fixture.ino("a")]);
    let evicter = fixture.evicter(AgeAndSize::default());
    let report = fixture.evict(&evicter, PassGoal::Everything, &StubArchive::complete()).unwrap();
    assert_eq!(report.n_evicted, 1, "the list counts whatever is safe");
    assert_eq!(evicter.cursor().unwrap(), Xid::new(500));
}

#[test]
fn a_pass_whose_event_cannot_be_recorded_is_an_error_and_loses_nothing() {
    let fixture = Fixture::with_files(&NAMES);
    let policy = RecordingPolicy::default();
    policy.retain(fixture.inos(&["b"]));
    let evicter = fixture.evicter(policy);
    let archive = StubArchive::complete();
    let request = fixture.request(PassGoal::Everything, &archive, &BrokenSink);
    assert!(matches!(evicter.evict(&request), Err(EvictError::Status(_))));
    assert_eq!(fixture.carried_over(), fixture.inos(&["b"]));
    assert_eq!(evicter.cursor().unwrap(), next_xid(&fixture));
}

#[test]
fn what_an_operator_pinned_stays_until_it_is_unpinned() {
    let fixture = Fixture::with_files(&NAMES);
    fixture.instance.pinned.lock().extend(fixture.inos(&["b", "e"]));
    let evicter = fixture.evicter(AgeAndSize::default());
    let archive = StubArchive::complete();
    let report = fixture.evict(&evicter, PassGoal::Everything, &archive).unwrap();
    assert_eq!((report.n_evicted, report.retained.n_inodes()), (4, 2));
    assert_eq!(fixture.evicted(&NAMES), ["a", "c", "d", "f"]);
    assert_eq!(fixture.carried_over(), fixture.inos(&["b", "e"]));
    fixture.instance.pinned.lock().remove(&fixture.ino("b"));
    fixture.evict(&evicter, PassGoal::Everything, &archive).unwrap();
    assert_eq!(fixture.carried_over(), fixture.inos(&["e"]));
}

#[test]
fn damaged_inodes_keep_no_other_one_and_come_up_again() {
    let names = ["a", "b", "c", "d"];
    let fixture = Fixture::with_files(&names);
    let (evicter, archive) = (fixture.evicter(RecordingPolicy::default()), StubArchive::complete());
    let questions = [Question::Facts, Question::Extents, Question::Eviction];
    let damaged = names.iter().map(|name| fixture.ino(name)).zip(questions);
    *fixture.instance.damaged.lock() = damaged.collect();
    let report = fixture.evict(&evicter, PassGoal::Everything, &archive).unwrap();
    assert_eq!(
        (report.n_candidates, report.n_evicted, report.n_damaged),
        (5, 1, 3),
        "and the root"
    );
    assert_eq!(fixture.evicted(&names), ["d"]);
    fixture.instance.damaged.lock().clear();
    let report = fixture.evict(&evicter, PassGoal::Everything, &archive).unwrap();
    assert_eq!((report.n_evicted, report.n_damaged), (3, 0));
    assert_eq!(fixture.evicted(&names), names);
}

#[test]
fn what_is_too_young_or_too_small_goes_when_it_is_not_any_more() {
    let fixture = Fixture::with_files(&["a", "b"]);
    drop(fixture.kvs.clone().file("large", &[1; 40]));
    fixture.publish();
    let archive = StubArchive::complete();
    // The fake's times are its transaction ids; the clock stands at 1000.
    let young = AgeAndSize { age_seconds_min: 999, resident_bytes_min: 0 };
    let report = fixture.evict(&fixture.evicter(young), PassGoal::Everything, &archive).unwrap();
    assert_eq!((report.n_evicted, report.retained.n_inodes()), (0, 3));
    let small = AgeAndSize { age_seconds_min: 0, resident_bytes_min: 11 };
    let report = fixture.evict(&fixture.evicter(small), PassGoal::Everything, &archive).unwrap();
    assert_eq!((report.n_evicted, report.retained.n_inodes()), (1, 2));
    assert_eq!(fixture.carried_over(), fixture.inos(&["a", "b"]));
    let any = fixture.evicter(AgeAndSize::default());
    let report = fixture.evict(&any, PassGoal::Everything, &archive).unwrap();
    assert_eq!((report.n_candidates, report.n_evicted, report.retained.n_inodes()), (2, 2, 0));
}

fn pass_with_plan(plan: impl Fn(Ino, Ino) -> EvictPlan) {
    let fixture = Fixture::with_files(&["a", "b"]);
    let evicter = fixture.evicter(FixedPlan(plan(fixture.ino("a"), fixture.ino("b"))));
    drop(fixture.evict(&evicter, PassGoal::Everything, &StubArchive::complete()));
}

#[test]
#[should_panic(expected = "every candidate with resident data")]
fn a_policy_that_forgets_a_candidate_is_a_programmers_error() {
    pass_with_plan(|a, _| EvictPlan { evict: vec![a], retain: Vec::new() });
}

#[test]
#[should_panic(expected = "decides on a candidate once")]
fn a_policy_that_decides_twice_is_a_programmers_error() {
    pass_with_plan(|a, b| {
        let reason = RetainReason::Small;
        EvictPlan { evict: vec![a, b], retain: vec![Retained { ino: a, reason }] }
    });
}

#[test]
#[should_panic(expected = "the candidates of the page")]
fn a_policy_that_evicts_something_else_is_a_programmers_error() {
    pass_with_plan(|a, b| EvictPlan { evict: vec![a, b, Ino::new(999)], retain: Vec::new() });
}
