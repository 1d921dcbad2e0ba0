//! A store over a filesystem that is not kvfs: opened, shared, damaged, restored.

#[cfg(test)]
mod harness;
#[cfg(test)]
mod life;
#[cfg(test)]
mod ownership;
#[cfg(test)]
mod refusals;
