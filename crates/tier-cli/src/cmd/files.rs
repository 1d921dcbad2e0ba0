//! Files in and out, and looking at them.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, bail};
use kvfs::{FsError, Kvfs, NewNode};
use serde_json::{Value, json};
use tier_types::{FileAttr, FileKind, FileName, Ino, to_u64};

use super::flush;
use crate::host::{self, Copied, Importing};
use crate::session::Session;
use crate::store::Store;
use crate::{output, walk};

const READ_BYTES: usize = 1 << 20;

pub(crate) fn import(
    session: &Session,
    store: &Path,
    (dir, into): (&Path, &OsStr),
    jobs: Option<usize>,
) -> Result<()> {
    let store = session.open(store)?;
    let copied = import_tree(session, &store, (&session.host_path(dir), into), jobs)?;
    let text = format!(
        "Imported {} files and folders, {}.\n",
        copied.n_inodes,
        output::bytes(copied.bytes)
    );
    session.report(&copied_json(&copied), &text)
}

/// Threads that copy: as many as the user wants, or as there are processors.
fn n_threads(jobs: Option<usize>) -> usize {
    jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
}

pub(crate) fn import_tree(
    session: &Session,
    store: &Store,
    (dir, into): (&Path, &OsStr),
    jobs: Option<usize>,
) -> Result<Copied> {
    // The kernel does not see what comes by this way.
    let mount = session.daemon().and_then(|daemon| daemon.mount());
    let touched = |dir: Ino, name: &FileName| {
        if let Some(mount) = mount {
            mount.forget_entry(dir, name);
        }
    };
    let changed = |ino: Ino| {
        if let Some(mount) = mount {
            mount.forget_attributes(ino);
        }
    };
    let into = make_path(&store.fs, into, &touched)?;
    let stop = session.stop()?;
    let bar = session.bar("importing");
    let progress = |copied: &Copied| {
        bar.files_and_bytes(copied.n_inodes, copied.bytes);
        stop.check()
    };
    let importing = Importing {
        n_threads: n_threads(jobs),
        progress: &progress,
        touched: &touched,
        changed: &changed,
    };
    let copied = host::import(&store.fs, dir, into, &importing)?;
    store.fs.fsync()?;
    Ok(copied)
}

pub(crate) fn export(
    session: &Session,
    store: &Path,
    (path, dir): (&OsStr, &Path),
    jobs: Option<usize>,
) -> Result<()> {
    let store = session.open(store)?;
    let copied = export_tree(session, &store.fs, (path, &session.host_path(dir)), jobs)?;
    report_export(session, &copied)
}

pub(crate) fn export_tree(
    session: &Session,
    fs: &Kvfs,
    (path, dir): (&OsStr, &Path),
    jobs: Option<usize>,
) -> Result<Copied> {
    let stop = session.stop()?;
    let start = walk::resolve(fs, path)?;
    let bar = session.bar("exporting");
    // A file goes into a folder that is there, as with cp.
    let into = walk::parts(path.as_bytes())?.pop().filter(|_| dir.is_dir());
    let into = into.filter(|_| !matches!(start.kind, FileKind::Directory));
    let target = into.map(|name| dir.join(OsStr::from_bytes(name.as_bytes())));
    let dir = target.as_deref().unwrap_or(dir);
    host::export(fs, start, dir, n_threads(jobs), &|copied| {
        bar.files_and_bytes(copied.n_inodes, copied.bytes);
        stop.check()
    })
}

pub(crate) fn report_export(session: &Session, copied: &Copied) -> Result<()> {
    let text = format!(
        "Exported {} files and folders, {}.\n",
        copied.n_inodes,
        output::bytes(copied.bytes)
    );
    session.report(&copied_json(copied), &text)
}

fn copied_json(copied: &Copied) -> Value {
    json!({ "inodes": copied.n_inodes, "bytes": copied.bytes })
}

pub(crate) fn cat(session: &Session, store: &Path, path: &OsStr) -> Result<()> {
    let store = session.open(store)?;
    let attr = walk::resolve(&store.fs, path)?;
    let mut out = session.out();
    let mut at = 0;
    while at < attr.size_bytes || at == 0 {
        let data = store.fs.read(attr.ino, at, READ_BYTES);
        let data = data.with_context(|| format!("cannot read {}", path.display()))?;
        if data.is_empty() {
            break;
        }
        out.write_all(&data).context("cannot write to standard output")?;
        at += to_u64(data.len());
    }
    flush(out)
}

pub(crate) fn ls(
    session: &Session,
    store: &Path,
    path: &OsStr,
    (long, recursive): (bool, bool),
) -> Result<()> {
    let store = session.open(store)?;
    let start = walk::resolve(&store.fs, path)?;
    let directory = matches!(start.kind, FileKind::Directory);
    let mut out = session.out();
    let mut rows = Vec::new();
    let mut visit = |name: &[u8], attr: &FileAttr| -> Result<()> {
        if session.json() {
            rows.push(row_json(&store.fs, name, attr)?);
        } else if long {
            writeln!(out, "{}", row_text(&store.fs, name, attr)?)?;
        } else {
            writeln!(out, "{}", output::name(name))?;
        }
        Ok(())
    };
    if !directory {
        visit(path.as_bytes(), &start)?;
    } else if recursive {
        walk::tree(&store.fs, start, |name, attr| match name {
            b"" => Ok(()),
            name => visit(name, attr),
        })?;
    } else {
        walk::entries(&store.fs, start.ino, |name, entry| {
            match store.fs.getattr(entry.attr.ino) {
                Ok(attr) => visit(name.as_bytes(), &attr),
                Err(FsError::NotFound) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })?;
    }
    if session.json() {
        writeln!(out, "{:#}", Value::Array(rows))?;
    }
    flush(out)
}

/// The tier of a file's data.
fn tier(fs: &Kvfs, attr: &FileAttr) -> Result<String> {
    let has_data = matches!(attr.kind, FileKind::Regular) && attr.size_bytes > 0;
    Ok(if has_data { fs.heat(attr.ino)?.to_string() } else { "-".into() })
}

fn row_text(fs: &Kvfs, name: &[u8], attr: &FileAttr) -> Result<String> {
    let kind = kind_letter(&attr.kind);
    let tier = tier(fs, attr)?;
    let time = output::time(attr.modified);
    let mut row = format!(
        "{kind}{:04o} {:>3} {:>6} {:>6} {:>12} {time} {tier:<5} {}",
        attr.mode,
        attr.nlink,
        attr.uid,
        attr.gid,
        attr.size_bytes,
        output::name(name)
    );
    if let FileKind::Symlink(target) = &attr.kind {
        row.push_str(&format!(" -> {}", output::name(target)));
    }
    Ok(row)
}

fn row_json(fs: &Kvfs, name: &[u8], attr: &FileAttr) -> Result<Value> {
    Ok(json!({
        "name": String::from_utf8_lossy(name),
        "name_bytes": name,
        "ino": attr.ino.get(),
        "kind": kind_letter(&attr.kind).to_string(),
        "mode": attr.mode,
        "nlink": attr.nlink,
        "uid": attr.uid,
        "gid": attr.gid,
        "size": attr.size_bytes,
        "modified": output::time(attr.modified),
        "tier": tier(fs, attr)?,
    }))
}

fn kind_letter(kind: &FileKind) -> char {
    match kind {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink(_) => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharDevice(_) => 'c',
        FileKind::BlockDevice(_) => 'b',
    }
}

/// The directory at a path, made with those above it where they are missing.
fn make_path(fs: &Kvfs, path: &OsStr, touched: &dyn Fn(Ino, &FileName)) -> Result<Ino> {
    let mut dir = Ino::ROOT;
    for name in walk::parts(path.as_bytes())? {
        let attr = match fs.lookup(dir, &name) {
            Err(FsError::NotFound) => {
                let folder = NewNode {
                    kind: FileKind::Directory,
                    mode: 0o755,
                    uid: 0,
                    gid: 0,
                    inherit: None,
                };
                let made = fs.create_node(dir, &name, &folder)?;
                touched(dir, &name);
                made
            }
            other => other?,
        };
        if !matches!(attr.kind, FileKind::Directory) {
            bail!("{}: {name} is not a folder", path.display());
        }
        dir = attr.ino;
    }
    Ok(dir)
}
