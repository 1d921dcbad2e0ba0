//! One pass: candidates, plan, mechanism, survivors.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tier_log::{NetChanges, NetChangesOptions};
use tier_status::{Event, StatusSink};
use tier_types::{
    Clock, EvictionFacts, Ino, LogService, MountedInstance, Persisted, Xid, XidRange,
};

use crate::EvictError;
use crate::candidates::Candidates;
use crate::carry_over::{CarryOver, NewCarryOver};
use crate::mechanism::evict_inode;
use crate::policy::{EvictPolicy, PassGoal};

/// Candidates that a policy sees at a time.
const N_PAGE: usize = 4096;

/// What a pass is to go through.
pub struct EvictRequest<'a> {
    /// The first transaction that the log has: in a restored filesystem it begins late.
    pub first: Xid,
    /// All transactions up to and including this one are safely persisted.
    pub safe: Xid,
    /// What is to be achieved.
    pub goal: PassGoal,
    /// Who knows what changed.
    pub log: &'a dyn LogService,
    /// Whence data goes.
    pub instance: &'a dyn MountedInstance,
    /// Who knows what is archived.
    pub persisted: &'a dyn Persisted,
    /// Where events go.
    pub status: &'a dyn StatusSink,
    /// When this becomes true the pass ends early.
    pub stop: &'a AtomicBool,
}

impl std::fmt::Debug for EvictRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvictRequest")
            .field("safe", &self.safe)
            .field("goal", &self.goal)
            .finish_non_exhaustive()
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
    /// Inodes that the policy spared.
    pub n_spared: u64,
    /// Inodes that kept data because this version of it is not safely persisted, or changed.
    pub n_not_safe: u64,
}

/// Evicts from one filesystem.
pub struct Evicter {
    folder: PathBuf,
    policy: Box<dyn EvictPolicy>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Evicter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evicter").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Evicter {
    /// An evicter that keeps its survivors in this folder.
    pub fn new(folder: &Path, policy: Box<dyn EvictPolicy>, clock: Arc<dyn Clock>) -> Self {
        Self { folder: folder.to_path_buf(), policy, clock }
    }

    /// The first transaction that no pass has gone through.
    pub fn cursor(&self) -> Result<Xid, EvictError> {
        Ok(CarryOver::open(&self.carry_over_path())?.cursor)
    }

    /// Goes through all inodes of the safe transactions that no pass has gone through, of the
    /// survivors and of what is warm. All of them are processed, even when the goal is reached
    /// half way, so that the cursor can move on.
    pub fn evict(&self, request: &EvictRequest<'_>) -> Result<EvictReport, EvictError> {
        let path = self.carry_over_path();
        let before = CarryOver::open(&path)?;
        let cursor = before.cursor.max(request.safe.next());
        let mut after = NewCarryOver::create(&path, cursor)?;
        let mut report = EvictReport::default();
        let mut candidates = self.candidates(request, before)?;
        loop {
            let page = take_page(&mut candidates, request.instance, &mut report)?;
            if page.is_empty() {
                break;
            }
            for ino in self.evict_page(request, &page, &mut report)? {
                after.add(ino)?;
            }
        }
        after.finish()?;
        let (n_inodes, bytes) = (report.n_evicted, report.bytes);
        request.status.report(Event::Evicted { n_inodes, bytes })?;
        Ok(report)
    }

    /// What [`evict`](Self::evict) would do, as far as can be told before: the instance is only
    /// asked, and the cursor stays.
    pub fn dry_run(&self, request: &EvictRequest<'_>) -> Result<EvictReport, EvictError> {
        let before = CarryOver::open(&self.carry_over_path())?;
        let mut report = EvictReport::default();
        let mut candidates = self.candidates(request, before)?;
        loop {
            let page = take_page(&mut candidates, request.instance, &mut report)?;
            if page.is_empty() {
                return Ok(report);
            }
            let plan = self.policy.plan(&page, self.clock.now(), request.goal, report.bytes);
            report.n_spared += tier_types::to_u64(plan.spare.len());
            report.n_evicted += tier_types::to_u64(plan.evict.len());
            let going = page.iter().filter(|facts| plan.evict.contains(&facts.ino));
            report.bytes += going.map(|facts| facts.resident_bytes).sum::<u64>();
        }
    }

    fn candidates<'a>(
        &self,
        request: &EvictRequest<'a>,
        before: CarryOver,
    ) -> Result<Candidates<'a>, EvictError> {
        let options = NetChangesOptions::new(&self.folder);
        let changed = XidRange::new(before.cursor.max(request.first), request.safe.next())
            .map(|range| NetChanges::of_range(request.log, range, &options))
            .transpose()?;
        Ok(Candidates::new(changed, before, request.instance))
    }

    /// Evicts what the policy lets go, and returns who stays, in order.
    fn evict_page(
        &self,
        request: &EvictRequest<'_>,
        page: &[EvictionFacts],
        report: &mut EvictReport,
    ) -> Result<Vec<Ino>, EvictError> {
        let plan = self.policy.plan(page, self.clock.now(), request.goal, report.bytes);
        report.n_spared += tier_types::to_u64(plan.spare.len());
        let mut survivors: Vec<Ino> = plan.spare.into_iter().map(|(ino, _)| ino).collect();
        for ino in plan.evict {
            if request.stop.load(Ordering::Relaxed) {
                return Err(EvictError::Cancelled);
            }
            let evicted = evict_inode(request.instance, request.persisted, ino)?;
            report.n_evicted += u64::from(evicted.bytes > 0);
            report.bytes += evicted.bytes;
            if evicted.something_stays {
                report.n_not_safe += 1;
                survivors.push(ino);
            }
        }
        survivors.sort_unstable();
        Ok(survivors)
    }

    fn carry_over_path(&self) -> PathBuf {
        self.folder.join("survivors")
    }
}

/// The facts of the next candidates that still exist; empty only at the end.
fn take_page(
    candidates: &mut Candidates<'_>,
    instance: &dyn MountedInstance,
    report: &mut EvictReport,
) -> Result<Vec<EvictionFacts>, EvictError> {
    let mut page = Vec::new();
    for ino in candidates {
        report.n_candidates += 1;
        page.extend(instance.eviction_facts(ino?)?);
        if page.len() >= N_PAGE {
            break;
        }
    }
    Ok(page)
}
