//! Integration tests of the index.

#[cfg(test)]
mod apply;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod replace;
