//! The layers of `ARCHITECTURE.md`, enforced: between crates, and between the modules of a crate.

mod crates;
mod trees;

use std::path::Path;

use anyhow::{Result, bail};

use crate::source;

pub(crate) fn check(root: &Path) -> Result<()> {
    let crates = source::crates(root)?;
    let mut wrong = crates::problems(&crates)?;
    wrong.extend(trees::problems(&crates));
    if wrong.is_empty() {
        let n_modules: usize = crates.iter().map(|krate| krate.files.len()).sum();
        println!("==> layering: {} crates, {n_modules} modules in their layers", crates.len());
        return Ok(());
    }
    bail!("layering:\n  {}", wrong.join("\n  "))
}
