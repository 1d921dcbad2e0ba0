//! `tier fsck`.

use std::path::Path;

use anyhow::{Result, bail};
use kvfs::Finding;
use serde_json::json;
use tier_types::{ErrorKind, PortError};

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
    let store = session.open(store)?;
    let stop = session.stop()?;
    let mut findings = Vec::new();
    let mut n_shown = [0; 2];
    let mut found = |finding: Finding| {
        let [left, repaired] = &mut n_shown;
        let n = if finding.repaired { repaired } else { left };
        if *n < N_SHOWN {
            *n += 1;
            findings.push(finding);
        }
    };
    let (archive, stop) = (store.index.as_ref(), stop.flag());
    let report = match repair {
        true => store.fs.repair(archive, &mut found, stop)?,
        false => store.fs.fsck(archive, &mut found, stop)?,
    };
    let mut text: String = findings.iter().map(line).collect();
    text.push_str(&format!(
        "Checked {} inodes, {} names, {} chunks, {} evicted runs: {} contradictions{}.\n",
        report.n_inodes,
        report.n_entries,
        report.n_chunks,
        report.n_cold_runs,
        report.n_findings,
        if repair {
            format!(" are left, {} are repaired", report.n_repaired)
        } else {
            String::new()
        }
    ));
    let list: Vec<_> = findings
        .iter()
        .map(|Finding { ino, problem, repaired }| {
            json!({ "ino": ino.get(), "problem": problem, "repaired": repaired })
        })
        .collect();
    let json = json!({
        "inodes": report.n_inodes,
        "entries": report.n_entries,
        "chunks": report.n_chunks,
        "cold_runs": report.n_cold_runs,
        "contradictions": report.n_findings,
        "repaired": report.n_repaired,
        "first": list,
    });
    session.report(&json, &text)?;
    match report.n_findings {
        0 => Ok(()),
        n => bail!(DamageFound(format!("the filesystem contradicts itself in {n} places"))),
    }
}

fn line(finding: &Finding) -> String {
    let repaired = if finding.repaired { "repaired: " } else { "" };
    match finding.ino.get() {
        0 => format!("{repaired}{}\n", finding.problem),
        ino => format!("{repaired}inode {ino}: {}\n", finding.problem),
    }
}
