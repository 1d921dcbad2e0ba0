//! A bucket that is far away: what it costs to upload to it, to read what was evicted into it, and
//! to restore from it, in requests and in seconds.
//!
//! Requests are held by the test; seconds are told with `--nocapture` and hold nothing. The line in
//! between has a delay and a rate. `TIER_FAR_MB` and `TIER_FAR_FILES` say how much goes over it,
//! and `TIER_FAR_TARBALLS` in how many tarballs what is restored lies, by commas.

mod place;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use tier_testkit::noise;
use tier_types::to_u64;

use crate::random::number;
use place::{Far, Requests, median};

const MB: usize = 1 << 20;
/// Times that something is measured, of which the one in the middle counts.
const N_RUNS: u64 = 3;

fn megabytes() -> usize {
    usize::try_from(number("TIER_FAR_MB").unwrap_or(32)).unwrap()
}

fn n_files() -> usize {
    usize::try_from(number("TIER_FAR_FILES").unwrap_or(100)).unwrap()
}

fn tell(what: &str, time: Duration, bytes: usize, requests: Option<Requests>) {
    let millis = usize::try_from(time.as_millis()).unwrap().max(1);
    let (seconds, rate) = (time.as_secs_f64(), bytes / MB * 1000 / millis);
    println!(
        "{what:<44} {seconds:>7.2} s {rate:>5} MiB/s  {}",
        requests.map_or(String::new(), |r| r.to_string())
    );
}

/// A tree with one large file and as much in small ones.
fn make_tree(at: &Path) {
    fs::create_dir(at).unwrap();
    fs::write(at.join("large"), noise(megabytes() * MB, 1)).unwrap();
    fs::create_dir(at.join("small")).unwrap();
    for number in 0..n_files() {
        let content = noise(10_000 + number % 7000, to_u64(number));
        fs::write(at.join(format!("small/{number:06}")), content).unwrap();
    }
}

#[test]
fn uploading_sends_each_byte_once() {
    let Some(far) = Far::start() else { return };
    make_tree(&far.path("tree"));
    far.tier(&["init", "DIR/store"]).ok();
    // All of it stays here, to be sent again.
    far.set("DIR/store", "bytes_max = 1073741824", "bytes_max = 1099511627776");
    far.tier(&["import", "DIR/store", "DIR/tree"]).ok();
    far.tier(&["snapshot", "DIR/store"]).ok();
    let objects = far.path("store/tarballs");
    let bytes = place::bytes_below(&objects);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..N_RUNS {
        far.tier(&["cloud", "add", "DIR/store", &far.url(&format!("bucket/{run}"))]).ok();
        let (time, requests) = far.timed(&["push", "DIR/store"]);
        tell("push", time, bytes, Some(requests));
        ours.push(time);
        // What is sent with each object besides its bytes is not counted.
        let sent = usize::try_from(requests.sent_bytes).unwrap();
        assert!(sent < bytes + bytes / 100 + MB, "{sent} bytes were sent for {bytes}");
        let n_parts = bytes.div_ceil(8 * MB);
        let n_objects = place::files_below(&objects);
        let n_writes = usize::try_from(requests.n_writes).unwrap();
        assert!(n_writes <= n_parts + 4 * n_objects + 4, "{n_writes}: {requests}");
        let received = usize::try_from(requests.received_bytes).unwrap();
        assert!(received < bytes / 10 + MB, "arrived objects are not read back: {received}");
        if let Some(time) = far.rclone(&objects, &format!("bucket/rclone-{run}")) {
            tell("rclone copy", time, bytes, None);
            theirs.push(time);
        }
    }
    if !theirs.is_empty() {
        let share = median(&mut theirs).as_secs_f64() / median(&mut ours).as_secs_f64();
        println!("push is {share:.2} times as fast as rclone copy");
    }
}

#[test]
fn reading_what_was_evicted_asks_once_for_each_frame() {
    let Some(far) = Far::start() else { return };
    make_tree(&far.path("tree"));
    far.tier(&["init", "DIR/store", "--cloud", &far.url("bucket")]).ok();
    far.tier(&["import", "DIR/store", "DIR/tree"]).ok();
    far.tier(&["snapshot", "DIR/store"]).ok();
    let evict = || far.tier(&["evict", "DIR/store", "--all"]).ok();
    evict();
    let mut times = Vec::new();
    for _ in 0..N_RUNS {
        let (time, requests) = far.timed(&["cat", "DIR/store", "/large"]);
        tell("a cold file, in order", time, megabytes() * MB, Some(requests));
        let n_frames = to_u64(megabytes());
        assert!(requests.n_reads <= n_frames + n_frames / 10 + 20, "{requests}");
        times.push(time);
        evict();
    }
    tell("in the middle", median(&mut times), megabytes() * MB, None);
    let (time, requests) = far.timed(&["recall", "DIR/store", "/"]);
    tell("recall of all", time, megabytes() * MB, Some(requests));
    evict();
    let Some(mounted) = far.mount("store") else { return };
    let on = far.path("mnt");
    let began = Instant::now();
    let large = fs::read(on.join("large")).unwrap();
    tell("a cold file, in order, through a mount", began.elapsed(), large.len(), None);
    assert!(large == noise(megabytes() * MB, 1), "it is another one");
    let before = far.bytes_back();
    let (time, bytes) = read_at_random(&on.join("small"));
    tell("small files at random, 16 readers", time, bytes, None);
    println!("  {} bytes came over the line", far.bytes_back() - before);
    look_idle(&far);
    mounted.unmount();
}

/// Reads all small files in an order by chance, by 16 readers at a time.
fn read_at_random(directory: &Path) -> (Duration, usize) {
    let mut order: Vec<usize> = (0..n_files()).collect();
    let chance = noise(8 * order.len(), 9);
    order.sort_by_key(|number| chance[8 * number..8 * number + 8].to_vec());
    let (left, bytes) = (Mutex::new(order), Mutex::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                loop {
                    let Some(number) = left.lock().unwrap().pop() else { return };
                    let mut content = Vec::new();
                    let mut file = File::open(directory.join(format!("{number:06}"))).unwrap();
                    file.read_to_end(&mut content).unwrap();
                    let expected = noise(10_000 + number % 7000, to_u64(number));
                    assert!(content == expected, "{number} is another one");
                    *bytes.lock().unwrap() += content.len();
                }
            });
        }
    });
    (began.elapsed(), bytes.into_inner().unwrap())
}

/// Nothing goes over the line while nothing is done.
fn look_idle(far: &Far) {
    // Read-ahead ends.
    let mut before = far.bytes_there();
    place::wait_until(|| {
        let now = far.bytes_there();
        std::mem::replace(&mut before, now) == now
    });
    let (before, seconds) = (far.bytes_there(), number("TIER_FAR_IDLE_SECONDS").unwrap_or(3));
    place::wait(Duration::from_secs(seconds));
    assert_eq!(far.bytes_there(), before, "an idle mount asks for nothing");
    println!("nothing was sent in {seconds} idle seconds");
}

#[test]
fn restoring_takes_few_requests() {
    let Some(far) = Far::start() else { return };
    let tarballs = std::env::var("TIER_FAR_TARBALLS").unwrap_or_else(|_| "1,20".into());
    let n_files = n_files();
    for (run, n_tarballs) in tarballs.split(',').enumerate() {
        let n_tarballs: usize = n_tarballs.parse().unwrap();
        let (store, bucket) = (format!("DIR/store-{run}"), far.url(&format!("bucket/{run}")));
        far.tier(&["keygen", "-o", &format!("DIR/id-{run}")]).ok();
        far.tier(&["init", &store, "--identity", &format!("DIR/id-{run}"), "--cloud", &bucket])
            .ok();
        let tree = far.path(&format!("tree-{run}"));
        fs::create_dir(&tree).unwrap();
        for number in 0..n_files {
            let directory = tree.join((number / 1000).to_string());
            if number % 1000 == 0 {
                fs::create_dir(&directory).unwrap();
            }
            fs::write(directory.join(number.to_string()), noise(4000, to_u64(number))).unwrap();
        }
        let tarball_bytes = (n_files * 4200 / n_tarballs).max(4096);
        let settings = [("tarball_bytes", 134_217_728), ("frame_bytes", 1_048_576)];
        for (name, usual) in settings {
            let value = tarball_bytes.min(usual);
            if value < usual {
                far.set(&store, &format!("{name} = {usual}"), &format!("{name} = {value}"));
            }
        }
        far.tier(&["import", &store, &tree.display().to_string()]).ok();
        far.tier(&["snapshot", &store]).ok();
        let n_objects = place::files_below(&far.path(&format!("store-{run}/tarballs")));
        let mut times = Vec::new();
        for again in 0..N_RUNS {
            let new = format!("DIR/new-{run}-{again}");
            let (time, requests) = far.timed(&[
                "restore",
                &new,
                "--cloud",
                &bucket,
                "--identity",
                &format!("DIR/id-{run}"),
            ]);
            let (first, reads) = far.timed(&["cat", &new, "/0/7"]);
            tell(
                &format!("restore and a first byte, {n_objects} objects"),
                time + first,
                n_files * 4000,
                Some(requests),
            );
            // Of each tarball behind the last checkpoint its tables are read, twice.
            assert!(requests.n_requests() < 40 + 6 * to_u64(n_objects), "{requests}");
            assert!(reads.n_reads <= 6, "{reads}");
            times.push(time + first);
        }
        println!("{n_objects} objects: {:.2} s", median(&mut times).as_secs_f64());
    }
}
