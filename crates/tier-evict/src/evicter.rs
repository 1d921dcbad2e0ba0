//! The eviction pass: candidates, plan, gate, carried-over candidates.
//!
//! **What comes up.** A pass has a cursor, the first transaction that no pass has gone through, and
//! is told up to which transaction all are safely persisted. Its candidates are the inodes that
//! changed between the two, those that earlier passes carried over, and those with warm data. An
//! inode that is none of the three has nothing that could go: whatever it holds in the key-value
//! store is newer than the safe transactions, and comes up once its own transactions are safe.
//!
//! **Order.** Candidates come in order of inodes, a page at a time; the facts of one page are in
//! memory, whatever the number of candidates. Within a page the policy orders by age and size.
//! Across pages the order is that of inode numbers, so that a goal in bytes is met from the pages
//! that come first.
//!
//! **Why all of them are processed.** When enough was freed half way, the policy retains the rest
//! with that reason, and the pass goes on to the end. The cursor can then move behind the last safe
//! transaction, because every inode below it was either evicted in full or is on the list of
//! carried-over candidates. A pass that stopped at its goal would need a cursor within a batch, and
//! the next one would read the same log segments again.
//!
//! **What is carried over.** What the policy retained, and every inode of which some extent stayed:
//! its version is not safely persisted (the gate in `mechanism.rs` said no), a write came
//! meanwhile, or what the filesystem has of it is damaged. The pages ascend and each page's inodes
//! are sorted, so that the list ascends and the next pass can merge it.
//!
//! **Crash windows.** Cursor and list are one file, replaced as a whole at the end of the pass. A
//! pass that a crash, an error or a stop ends early leaves the old file: what it evicted stays
//! evicted, and the next pass starts at the same cursor, finds those inodes without resident data,
//! and goes on with the others. After the file was replaced and before the event is recorded a
//! crash loses the event: numbers to look at, and no data. Every eviction is by itself: a crash
//! between two of them leaves each extent wholly resident or a detour.
//!
//! **A file that is lost or damaged** costs one pass over all inodes of the log.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tier_log::{NetChanges, NetChangesOptions};
use tier_status::{Event, StatusSink};
use tier_types::{
    Clock, ErrorKind, EvictionFacts, Ino, InstanceView, LogReader, MountedInstance, Persisted,
    PortError, Reclaimed, Xid, XidRange, to_u64, with_causes,
};

use crate::EvictError;
use crate::answers::answered;
use crate::candidates::{Candidates, Changed};
use crate::carried_over::{CarriedOver, CarriedOverWriter};
use crate::mechanism::evict_inodes;
use crate::policy::{EvictPlan, EvictPolicy, PassGoal, RetainedCounts};

/// Candidates that a policy sees at a time, unless the evicter is told otherwise.
const N_PAGE_MAX: usize = 4096;

/// Inodes that are looked at together.
const N_INODES_STEP: usize = 256;

/// What a pass is to go through, and what for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EvictScope {
    /// The first transaction that the log has: in a restored filesystem it begins late.
    pub first: Xid,
    /// All transactions up to and including this one are safely persisted …
    pub safe: Xid,
    /// … of inodes up to this one, if only a part of the last snapshot is.
    pub covered: Option<Ino>,
    /// What is to be achieved.
    pub goal: PassGoal,
}

/// A pass that is only thought through: it has nothing by which it could change anything.
pub struct DryRunRequest<'a> {
    /// What it goes through.
    pub scope: EvictScope,
    /// The log, which knows what changed.
    pub log: &'a dyn LogReader,
    /// The filesystem that would be evicted from.
    pub instance: &'a dyn InstanceView,
    /// When this says so the pass ends early.
    pub is_stopped: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for DryRunRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DryRunRequest").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// A pass.
pub struct EvictRequest<'a> {
    /// What it goes through.
    pub scope: EvictScope,
    /// The log, which knows what changed.
    pub log: &'a dyn LogReader,
    /// The filesystem that is evicted from.
    pub instance: &'a dyn MountedInstance,
    /// The archive's answer to what is persisted: the gate.
    pub persisted: &'a dyn Persisted,
    /// Where the event goes.
    pub status: &'a dyn StatusSink,
    /// When this says so the pass ends early.
    pub is_stopped: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for EvictRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvictRequest").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl<'a> EvictRequest<'a> {
    /// The same, as far as it is only thought through.
    fn dry(&self) -> DryRunRequest<'a> {
        let Self { scope, log, instance, is_stopped, .. } = *self;
        DryRunRequest { scope, log, instance, is_stopped }
    }
}

/// What a pass did, or would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EvictReport {
    /// Inodes that came up.
    pub n_candidates: u64,
    /// Inodes that lost data to detours.
    pub n_evicted: u64,
    /// Chunk bytes that left the key-value store.
    pub bytes: u64,
    /// Inodes that the policy retained, by its reasons.
    pub retained: RetainedCounts,
    /// Inodes that kept data because this version of it is not safely persisted, or changed.
    pub n_not_safe: u64,
    /// Inodes that kept data because what the filesystem has of them is damaged.
    pub n_damaged: u64,
    /// Local copies of the archive's objects that were dropped before anything was evicted.
    pub n_dropped: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// What became of the space of what was evicted.
    pub reclaimed: Reclaimed,
}

/// Candidates that are decided on together.
#[derive(Default)]
struct Page {
    /// Of those that can be read, in order.
    facts: Vec<EvictionFacts>,
    /// Those that come up again, whatever is decided: they cannot be read, or nothing of them is
    /// safe.
    again: Vec<Ino>,
}

impl Page {
    fn len(&self) -> usize {
        self.facts.len() + self.again.len()
    }
}

/// The candidates of a pass, with what a policy may know of them.
struct ComingUp<'a> {
    candidates: Candidates<'a>,
    instance: &'a dyn InstanceView,
    covered: Option<Ino>,
    n_page_max: usize,
}

impl ComingUp<'_> {
    /// The next page of candidates that still exist; `None` at the end.
    fn next_page(&mut self, report: &mut EvictReport) -> Result<Option<Page>, EvictError> {
        let mut page = Page::default();
        // Of those that are gone others take the place.
        while page.len() < self.n_page_max {
            let n_missing = self.n_page_max - page.len();
            let next: Vec<_> =
                self.candidates.by_ref().take(n_missing).collect::<Result<_, _>>()?;
            if next.is_empty() {
                break;
            }
            report.n_candidates += to_u64(next.len());
            self.add_to(&mut page, next, report)?;
        }
        Ok(Some(page).filter(|page| page.len() > 0))
    }

    fn add_to(
        &self,
        page: &mut Page,
        mut inodes: Vec<Ino>,
        report: &mut EvictReport,
    ) -> Result<(), EvictError> {
        // They ascend, and so what is behind the part is so without a look at it: a part may be
        // small, and what is left of the snapshot large.
        let n_covered = self
            .covered
            .map_or(inodes.len(), |covered| inodes.partition_point(|ino| *ino <= covered));
        let not_safe = inodes.split_off(n_covered);
        let all_facts = answered(inodes.len(), self.instance.eviction_facts(&inodes))?;
        for (ino, facts) in inodes.into_iter().zip(all_facts) {
            match facts {
                Ok(facts) => page.facts.extend(checked_facts(ino, facts)?),
                Err(error) => {
                    count_damage(ino, &error, report);
                    page.again.push(ino);
                }
            }
        }
        report.n_not_safe += to_u64(not_safe.len());
        page.again.extend(not_safe);
        Ok(())
    }
}

/// A plan is made of the numbers in the facts: a wrong one would evict another file.
fn checked_facts(
    ino: Ino,
    facts: Option<EvictionFacts>,
) -> Result<Option<EvictionFacts>, PortError> {
    if let Some(other) = facts.as_ref().map(|facts| facts.ino).filter(|other| *other != ino) {
        let message = format!("asked for inode {ino}, the filesystem gave facts of inode {other}");
        return Err(PortError::new(ErrorKind::Failed, message));
    }
    Ok(facts)
}

/// Evicts from one filesystem.
pub struct Evicter {
    directory: PathBuf,
    policy: Box<dyn EvictPolicy>,
    clock: Arc<dyn Clock>,
    n_page_max: usize,
}

impl std::fmt::Debug for Evicter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evicter").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Evicter {
    /// An evicter that keeps its carried-over candidates in this directory.
    pub fn new(directory: &Path, policy: Box<dyn EvictPolicy>, clock: Arc<dyn Clock>) -> Self {
        Self { directory: directory.to_path_buf(), policy, clock, n_page_max: N_PAGE_MAX }
    }

    /// Lets the policy see at most so many candidates at a time, one at least; 4096 otherwise.
    #[must_use]
    pub fn with_page_candidates_max(self, n_page_max: usize) -> Self {
        // With none a page would be empty, which is how a pass ends.
        Self { n_page_max: n_page_max.max(1), ..self }
    }

    /// The first transaction that no pass has gone through.
    pub fn cursor(&self) -> Result<Xid, EvictError> {
        Ok(CarriedOver::open_whole(&self.directory)?.cursor)
    }

    /// Goes through all inodes of the safe transactions that no pass has gone through, of the
    /// carried-over candidates and of what is warm. All of them are processed, even when the goal
    /// is reached half way, so that the cursor can move on.
    pub fn evict(&self, request: &EvictRequest<'_>) -> Result<EvictReport, EvictError> {
        let start = Instant::now();
        let before = CarriedOver::open_whole(&self.directory)?;
        let from = before.cursor;
        let EvictScope { safe, goal, .. } = request.scope;
        // Never back: after a snapshot was lost, less may be safe than a former pass went through.
        let cursor = from.max(safe.next());
        tracing::info!(%from, %safe, ?goal, "eviction pass begins");
        // Before anything is evicted: a directory that cannot be written ends the pass here.
        let mut after = CarriedOverWriter::create(&self.directory, cursor)?;
        let mut report = EvictReport::default();
        let mut up = self.coming_up(&request.dry(), before)?;
        while let Some(page) = up.next_page(&mut report)? {
            for ino in self.evict_page(request, &page, &mut report)? {
                after.add(ino)?;
            }
        }
        after.finish()?;
        let EvictReport { n_candidates, n_evicted, bytes, retained, n_not_safe, n_damaged, .. } =
            report;
        let elapsed = start.elapsed();
        tracing::info!(
            %cursor, n_candidates, n_evicted, bytes, ?retained, n_not_safe, n_damaged,
            ?elapsed,
            "eviction pass done"
        );
        // After the list: a pass that is recorded is one that the next pass builds on.
        request.status.report(Event::Evicted { n_inodes: n_evicted, bytes })?;
        Ok(report)
    }

    /// What [`evict`](Self::evict) would do, as far as can be told before: the filesystem is only
    /// asked, the archive is not, and the cursor stays.
    pub fn dry_run(&self, request: &DryRunRequest<'_>) -> Result<EvictReport, EvictError> {
        let before = CarriedOver::open_whole(&self.directory)?;
        let mut report = EvictReport::default();
        let mut up = self.coming_up(request, before)?;
        while let Some(page) = up.next_page(&mut report)? {
            if (request.is_stopped)() {
                return Err(EvictError::Cancelled);
            }
            // `report.bytes` counts all that the plans free, perhaps more than the gate would let
            // go.
            let plan = self.plan(&page.facts, request.scope.goal, report.bytes);
            report.retained.add(&plan.retain);
            report.n_evicted += to_u64(plan.evict.len());
            let going: BTreeSet<Ino> = plan.evict.into_iter().collect();
            let facts_of_going = page.facts.iter().filter(|facts| going.contains(&facts.ino));
            report.bytes += facts_of_going.map(|facts| facts.resident_bytes).sum::<u64>();
        }
        Ok(report)
    }

    fn coming_up<'a>(
        &self,
        request: &DryRunRequest<'a>,
        before: CarriedOver,
    ) -> Result<ComingUp<'a>, EvictError> {
        let EvictScope { first, safe, covered, .. } = request.scope;
        let options = NetChangesOptions::new(&self.directory);
        // The log of a restored filesystem begins behind transaction 1. Without a newly safe
        // transaction there is no range, and only carried-over and warm inodes come up.
        let changed = match XidRange::new(before.cursor.max(first), safe.next()) {
            None => Changed::Nothing,
            Some(range) => match NetChanges::of_range(request.log, range, &options) {
                Ok(changes) => Changed::Logged(changes),
                // What the log says of a damaged segment's transactions is lost; what the
                // filesystem has of their inodes is not.
                Err(error) if error.is_of_segment() => {
                    let error = with_causes(&error);
                    tracing::warn!(%range, "the log cannot be read, all inodes come up: {error}");
                    Changed::All
                }
                Err(error) => return Err(error.into()),
            },
        };
        let instance = request.instance;
        let candidates = Candidates::new(changed, before, instance);
        Ok(ComingUp { candidates, instance, covered, n_page_max: self.n_page_max })
    }

    /// Evicts what the policy lets go, and returns what is carried over, in order.
    fn evict_page(
        &self,
        request: &EvictRequest<'_>,
        page: &Page,
        report: &mut EvictReport,
    ) -> Result<Vec<Ino>, EvictError> {
        let plan = self.plan(&page.facts, request.scope.goal, report.bytes);
        report.retained.add(&plan.retain);
        let retained = plan.retain.into_iter().map(|retained| retained.ino);
        let mut carried_over: Vec<Ino> = retained.chain(page.again.iter().copied()).collect();
        for inodes in plan.evict.chunks(N_INODES_STEP) {
            let EvictRequest { instance, persisted, is_stopped, .. } = *request;
            for evicted in evict_inodes(instance, persisted, inodes, is_stopped)? {
                report.n_evicted += u64::from(evicted.bytes > 0);
                report.bytes += evicted.bytes;
                // An inode may lose some of its data and keep the rest; then it counts as both.
                report.n_not_safe += u64::from(evicted.something_stays);
                if let Some(error) = &evicted.damage {
                    count_damage(evicted.ino, error, report);
                }
                if evicted.something_stays || evicted.damage.is_some() {
                    carried_over.push(evicted.ino);
                }
            }
        }
        // They come in the policy's order, and the next pass can merge only a list that ascends.
        carried_over.sort_unstable();
        Ok(carried_over)
    }

    fn plan(&self, page: &[EvictionFacts], goal: PassGoal, freed_bytes: u64) -> EvictPlan {
        let plan = self.policy.plan(page, self.clock.now(), goal, freed_bytes);
        let (n_evict, n_retain) = (plan.evict.len(), plan.retain.len());
        tracing::debug!(n_page = page.len(), n_evict, n_retain, freed_bytes, "eviction planned");
        assert_plan_is_whole(page, &plan);
        plan
    }
}

/// A damaged inode keeps no other one from being evicted. The first one of a pass is told loudly: a
/// damaged block may hold hundreds.
fn count_damage(ino: Ino, error: &PortError, report: &mut EvictReport) {
    let error = with_causes(error);
    if report.n_damaged == 0 {
        tracing::warn!(%ino, "not evicted, because it is damaged, as others may be: {error}");
    } else {
        tracing::debug!(%ino, "not evicted, because it is damaged: {error}");
    }
    report.n_damaged += 1;
}

/// A candidate with resident data that is in no list would never come up again, and one that is in
/// both, or not on the page, would break the order of the next list.
fn assert_plan_is_whole(page: &[EvictionFacts], plan: &EvictPlan) {
    let retained = plan.retain.iter().map(|retained| retained.ino);
    let mut planned: Vec<Ino> = plan.evict.iter().copied().chain(retained).collect();
    planned.sort_unstable();
    assert!(planned.is_sorted_by(|a, b| a < b), "a policy decides on a candidate once");
    let on_page = |ino: &Ino| page.binary_search_by_key(ino, |facts| facts.ino).is_ok();
    assert!(planned.iter().all(on_page), "a policy decides on the candidates of the page");
    let resident = page.iter().filter(|facts| facts.resident_bytes > 0);
    let decided = |facts: &EvictionFacts| planned.binary_search(&facts.ino).is_ok();
    assert!(
        resident.into_iter().all(decided),
        "a policy decides on every candidate with resident data"
    );
}
