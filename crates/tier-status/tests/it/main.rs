//! Integration tests of status logs.

#[cfg(test)]
mod log;
