//! Integration tests of the program, as its users run it.

#[cfg(test)]
mod archive;
#[cfg(test)]
mod checkpoint;
#[cfg(test)]
mod cloud;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod endless;
#[cfg(test)]
mod far;
#[cfg(test)]
mod fragile_disk;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod import;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod life;
#[cfg(test)]
mod logging;
#[cfg(test)]
mod loss;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod mount;
#[cfg(test)]
mod no_copy;
#[cfg(test)]
mod ownership;
#[cfg(test)]
mod posix;
#[cfg(test)]
mod power;
#[cfg(test)]
mod python;
#[cfg(test)]
mod random;
#[cfg(test)]
mod references;
#[cfg(test)]
mod remote;
#[cfg(test)]
mod repair;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod space;
#[cfg(test)]
mod texts;
#[cfg(test)]
mod twins;
#[cfg(test)]
mod upload_kills;
#[cfg(test)]
mod work;
