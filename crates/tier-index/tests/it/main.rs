//! Integration tests of the index.

#[cfg(test)]
mod apply;
