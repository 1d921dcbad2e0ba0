//! What is logged, by the flags and by `RUST_LOG`.

use crate::harness::{Run, Store, command};

/// Runs a command with what is logged on standard error.
fn logged(store: &Store, flags: &[&str], rust_log: Option<&str>) -> String {
    let mut command = command(&[flags, &["status", &store.path()]].concat());
    match rust_log {
        Some(value) => command.env("RUST_LOG", value),
        None => command.env_remove("RUST_LOG"),
    };
    let run = Run::of(&command.env("NO_COLOR", "1").output().unwrap());
    assert_eq!(run.code, 0, "{}", run.err);
    run.err
}

#[test]
fn rust_log_wins_over_the_flags() {
    let store = Store::new(&[]);
    assert_eq!(logged(&store, &[], None), "");
    assert!(logged(&store, &["-vv"], None).contains("DEBUG opening the store"));
    assert!(!logged(&store, &["-v"], None).contains("DEBUG"));
    assert_eq!(logged(&store, &["-vv"], Some("error")), "");
    assert!(logged(&store, &["-q"], Some("tier=debug")).contains("DEBUG opening the store"));
    assert_eq!(logged(&store, &[], Some("")), "");
    let said = logged(&store, &[], Some("tier=loud"));
    assert!(said.contains("WARN") && said.contains("RUST_LOG"), "{said}");
}
