//! Damage as a value: what a scan, a rebuild or a verification found to be wrong, to be listed
//! rather than to end the work.

use tier_types::{ErrorKind, HasKind, ObjectName};

use crate::error::PersistError;

/// One object that is not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The object's name.
    pub object: String,
    /// What is wrong with it, and where in it.
    pub problem: String,
    /// Whether it is not there at all.
    pub missing: bool,
}

impl Damage {
    /// The error as damage of an object. An error of another kind (the store is away, the key does
    /// not fit) says nothing about the object and stays an error.
    pub(crate) fn of(object: &ObjectName, error: PersistError) -> Result<Self, PersistError> {
        let missing = error.kind() == ErrorKind::Missing;
        if missing || error.kind() == ErrorKind::Damaged {
            // As text: a report is cloned and compared, which an error with its causes cannot be.
            let (object, problem) = (object.to_string(), error.to_string());
            return Ok(Self { object, problem, missing });
        }
        Err(error)
    }
}
