//! Answers of a filesystem that was asked about many inodes at once.

use tier_types::{ErrorKind, PortError};

/// The answers, of which each is there or is damage of what it is about; an error if the filesystem
/// as a whole could not answer, or if there is not one for each question.
pub(crate) fn answered<T>(
    n_asked: usize,
    answers: Vec<Result<T, PortError>>,
) -> Result<Vec<Result<T, PortError>>, PortError> {
    let n_answers = answers.len();
    let is_of_one = |error: &PortError| error.kind() == ErrorKind::Damaged;
    let checked = answers.into_iter().map(|answer| match answer {
        Err(error) if !is_of_one(&error) => Err(error),
        answer => Ok(answer),
    });
    let checked: Vec<_> = checked.collect::<Result<_, _>>()?;
    // They are told apart by their places: with one too few each would be taken for another's.
    if n_answers != n_asked {
        let message =
            format!("the filesystem was asked {n_asked} questions and gave {n_answers} answers");
        return Err(PortError::new(ErrorKind::Failed, message));
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind) -> PortError {
        PortError::new(kind, "told to fail")
    }

    #[test]
    fn damage_is_an_answer_and_any_other_error_is_the_end() {
        let answers = vec![Ok(1), Err(error(ErrorKind::Damaged)), Ok(3)];
        let checked = answered(3, answers).unwrap();
        assert_eq!(checked.iter().filter(|answer| answer.is_ok()).count(), 2);
        // A filesystem that failed as a whole may answer no more.
        let failed = answered(3, vec![Ok(1), Err(error(ErrorKind::NoSpace))]);
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::NoSpace);
    }

    #[test]
    fn answers_that_are_not_one_for_each_question_are_an_error() {
        for n_answers in [0, 1, 3] {
            let answers = (0..n_answers).map(Ok).collect();
            assert_eq!(answered(2, answers).unwrap_err().kind(), ErrorKind::Failed);
        }
    }
}
