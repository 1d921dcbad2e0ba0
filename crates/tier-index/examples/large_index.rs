//! Fills an index with generated files, and says what that takes:
//! `cargo run --release --example large_index -- DIRECTORY N_FILES`. Each file has two entries.
#![expect(clippy::print_stdout, reason = "a program whose output is read")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use tier_index::{Contents, Entry, Index, IndexOptions, TarballId};
use tier_types::{ChunkNo, ChunkRange, Epoch, Ino, SnapshotId, Xid};

const CHUNK_BYTES: u32 = 65536;
const N_BATCH: u64 = 8192;
const N_PER_TARBALL: u64 = 100_000;
const N_LOOKUPS: u64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let directory = PathBuf::from(args.next().ok_or("say where the index is to be")?);
    let n_files: u64 = args.next().ok_or("say how many files")?.parse()?;
    let index = Index::open(&directory, CHUNK_BYTES, &IndexOptions::default())?;
    let start = Instant::now();
    for first in (0..n_files).step_by(usize::try_from(N_BATCH)?) {
        let tarball = tarball(first)?;
        index.writer().add_tarball(tarball, b"row")?;
        index.writer().apply(&contents(tarball, first..(first + N_BATCH).min(n_files))?)?;
    }
    println!("{n_files} files, {} entries: {:.0?}", 2 * n_files, start.elapsed());
    let mut state = 1_u64;
    let mut times = Vec::new();
    for _ in 0..N_LOOKUPS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let number = (state >> 20) % n_files;
        let start = Instant::now();
        index.find(ino(number), ChunkNo::new(0))?.ok_or("an entry is missing")?;
        times.push(start.elapsed());
    }
    times.sort();
    println!("lookup, median of {N_LOOKUPS} random ones: {:.1?}", times.get(times.len() / 2));
    let mut bytes = 0;
    for entry in std::fs::read_dir(&directory)? {
        bytes += entry?.metadata()?.len();
    }
    println!("{} MB on disk, {} bytes a file", bytes / 1_000_000, bytes / n_files);
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("peak resident memory: {}", peak.trim_start_matches("VmHWM:").trim());
    Ok(())
}

fn ino(number: u64) -> Ino {
    Ino::new(number * 3 + 2)
}

fn tarball(first: u64) -> Result<TarballId, Box<dyn Error>> {
    let part = u32::try_from(first / N_PER_TARBALL)?;
    Ok(TarballId { epoch: Epoch::new(1), snapshot: SnapshotId::new(1), part })
}

fn contents(tarball: TarballId, numbers: std::ops::Range<u64>) -> Result<Contents, Box<dyn Error>> {
    let mut entries = Vec::new();
    for number in numbers {
        let ino = ino(number);
        let frame = u32::try_from(number % N_PER_TARBALL / 250)?;
        // Sizes of members that differ as those of real files do.
        let offset = u32::try_from(number % 250 * 4096 + number * 7919 % 8 * 512)?;
        let chunks = ChunkRange::new(ChunkNo::new(0), ChunkNo::new(1)).ok_or("a chunk")?;
        let short_bytes = u32::try_from(65_536 - (number * 7919) % 4096)?;
        entries.push(Entry::Inode { ino, xid: Xid::new(ino.get() + 2), frame, offset });
        entries.push(Entry::Data {
            ino,
            chunks,
            data_xid: Xid::new(ino.get() + 1),
            frame,
            offset: offset + 1536,
            short_bytes,
        });
    }
    Ok(Contents { tarball, chunk_bytes: CHUNK_BYTES, entries })
}
