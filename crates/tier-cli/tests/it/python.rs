//! Scripts of Python on a mount: for calls of the system that no safe library of Rust offers, and
//! for what another user does.

use std::process::Command;

use crate::mount::Mounted;

const HELPERS: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)

class Handle(ctypes.Structure):
    _fields_ = [("n", ctypes.c_uint), ("type", ctypes.c_int), ("bytes", ctypes.c_ubyte * 128)]

def failed(what):
    error = ctypes.get_errno()
    raise OSError(error, f"{what}: {os.strerror(error)}")

def handle_of(path):
    handle, mount = Handle(n=128), ctypes.c_int()
    if libc.name_to_handle_at(-100, path.encode(), ctypes.byref(handle), ctypes.byref(mount), 0):
        failed("name_to_handle_at")
    return handle

def open_handle(mount, handle, flags=os.O_RDONLY):
    fd = os.open(mount, os.O_RDONLY)
    opened = libc.open_by_handle_at(fd, ctypes.byref(handle), flags)
    os.close(fd)
    return opened if opened >= 0 else failed("open_by_handle_at")

def fallocate(fd, mode, offset, length):
    call = libc.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    if call(fd, mode, offset, length):
        failed("fallocate")

def drop_caches():
    open("/proc/sys/vm/drop_caches", "w").write("3")

def as_user(uid, work):
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([]); os.setgid(uid); os.setuid(uid)
            work()
        except BaseException as error:
            print("as another user:", repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"#;

/// Runs a script in the mounted directory; false, said loudly, where there is no Python.
pub(crate) fn python(mounted: &Mounted<'_>, script: &str, arguments: &[&str]) -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", &format!("{HELPERS}\n{script}")]).args(arguments);
    let Ok(output) = python.current_dir(mounted.directory()).output() else {
        eprintln!("SKIPPED: this machine has no python3");
        return false;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    true
}
