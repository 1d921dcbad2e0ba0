//! What programs rely on beyond what the suites test: the mount against Linux's own filesystems.

use std::fs;
use std::path::PathBuf;

use crate::harness::Store;
use crate::mount::Mounted;
use crate::python::python;

/// Runs a script on a new store, which is sound afterwards.
fn holds(script: &str) {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    python(&mounted, script, &[]);
    mounted.unmount();
    store.run("fsck", &[]).ok();
}

#[test]
fn a_cold_file_has_a_block_and_a_hole_has_none() {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    fs::write(mounted.path("cold"), vec![7; 100_000]).unwrap();
    fs::File::create(mounted.path("hole")).unwrap().set_len(100_000).unwrap();
    mounted.evict_all();
    let script = r#"
assert os.stat("cold").st_blocks == 1, os.stat("cold")
assert os.stat("hole").st_blocks == 0, os.stat("hole")
import subprocess
subprocess.run("tar -cSf - cold hole | tar -C /tmp -xf - --transform 's/^/tier-posix-/'", shell=True, check=True)
assert open("/tmp/tier-posix-cold", "rb").read() == bytes([7]) * 100000
os.unlink("/tmp/tier-posix-cold"); os.unlink("/tmp/tier-posix-hole")
"#;
    python(&mounted, script, &[]);
}

#[test]
fn names_of_extended_attributes_have_a_namespace_that_there_is() {
    holds(
        r#"
import errno
open("f", "w").close(); os.chmod("f", 0o600); os.mkdir("open"); os.chmod("open", 0o777)
open("own", "w").close(); os.chown("own", 65534, 65534)
def refused(number, call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        assert error.errno == number, (error, arguments)
        return
    raise AssertionError(f"not refused: {arguments}")
for name in ["system.x", "system.nfs4_acl", "btrfs.a", "user.", "nothing"]:
    refused(errno.EOPNOTSUPP, os.setxattr, "f", name, b"1")
    refused(errno.EOPNOTSUPP, os.getxattr, "f", name)
    refused(errno.EOPNOTSUPP, os.removexattr, "f", name)
for name in ["user.a", "trusted.a", "security.a"]:
    os.setxattr("f", name, b"1")
    os.setxattr("own", name, b"1")
assert sorted(os.listxattr("f")) == ["security.a", "trusted.a", "user.a"], os.listxattr("f")
def other():
    refused(errno.EOPNOTSUPP, os.setxattr, "f", "system.x", b"1")
    refused(errno.EACCES, os.setxattr, "f", "user.b", b"1")
    refused(errno.EPERM, os.setxattr, "own", "trusted.b", b"1")
    refused(errno.ENODATA, os.getxattr, "own", "trusted.a")
    refused(errno.EPERM, os.setxattr, "own", "security.b", b"1")
    assert sorted(os.listxattr("own")) == ["security.a", "user.a"], os.listxattr("own")
    refused(errno.EPERM, os.setxattr, "own", "user.tier.pin", b"1")
    refused(errno.EPERM, os.removexattr, "own", "user.tier.pin")
as_user(65534, other)
os.setxattr("own", "user.tier.pin", b"1")
assert os.getxattr("own", "user.tier.pin") == b"1"
"#,
    );
}

#[test]
fn whoever_changes_the_content_of_a_file_takes_its_set_id_bits() {
    holds(
        r#"
import mmap
KEEP, PUNCH, ZERO = 1, 3, 16
def direct(fd):
    page = mmap.mmap(-1, 4096)
    os.writev(fd, [page])
changes = {
    "write": (os.O_RDWR, lambda fd: os.write(fd, b"x")),
    "direct": (os.O_RDWR | os.O_DIRECT, direct),
    "allocate": (os.O_RDWR, lambda fd: fallocate(fd, 0, 0, 200000)),
    "keep size": (os.O_RDWR, lambda fd: fallocate(fd, KEEP, 0, 300000)),
    "punch": (os.O_RDWR, lambda fd: fallocate(fd, PUNCH, 0, 5000)),
    "zero": (os.O_RDWR, lambda fd: fallocate(fd, ZERO, 0, 5000)),
    "truncate": (os.O_RDWR, lambda fd: os.ftruncate(fd, 5)),
    "open": (os.O_RDWR | os.O_TRUNC, lambda fd: None),
    "copy": (os.O_RDWR, lambda fd: os.copy_file_range(fd, fd, 10, 0, 50000)),
}
for name, (flags, change) in changes.items():
    for executable in [0o6777, 0o2766]:
        open("f", "wb").write(b"a" * 100000)
        os.chmod("f", executable)
        assert os.stat("f").st_mode & 0o7777 == executable
        def other():
            fd = os.open("f", flags)
            change(fd)
            os.close(fd)
        as_user(65534, other)
        expected = executable & ~0o6000 if executable == 0o6777 else executable
        assert os.stat("f").st_mode & 0o7777 == expected, (name, oct(os.stat("f").st_mode))
        drop_caches()
        assert os.stat("f").st_mode & 0o7777 == expected, (name, oct(os.stat("f").st_mode))
"#,
    );
}

#[test]
fn reads_are_no_operations_and_times_that_are_set_stay() {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    for number in 0..50 {
        fs::write(mounted.path(&format!("f{number}")), "content").unwrap();
    }
    store.run("snapshot", &[]).ok();
    let script = r#"
before = os.stat("f1").st_atime_ns
drop_caches()
for name in os.listdir("."):
    open(name).read()
drop_caches()
assert os.stat("f1").st_atime_ns > before
os.utime("f2", ns=(5, 10**18))
drop_caches()
assert os.stat("f2").st_atime_ns == 5
"#;
    python(&mounted, script, &[]);
    let status = store.run("status", &[]).ok();
    assert!(status.contains(", 1 operations since"), "{status}");
    mounted.unmount();
    let mounted = Mounted::new(&store, &[]).unwrap();
    let after = r#"
for number in range(50):
    stat = os.stat(f"f{number}")
    assert number == 2 or stat.st_atime_ns > stat.st_mtime_ns, (number, stat)
assert os.stat("f2").st_atime_ns == 5
"#;
    python(&mounted, after, &[]);
}

#[test]
fn a_listing_ends_with_what_was_there_and_shows_each_file_once() {
    holds(
        r#"
os.mkdir("d")
for number in range(3000):
    open(f"d/{number}", "w").close()
with os.scandir("d") as entries:
    seen = []
    for entry in entries:
        seen.append(entry.inode())
        os.rename(entry.path, f"d/renamed-{entry.name}")
        open(f"d/new-{entry.name}", "w").close()
assert len(seen) == 3000 == len(set(seen)), (len(seen), len(set(seen)))
names = os.listdir("d")
assert len(names) == 6000 == len(set(names))
os.mkdir("e")
for number in range(1000):
    open(f"e/{number}", "w").close(); open(f"e/{number}.new", "w").write("new")
seen = []
with os.scandir("e") as entries:
    for entry in entries:
        seen.append(entry.name)
        number = entry.name.removesuffix(".new")
        if os.path.exists(f"e/{number}.new"):
            os.replace(f"e/{number}.new", f"e/{number}")
stayed = [name for name in seen if not name.endswith(".new")]
assert sorted(stayed) == sorted(str(number) for number in range(1000)), len(stayed)
libc.fdopendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.readdir.argtypes = libc.rewinddir.argtypes = [ctypes.c_void_p]
listing = libc.fdopendir(os.open("e", os.O_RDONLY))
def n_entries():
    n = 0
    while libc.readdir(listing):
        n += 1
    return n
assert n_entries() == 1002
open("e/one more", "w").close()
libc.rewinddir(listing)
assert n_entries() == 1003, "a listing that begins anew shows what is there now"
"#,
    );
}

#[test]
fn an_overlay_can_write_to_it() {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    let script = r#"
import subprocess
lower, merged = sys.argv[1:]
for directory in [lower, merged, "upper", "work"]:
    os.makedirs(directory)
open(lower + "/replaced", "w").write("lower"); open(lower + "/removed", "w").close()
open(lower + "/moved", "w").write("moved"); os.mkdir(lower + "/dir"); open(lower + "/dir/f", "w").close()
options = f"lowerdir={lower},upperdir={os.getcwd()}/upper,workdir={os.getcwd()}/work"
subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
try:
    open(merged + "/replaced", "w").write("upper")
    os.unlink(merged + "/removed")
    os.rename(merged + "/moved", merged + "/elsewhere")
    subprocess.run(["rm", "-r", merged + "/dir"], check=True)
    os.mkdir(merged + "/dir")
    assert sorted(os.listdir(merged)) == ["dir", "elsewhere", "replaced"], os.listdir(merged)
    assert os.listdir(merged + "/dir") == []
    assert open(merged + "/replaced").read() == "upper"
    assert open(merged + "/elsewhere").read() == "moved"
finally:
    subprocess.run(["umount", merged], check=True)
assert os.stat("upper/removed").st_rdev == 0 and os.stat("upper/moved").st_rdev == 0
assert os.getxattr("upper/dir", "trusted.overlay.opaque") == b"y"
"#;
    python(&mounted, script, &[&store.at("lower"), &store.at("merged")]);
    mounted.unmount();
    store.run("fsck", &[]).ok();
}

#[test]
fn what_is_written_past_the_cache_is_what_a_reader_then_sees() {
    holds(
        r#"
import mmap, threading
class Iocb(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_uint64), ("key", ctypes.c_uint32), ("flags", ctypes.c_uint32),
        ("opcode", ctypes.c_int16), ("prio", ctypes.c_int16), ("fd", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64), ("n", ctypes.c_uint64), ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64), ("more", ctypes.c_uint32), ("event", ctypes.c_uint32),
    ]
if os.uname().machine != "x86_64":
    print("SKIPPED: the numbers of the calls are those of x86_64", file=sys.stderr); sys.exit()
SETUP, SUBMIT, GET_EVENTS, WRITE, N, PAGE = 206, 209, 208, 1, 64, 4096
events, context = ctypes.create_string_buffer(32 * N), ctypes.c_ulong()
if libc.syscall(SETUP, N, ctypes.byref(context)):
    failed("io_setup")
open("f", "wb").write(bytes(PAGE * N))
direct, cached = os.open("f", os.O_RDWR | os.O_DIRECT), os.open("f", os.O_RDONLY)
is_over = threading.Event()
def read():
    while not is_over.is_set():
        for page in range(N):
            os.pread(cached, PAGE, page * PAGE)
reader = threading.Thread(target=read)
reader.start()
buffers = [mmap.mmap(-1, PAGE) for _ in range(N)]
n_stale = 0
try:
    for content in range(1, 100):
        writes = []
        for page, buffer in enumerate(buffers):
            buffer[:] = bytes([content]) * PAGE
            address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
            writes.append(Iocb(opcode=WRITE, fd=direct, buffer=address, n=PAGE, offset=page * PAGE))
        pointers = (ctypes.POINTER(Iocb) * N)(*map(ctypes.pointer, writes))
        if libc.syscall(SUBMIT, context, ctypes.c_long(N), pointers) != N:
            failed("io_submit")
        n_done = 0
        while n_done < N:
            n_done += libc.syscall(GET_EVENTS, context, 1, N, events, None)
        for page in range(N):
            n_stale += os.pread(cached, PAGE, page * PAGE) != bytes([content]) * PAGE
finally:
    is_over.set()
    reader.join()
assert n_stale == 0, f"{n_stale} pages are old"
"#,
    );
}

#[test]
fn where_room_is_short_a_write_fails_itself() {
    let store = Store::without_cloud();
    let config = PathBuf::from(store.path()).join("tier.toml");
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, settings.replace("capacity_bytes = 0", "capacity_bytes = 200000000"))
        .unwrap();
    let Some(mounted) = Mounted::new(&store, &["--no-agent"]) else { return };
    let script = r#"
import errno, mmap
def fill(name, piece):
    "How it ended: by the write or late."
    fd = os.open(name, os.O_CREAT | os.O_WRONLY)
    try:
        for _ in range(4):
            os.write(fd, os.urandom(piece))
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        os.close(fd)
        return "write"
    try:
        os.fsync(fd); os.close(fd)
    except OSError:
        return "late"
    return None
ended = [fill(f"f{number}", 500_000) for number in range(120)]
ended = [how for how in ended if how]
assert len(ended) > 5 and set(ended) == {"write"}, ended
# A file that is open in this way can be mapped.
fd = os.open("f0", os.O_RDWR)
with mmap.mmap(fd, 4096) as mapped:
    assert mapped[:10] == os.pread(fd, 10, 0)
"#;
    python(&mounted, script, &[]);
}
