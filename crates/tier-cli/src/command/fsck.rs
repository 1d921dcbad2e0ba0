//! `tier fsck`: checks the filesystem in the key-value store, and repairs it.
//!
//! A check reads everything once, and may run while the store is in use. A repair needs the store
//! alone: what it makes of a contradiction must not change under it. It is also what opens a store
//! whose repair was interrupted, because nothing else may. Findings are counted, and the first of
//! them listed: a badly damaged filesystem has more of them than a user reads.

use anyhow::{Result, bail};
use kvfs::check::{Finding, FsckReport};
use serde_json::json;
use tier_types::{ErrorKind, Ino, PortError};

use crate::args::FsckArgs;
use crate::console::DamageFound;
use crate::context::Context;
use crate::open_store::OpenMode;

/// Contradictions that are listed, of those that are left and of those that are repaired.
const N_SHOWN: usize = 1000;

pub(super) fn run(context: &Context, args: &FsckArgs) -> Result<()> {
    let repair = args.repair;
    // Asked first, because a live store would be given to the command as it is, without a lock to
    // fail.
    if let Some(live) = context.live().filter(|_| repair) {
        let path = live.store.path().display();
        let process = std::process::id();
        let message = format!(
            "{path} is mounted or served by process {process}, and a repair needs it alone; \
             unmount it first"
        );
        return Err(PortError::new(ErrorKind::Busy, message).into());
    }
    let store = context.open_as(&args.store, OpenMode::ForCheck)?;
    let stop = context.console.stop()?;
    let (mut left, mut repaired) = (Listed::default(), Listed::default());
    let mut found = |finding: Finding| {
        // Findings are told as they come and kept to a limit, so that memory does not grow with the
        // damage.
        let list = if finding.repaired { &mut repaired } else { &mut left };
        list.add(finding);
    };
    let (archive, stop) = (store.index().as_ref(), stop.flag());
    let checked = if repair {
        // The repair syncs what it changed before it returns, so that nothing is left to do here.
        store.fs.repair(archive, &mut found, stop)
    } else {
        store.fs.fsck(archive, &mut found, stop)
    };
    let report = match checked {
        Ok(report) => report,
        Err(error) => {
            // What was changed until then is changed.
            context.console.note(&[repaired.text(), left.text()].concat());
            return Err(error.into());
        }
    };
    // The report comes before the error, because the exit code alone names no inode.
    context.console.report(
        &json!({
            "inodes": report.n_inodes,
            "entries": report.n_entries,
            "chunks": report.n_chunks,
            "cold_runs": report.n_cold_runs,
            "unreadable": report.n_unreadable,
            "contradictions": report.n_findings,
            "repaired": report.n_repaired,
            "first": left.json(),
            "first_repaired": repaired.json(),
        }),
        &[repaired.text(), left.text(), summary(&report, repair)].concat(),
    )?;
    match report.n_findings {
        0 => Ok(()),
        n if report.n_unreadable > 0 => bail!(DamageFound(format!(
            "the filesystem contradicts itself or cannot be read in {n} places; what the archive \
             has of it comes back with tier restore"
        ))),
        n => bail!(DamageFound(format!("the filesystem contradicts itself in {n} places"))),
    }
}

fn summary(report: &FsckReport, repair: bool) -> String {
    let FsckReport { n_inodes, n_entries, n_chunks, n_cold_runs, n_findings, n_repaired, .. } =
        report;
    let ending = if repair { format!(" left, {n_repaired} repaired") } else { String::new() };
    format!(
        "Checked {n_inodes} inodes, {n_entries} names, {n_chunks} chunks, {n_cold_runs} evicted \
         runs: {n_findings} contradictions{ending}.\n"
    )
}

/// The first findings, and how many there are.
#[derive(Default)]
struct Listed {
    first: Vec<Finding>,
    n: usize,
}

impl Listed {
    fn add(&mut self, finding: Finding) {
        self.n += 1;
        if self.n <= N_SHOWN {
            self.first.push(finding);
        }
    }

    fn text(&self) -> String {
        let mut text: String = self.first.iter().map(line).collect();
        if self.n > N_SHOWN {
            text.push_str(&format!("and {} more\n", self.n - N_SHOWN));
        }
        text
    }

    fn json(&self) -> Vec<serde_json::Value> {
        // Some findings belong to no inode, such as a total; JSON says 0, which no inode has.
        let json = |finding: &Finding| {
            json!({
                "ino": finding.ino.map_or(0, Ino::get),
                "name": finding.problem.name(),
                "problem": finding.problem.to_string(),
            })
        };
        self.first.iter().map(json).collect()
    }
}

fn line(Finding { ino, problem, repaired }: &Finding) -> String {
    let repaired = if *repaired { "repaired: " } else { "" };
    match ino {
        None => format!("{repaired}{problem}\n"),
        Some(ino) => format!("{repaired}inode {ino}: {problem}\n"),
    }
}
