//! How a persister writes, as its caller sets it.

/// How tarballs are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PersistOptions {
    /// zstd level.
    pub level: i32,
    /// Threads that compress and seal; at least one.
    pub n_workers: usize,
    /// Plaintext bytes after which a frame ends: what a random read decompresses. Not zero.
    pub frame_bytes: usize,
    /// A tarball ends when it has this many bytes …
    pub tarball_bytes: u64,
    /// … or this many members.
    pub tarball_members: u64,
    /// File data after which a snapshot ends with a part of itself, between two inodes; the next
    /// one goes on behind it. Not zero.
    pub part_bytes: u64,
    /// Content of one object of a checkpoint, before compression.
    pub object_bytes: usize,
    /// A file with more data than this is written in parts of a frame each; up to it, it is one
    /// member under its own path, and held in memory as a whole.
    pub member_bytes_max: u64,
    /// A file up to this size is written whole even if only part of it changed.
    pub rewrite_bytes_max: u64,
    /// Compressed bytes that are written in a second at most; `None` for no limit.
    pub bytes_per_second_max: Option<u64>,
    /// A snapshot of which more cannot be read, in percent of its inodes, is not taken, unless
    /// these are few; 100 for any.
    pub unread_percent_max: u8,
    /// The duty cycle of a worker while there is foreground activity, in percent of its time.
    pub busy_percent: u32,
}

impl Default for PersistOptions {
    fn default() -> Self {
        Self {
            level: 3,
            n_workers: std::thread::available_parallelism().map_or(2, usize::from),
            frame_bytes: 1 << 20,
            tarball_bytes: 128 << 20,
            // With small files this comes first, and bounds the table of contents in memory.
            tarball_members: 100_000,
            part_bytes: 16 << 30,
            object_bytes: 4 << 20,
            member_bytes_max: 8 << 20,
            rewrite_bytes_max: 256 << 10,
            bytes_per_second_max: None,
            unread_percent_max: 25,
            // Not throttled: only a caller that serves requests meanwhile has something to yield
            // to.
            busy_percent: 100,
        }
    }
}

impl PersistOptions {
    /// Stops on options that no caller can mean: what they come from is to be checked before.
    pub(crate) fn assert_sound(&self) {
        assert!(self.n_workers > 0, "there is a worker");
        assert!(self.frame_bytes > 0, "a frame holds something");
        assert!(self.part_bytes > 0, "a part holds something");
        assert!(self.bytes_per_second_max != Some(0), "a rate of nothing would wait for ever");
    }
}
