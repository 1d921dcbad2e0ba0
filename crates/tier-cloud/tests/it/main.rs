//! Object stores against the port's contract.

#[cfg(test)]
mod dir;
mod remote;
