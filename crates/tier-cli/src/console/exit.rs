//! Exit codes: what a script can act on.

use std::error::Error;
use std::io;

use kvfs::FsError;
use tier_agent::AgentError;
use tier_evict::EvictError;
use tier_index::IndexError;
use tier_log::LogError;
use tier_persist::PersistError;
use tier_rpc::RpcError;
use tier_status::StatusError;
use tier_store::StoreError;
use tier_types::{ErrorKind, HasKind, PortError};

pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const DAMAGED: u8 = 3;
pub(crate) const BUSY: u8 = 4;

/// Something is damaged or missing, found by a check that itself went well.
#[derive(Debug)]
pub(crate) struct DamageFound(pub(crate) String);

impl std::fmt::Display for DamageFound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for DamageFound {}

pub(crate) fn code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<DamageFound>().is_some() {
        return DAMAGED;
    }
    let kinds = error.chain().filter_map(kind);
    let telling = kinds.filter(|kind| *kind != ErrorKind::Failed).last();
    match telling {
        Some(ErrorKind::Damaged | ErrorKind::Missing) => DAMAGED,
        Some(ErrorKind::Busy) => BUSY,
        Some(
            ErrorKind::WrongKey | ErrorKind::Unavailable | ErrorKind::Cancelled | ErrorKind::Failed,
        )
        | None => FAILED,
    }
}

/// What an error says of itself. An error behind `dyn Error` cannot be asked for a trait, so that
/// the types are named here; what a kind is, each of them knows.
fn kind(error: &(dyn Error + 'static)) -> Option<ErrorKind> {
    fn ask<E: HasKind>(error: &(dyn Error + 'static)) -> Option<ErrorKind> {
        error.downcast_ref::<E>().map(HasKind::kind)
    }
    let types = [
        ask::<PortError>,
        ask::<FsError>,
        ask::<LogError>,
        ask::<StatusError>,
        ask::<IndexError>,
        ask::<PersistError>,
        ask::<EvictError>,
        ask::<AgentError>,
        ask::<RpcError>,
        ask::<StoreError>,
    ];
    types.iter().find_map(|ask| ask(error))
}

/// The error with its causes, each said once.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken)
}
