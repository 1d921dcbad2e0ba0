//! Object stores against the port's contract.

#[cfg(test)]
mod dir;
#[cfg(test)]
mod network;
#[cfg(test)]
mod remote;
