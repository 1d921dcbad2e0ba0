//! `tier fsck`.

use std::path::Path;

use anyhow::{Result, bail};
use kvfs::{Finding, FsckReport};
use serde_json::json;
use tier_types::{ErrorKind, Ino, PortError};

use crate::exit::DamageFound;
use crate::session::Session;

/// Contradictions that are listed, of those that are left and of those that are repaired.
const N_SHOWN: usize = 1000;

pub(crate) fn fsck(session: &Session, store: &Path, repair: bool) -> Result<()> {
    if let Some(daemon) = session.daemon().filter(|_| repair) {
        let path = daemon.store().base.path.display();
        let process = std::process::id();
        let message = format!(
            "{path} is mounted or served by process {process}, and a repair needs it alone; unmount \
             it first"
        );
        return Err(PortError::new(ErrorKind::Busy, message).into());
    }
    let store = session.open_for_check(store)?;
    let stop = session.stop()?;
    let (mut left, mut repaired) = (Listed::default(), Listed::default());
    let mut found = |finding: Finding| {
        let list = if finding.repaired { &mut repaired } else { &mut left };
        list.add(finding);
    };
    let (archive, stop) = (store.index.as_ref(), stop.flag());
    let checked = match repair {
        true => store.fs.repair(archive, &mut found, stop),
        false => store.fs.fsck(archive, &mut found, stop),
    };
    let report = match checked {
        Ok(report) => report,
        Err(error) => {
            // What was changed until then is changed.
            session.note(&[repaired.text(), left.text()].concat());
            return Err(error.into());
        }
    };
    session.report(
        &json!({
            "inodes": report.n_inodes,
            "entries": report.n_entries,
            "chunks": report.n_chunks,
            "cold_runs": report.n_cold_runs,
            "contradictions": report.n_findings,
            "repaired": report.n_repaired,
            "first": left.json(),
            "first_repaired": repaired.json(),
        }),
        &[repaired.text(), left.text(), summary(&report, repair)].concat(),
    )?;
    match report.n_findings {
        0 => Ok(()),
        n => bail!(DamageFound(format!("the filesystem contradicts itself in {n} places"))),
    }
}

fn summary(report: &FsckReport, repair: bool) -> String {
    let FsckReport { n_inodes, n_entries, n_chunks, n_cold_runs, n_findings, n_repaired } = report;
    let ending = match repair {
        true => format!(" left, {n_repaired} repaired"),
        false => String::new(),
    };
    format!(
        "Checked {n_inodes} inodes, {n_entries} names, {n_chunks} chunks, {n_cold_runs} evicted runs: \
         {n_findings} contradictions{ending}.\n"
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
        let json = |finding: &Finding| json!({ "ino": finding.ino.map_or(0, Ino::get), "problem": finding.problem.to_string() });
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
