//! How long it takes to get a tree into an archive.

use std::path::Path;

use anyhow::{Context, Result};

use super::Plan;
use super::data::{Set, sets};
use super::measure::{Figures, fresh, median, megabytes, shell};
use crate::process::exists;

/// A program and how it archives `$SRC` into the directory `$OUT`; both are empty before.
struct Rival {
    name: &'static str,
    program: &'static str,
    prepare: &'static str,
    script: &'static str,
}

const RIVALS: [Rival; 6] = [
    Rival {
        name: "tar, zstd -3 -T0, age",
        program: "age",
        prepare: "age-keygen -o $OUT/key 2>/dev/null",
        script: "tar -C $SRC -c . | zstd -q -3 -T0 | \
                 age -r $(age-keygen -y $OUT/key) > $OUT/archive; sync $OUT/archive",
    },
    Rival {
        name: "restic backup",
        program: "restic",
        prepare: "restic init -q -r $OUT/repo",
        script: "restic backup -q -r $OUT/repo $SRC; sync",
    },
    Rival {
        name: "borg create",
        program: "borg",
        prepare: "borg init -e repokey-blake2 $OUT/repo",
        script: "borg create -C zstd,3 $OUT/repo::one $SRC; sync",
    },
    Rival {
        name: "rustic backup",
        program: "rustic",
        prepare: "rustic init -r $OUT/repo --no-progress --log-level off",
        script: "rustic backup -r $OUT/repo --no-progress --log-level off $SRC; sync",
    },
    Rival {
        name: "bupstash put",
        program: "bupstash",
        prepare: "bupstash new-key -o $OUT/key; bupstash init -r $OUT/repo",
        script: "bupstash put -q --no-send-log -k $OUT/key -r $OUT/repo $SRC; sync",
    },
    Rival {
        name: "dd of the same bytes, fsync",
        program: "dd",
        prepare: "",
        script: "find $SRC -type f -print0 | sort -z | xargs -0 cat | \
                 dd of=$OUT/copy bs=1M iflag=fullblock conv=fsync status=none",
    },
];

/// A program that takes longer runs once.
const SLOW_S: f64 = 60.0;

/// Passwords for programs that insist on one.
const PASSWORDS: &str = "export RESTIC_PASSWORD=x RUSTIC_PASSWORD=x BORG_PASSPHRASE=x; ";

pub(crate) fn persist(plan: &Plan) -> Result<()> {
    for set in sets(plan)? {
        println!("\n## {}: {}\n", set.name, set.about);
        measure_set(plan, &set)?;
    }
    Ok(())
}

fn measure_set(plan: &Plan, set: &Set) -> Result<()> {
    let (store, import) = imported(plan, set)?;
    let zstd = zstd_alone(plan, set)?;
    let out = plan.data.join("out");
    let rivals: Vec<_> = RIVALS
        .iter()
        .filter(|rival| exists(rival.program))
        .filter(|rival| rival.program != "dd" || set.name == "b")
        .collect();
    let mut ours = Vec::new();
    let mut persisting = Vec::new();
    let mut theirs: Vec<Vec<Figures>> = rivals.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.n_runs {
        let (figures, persist_s) = snapshot(plan, &store, &out)?;
        ours.push(figures);
        persisting.push(Figures { wall_s: persist_s, ..figures });
        for (rival, runs) in rivals.iter().zip(&mut theirs) {
            // One run of minutes says enough.
            if runs.first().is_none_or(|first| first.wall_s < SLOW_S) {
                runs.push(run_rival(rival, &set.directory, &out)?);
            }
        }
    }
    fresh(&out)?;
    let (ours, persisting) = (median(&ours), median(&persisting));
    println!("| | wall s | x tier snapshot | CPU s | peak MB | written MB |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let row = |name: &str, figures: Figures| {
        let ratio = figures.wall_s / ours.wall_s;
        let Figures { wall_s, cpu_s, resident_mb, written_mb, .. } = figures;
        println!(
            "| {name} | {wall_s:.2} | {ratio:.2} | {cpu_s:.1} | {resident_mb:.0} | {written_mb:.1} |"
        );
    };
    row("tier snapshot, the whole command", ours);
    row("of it, from the first event to the index", persisting);
    let both = Figures {
        wall_s: import.wall_s + ours.wall_s,
        cpu_s: import.cpu_s + ours.cpu_s,
        resident_mb: import.resident_mb.max(ours.resident_mb),
        ..ours
    };
    row("tier import and snapshot (import once)", both);
    row("zstd -3 -T0 of the tar in memory", zstd);
    for (rival, runs) in rivals.iter().zip(&theirs) {
        row(rival.name, median(runs));
    }
    Ok(())
}

/// A store into which the set was imported, and what that took; made once.
pub(crate) fn imported(plan: &Plan, set: &Set) -> Result<(std::path::PathBuf, Figures)> {
    let directory = set.directory.file_name().and_then(|name| name.to_str()).unwrap_or(set.name);
    let store = plan.data.join(format!("store-{directory}"));
    let (tier, source) = (plan.tier.display(), set.directory.display());
    let text = store.display();
    fresh(&store)?;
    shell(&format!("rmdir {text}; {tier} init -q {text} 2>/dev/null"))?;
    let figures = shell(&format!("{tier} import -q {text} {source}; sync"))?;
    Ok((store, figures))
}

/// A snapshot of a copy of the store; the seconds from its start until the index includes it.
fn snapshot(plan: &Plan, store: &Path, out: &Path) -> Result<(Figures, f64)> {
    fresh(out)?;
    let copy = out.join("store");
    shell(&format!("cp -a {} {}", store.display(), copy.display()))?;
    let figures = shell(&format!("{} snapshot -q {}", plan.tier.display(), copy.display()))?;
    let written_mb = megabytes(&copy.join("tarballs"))? + megabytes(&copy.join("index"))?;
    let persist_s = persist_seconds(&copy)?;
    Ok((Figures { written_mb, ..figures }, persist_s))
}

/// From the newest status log: from `started` to `indexed`.
pub(crate) fn persist_seconds(store: &Path) -> Result<f64> {
    let mut logs: Vec<_> =
        std::fs::read_dir(store.join("status"))?.flatten().map(|entry| entry.path()).collect();
    logs.sort();
    let text = std::fs::read_to_string(logs.last().context("no status log")?)?;
    let time = |event: &str| -> Option<f64> {
        let line = text.lines().find(|line| line.split(' ').nth(1) == Some(event))?;
        line.split(' ').next()?.parse().ok()
    };
    let (start, end) = time("started").zip(time("indexed")).context("an unfinished snapshot")?;
    Ok(end - start)
}

/// What zstd alone needs for the same tar, read from memory and written nowhere.
fn zstd_alone(plan: &Plan, set: &Set) -> Result<Figures> {
    let tar = Path::new("/dev/shm/tier-bench.tar");
    let (source, text) = (set.directory.display(), tar.display());
    shell(&format!("tar -C {source} -cf {text} ."))?;
    let compress = format!("zstd -q -3 -T0 -c {text}");
    let mut runs = Vec::new();
    for _ in 0..plan.n_runs {
        runs.push(shell(&format!("{compress} >/dev/null"))?);
    }
    let out = plan.data.join("out");
    fresh(&out)?;
    shell(&format!("{compress} > {}/one", out.display()))?;
    let written_mb = megabytes(&out.join("one"))?;
    std::fs::remove_file(tar)?;
    Ok(Figures { written_mb, ..median(&runs) })
}

fn run_rival(rival: &Rival, source: &Path, out: &Path) -> Result<Figures> {
    fresh(out)?;
    let variables = format!("{PASSWORDS}SRC={}; OUT={}; ", source.display(), out.display());
    if !rival.prepare.is_empty() {
        shell(&format!("{variables}{}", rival.prepare))?;
    }
    let figures = shell(&format!("{variables}{}", rival.script))?;
    Ok(Figures { written_mb: megabytes(out)?, ..figures })
}
