//! Integration tests of eviction passes, on a filesystem and a log in memory.

#[cfg(test)]
mod candidates;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod instance;
#[cfg(test)]
mod pass;
#[cfg(test)]
mod stub;
