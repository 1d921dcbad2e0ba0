//! A plan for bringing much data back: in the order in which it lies in tarballs, so that each
//! frame is read once.
//!
//! Files that were written at different times lie in different tarballs, and those of a directory
//! need not lie together. Brought back in the order of their names, the same tarballs are read
//! again and again, and each frame for each of its files.

use std::collections::BTreeMap;

use tier_index::{ExtentContent, Index, Location, TarballId};
use tier_types::{ChunkRange, ChunkRun, Ino, ObjectName, to_u64, to_usize};

use crate::error::PersistError;
use crate::format::names::FilesystemId;
use crate::format::tarball::row::TarballRow;

/// Extents that are asked of the index at a time.
const EXTENTS_PER_READ: usize = 1024;

/// Evicted data that is to be brought back.
#[derive(Debug, Default)]
pub struct RecallPlan {
    /// Sorted when they are taken out.
    extents: Vec<(Location, PlannedExtent)>,
}

/// A part of a file that lies in one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlannedExtent {
    /// The file.
    pub ino: Ino,
    /// What of it.
    pub chunks: ChunkRange,
}

/// What a plan reads of one tarball.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedTarball {
    /// Its object.
    pub name: ObjectName,
    /// Frames of it.
    pub n_frames: u64,
    /// Their length as they are stored.
    pub bytes: u64,
}

impl RecallPlan {
    /// Adds an evicted run of a file from its start on, until the plan is full. What is left of it,
    /// and whether all before that is planned: what the archive does not have as it was evicted
    /// cannot be recalled, or changed meanwhile.
    pub fn add(
        &mut self,
        index: &Index,
        ino: Ino,
        run: &ChunkRun,
        n_extents_max: usize,
    ) -> Result<(Option<ChunkRange>, bool), PersistError> {
        let (mut from, mut n_planned) = (run.chunks.start(), 0);
        while from < run.chunks.end() && self.extents.len() < n_extents_max {
            let page = index.extents(ino, from, EXTENTS_PER_READ)?;
            let Some(last) = page.last() else { return Ok((None, false)) };
            for extent in &page {
                let ExtentContent::Data(data) = extent.content else { continue };
                let chunks = extent.chunks.intersection(run.chunks);
                if let Some(chunks) = chunks.filter(|_| extent.data_xid == run.data_xid) {
                    n_planned += chunks.len();
                    self.extents.push((data.location, PlannedExtent { ino, chunks }));
                }
            }
            assert!(last.chunks.end() > from, "a page goes on");
            from = last.chunks.end();
        }
        let left = ChunkRange::new(from.min(run.chunks.end()), run.chunks.end());
        let n_left = left.map_or(0, ChunkRange::len);
        Ok((left, n_planned + n_left == run.chunks.len()))
    }

    /// Parts of files in it.
    pub fn n_extents(&self) -> usize {
        self.extents.len()
    }

    /// What it reads, by tarball.
    pub fn tarballs(
        &mut self,
        index: &Index,
        filesystem: FilesystemId,
    ) -> Result<Vec<PlannedTarball>, PersistError> {
        self.sort();
        let mut frames: BTreeMap<TarballId, Vec<u32>> = BTreeMap::new();
        for (location, _) in &self.extents {
            let of_tarball = frames.entry(location.tarball).or_default();
            if of_tarball.last() != Some(&location.frame) {
                of_tarball.push(location.frame);
            }
        }
        let planned = frames.into_iter().map(|(id, frames)| {
            let damaged =
                |problem| PersistError::damaged(format!("the index's row of {id}"), problem);
            let row = index.tarball_row(id)?.ok_or_else(|| damaged("it is not there"))?;
            let row = TarballRow::from_bytes(&row).ok_or_else(|| damaged("it cannot be read"))?;
            let lengths = frames.iter().map(|frame| {
                let frame = row.frames.get(to_usize(u64::from(*frame)));
                frame.map(|frame| to_u64(frame.compressed_bytes()))
            });
            let bytes = lengths.sum::<Option<u64>>();
            let bytes = bytes.ok_or_else(|| damaged("it has fewer frames than are used"))?;
            let name = row.object_name(filesystem);
            Ok(PlannedTarball { name, n_frames: to_u64(frames.len()), bytes })
        });
        planned.collect()
    }

    fn sort(&mut self) {
        self.extents.sort_by_key(|(location, _)| *location);
    }

    /// Takes all of it out, in the order in which it lies.
    pub fn take(&mut self) -> impl Iterator<Item = PlannedExtent> + use<> {
        self.sort();
        std::mem::take(&mut self.extents).into_iter().map(|(_, extent)| extent)
    }
}
