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
        if error.kind().is_of_object() {
            return Ok(Self::of_object(object, &error));
        }
        Err(error)
    }

    /// The same of an error that is known to be of the object.
    pub(crate) fn of_object(object: &ObjectName, error: &PersistError) -> Self {
        let missing = error.kind() == ErrorKind::Missing;
        // As text: a report is cloned and compared, which an error with its causes cannot be.
        Self { object: object.to_string(), problem: error.to_string(), missing }
    }
}
