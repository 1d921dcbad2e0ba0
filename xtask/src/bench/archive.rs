//! What is done with an archive that is there: add to it, regenerate, check, get a file out.

use std::path::Path;

use anyhow::Result;

use super::Plan;
use super::data::{made, sets, small_files};
use super::measure::{Figures, fresh, median, shell};
use super::persist::imported;

/// A row: the same task for both programs.
struct Task {
    name: &'static str,
    prepare: Option<String>,
    ours: String,
    theirs: String,
    /// Part of `theirs` that is not the task.
    overhead: Option<String>,
}

pub(crate) fn archive(plan: &Plan) -> Result<()> {
    for set in sets(plan)?.into_iter().filter(|set| set.name == "c") {
        println!("\n## {}: {}\n", set.name, set.about);
        let (store, _) = imported(plan, &set)?;
        let tier = plan.tier.display().to_string();
        shell(&format!("{tier} snapshot -q {}", store.display()))?;
        let repo = plan.data.join("repo");
        fresh(&repo)?;
        let restic = format!("export RESTIC_PASSWORD=x; restic -q -r {}", repo.display());
        // Both see one tree that grows by one part in a hundred.
        let tree = plan.data.join("tree-of-links");
        fresh(&tree)?;
        let (first, text) = (set.directory.display(), tree.display());
        shell(&format!("cp -al {first} {text}/first; {restic} init; {restic} backup {text}"))?;
        second(plan, (&store, &tree), (&tier, &restic))?;
        for task in tasks((&store, &tree), &set.directory, (&tier, &restic))? {
            row(plan, &task)?;
        }
    }
    Ok(())
}

/// The second snapshot, after one file in a hundred was added.
fn second(plan: &Plan, (store, tree): (&Path, &Path), (tier, restic): (&str, &str)) -> Result<()> {
    println!("| | tier s | restic s | ratio |");
    println!("| --- | ---: | ---: | ---: |");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let n_more = (plan.n_files / 100).max(1);
    let sources = plan.data.join("a");
    for run in 0..u32::try_from(plan.n_runs)? {
        let more = tree.join(format!("more-{run}"));
        made(&more, |directory| small_files(&sources, (n_more, run + 1), directory))?;
        let (store, more, tree) = (store.display(), more.display(), tree.display());
        shell(&format!("{tier} import -q {store} {more} --into /more-{run}"))?;
        ours.push(shell(&format!("{tier} snapshot -q {store}"))?);
        theirs.push(shell(&format!("{restic} backup {tree}; sync"))?);
    }
    print("second snapshot, 1 % of the files added", median(&ours), median(&theirs).wall_s);
    Ok(())
}

fn tasks(
    (store, tree): (&Path, &Path),
    source: &Path,
    (tier, restic): (&str, &str),
) -> Result<Vec<Task>> {
    let store = store.display();
    let tree = tree.canonicalize()?;
    let mut file = source.to_path_buf();
    while file.is_dir() {
        let mut entries: Vec<_> = std::fs::read_dir(&file)?.flatten().map(|e| e.path()).collect();
        entries.sort();
        let middle = entries.len() / 2;
        file = entries.into_iter().nth(middle).unwrap_or_default();
    }
    let inside = file.strip_prefix(source)?.display();
    Ok(vec![
        Task {
            name: "index by tables of contents; restic rebuild-index",
            prepare: None,
            ours: format!("{tier} index rebuild {store}"),
            theirs: format!("{restic} rebuild-index"),
            overhead: None,
        },
        Task {
            name: "index by full scan; restic check --read-data",
            prepare: None,
            ours: format!("{tier} index rebuild {store} --full-scan"),
            theirs: format!("{restic} check --read-data"),
            overhead: None,
        },
        Task {
            name: "verify --read-data; restic check --read-data",
            prepare: None,
            ours: format!("{tier} verify {store} --read-data"),
            theirs: format!("{restic} check --read-data"),
            overhead: None,
        },
        Task {
            name: "one cold file; restic dump less restic cat config",
            prepare: Some(format!("{tier} evict --all {store}")),
            ours: format!("{tier} cat {store} '/{inside}'"),
            theirs: format!("{restic} dump latest '{}/first/{inside}'", tree.display()),
            overhead: Some(format!("{restic} cat config")),
        },
    ])
}

fn row(plan: &Plan, task: &Task) -> Result<()> {
    let (mut ours, mut theirs, mut overhead) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.n_runs {
        if let Some(script) = &task.prepare {
            shell(script)?;
        }
        ours.push(shell(&task.ours)?);
        theirs.push(shell(&task.theirs)?);
        if let Some(script) = &task.overhead {
            overhead.push(shell(script)?);
        }
    }
    let less = if overhead.is_empty() { 0.0 } else { median(&overhead).wall_s };
    print(task.name, median(&ours), median(&theirs).wall_s - less);
    Ok(())
}

fn print(name: &str, ours: Figures, theirs_s: f64) {
    // The clock has steps of 10 ms.
    let ours_s = ours.wall_s.max(0.01);
    println!("| {name} | {ours_s:.2} | {theirs_s:.2} | {:.1} |", theirs_s / ours_s);
}
