//! The demo: all comparisons hold, and its numbers are explained.

use std::fs;
use std::path::Path;

use crate::harness::{Store, tier};

#[test]
fn a_demo_compares_and_explains() {
    let store = Store::new(&[]);
    let (tree, work) = (store.tree().display().to_string(), store.at("work"));
    let text = tier(&["demo", &tree, "--work-dir", &work]).ok();
    assert!(text.starts_with(&format!("Taking {tree}.\n")), "{text}");
    assert!(text.ends_with("\nEvery comparison held.\n"), "{text}");
    for row in ["compared", "compression", "space", "cold read"] {
        assert!(text.contains(&format!("\n  {row} ")), "{row}: {text}");
    }
    assert_eq!(fs::read_dir(&work).unwrap().count(), 0, "nothing is left");

    let json = tier(&["demo", &tree, "--work-dir", &work, "--keep", "--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    // Seven files, one of them by two names, and two directories.
    assert_eq!(json["compared"], 9, "{json}");
    assert!(json["first_byte_seconds"].is_f64(), "{json}");
    let kept = fs::read_dir(&work).unwrap().next().unwrap().unwrap().path();
    assert!(kept.join("store/tier.toml").exists());
}

#[test]
fn a_demo_does_not_import_its_own_store() {
    let store = Store::new(&[]);
    let tree = store.tree().display().to_string();
    let work = store.tree().join("work").display().to_string();
    let run = tier(&["demo", &tree, "--work-dir", &work]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("--work-dir elsewhere"), "{}", run.err);
    assert_eq!(fs::read_dir(Path::new(&work)).unwrap().count(), 0);
}
