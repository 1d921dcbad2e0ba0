//! Programs that people use, on a mount; and again after everything was evicted.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::backups;
use crate::demo::release_program;
use crate::mounted::{Mounted, obstacle};
use crate::process::{exists, run};

/// A program: what it does first, and what must hold then and after an eviction. In scripts `$DIR`
/// is a directory on the mount, `$ROOT` this workspace, `$WORK` a directory of the host.
struct Program {
    name: &'static str,
    first: &'static str,
    then: &'static str,
}

const PROGRAMS: [Program; 6] = [
    Program {
        name: "git",
        first: "git clone -q --no-local $ROOT $DIR/repo",
        then: "git -C $DIR/repo fsck --strict; git -C $DIR/repo status --porcelain | wc -l | grep -qx 0",
    },
    Program {
        name: "cargo build",
        first: "",
        then: "cd $DIR/repo; touch crates/tier-types/src/lib.rs; \
               cargo build -q --offline -p tier-types --target-dir $DIR/target",
    },
    Program {
        name: "SQLite",
        first: "python3 - $DIR/db <<'EOF'\n\
            import sqlite3, sys\n\
            db = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
            db.execute('pragma journal_mode=wal')\n\
            db.execute('pragma synchronous=normal')\n\
            db.execute('create table t (a integer primary key, b text)')\n\
            for i in range(50000):\n\
            \x20   db.execute('insert into t (b) values (?)', (str(i) * 20,))\n\
            EOF",
        then: "python3 - $DIR/db <<'EOF'\n\
            import sqlite3, sys\n\
            db = sqlite3.connect(sys.argv[1])\n\
            assert db.execute('pragma integrity_check').fetchone() == ('ok',)\n\
            assert db.execute('select count(*) from t').fetchone() == (50000,)\n\
            EOF",
    },
    Program {
        name: "tar",
        first: "mkdir $DIR/tar; tar -C $ROOT/crates -cf - . | tar -C $DIR/tar -xpf -",
        then: "rm -rf $WORK/tar; mkdir $WORK/tar; tar -C $DIR/tar -cf - . | tar -C $WORK/tar -xpf -; \
               diff -r $ROOT/crates $WORK/tar",
    },
    Program {
        name: "rsync -aHAX",
        first: "rsync -aHAX $ROOT/crates/ $DIR/rsync/",
        then: "rsync -aHAX --delete $DIR/rsync/ $WORK/rsync/; \
               rsync -aHAXnc --delete --itemize-changes $WORK/rsync/ $ROOT/crates/ | tee /dev/stderr \
               | wc -l | grep -qx 0",
    },
    Program {
        name: "fio --verify",
        first: "fio --name=x --filename=$DIR/fio --rw=randwrite --bs=4k-128k --size=256M \
                --verify=crc32c --do_verify=0 --verify_state_save=0 >/dev/null",
        then: "fio --name=x --filename=$DIR/fio --rw=randwrite --bs=4k-128k --size=256M \
               --verify=crc32c --verify_only --verify_state_load=0 --verify_state_save=0 --invalidate=1 >/dev/null",
    },
];

pub(crate) fn real(root: &Path) -> Result<()> {
    if let Some(why) = obstacle() {
        bail!("real programs on a mount: {why}");
    }
    let needed = ["git", "python3", "tar", "rsync", "fio"];
    let mut missing: Vec<_> = needed.into_iter().filter(|program| !exists(program)).collect();
    missing.extend(backups::missing());
    if !missing.is_empty() {
        bail!("missing; as root: apt-get install -y {}", missing.join(" "));
    }
    let tier = release_program(root)?;
    let work = std::env::temp_dir().join(format!("tier-real-{}", std::process::id()));
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let done = Mounted::new(&tier, &work, &[]).and_then(|mounted| {
        programs(root, &work, &mounted)?;
        backups::backups(root, &work, &mounted)?;
        mounted.end()
    });
    fs::remove_dir_all(&work).context("cannot remove the work directory")?;
    done
}

fn programs(root: &Path, work: &Path, mounted: &Mounted) -> Result<()> {
    let script = |what: &str, script: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-o", "pipefail", "-euc", script]);
        bash.env("DIR", mounted.directory()).env("ROOT", root).env("WORK", work);
        run(what, &mut bash)
    };
    for program in &PROGRAMS {
        script(&format!("{}: first", program.name), program.first)?;
        script(&format!("{}: then", program.name), program.then)?;
    }
    for round in ["evicted", "evicted again"] {
        mounted.tier(&["snapshot"], &[])?;
        mounted.tier(&["evict", "--all"], &[])?;
        for program in &PROGRAMS {
            script(&format!("{}: {round}", program.name), program.then)?;
        }
        mounted.tier(&["fsck"], &[])?;
        mounted.tier(&["index", "check"], &[])?;
    }
    Ok(())
}
