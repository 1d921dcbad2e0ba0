//! A store over a filesystem that is not kvfs: opened, shared, damaged, restored.

#[cfg(test)]
mod harness;
#[cfg(test)]
mod history;
#[cfg(test)]
mod life;
#[cfg(test)]
mod ownership;
#[cfg(test)]
mod races;
#[cfg(test)]
mod refusals;
