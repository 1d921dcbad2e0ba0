//! A batch of changes that become visible together.
//!
//! It is plain data: filling one touches no store, so that the part of a mutation that panicked can
//! be dropped without a trace, and so that the sizes of several can be added up before they are
//! written as one.

use tier_types::Ino;

use super::keys::{self, Table};

/// Changes that happen together, in this order.
#[derive(Debug, Default)]
pub(crate) struct Batch(Vec<Change>);

#[derive(Debug)]
pub(super) enum Change {
    Put(Table, Vec<u8>, Vec<u8>),
    Merge(Table, Vec<u8>, Vec<u8>),
    Delete(Table, Vec<u8>),
    DeleteRange(Table, Vec<u8>, Vec<u8>),
}

impl Batch {
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.0.push(Change::Put(table, key.to_vec(), value));
    }

    /// Changes a value by a patch (see `patch`).
    pub(crate) fn merge(&mut self, table: Table, key: &[u8], patch: Vec<u8>) {
        self.0.push(Change::Merge(table, key.to_vec(), patch));
    }

    pub(crate) fn delete(&mut self, table: Table, key: &[u8]) {
        self.0.push(Change::Delete(table, key.to_vec()));
    }

    /// Deletes the rows from `from` up to and not including `until`.
    pub(crate) fn delete_range(&mut self, table: Table, from: &[u8], until: &[u8]) {
        self.0.push(Change::DeleteRange(table, from.to_vec(), until.to_vec()));
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Bytes of all keys and values.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |change: &Change| match change {
            Change::Put(_, key, value) | Change::Merge(_, key, value) => key.len() + value.len(),
            Change::Delete(_, key) => key.len(),
            Change::DeleteRange(_, from, until) => from.len() + until.len(),
        };
        self.0.iter().map(bytes).sum()
    }

    /// The inodes of which rows of the chunk table are deleted, once for each row.
    pub(super) fn deleted_chunks(&self) -> impl Iterator<Item = Ino> + '_ {
        self.0.iter().filter_map(|change| match change {
            Change::Delete(Table::Chunks, key) => keys::ino_of(key),
            Change::Put(..) | Change::Merge(..) | Change::Delete(..) | Change::DeleteRange(..) => {
                None
            }
        })
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up() {
        let mut batch = Batch::default();
        batch.put(Table::Inodes, b"key", vec![0; 7]);
        batch.merge(Table::Chunks, b"key", vec![0; 5]);
        let mut other = Batch::default();
        other.delete(Table::Map, b"key");
        other.delete_range(Table::Map, b"a", b"bc");
        batch.append(other);
        assert_eq!(batch.bytes(), 10 + 8 + 3 + 3);
    }
}
