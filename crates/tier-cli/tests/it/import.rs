//! Importing again what was imported before.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::Store;

#[test]
fn an_import_brings_what_changed_and_leaves_the_rest() {
    let store = Store::new(&[]);
    store.import();
    let xid = |store: &Store| {
        let log = store.run("log", &[]).ok();
        log.lines().filter(|line| line.contains(" write ")).count()
    };
    let writes = xid(&store);
    store.run("import", &[&store.tree().display().to_string()]).ok();
    assert_eq!(xid(&store), writes, "nothing is copied twice");

    let tree = store.tree();
    fs::write(tree.join("empty"), "not any more").unwrap();
    fs::write(tree.join("dir/sub/noise"), vec![1; 3_000_000]).unwrap();
    fs::remove_file(tree.join("dir/link")).unwrap();
    symlink("text", tree.join("dir/link")).unwrap();
    // Two names of one file become two files: the other one must not change with it.
    fs::remove_file(tree.join("dir/hard")).unwrap();
    fs::write(tree.join("dir/hard"), "on its own").unwrap();
    // And two files become one.
    fs::remove_file(tree.join("new\nline")).unwrap();
    fs::hard_link(tree.join("dir/text"), tree.join("new\nline")).unwrap();
    for jobs in ["1", "3"] {
        store.run("import", &["--jobs", jobs, &tree.display().to_string()]).ok();
        store.check_export(&store.path(), &format!("out-{jobs}"));
    }
    store.run("fsck", &[]).ok();
}

#[test]
fn what_cannot_be_replaced_is_said() {
    let store = Store::new(&[]);
    store.import();
    fs::remove_dir_all(store.tree().join("dir")).unwrap();
    fs::write(store.tree().join("dir"), "a file now").unwrap();
    let run = store.run("import", &[&store.tree().display().to_string()]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("/dir") && run.err.contains("is a directory"), "{}", run.err);
}
