//! What the kernel refers to lives on: a removed inode that a process has looked up, opened by its
//! path alone, works in, or holds a file handle of.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::Store;
use crate::mount::Mounted;
use crate::python::python;

/// A last guard: it takes a moment.
const WAIT_MAX: Duration = Duration::from_mins(1);

#[test]
fn a_removed_inode_lives_as_long_as_a_process_refers_to_it() {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    let script = r#"
import sys
for kind in ["removed", "renamed over"]:
    os.mkdir("d"); os.mkdir("e"); open("f", "w").write("content")
    by_path, directory = os.open("f", os.O_PATH), os.open("d", os.O_RDONLY | os.O_DIRECTORY)
    os.chdir("d")
    drop_caches()
    if kind == "removed":
        os.rmdir("../d"); os.rmdir("../e"); os.unlink("../f")
    else:
        os.rename("../e", "../d"); open("../g", "w").write("other"); os.rename("../g", "../f")
    for fd in [by_path, directory]:
        assert os.fstat(fd).st_nlink == 0, (kind, os.fstat(fd))
    assert os.stat(".").st_nlink == 0 and os.listdir(".") == [], kind
    os.syncfs(directory) if hasattr(os, "syncfs") else None
    assert libc.syncfs(directory) == 0, (kind, os.strerror(ctypes.get_errno()))
    again = os.open(f"/proc/self/fd/{by_path}", os.O_RDONLY)
    assert os.read(again, 99) == b"content", kind
    try:
        open("new", "w"); raise SystemExit("a removed directory takes entries")
    except FileNotFoundError:
        pass
    os.chdir(sys.argv[1])
    for fd in [by_path, directory, again]:
        os.close(fd)
    if kind != "removed":
        os.rmdir("d"); os.unlink("f")
"#;
    if !python(&mounted, script, &[&mounted.directory().display().to_string()]) {
        return;
    }
    // The kernel forgets them in its own time, and the reaper ends them then.
    let begin = Instant::now();
    while !store.run("status", &[]).ok().contains("inodes       1\n") {
        assert!(begin.elapsed() < WAIT_MAX, "what nothing refers to is still there");
    }
    mounted.unmount();
    store.run("fsck", &[]).ok();
}

#[test]
fn file_handles_are_good_for_as_long_as_their_inode_has_a_name() {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    fs::create_dir_all(mounted.path("d/e")).unwrap();
    for name in ["d/e/f", "gone"] {
        fs::write(mounted.path(name), "content").unwrap();
    }
    let take = r#"
import pickle, sys
for name in ["d/e/f", "d/e", "gone"]:
    handle = handle_of(name)
    drop_caches()
    fd = open_handle(".", handle)
    assert os.fstat(fd).st_ino == os.stat(name).st_ino
    os.close(fd)
    pickle.dump((handle.n, handle.type, bytes(handle.bytes)), open(sys.argv[1] + name.replace("/", ""), "wb"))
os.unlink("gone")
drop_caches()
try:
    open_handle(".", handle); raise SystemExit("a handle of what is gone is good")
except OSError as error:
    assert error.errno == 116, error
"#;
    let prefix = store.at("handle-");
    if !python(&mounted, take, &[&prefix]) {
        return;
    }
    mounted.unmount();
    let mounted = Mounted::new(&store, &[]).unwrap();
    let after = r#"
import pickle, sys
def load(name):
    n, kind, content = pickle.load(open(sys.argv[1] + name, "rb"))
    return Handle(n=n, type=kind, bytes=(ctypes.c_ubyte * 128)(*content))
fd = open_handle(".", load("def"))
assert os.read(fd, 99) == b"content"
directory = open_handle(".", load("de"))
assert os.listdir(directory) == ["f"]
assert os.readlink(f"/proc/self/fd/{directory}").endswith("/d/e")
try:
    open_handle(".", load("gone")); raise SystemExit("a handle of what is gone is good")
except OSError as error:
    assert error.errno == 116, error
"#;
    python(&mounted, after, &[&prefix]);
}
