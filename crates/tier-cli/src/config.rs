//! `tier.toml`: a store's settings.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kvfs::KvfsOptions;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

const FILE: &str = "tier.toml";

/// A store's settings, as the file has them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The filesystem, 32 hexadecimal digits.
    pub(crate) filesystem: String,
    /// The writer's reign: 1, and one more with each restore.
    pub(crate) epoch: u64,
    /// Bytes of a chunk of a file's data, fixed when the store is made.
    #[serde(default = "chunk_bytes")]
    pub(crate) chunk_bytes: u32,
    /// A restored filesystem begins after these.
    #[serde(default)]
    pub(crate) xid_floor: u64,
    #[serde(default)]
    pub(crate) snapshot_floor: u64,
    /// The identity file, relative to the store.
    pub(crate) identity: PathBuf,
    #[serde(default)]
    pub(crate) recipients: Vec<String>,
    pub(crate) encryption: bool,
    /// Where to push to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cloud: Option<String>,
    #[serde(default)]
    pub(crate) persist: Persist,
    #[serde(default)]
    pub(crate) memory: Memory,
    #[serde(default)]
    pub(crate) recall: Recall,
    #[serde(default)]
    pub(crate) evict: Evict,
    #[serde(default)]
    pub(crate) agent: Agent,
    #[serde(default)]
    pub(crate) space: Space,
    #[serde(default)]
    pub(crate) mount: Mount,
}

/// The size of chunks, unless said otherwise.
pub(crate) fn chunk_bytes() -> u32 {
    KvfsOptions::default().chunk_bytes
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Persist {
    /// zstd level.
    pub(crate) level: i32,
    /// Bytes after which a tarball ends.
    pub(crate) tarball_bytes: u64,
    /// Bytes that a random read decompresses.
    pub(crate) frame_bytes: u64,
    /// Bytes of tarballs that are written in a second at most; 0 for no limit.
    pub(crate) bytes_per_second_max: u64,
    /// How much of its time a worker may work while the filesystem is in use, in percent.
    pub(crate) busy_percent: u32,
    /// How much it gives way to others while a store is mounted, as nice(1) counts it.
    pub(crate) nice: u8,
}

impl Default for Persist {
    fn default() -> Self {
        Self {
            level: 3,
            tarball_bytes: 128 << 20,
            frame_bytes: 1 << 20,
            bytes_per_second_max: 0,
            busy_percent: 80,
            nice: 19,
        }
    }
}

/// Bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Memory {
    pub(crate) kvs_cache: usize,
    pub(crate) kvs_write_buffer: usize,
    pub(crate) index_cache: usize,
    pub(crate) index_write_buffer: usize,
    pub(crate) frame_cache: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            kvs_cache: 32 << 20,
            kvs_write_buffer: 48 << 20,
            index_cache: 16 << 20,
            index_write_buffer: 16 << 20,
            frame_cache: 16 << 20,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Recall {
    /// How long a reader waits for evicted data.
    pub(crate) timeout_seconds: u64,
}

impl Default for Recall {
    fn default() -> Self {
        Self { timeout_seconds: 30 }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Evict {
    /// What was used in the last so many seconds stays.
    pub(crate) age_seconds_min: i64,
    /// Files with less data in the key-value store stay.
    pub(crate) resident_bytes_min: u64,
}

/// When the agent of a mounted store acts unasked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Agent {
    /// What changed is in a snapshot after so long.
    pub(crate) snapshot_seconds: u64,
    /// And as soon as so many operations were logged.
    pub(crate) snapshot_operations: u64,
    /// What failed is tried again after so long.
    pub(crate) retry_seconds: u64,
}

impl Default for Agent {
    fn default() -> Self {
        Self { snapshot_seconds: 300, snapshot_operations: 1_000_000, retry_seconds: 60 }
    }
}

/// When the agent of a mounted store frees space.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Space {
    /// What the key-value store may take; zero for the whole disk.
    pub(crate) capacity_bytes: u64,
    /// Data is evicted when more than this is used.
    pub(crate) high_percent: u8,
    /// Until no more than this is.
    pub(crate) low_percent: u8,
}

impl Default for Space {
    fn default() -> Self {
        Self { capacity_bytes: 0, high_percent: 85, low_percent: 70 }
    }
}

/// How a store is mounted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Mount {
    /// Threads that answer the kernel; 0 for one more than the machine has cores.
    pub(crate) threads: usize,
    /// Requests that can wait for evicted data at a time.
    pub(crate) waiting: usize,
}

impl Default for Mount {
    fn default() -> Self {
        Self { threads: 0, waiting: 64 }
    }
}

impl Config {
    pub(crate) fn read(store: &Path) -> Result<Self> {
        let path = store.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}; is {} a store?", path.display(), store.display())
        })?;
        let config: Self =
            toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        match config.unsound() {
            None => Ok(config),
            Some(problem) => bail!("{}: {problem}", path.display()),
        }
    }

    /// What cannot be, if anything.
    fn unsound(&self) -> Option<&'static str> {
        let Self { chunk_bytes, persist, agent, space, mount, .. } = self;
        let rate = persist.bytes_per_second_max;
        let rules = [
            ((512..=1 << 20).contains(chunk_bytes), "chunk_bytes must be from 512 to 1048576"),
            (
                (4096..=16 << 20).contains(&persist.frame_bytes),
                "persist.frame_bytes must be from 4096 to 16777216",
            ),
            (
                rate == 0 || rate >= 1 << 20,
                "persist.bytes_per_second_max must be 0 or at least 1048576",
            ),
            (
                (10..=100).contains(&persist.busy_percent),
                "persist.busy_percent must be from 10 to 100",
            ),
            (persist.nice <= 19, "persist.nice must not be above 19"),
            (agent.retry_seconds > 0, "agent.retry_seconds must be above 0"),
            (mount.waiting > 0, "mount.waiting must be above 0"),
            (
                space.low_percent <= space.high_percent && space.high_percent <= 100,
                "space.low_percent must not be above space.high_percent, nor that above 100",
            ),
        ];
        rules.iter().find(|(holds, _)| !holds).map(|(_, problem)| *problem)
    }

    /// Replaces the file as a whole.
    pub(crate) fn write(&self, store: &Path) -> Result<()> {
        let path = store.join(FILE);
        let failed = || format!("cannot write {}", path.display());
        let text = toml::to_string(self).with_context(failed)?;
        let mut file = NamedTempFile::new_in(store).with_context(failed)?;
        file.write_all(text.as_bytes()).with_context(failed)?;
        file.as_file().sync_all().with_context(failed)?;
        file.persist(&path).with_context(failed)?;
        fs::File::open(store).and_then(|folder| folder.sync_all()).with_context(failed)
    }
}
