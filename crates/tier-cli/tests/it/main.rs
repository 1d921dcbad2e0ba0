//! Integration tests of the program, as its users run it.

#[cfg(test)]
mod damage;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod import;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod life;
#[cfg(test)]
mod mount;
