//! The sources of the workspace, parsed.
//!
//! Rules that need more than text (which module uses which, how many assertions there are, what a
//! signature looks like) work on syntax trees, so that a string or a comment is never taken for
//! code. Code under `#[cfg(test)]` is told apart: it may use what it likes.

mod files;
mod modules;

pub(crate) use files::{Crate, SourceFile, crates, files_of, is_for_tests, read};
pub(crate) use modules::Modules;
