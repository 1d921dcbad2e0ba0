//! Compaction of a store with damaged blocks.
//!
//! RocksDB rewrites its table files in the background. A compaction that meets a block whose
//! checksum does not fit can go neither on nor back: the database takes that for an error that
//! cannot be recovered from and refuses every write from then on, and after a restart again, as
//! soon as it comes to the same block. One damaged block of one file would stop a filesystem of
//! which everything else is whole. The binding knows no listener that could decide otherwise, and
//! the option that makes the database less strict (`paranoid_checks`) would also have it pass over
//! a damaged write-ahead log.
//!
//! So a store that is known to have a damaged block is not compacted. The first read or write that
//! meets one puts a mark into the store's directory, which counts from the next opening on, and
//! stops compaction at once. If a reader was first, no write ever fails. If a compaction was first,
//! one write fails, and by it the committer is poisoned; opened again, the store takes writes.
//! Where compaction is off, RocksDB does not hold up writers for the files that pile up either.
//!
//! A database that has met an error in the background is left alone until it is opened again.
//! RocksDB keeps the files that a manifest may name which could not be synced, and a setting that
//! is changed counts for it as a manifest that was written: it would delete them.
//!
//! Without compaction reads become slower with time, and no space is given back: the mark is a
//! state to be left. A check or a repair that went through the whole store without meeting damage
//! takes the mark away; a store whose block stays damaged is to be restored from its archive.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::DB;
use rocksdb::properties::BACKGROUND_ERRORS;
use tier_types::with_causes;

use super::keys::Table;
use super::tuning::OpenAs;
use crate::FsError;

/// In the directory of the database, which leaves files alone whose names it does not know.
const MARK: &str = "compaction-is-off";

/// Whether a store is compacted.
#[derive(Debug)]
pub(super) struct Compaction {
    mark: PathBuf,
    is_off: AtomicBool,
}

impl Compaction {
    /// Looks whether there is a mark. A database that is only looked at is not compacted either.
    pub(super) fn of(directory: &Path, how: OpenAs) -> Self {
        let mark = directory.join(MARK);
        let is_off = mark.exists();
        if is_off {
            tracing::warn!("the key-value store has damaged blocks and is not compacted; run fsck");
        }
        let is_only_read = matches!(how, OpenAs::Look);
        Self { mark, is_off: AtomicBool::new(is_off || is_only_read) }
    }

    pub(super) fn is_off(&self) -> bool {
        self.is_off.load(Ordering::Relaxed)
    }

    /// From now on the store is not compacted, because a block of it is damaged. A database that
    /// stands still because of an error is not compacted from its next opening on.
    pub(super) fn stop(&self, db: &DB, damage: &FsError) {
        // A database that is only looked at is off from the start, and so gets no mark here.
        if self.is_off.swap(true, Ordering::Relaxed) {
            return;
        }
        let damage = with_causes(damage);
        tracing::error!(%damage, "the key-value store is damaged, and not compacted any more");
        // Before the switch: a compaction that is under way may still meet the block and end all
        // writes, and then the next opening has to know.
        if let Err(error) = self.set_mark(true) {
            // The store is asked again at the next damage after the next opening.
            tracing::warn!(%error, "the damage of the key-value store cannot be marked");
        }
        switch(db, "true");
    }

    /// The whole store was read and nothing of it is damaged: it is compacted as ever.
    pub(super) fn resume(&self, db: &DB) {
        if !self.is_off.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.set_mark(false) {
            // The mark that stays counts at the next opening, until a check goes through the store
            // again.
            tracing::warn!(%error, "the mark of the key-value store's damage cannot be removed");
        }
        tracing::info!("the key-value store is whole, and is to be compacted again");
        switch(db, "false");
    }

    /// Writes the mark, or takes it away; durable.
    fn set_mark(&self, is_off: bool) -> io::Result<()> {
        if is_off {
            fs::write(&self.mark, "a damaged block was met: see docs/safety.md\n")?;
            fs::File::open(&self.mark)?.sync_all()?;
        } else {
            fs::remove_file(&self.mark)?;
        }
        let directory = self.mark.parent().unwrap_or(Path::new("."));
        fs::File::open(directory)?.sync_all()
    }
}

fn switch(db: &DB, is_disabled: &str) {
    // What cannot be asked is left alone as well.
    let n_errors = db.property_int_value(BACKGROUND_ERRORS).ok().flatten();
    if n_errors != Some(0) {
        tracing::info!("the key-value store is switched when it is opened again");
        return;
    }
    for family in Table::ALL.into_iter().filter_map(|table| db.cf_handle(table.name())) {
        let option = [("disable_auto_compactions", is_disabled)];
        if let Err(error) = db.set_options_cf(family, &option) {
            // What is set at the next opening is the mark's.
            tracing::warn!(%error, "cannot switch the compaction of the key-value store");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KvfsOptions;
    use crate::error::UnreadableRows;
    use crate::store::opened::OpenDb;

    /// A database at a new path, with a damage that a read of it may meet.
    fn database(dir: &Path) -> (OpenDb, FsError) {
        let opened = OpenDb::open(&dir.join("kvs"), &KvfsOptions::default(), OpenAs::New).unwrap();
        let rows = UnreadableRows { table: "inodes", ino: None, chunk: None };
        (opened, FsError::Unreadable { rows, source: "a block".into() })
    }

    /// Files of settings, of which the database writes one whenever they are changed.
    fn n_settings(opened: &OpenDb) -> usize {
        let names = fs::read_dir(opened.db.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        // The first one is there from the opening on.
        let numbers = names.filter_map(|name| name.strip_prefix("OPTIONS-")?.parse().ok());
        numbers.max().unwrap()
    }

    /// Has a flush fail, because its file cannot be written.
    fn fail_in_the_background(opened: &OpenDb) {
        for number in 0..100 {
            let place = opened.db.path().join(format!("{number:06}.sst"));
            std::os::unix::fs::symlink("/dev/full", place).unwrap();
        }
        let family = opened.family(Table::Inodes);
        opened.db.put_cf(family, b"key", [7; 100]).unwrap();
        opened.db.flush_cf(family).unwrap_err();
    }

    #[test]
    fn damage_stops_compaction_at_once_and_from_the_next_opening_on() {
        let dir = tempfile::tempdir().unwrap();
        let (opened, damage) = database(dir.path());
        let before = n_settings(&opened);
        opened.compaction.stop(&opened.db, &damage);
        assert!(n_settings(&opened) > before, "the settings are others");
        assert!(Compaction::of(opened.db.path(), OpenAs::Strict).is_off());
        opened.compaction.resume(&opened.db);
        assert!(!Compaction::of(opened.db.path(), OpenAs::Strict).is_off());
    }

    #[test]
    fn a_database_that_stands_still_is_left_alone_until_it_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let (opened, damage) = database(dir.path());
        fail_in_the_background(&opened);
        let before = n_settings(&opened);
        opened.compaction.stop(&opened.db, &damage);
        assert_eq!(n_settings(&opened), before, "the settings are the same");
        assert!(Compaction::of(opened.db.path(), OpenAs::Strict).is_off(), "there is a mark");
    }
}
