//! `tier recall`: brings files back before they are read.
//!
//! What is wanted is sorted by where it lies ([`RecallPlan`]) and brought back in that order, by
//! several threads: each frame of a tarball is read once, whichever files have a part in it, and
//! the next ones are read ahead. A large tree is planned and brought back piece by piece, so that
//! the plan has a bound. What came stays in the key-value store, as after a read, until it is
//! evicted again; that costs nothing as long as it is not changed. A stop leaves what came by then.
//!
//! What is frozen in the cloud is asked for, all of it, and named at the end: it comes by the same
//! command hours later.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kvfs::FsError;
use parking_lot::Mutex;
use serde_json::json;
use tier_persist::{PlannedExtent, PlannedTarball, RecallPlan};
use tier_types::{Call, ChunkRun, ErrorKind, FileAttr, FileKind, HasKind, Ino, with_causes};

use crate::args::RecallArgs;
use crate::console::{DamageFound, ProgressBar, StopGuard, output};
use crate::context::Context;
use crate::open_store::OpenStore;
use crate::transfer::{walk, worker_pool};

/// Parts of files in a plan: some 20 MiB of memory.
const N_PLANNED_MAX: usize = 200_000;
/// Threads that bring back: what they wait for is read ahead by others.
const N_THREADS: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// Frames that are read ahead at a time, at most: so many come in the time of one.
const N_AT_A_TIME: u32 = 8;

pub(super) fn run(context: &Context, args: &RecallArgs) -> Result<()> {
    let store = &*context.open_to_write(&args.store)?;
    let stop = context.console.stop()?;
    let mut recall = Recalling {
        store,
        stop: &stop,
        bar: context.console.progress("recalling"),
        is_dry: args.dry_run,
        plan: RecallPlan::default(),
        names: BTreeMap::new(),
        wanted: Wanted::default(),
        done: Done::default(),
    };
    for path in &args.paths {
        let start = walk::resolve(&store.fs, path)?;
        walk::tree(&store.fs, start, |name, attr| {
            // Looked at here as well: where all is resident, nothing below looks at the flag.
            stop.check()?;
            let name = || format!("{}/{}", path.display(), output::name(name));
            if matches!(attr.kind, FileKind::Regular) { recall.add(attr, name) } else { Ok(()) }
        })?;
    }
    recall.carry_out()?;
    assert_eq!(recall.plan.n_extents(), 0, "nothing that was planned is left");
    // Without the sync a crash could lose what came, and it would be fetched again.
    store.fs.fsync()?;
    recall.report(context)
}

/// What a plan reads.
#[derive(Default)]
struct Wanted {
    n_files: u64,
    n_tarballs: u64,
    /// Of tarballs that lie here.
    local_bytes: u64,
    cloud_bytes: u64,
    /// Each of a frame.
    n_requests: u64,
    /// How long one took.
    sample: Option<Duration>,
}

/// What came.
#[derive(Default)]
struct Done {
    bytes: AtomicU64,
    frozen: Mutex<Frozen>,
    /// Files that are damaged, and why.
    failed: Mutex<BTreeMap<String, String>>,
}

#[derive(Default)]
struct Frozen {
    n_extents: u64,
    /// The longest time that was said.
    within: Option<Duration>,
}

struct Recalling<'a> {
    store: &'a OpenStore,
    stop: &'a StopGuard,
    bar: ProgressBar,
    is_dry: bool,
    plan: RecallPlan,
    /// Of the files in the plan.
    names: BTreeMap<Ino, String>,
    wanted: Wanted,
    done: Done,
}

impl Recalling<'_> {
    /// Plans a file, and brings back what is planned when that is much.
    fn add(&mut self, attr: &FileAttr, name: impl Fn() -> String) -> Result<()> {
        let OpenStore { fs, store, .. } = self.store;
        let mut is_cold = false;
        for run in fs.cold_runs(attr.ino) {
            let mut rest = Some(run.with_context(|| format!("cannot recall {}", name()))?);
            is_cold = true;
            self.names.entry(attr.ino).or_insert_with(&name);
            while let Some(run) = rest {
                self.stop.check()?;
                let planned = self.plan.add(store.index(), attr.ino, &run, N_PLANNED_MAX);
                let (left, is_planned) =
                    planned.with_context(|| format!("cannot recall {}", name()))?;
                if !is_planned && !self.is_dry {
                    // It says why, unless it changed meanwhile.
                    let came = fs.recall_range(attr.ino, run.chunks, self.stop.flag());
                    self.note(attr.ino, came)?;
                }
                rest = left.map(|chunks| ChunkRun { chunks, ..run });
                if self.plan.n_extents() >= N_PLANNED_MAX {
                    self.carry_out()?;
                    self.names.insert(attr.ino, name());
                }
            }
        }
        self.wanted.n_files += u64::from(is_cold);
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "a file has its name before it is planned")]
    fn note(&self, ino: Ino, came: Result<u64, FsError>) -> Result<()> {
        let error = match came {
            Ok(bytes) => {
                let bytes = self.done.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
                self.bar.text(|| self.wanted.progress(bytes));
                return Ok(());
            }
            // Removed meanwhile.
            Err(FsError::NotFound) => return Ok(()),
            Err(error) => error,
        };
        if let ErrorKind::Frozen { within } = error.kind() {
            let mut frozen = self.done.frozen.lock();
            frozen.n_extents += 1;
            frozen.within = frozen.within.max(within);
            return Ok(());
        }
        let name = self.names.get(&ino).expect("what is planned has a name");
        if error.kind().is_of_object() {
            // The others are whole.
            self.done.failed.lock().insert(name.clone(), with_causes(&error));
            return Ok(());
        }
        Err(error).with_context(|| format!("cannot recall {name}"))
    }

    /// Brings back what is planned so far.
    fn carry_out(&mut self) -> Result<()> {
        // What is damaged is met again where it matters.
        if let Err(error) = self.estimate() {
            tracing::warn!("how much there is to read is not known: {error:#}");
        }
        let extents = self.plan.take();
        if !self.is_dry {
            let this = &*self;
            let recall = |(): &mut (), PlannedExtent { ino, chunks }| {
                this.stop.check()?;
                let recall = || this.store.fs.recall_range(ino, chunks, this.stop.flag());
                // What changed since it was planned is looked up anew.
                let is_gone = |came: &Result<u64, FsError>| matches!(came, Err(e) if e.kind() == ErrorKind::Missing);
                let came = Some(recall()).filter(|came| !is_gone(came)).unwrap_or_else(recall);
                this.note(ino, came)
            };
            let failure = worker_pool::Failure::default();
            worker_pool::run(
                N_THREADS,
                &failure,
                || (),
                recall,
                |jobs| extents.into_iter().try_for_each(|extent| jobs.submit(extent)),
            )?;
        }
        self.names.clear();
        Ok(())
    }

    fn estimate(&mut self) -> Result<()> {
        let dir = self.store.store.dir();
        let tarballs = self.plan.tarballs(self.store.store.index(), dir.filesystem)?;
        for PlannedTarball { name, n_frames, bytes } in tarballs {
            self.wanted.n_tarballs += 1;
            if dir.local.metadata(&Call::bulk(), &name).is_ok() {
                self.wanted.local_bytes += bytes;
                continue;
            }
            self.wanted.cloud_bytes += bytes;
            self.wanted.n_requests += n_frames;
            if let Some(cloud) =
                dir.cloud.as_ref().filter(|_| self.is_dry && self.wanted.sample.is_none())
            {
                let (began, bytes_max) = (Instant::now(), bytes.div_ceil(n_frames.max(1)));
                let mut buffer = vec![0; tier_types::to_usize(bytes_max)];
                // One that is frozen or away tells nothing, and is met again.
                let read = cloud.store.read_range(&Call::bulk(), &name, 0, &mut buffer);
                self.wanted.sample = read.ok().map(|()| began.elapsed());
            }
        }
        Ok(())
    }

    fn report(self, context: &Context) -> Result<()> {
        let Self { wanted, done, bar, is_dry, .. } = self;
        drop(bar);
        let Done { bytes, frozen, failed } = done;
        let (bytes, frozen, failed) =
            (bytes.into_inner(), frozen.into_inner(), failed.into_inner());
        let json = json!({
            "files": wanted.n_files,
            "bytes": bytes,
            "tarballs": wanted.n_tarballs,
            "local_bytes": wanted.local_bytes,
            "cloud_bytes": wanted.cloud_bytes,
            "requests": wanted.n_requests,
            "seconds": wanted.time().map(|time| time.as_secs()),
            "frozen_parts": frozen.n_extents,
            "failed": failed,
        });
        let mut text = match is_dry {
            true => wanted.text(),
            false => {
                format!("Recalled {} in {} files.\n", output::bytes(bytes), wanted.n_files)
            }
        };
        for (name, error) in &failed {
            text.push_str(&format!("Not recalled: {name}: {error}\n"));
        }
        let hours = frozen.within.map(|within| within.as_secs().div_ceil(3600));
        let takes = hours.map_or("hours".into(), |hours| format!("up to {hours} h"));
        let thawing = format!(
            "{} parts of files are frozen in the cloud and being thawed, which takes {takes}: \
             repeat this then",
            frozen.n_extents
        );
        let is_thawing = frozen.n_extents > 0;
        if is_thawing && !failed.is_empty() {
            text.push_str(&format!("{thawing}\n"));
        }
        context.console.report(&json, &text)?;
        if !failed.is_empty() {
            bail!(DamageFound(format!("{} files could not be recalled", failed.len())));
        }
        if is_thawing {
            bail!(thawing);
        }
        Ok(())
    }
}

impl Wanted {
    /// About how long it takes, if one request after another takes as long as one did; `None` if
    /// that is not known.
    fn time(&self) -> Option<Duration> {
        self.sample?.checked_mul(u32::try_from(self.n_requests).ok()?).map(|all| all / N_AT_A_TIME)
    }

    fn text(&self) -> String {
        let Self { n_files, n_tarballs, local_bytes, cloud_bytes, n_requests, .. } = self;
        format!(
            "{n_files} files lie in {n_tarballs} tarballs: {} here, and {} in the cloud, in \
             {n_requests} requests{}.\n",
            output::bytes(*local_bytes),
            output::bytes(*cloud_bytes),
            self.time()
                .map_or(String::new(), |time| { format!("; about {} s", time.as_secs().max(1)) })
        )
    }

    fn progress(&self, bytes: u64) -> String {
        let planned = output::bytes(self.local_bytes + self.cloud_bytes);
        format!("{} of about {planned} as it is stored", output::bytes(bytes))
    }
}
