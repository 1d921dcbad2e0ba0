//! Programs that back up and copy, over files that are cold: each must read them, whatever it takes
//! their blocks and holes for.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::mounted::Mounted;
use crate::process::{exists, run};

/// How a program brings `$DIR/backup` to `$WORK/out`.
struct Backup {
    name: &'static str,
    program: &'static str,
    package: &'static str,
    script: &'static str,
}

const fn backup(
    name: &'static str,
    (program, package): (&'static str, &'static str),
    script: &'static str,
) -> Backup {
    Backup { name, program, package, script }
}

const BACKUPS: [Backup; 10] = [
    backup("tar", ("tar", "tar"), "tar -C $DIR/backup -cf - . | tar -C $WORK/out -xpf -"),
    backup("tar -S", ("tar", "tar"), "tar -C $DIR/backup -cSf - . | tar -C $WORK/out -xpf -"),
    backup(
        "bsdtar",
        ("bsdtar", "libarchive-tools"),
        "bsdtar -C $DIR/backup -cf - . | bsdtar -C $WORK/out -xpf -",
    ),
    backup("cp", ("cp", "coreutils"), "cp -a $DIR/backup/. $WORK/out"),
    backup(
        "cp --sparse=always",
        ("cp", "coreutils"),
        "cp -a --sparse=always $DIR/backup/. $WORK/out",
    ),
    backup("rsync", ("rsync", "rsync"), "rsync -aH $DIR/backup/ $WORK/out/"),
    backup("rsync -S", ("rsync", "rsync"), "rsync -aHS $DIR/backup/ $WORK/out/"),
    backup(
        "restic",
        ("restic", "restic"),
        "export RESTIC_PASSWORD=x RESTIC_REPOSITORY=$WORK/restic; restic -q init; \
         cd $DIR/backup; restic -q --no-cache backup .; \
         restic -q --no-cache restore latest --target $WORK/out; \
         rm -rf $RESTIC_REPOSITORY",
    ),
    backup(
        "borg",
        ("borg", "borgbackup"),
        "export BORG_BASE_DIR=$WORK/borg-base; borg init -e none $WORK/borg; \
         cd $DIR/backup; borg create $WORK/borg::a .; cd $WORK/out; borg extract $WORK/borg::a; \
         rm -rf $WORK/borg $WORK/borg-base",
    ),
    backup(
        "mksquashfs",
        ("mksquashfs", "squashfs-tools"),
        "mksquashfs $DIR/backup $WORK/image -quiet -no-progress >/dev/null; rmdir $WORK/out; \
         unsquashfs -q -n -d $WORK/out $WORK/image >/dev/null; rm $WORK/image",
    ),
];

/// The tree: files that are data from end to end, that begin or end with a hole, or are one.
const TREE: &str = "\
mkdir -p $WORK/tree/dir; cd $WORK/tree; \
for size in 1 4095 65536 100000 5000000; do head -c $size /dev/urandom > dir/data-$size; done; \
truncate -s 3000000 hole; touch empty; ln dir/data-4095 hard; ln -s dir/data-1 symbolic; \
truncate -s 2000000 begins; printf end >> begins; \
printf begin > ends; truncate -s 2000000 ends; \
cp -r $ROOT/crates/tier-types sources; \
cp -a $WORK/tree $DIR/backup";

/// Of a cold file nothing is here but the block that says that it is no hole.
const IS_COLD: &str = "\
test $(stat -c %b $DIR/backup/dir/data-5000000) = 1; test $(stat -c %b $DIR/backup/hole) = 0";

/// Packages that are missing.
pub(crate) fn missing() -> Vec<&'static str> {
    let missing = BACKUPS.iter().filter(|backup| !exists(backup.program));
    missing.map(|backup| backup.package).collect()
}

/// Runs all of them, each over a tree that is cold.
pub(crate) fn backups(root: &Path, work: &Path, mounted: &Mounted) -> Result<()> {
    let script = |what: &str, script: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-o", "pipefail", "-euc", script]);
        bash.env("DIR", mounted.directory()).env("ROOT", root).env("WORK", work);
        run(what, &mut bash)
    };
    script("a tree to back up", TREE)?;
    for backup in &BACKUPS {
        mounted.tier(&["snapshot"], &[])?;
        mounted.tier(&["evict", "--all"], &[])?;
        script("dropping what the kernel has", "sync; echo 3 > /proc/sys/vm/drop_caches")?;
        script("all is cold", IS_COLD)?;
        let whole = format!("rm -rf $WORK/out; mkdir $WORK/out; {}", backup.script);
        script(&format!("cold: {}", backup.name), &whole)?;
        if script("comparing", "diff -r --no-dereference $WORK/tree $WORK/out").is_err() {
            bail!("{} over cold files brings other content", backup.name);
        }
    }
    Ok(())
}
