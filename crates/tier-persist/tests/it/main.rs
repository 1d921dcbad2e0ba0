//! Integration tests of tarballs, manifests and what is read from them.
#![cfg_attr(
    test,
    expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "small test data")
)]

#[cfg(test)]
mod checkpoint;
#[cfg(test)]
mod common;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod faulty;
#[cfg(test)]
mod fetch;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod persist;
#[cfg(test)]
mod read_ahead;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod restores;
#[cfg(test)]
mod salvage;
#[cfg(test)]
mod standards;
