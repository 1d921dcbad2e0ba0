//! Exit codes: what a script can act on, made of the kinds of errors.
//!
//! Every error type of the workspace says its kind ([`HasKind`]). An error that arrives here is a
//! chain: a context that says what was done, the error of the component that did it, and its
//! causes. Several of them may say a kind. The innermost that says more than "failed" decides,
//! because it is nearest to what happened: a fetcher that found no copy failed since each copy is
//! damaged.

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

/// The exit code of a command that ended with an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    // A finding has no kind, because the check that made it succeeded.
    if error.downcast_ref::<DamageFound>().is_some() {
        return DAMAGED;
    }
    let kinds = error.chain().filter_map(kind);
    // "Failed" is what every layer says that knows no better, so that it decides nothing.
    let telling = kinds.filter(|kind| *kind != ErrorKind::Failed).last();
    match telling {
        Some(ErrorKind::Damaged | ErrorKind::Missing) => DAMAGED,
        Some(ErrorKind::Busy) => BUSY,
        // These kinds differ for a user, but a script can only try again or give up.
        Some(
            ErrorKind::WrongKey
            | ErrorKind::Away
            | ErrorKind::Throttled { .. }
            | ErrorKind::Frozen { .. }
            | ErrorKind::Denied
            | ErrorKind::Conflict
            | ErrorKind::NoSpace
            | ErrorKind::Cancelled
            | ErrorKind::Failed,
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

/// The error with its causes, each said once: some components repeat the text of their causes.
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

/// Whether what reads the output has ended: it has seen enough.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    // The error of the system stands behind contexts, so that the whole chain is asked.
    let broken = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    fn port(kind: ErrorKind) -> PortError {
        PortError::new(kind, "the port's own text")
    }

    #[test]
    fn each_kind_has_its_code() {
        let table = [
            (ErrorKind::Damaged, DAMAGED),
            (ErrorKind::Missing, DAMAGED),
            (ErrorKind::WrongKey, FAILED),
            (ErrorKind::Busy, BUSY),
            (ErrorKind::Away, FAILED),
            (ErrorKind::Throttled { after: None }, FAILED),
            (ErrorKind::Denied, FAILED),
            (ErrorKind::Conflict, FAILED),
            (ErrorKind::Cancelled, FAILED),
            (ErrorKind::NoSpace, FAILED),
            (ErrorKind::Failed, FAILED),
        ];
        for (kind, wanted) in table {
            assert_eq!(code(&port(kind).into()), wanted, "{kind:?}");
            let in_context = Err::<(), _>(port(kind)).context("cannot do it").unwrap_err();
            assert_eq!(code(&in_context), wanted, "{kind:?} in a context");
        }
        assert_eq!(code(&anyhow!("no kind at all")), FAILED);
        assert_eq!(code(&DamageFound("two objects".into()).into()), DAMAGED);
    }

    #[test]
    fn the_innermost_kind_that_tells_something_decides() {
        let caused = |kind, cause| code(&port(kind).with_source(port(cause)).into());
        assert_eq!(caused(ErrorKind::Away, ErrorKind::Damaged), DAMAGED);
        assert_eq!(caused(ErrorKind::Damaged, ErrorKind::Busy), BUSY);
        assert_eq!(caused(ErrorKind::Damaged, ErrorKind::Failed), DAMAGED);
    }

    #[test]
    fn the_errors_of_all_crates_are_asked() {
        let of_crates: [(anyhow::Error, u8); 3] = [
            (FsError::Damaged { ino: None, damage: kvfs::Damage::LostChunk }.into(), DAMAGED),
            (FsError::NotFound.into(), FAILED),
            (PersistError::Cancelled.into(), FAILED),
        ];
        for (error, wanted) in of_crates {
            assert_eq!(code(&error), wanted, "{error}");
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow!("the disk is full").context("cannot write x: the disk is full");
        assert_eq!(message(&error), "cannot write x: the disk is full");
        let error = anyhow!("the disk is full").context("cannot write x");
        assert_eq!(message(&error), "cannot write x: the disk is full");
    }

    #[test]
    fn a_closed_pipe_is_told_apart() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::from(closed).context("cannot write")));
        assert!(!is_broken_pipe(&anyhow!("cannot write")));
    }
}
