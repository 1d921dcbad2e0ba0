//! The fakes against the contracts that the real implementations keep, and what else they promise.

#[cfg(test)]
mod broken_filesystem;
#[cfg(test)]
mod broken_stores;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod stores;

#[cfg(test)]
/// Whether `check` fails, and says this.
#[track_caller]
pub(crate) fn assert_finds(sentence: &str, check: impl FnOnce()) {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).expect_err(sentence);
    let said = panic.downcast_ref::<String>().cloned();
    let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap();
    assert!(said.contains(sentence), "{sentence:?} was not found, but: {said}");
}
