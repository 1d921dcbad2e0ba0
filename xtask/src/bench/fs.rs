//! The mount against the host's filesystem, and against a FUSE filesystem that only passes through
//! or the mount of another build.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Plan;
use super::data::made;
use super::measure::{Figures, fresh, median, shell};
use super::requests::RequestCounter;
use crate::mounted::Mounted;
use crate::process::exists;

/// What is timed in a directory `$DIR`, with what is done before. `$NOISE` is a file of 1 GiB,
/// `$TAR` a tree of sources.
struct Task {
    name: &'static str,
    before: &'static str,
    script: &'static str,
    /// For what number of files requests are counted.
    files: Files,
}

/// The files of a task.
#[derive(Clone, Copy)]
enum Files {
    /// It is about bytes.
    One,
    /// About 100,000 empty files.
    Many,
    /// About the tree of sources.
    Sources,
}

const TASKS: [Task; 16] = [
    Task {
        name: "write 1 GiB and sync",
        before: "",
        script: "dd if=$NOISE of=$DIR/big bs=1M conv=fsync status=none",
        files: Files::One,
    },
    Task {
        name: "read 1 GiB, not in the cache",
        before: "sync; echo 3 > /proc/sys/vm/drop_caches",
        script: "dd if=$DIR/big of=/dev/null bs=1M status=none",
        files: Files::One,
    },
    Task {
        name: "read 1 GiB again",
        before: "",
        script: "dd if=$DIR/big of=/dev/null bs=1M status=none",
        files: Files::One,
    },
    Task {
        name: "16,384 random reads of 4 KiB, not in the cache",
        before: "sync; echo 3 > /proc/sys/vm/drop_caches",
        script: "fio --name=x --filename=$DIR/big --rw=randread --bs=4k --io_size=64M --size=1G \
                 --invalidate=0 >/dev/null",
        files: Files::One,
    },
    Task {
        name: "16,384 random writes of 4 KiB and sync",
        before: "",
        script: "fio --name=x --filename=$DIR/big --rw=randwrite --bs=4k --io_size=64M --size=1G \
                 --end_fsync=1 --invalidate=0 >/dev/null",
        files: Files::One,
    },
    Task {
        name: "1,024 appends of 4 KiB, each synced",
        before: "rm -f $DIR/log",
        script: "fio --name=x --filename=$DIR/log --rw=write --bs=4k --size=4M --fsync=1 \
                 --fallocate=none >/dev/null",
        files: Files::One,
    },
    Task {
        name: "create 100,000 files",
        before: "rm -rf $DIR/many; mkdir $DIR/many",
        script: "cd $DIR/many; seq 100000 | xargs touch",
        files: Files::Many,
    },
    Task {
        name: "stat 100,000 files",
        before: "",
        script: "ls -l $DIR/many | wc -l >/dev/null",
        files: Files::Many,
    },
    Task {
        name: "unlink 100,000 files",
        before: "",
        script: "rm -rf $DIR/many",
        files: Files::Many,
    },
    Task {
        name: "untar sources",
        before: "rm -rf $DIR/src; mkdir $DIR/src",
        script: "tar -C $DIR/src -xf $TAR",
        files: Files::Sources,
    },
    Task {
        name: "find",
        before: "",
        script: "find $DIR/src -size +1M >/dev/null",
        files: Files::Sources,
    },
    Task {
        name: "grep -r",
        before: "",
        script: "grep -r 'no such word' $DIR/src || true",
        files: Files::Sources,
    },
    Task {
        name: "grep -r, not in the cache",
        before: "sync; echo 3 > /proc/sys/vm/drop_caches",
        script: "grep -r 'no such word' $DIR/src || true",
        files: Files::Sources,
    },
    Task {
        name: "read all, four at a time, not in the cache",
        before: "sync; echo 3 > /proc/sys/vm/drop_caches",
        script: "find $DIR/src -type f -print0 | xargs -0 -P4 -n64 cat >/dev/null",
        files: Files::Sources,
    },
    Task {
        name: "git status",
        before: "cd $DIR/src; git init -q; git add -A >/dev/null 2>&1",
        script: "cd $DIR/src; git status >/dev/null",
        files: Files::Sources,
    },
    Task { name: "rm -rf", before: "", script: "rm -rf $DIR/src", files: Files::Sources },
];

/// What the mount is measured against besides the host's filesystem.
enum Peer {
    /// A FUSE filesystem that passes through, on this directory.
    Bindfs(PathBuf),
    /// A store of another build.
    Before(Mounted),
}

impl Peer {
    fn new(plan: &Plan) -> Result<Self> {
        if let Some(program) = &plan.before {
            let work = plan.data.join("fs-before");
            fresh(&work)?;
            return Ok(Self::Before(Mounted::new(program, &work, &["--no-agent"])?));
        }
        let (below, through) = (plan.data.join("fs-below"), plan.data.join("fs-bindfs"));
        fresh(&below)?;
        fresh(&through)?;
        shell(&format!("bindfs {} {}", below.display(), through.display()))?;
        Ok(Self::Bindfs(through))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Bindfs(_) => "bindfs",
            Self::Before(_) => "before",
        }
    }

    fn directory(&self) -> &Path {
        match self {
            Self::Bindfs(directory) => directory,
            Self::Before(mounted) => mounted.directory(),
        }
    }

    fn end(self) -> Result<()> {
        match self {
            Self::Bindfs(directory) => {
                shell(&format!("fusermount3 -u {}", directory.display())).map(drop)
            }
            Self::Before(mounted) => mounted.end(),
        }
    }
}

pub(crate) fn fs(plan: &Plan) -> Result<()> {
    if !exists("fio") || !exists("bindfs") || !exists("git") {
        bail!("fio, bindfs or git missing; as root: apt-get install -y fio bindfs git");
    }
    let sources =
        made(&plan.data.join("a"), |directory| super::data::copy_trees(&plan.trees, directory))?;
    let (tar, noise) = (plan.data.join("sources.tar"), plan.data.join("noise"));
    shell(&format!("tar -C {} -cf {} .", sources.display(), tar.display()))?;
    shell(&format!("head -c 1G /dev/urandom > {}", noise.display()))?;
    let host = plan.data.join("fs-host");
    fresh(&host)?;
    let peer = Peer::new(plan)?;
    let work = plan.data.join("fs-tier");
    fresh(&work)?;
    let mounted = Mounted::new(&plan.tier, &work, &["--no-agent"])?;
    let directories = [host.as_path(), peer.directory(), mounted.directory()];
    let measured = measure(plan, &directories, (&tar, &noise));
    if let Ok(runs) = &measured {
        print(peer.name(), runs, n_entries(&tar)?);
    }
    peer.end()?;
    mounted.end()?;
    measured.map(drop)
}

/// All tasks in order, `n_runs` times, each on all filesystems in turn.
fn measure(
    plan: &Plan,
    directories: &[&Path; 3],
    (tar, noise): (&Path, &Path),
) -> Result<Vec<[Vec<Figures>; 3]>> {
    let mut runs = vec![[const { Vec::new() }; 3]; TASKS.len()];
    for number in 1..=plan.n_runs {
        for (task, runs) in TASKS.iter().zip(&mut runs) {
            eprint!("run {number} of {}: {}:", plan.n_runs, task.name);
            for (directory, runs) in directories.iter().zip(runs) {
                let variables = format!(
                    "export DIR={} TAR={} NOISE={}; ",
                    directory.display(),
                    tar.display(),
                    noise.display()
                );
                shell(&format!("{variables}{}", task.before))?;
                let counter = RequestCounter::start();
                let mut measured = shell(&format!("{variables}{}", task.script))?;
                if let Some(counter) = counter {
                    measured.requests = u32::try_from(counter.count()?)?.into();
                }
                eprint!(" {:.2}", measured.wall_s);
                runs.push(measured);
            }
            eprintln!(" s");
        }
    }
    Ok(runs)
}

fn print(peer_name: &str, runs: &[[Vec<Figures>; 3]], n_sources: f64) {
    println!("{n_sources} files, directories and links in the tree of sources");
    println!(
        "| | host s | {peer_name} s | tier s | {peer_name} / tier | tier / host | requests for each \
         file, {peer_name} | tier |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (task, runs) in TASKS.iter().zip(runs) {
        let [host, peer, tier] = runs.each_ref().map(|runs| median(runs));
        let n_files = match task.files {
            Files::One => 1.0,
            Files::Many => 100_000.0,
            Files::Sources => n_sources,
        };
        let [host_s, peer_s, tier_s] = [host, peer, tier].map(|it| it.wall_s.max(0.01));
        println!(
            "| {} | {host_s:.2} | {peer_s:.2} | {tier_s:.2} | {:.1} | {:.1} | {:.1} | {:.1} |",
            task.name,
            peer_s / tier_s,
            tier_s / host_s,
            peer.requests / n_files,
            tier.requests / n_files,
        );
    }
}

/// How many entries an archive has.
fn n_entries(tar: &Path) -> Result<f64> {
    let listed = Command::new("tar").arg("-tf").arg(tar).output().context("cannot start tar")?;
    let n = String::from_utf8_lossy(&listed.stdout).lines().count();
    Ok(u32::try_from(n)?.into())
}
