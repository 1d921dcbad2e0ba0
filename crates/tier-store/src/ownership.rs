//! The writer of an archive: what a store says of itself when it claims an epoch.

use tier_persist::{Claim, FilesystemId, Keys, WriterToken};
use tier_types::{Clock, Epoch};

/// The claim of a store on this machine.
pub(crate) fn claim(
    keys: &Keys,
    filesystem: FilesystemId,
    epoch: Epoch,
    writer: WriterToken,
    clock: &dyn Clock,
) -> Claim {
    let (machine, created, signer) = (machine(), clock.now(), keys.signer());
    Claim { filesystem, epoch, writer, machine, created, signer }
}

/// The name of this machine, for people.
fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
