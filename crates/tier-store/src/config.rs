//! `tier.toml`: the settings of a store.
//!
//! The file is read as a whole when a store is opened and replaced as a whole when a command
//! changes it. Keys that are not known are an error, so that a misspelt one is no silent default.
//! What could make the store contradict itself (a chunk size, marks in the wrong order) is refused
//! here, before anything is opened.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tier_agent::decide::SpaceMarks;
use tier_cloud::RateLimits;
use tier_persist::WriterToken;
use tier_types::{CloudId, CloudPlace};

use crate::{Layout, StoreError, durable};

/// Status logs name the cloud by it, and cut longer values.
const URL_BYTES_MAX: usize = 1024;

/// A store's settings, as the file has them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The filesystem, 32 hexadecimal digits.
    pub filesystem: String,
    /// The writer's term: 1, and one more with each restore.
    pub epoch: u64,
    /// Names this store as the writer of that epoch, 32 hexadecimal digits. A store without it is a
    /// follower: it reads the archive and does not write to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
    /// Bytes of a chunk of a file's data, fixed when the store is made.
    #[serde(default = "chunk_bytes")]
    pub chunk_bytes: u32,
    /// A restored filesystem begins after this transaction.
    #[serde(default)]
    pub xid_floor: u64,
    /// And after this snapshot.
    #[serde(default)]
    pub snapshot_floor: u64,
    /// The identity file, relative to the store.
    pub identity: PathBuf,
    /// Extra recipients, `age1…`.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Whether tarballs are encrypted.
    pub encryption: bool,
    /// Where to push to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud: Option<Cloud>,
    /// How tarballs are written.
    #[serde(default)]
    pub persist: Persist,
    /// Memory for caches and buffers.
    #[serde(default)]
    pub memory: Memory,
    /// How evicted data is fetched.
    #[serde(default)]
    pub recall: Recall,
    /// What stays.
    #[serde(default)]
    pub evict: Evict,
    /// When the agent acts unasked.
    #[serde(default)]
    pub agent: Agent,
    /// When space is freed.
    #[serde(default)]
    pub space: Space,
    /// What is kept here of what the cloud has.
    #[serde(default)]
    pub cache: Cache,
    /// How the store is mounted.
    #[serde(default)]
    pub mount: Mount,
    /// Clouds that this store had before. What is not here may be read there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_clouds: Vec<FormerCloud>,
}

/// Where a store pushes to, and how.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cloud {
    /// Where it is.
    pub url: String,
    /// Which cloud that is: its identity, 32 hexadecimal digits. Without it nothing is pushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How it is found out that an object arrived.
    #[serde(default)]
    pub verify: Verify,
    /// Bytes that are sent and fetched in a second at most, but for those that readers wait for; 0
    /// for no limit.
    #[serde(default)]
    pub bytes_per_second_max: u64,
    /// Requests in a second, in the same way.
    #[serde(default)]
    pub requests_per_second_max: u32,
}

/// How it is found out that an object arrived in the cloud as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// By the checksum with which it was sent, where the cloud was seen to refuse what does not fit
    /// it, and by reading some of it. Providers take money for each byte that is read.
    #[default]
    Checksum,
    /// By reading all of it.
    Full,
}

impl Cloud {
    /// A cloud with the usual settings.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            id: None,
            verify: Verify::default(),
            bytes_per_second_max: 0,
            requests_per_second_max: 0,
        }
    }

    /// How much of it is used in a second.
    pub(crate) fn limits(&self) -> RateLimits {
        let Self { bytes_per_second_max, requests_per_second_max, .. } = *self;
        RateLimits { bytes_per_second_max, requests_per_second_max }
    }

    /// Its identity, if it is known.
    pub(crate) fn id(&self) -> Option<CloudId> {
        self.id.as_deref().and_then(CloudId::parse)
    }
}

/// A cloud that a store had before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormerCloud {
    /// Where it was.
    pub url: String,
    /// Which cloud, if that was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

fn chunk_bytes() -> u32 {
    Config::CHUNK_BYTES
}

/// How tarballs are written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Persist {
    /// zstd level.
    pub level: i32,
    /// Bytes after which a tarball ends.
    pub tarball_bytes: u64,
    /// Bytes of file data after which a snapshot ends with a part of itself.
    pub part_bytes: u64,
    /// Bytes that a restore must have to read since the last checkpoint before there is another
    /// one.
    pub checkpoint_bytes: u64,
    /// Bytes that a random read decompresses.
    pub frame_bytes: u64,
    /// Bytes of tarballs that are written in a second at most; 0 for no limit.
    pub bytes_per_second_max: u64,
    /// How much of its time a worker may work while the filesystem is in use, in percent.
    pub busy_percent: u32,
    /// A snapshot of which more cannot be read, in percent of its inodes, is not taken, unless
    /// these are few; 100 for any.
    pub unread_percent_max: u8,
    /// Its priority while a store is mounted, as nice(1) counts it: 19 is the lowest.
    pub nice: u8,
}

impl Default for Persist {
    fn default() -> Self {
        Self {
            level: 3,
            tarball_bytes: 128 << 20,
            part_bytes: 16 << 30,
            checkpoint_bytes: 16 << 20,
            frame_bytes: 1 << 20,
            bytes_per_second_max: 0,
            busy_percent: 80,
            unread_percent_max: 25,
            nice: 19,
        }
    }
}

/// Memory for caches and buffers, in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Blocks of the key-value store.
    pub kvs_cache: usize,
    /// Changes that are not yet in files of the key-value store.
    pub kvs_write_buffer: usize,
    /// Blocks of the index.
    pub index_cache: usize,
    /// Changes of the index that are not yet in files.
    pub index_write_buffer: usize,
    /// Decompressed frames of tarballs.
    pub frame_cache: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            kvs_cache: 32 << 20,
            kvs_write_buffer: 48 << 20,
            index_cache: 16 << 20,
            index_write_buffer: 16 << 20,
            frame_cache: 48 << 20,
        }
    }
}

/// How evicted data is fetched.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recall {
    /// How long a reader waits for evicted data.
    pub timeout_seconds: u64,
    /// What becomes of a reader of data that is to be thawed first.
    pub frozen: Frozen,
}

/// What becomes of a reader of data that is to be thawed first, which takes hours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Frozen {
    /// It gets EAGAIN, and reads again later.
    #[default]
    Refuse,
    /// It waits.
    Wait,
}

impl Default for Recall {
    fn default() -> Self {
        Self { timeout_seconds: 30, frozen: Frozen::default() }
    }
}

/// What an eviction lets stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Evict {
    /// What was used in the last so many seconds stays.
    pub age_seconds_min: i64,
    /// Files with less data in the key-value store stay.
    pub resident_bytes_min: u64,
}

/// When the agent of a mounted store acts unasked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Agent {
    /// What changed is in a snapshot after so long.
    pub snapshot_seconds: u64,
    /// And as soon as so many operations were logged.
    pub snapshot_operations: u64,
    /// What failed is tried again after so long.
    pub retry_seconds: u64,
}

impl Default for Agent {
    fn default() -> Self {
        Self { snapshot_seconds: 300, snapshot_operations: 1_000_000, retry_seconds: 60 }
    }
}

/// What a store may take, and when the agent of a mounted one frees space. The marks are shares of
/// the limit, which is what it may take less a reserve.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Space {
    /// What the whole store may take, tarballs and index included; zero for the whole disk.
    pub capacity_bytes: u64,
    /// Data is evicted when more than this is used.
    pub high_percent: u8,
    /// Until no more than this is.
    pub low_percent: u8,
    /// Recalled data is not stored when more than this is used.
    pub critical_percent: u8,
    /// An operation that finds no room waits so long at most, while some may be made.
    pub stall_seconds: u64,
}

impl Space {
    /// The marks.
    pub fn marks(&self) -> SpaceMarks {
        SpaceMarks { high_percent: self.high_percent, low_percent: self.low_percent }
    }
}

impl Default for Space {
    fn default() -> Self {
        Self {
            capacity_bytes: 0,
            high_percent: 85,
            low_percent: 70,
            critical_percent: 95,
            stall_seconds: 300,
        }
    }
}

/// What is kept here of what the cloud has as well.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Bytes of tarballs that are verified in the cloud and kept all the same, the newest ones.
    /// They go when space is low. Without a cloud all tarballs stay.
    pub bytes_max: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self { bytes_max: 1 << 30 }
    }
}

/// How a store is mounted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mount {
    /// Threads that answer the kernel; 0 for one more than the machine has cores.
    pub threads: usize,
    /// Requests that can wait for evicted data at a time.
    pub waiting: usize,
    /// Whether reading a file notes the time.
    pub atime: Atime,
    /// Any user that may write a file may pin it; else only root may.
    pub user_pins: bool,
}

/// Which accesses are noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Atime {
    /// None.
    Off,
    /// The first since a change, and one a day.
    #[default]
    Relatime,
}

impl Default for Mount {
    fn default() -> Self {
        Self { threads: 0, waiting: 64, atime: Atime::default(), user_pins: false }
    }
}

impl Config {
    /// The store as a writer; `None` for a follower.
    pub(crate) fn writer_token(&self) -> Result<Option<WriterToken>, &'static str> {
        let parse = |text: &str| WriterToken::parse(text).ok_or("writer is no token");
        self.writer.as_deref().map(parse).transpose()
    }

    /// The cloud under its URL, if there is one and its identity is known.
    pub(crate) fn cloud_place(&self) -> Option<CloudPlace> {
        let cloud = self.cloud.as_ref()?;
        Some(CloudPlace { id: cloud.id()?, url: cloud.url.clone() })
    }

    /// Where to push to.
    pub fn cloud_url(&self) -> Option<&str> {
        self.cloud.as_ref().map(|cloud| cloud.url.as_str())
    }

    /// The size of chunks, unless said otherwise.
    pub const CHUNK_BYTES: u32 = 64 << 10;

    /// Reads and checks the settings of a store.
    pub fn read(layout: &Layout) -> Result<Self, StoreError> {
        let path = layout.config();
        let text = fs::read_to_string(&path).map_err(|source| StoreError::NoStore {
            store: layout.root().to_path_buf(),
            path: path.clone(),
            source,
        })?;
        // A file that cannot be parsed is refused as a whole: a default for the broken part could
        // silently switch the cloud off.
        let config: Self = toml::from_str(&text).map_err(|source| StoreError::ConfigSyntax {
            path: path.clone(),
            source: Box::new(source),
        })?;
        match config.unsound() {
            None => Ok(config),
            Some(problem) => Err(StoreError::Config { path, problem: problem.into() }),
        }
    }

    /// What cannot be, if anything.
    pub(crate) fn unsound(&self) -> Option<&'static str> {
        let Self { chunk_bytes, cloud, persist, agent, space, mount, .. } = self;
        let is_rate = |rate: u64| rate == 0 || rate >= 1 << 20;
        let rules = [
            (
                cloud.as_ref().is_none_or(|cloud| cloud.url.len() <= URL_BYTES_MAX),
                "a URL of a cloud must not be longer than 1024 bytes",
            ),
            (
                cloud.as_ref().is_none_or(|cloud| cloud.id.is_none() || cloud.id().is_some()),
                "cloud.id must be the 32 hexadecimal digits of the cloud's identity",
            ),
            (
                cloud.as_ref().is_none_or(|cloud| is_rate(cloud.bytes_per_second_max)),
                "cloud.bytes_per_second_max must be 0 or at least 1048576",
            ),
            ((512..=1 << 20).contains(chunk_bytes), "chunk_bytes must be from 512 to 1048576"),
            // A recall decompresses a whole frame into memory, so that its length has an upper
            // bound.
            (
                (4096..=16 << 20).contains(&persist.frame_bytes),
                "persist.frame_bytes must be from 4096 to 16777216",
            ),
            (persist.part_bytes > 0, "persist.part_bytes must be above 0"),
            (
                is_rate(persist.bytes_per_second_max),
                "persist.bytes_per_second_max must be 0 or at least 1048576",
            ),
            (
                (10..=100).contains(&persist.busy_percent),
                "persist.busy_percent must be from 10 to 100",
            ),
            (persist.unread_percent_max <= 100, "persist.unread_percent_max must not be above 100"),
            // Negative priorities, which only root may set, have no number in this type.
            (persist.nice <= 19, "persist.nice must not be above 19"),
            // The scheduler looks every second, and would try what failed again at each look.
            (agent.retry_seconds > 0, "agent.retry_seconds must be above 0"),
            // Only these threads wait for evicted data; without any a cold read would never end.
            (mount.waiting > 0, "mount.waiting must be above 0"),
            (
                // The scheduler relies on this order: it asserts that freeing ends below its
                // beginning.
                space.low_percent <= space.high_percent
                    && space.high_percent <= space.critical_percent
                    && space.critical_percent <= 100,
                "space.low_percent must not be above space.high_percent, nor that above \
                 space.critical_percent, nor that above 100",
            ),
        ];
        rules.iter().find(|(holds, _)| !holds).map(|(_, problem)| *problem)
    }

    /// Replaces the file as a whole, durably.
    pub fn write(&self, layout: &Layout) -> Result<(), StoreError> {
        assert!(self.unsound().is_none(), "settings that no store can be opened with");
        let path = layout.config();
        let text = toml::to_string(self).map_err(|source| StoreError::Config {
            path: path.clone(),
            problem: format!("these settings cannot be written: {source}"),
        })?;
        // A torn file would make the whole store unusable; the old settings stay until the rename.
        durable::replace(&path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let base =
            "filesystem = \"00\"\nepoch = 1\nidentity = \"identity.key\"\nencryption = true\n";
        for (extra, word) in [
            ("chunk_bytes = 100", "chunk_bytes"),
            ("[cloud]\nurl = \"file:///c\"\nid = \"0\"", "cloud.id"),
            ("[cloud]\nurl = \"file:///c\"\nbytes_per_second_max = 9", "cloud.bytes_per_second"),
            ("[cloud]\nid = \"000102030405060708090a0b0c0d0e0f\"", "url"),
            ("[space]\nlow_percent = 90\nhigh_percent = 80", "low_percent"),
            ("[persist]\nframe_bytes = 1", "frame_bytes"),
            ("[persist]\nnice = 20", "nice"),
            ("[agent]\nretry_seconds = 0", "retry_seconds"),
        ] {
            fs::write(layout.config(), format!("{base}{extra}\n")).unwrap();
            let error = tier_types::with_causes(&Config::read(&layout).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
        fs::write(layout.config(), format!("{base}misspelt = 1\n")).unwrap();
        assert!(matches!(Config::read(&layout), Err(StoreError::ConfigSyntax { .. })));
    }
}
