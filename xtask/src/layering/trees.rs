//! Directories are layers: a file uses what stands at or below its own layer, and no modules use
//! each other in a circle.

use crate::source::{Crate, Modules};

/// The layers of a crate's modules from the bottom up; what stands in one line is one layer. A
/// crate without an entry has no layers, and no circles either.
const LAYERS: &[(&str, &[&[&str]])] = &[
    (
        "kvfs",
        &[
            &["error", "loss", "options", "sync"],
            &["store"],
            &["activity", "space"],
            &["tx"],
            &["access_times", "admission", "core", "freed", "reaping", "references", "unsynced"],
            &["ops"],
            &["reaper", "tier"],
            &["check"],
            &["fuse", "fuzzing"],
        ],
    ),
    (
        "tier-persist",
        &[
            &["damage", "error", "lost", "progress", "sync"],
            &["format"],
            &["read"],
            // Below the persister, which drives the index by the same code as a rebuild.
            &["derive"],
            &["write"],
            &["fuzzing"],
        ],
    ),
    (
        "tier-store",
        &[
            &["error", "layout"],
            &["cloud", "durable"],
            &["config"],
            &["identity", "lock", "ownership", "rebuilt"],
            &["create", "dir", "filesystem", "index_dirs", "room"],
            &["wiring"],
            &["store"],
            &["audit", "rebuild", "restore"],
            &["kept"],
            &["takeover"],
            &["clouds"],
        ],
    ),
    (
        "tier-cli",
        &[
            &["args", "console", "descriptors", "logging", "open_store"],
            &["context"],
            &["transfer"],
            &["command"],
            &["serve"],
        ],
    ),
];

pub(super) fn problems(crates: &[Crate]) -> Vec<String> {
    let mut wrong = Vec::new();
    for krate in crates {
        let modules = Modules::of(krate);
        for circle in modules.circles() {
            let names: Vec<_> = circle.iter().map(|module| module.join("::")).collect();
            wrong.push(format!("{}: a circle of modules: {}", krate.name, names.join(", ")));
        }
        if let Some((_, layers)) = LAYERS.iter().find(|(name, _)| *name == krate.name) {
            wrong.extend(upward(&krate.name, layers, &modules));
        }
    }
    wrong
}

/// Uses that lead to a layer above.
fn upward(name: &str, layers: &[&[&str]], modules: &Modules) -> Vec<String> {
    let layer = |module: &[String]| {
        let top = module.first()?;
        layers.iter().position(|layer| layer.contains(&top.as_str()))
    };
    let mut wrong = Vec::new();
    for (user, used) in &modules.edges {
        let Some(at) = layer(user) else {
            wrong.push(format!("{name}: {} has no place in the layers", user.join("::")));
            continue;
        };
        for used in used.iter().filter(|used| layer(used) > Some(at)) {
            wrong.push(format!("{name}: {} uses {}", user.join("::"), used.join("::")));
        }
    }
    wrong
}
