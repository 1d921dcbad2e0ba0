//! Integration tests of the whole life cycle, on real parts.
#![cfg_attr(
    test,
    expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::wildcard_enum_match_arm,
        reason = "small numbers made up here"
    )
)]

#[cfg(test)]
mod agent;
#[cfg(test)]
mod away;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod early;
#[cfg(test)]
mod edges;
#[cfg(test)]
mod fakes;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod history;
#[cfg(test)]
mod kinds;
#[cfg(test)]
mod lies;
#[cfg(test)]
mod life;
#[cfg(test)]
mod log_damage;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod recall;
#[cfg(test)]
mod rot;
#[cfg(test)]
mod stages;
