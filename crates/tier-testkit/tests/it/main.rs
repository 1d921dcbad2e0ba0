//! The fakes against the contracts that the real implementations keep, and what else they promise.

#[cfg(test)]
mod contract;
#[cfg(test)]
mod stores;
