//! Copies of an object: where one store lacks it or has it damaged, another one may help.

use tier_types::{ErrorKind, HasKind, ObjectStore};

use crate::error::PersistError;
use crate::read::small::is_of_the_object;

/// What `read` makes of the first of these stores from which it can read all. What it has done with
/// another one before is done again. If no copy helps, the error is that which says most.
pub(crate) fn first_whole<'s, T>(
    stores: &'s [&'s dyn ObjectStore],
    mut read: impl FnMut(&'s &'s dyn ObjectStore) -> Result<T, PersistError>,
) -> Result<T, PersistError> {
    let mut why: Option<PersistError> = None;
    for store in stores {
        match read(store) {
            Err(error) if says_something_of_a_copy(&error) => {
                if why.as_ref().is_none_or(|before| weight(&error) > weight(before)) {
                    why = Some(error);
                }
            }
            // Read, or an error with which no other copy helps.
            read => return read,
        }
    }
    Err(why.unwrap_or_else(|| PersistError::Missing("a store for the archive".into())))
}

fn says_something_of_a_copy(error: &PersistError) -> bool {
    is_of_the_object(error) || matches!(error, PersistError::Store(_))
}

/// A store that is away may have it, and one that has it damaged says more than one that has not.
fn weight(error: &PersistError) -> u8 {
    if error.kind() == ErrorKind::Missing {
        0
    } else if is_of_the_object(error) {
        1
    } else {
        2
    }
}

#[cfg(test)]
mod tests {
    use tier_testkit::MemoryStore;
    use tier_types::PortError;

    use super::*;

    #[test]
    fn another_copy_helps_and_what_is_told_is_what_says_most() {
        let (a, b, c) = (MemoryStore::default(), MemoryStore::default(), MemoryStore::default());
        let stores: [&dyn ObjectStore; 3] = [&a, &b, &c];
        let answer = |kinds: [Option<ErrorKind>; 3]| {
            let mut kinds = kinds.into_iter();
            first_whole(&stores, |_| match kinds.next().flatten() {
                None => Ok(()),
                Some(kind) => Err(PersistError::Store(PortError::new(kind, "no"))),
            })
        };
        let (missing, damaged, away) =
            (Some(ErrorKind::Missing), Some(ErrorKind::Damaged), Some(ErrorKind::Away));
        answer([missing, away, None]).unwrap();
        let kind = |kinds| answer(kinds).unwrap_err().kind();
        assert_eq!(kind([missing, missing, missing]), ErrorKind::Missing);
        assert_eq!(kind([missing, damaged, missing]), ErrorKind::Damaged);
        assert_eq!(kind([damaged, away, missing]), ErrorKind::Away);
    }

    #[test]
    fn an_error_that_is_not_of_a_copy_ends_it() {
        let (a, b) = (MemoryStore::default(), MemoryStore::default());
        let stores: [&dyn ObjectStore; 2] = [&a, &b];
        let mut n_read = 0;
        let read = first_whole(&stores, |_| {
            n_read += 1;
            Err::<(), _>(PersistError::Cancelled)
        });
        assert_eq!((read.unwrap_err().kind(), n_read), (ErrorKind::Cancelled, 1));
    }
}
