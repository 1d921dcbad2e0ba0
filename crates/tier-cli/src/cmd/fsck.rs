//! `tier fsck`.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::json;

use crate::exit::DamageFound;
use crate::session::Session;

/// Contradictions that are listed.
const N_SHOWN: usize = 1000;

pub(crate) fn fsck(session: &Session, store: &Path) -> Result<()> {
    let store = session.open(store)?;
    let stop = session.stop()?;
    let mut findings = Vec::new();
    let mut found = |finding| {
        if findings.len() < N_SHOWN {
            findings.push(finding);
        }
    };
    let report = store.fs.fsck(store.index.as_ref(), &mut found, stop.flag())?;
    let mut text: String = findings
        .iter()
        .map(|finding| match finding.ino.get() {
            0 => format!("{}\n", finding.problem),
            ino => format!("inode {ino}: {}\n", finding.problem),
        })
        .collect();
    text.push_str(&format!(
        "Checked {} inodes, {} names, {} chunks, {} evicted runs: {} contradictions.\n",
        report.n_inodes, report.n_entries, report.n_chunks, report.n_cold_runs, report.n_findings
    ));
    let list: Vec<_> = findings
        .iter()
        .map(|finding| json!({ "ino": finding.ino.get(), "problem": finding.problem }))
        .collect();
    let json = json!({
        "inodes": report.n_inodes,
        "entries": report.n_entries,
        "chunks": report.n_chunks,
        "cold_runs": report.n_cold_runs,
        "contradictions": report.n_findings,
        "first": list,
    });
    session.report(&json, &text)?;
    match report.n_findings {
        0 => Ok(()),
        n => bail!(DamageFound(format!("the filesystem contradicts itself in {n} places"))),
    }
}
