//! Integration tests of the operation log.

#[cfg(test)]
mod changes;
#[cfg(test)]
mod segment;
