//! What is put into a store.

use crate::{PortError, to_u64, to_usize};

use super::call::Call;

/// The bytes of an object that is to be put. They can be read again from any place, so that a store
/// sends a part of them once more without asking its caller.
pub trait ObjectContent: Send + Sync {
    /// How many there are.
    fn len_bytes(&self) -> u64;

    /// Fills `buffer` from `offset_bytes` on. A range beyond the end is the caller's mistake, and
    /// content that ends too early an error.
    fn read_at(
        &self,
        call: &Call<'_>,
        offset_bytes: u64,
        buffer: &mut [u8],
    ) -> Result<(), PortError>;
}

impl ObjectContent for &[u8] {
    fn len_bytes(&self) -> u64 {
        to_u64(self.len())
    }

    #[expect(clippy::expect_used, reason = "a range beyond the end is the caller's mistake")]
    fn read_at(&self, _: &Call<'_>, offset_bytes: u64, buffer: &mut [u8]) -> Result<(), PortError> {
        let start = to_usize(offset_bytes);
        let range = self.get(start..start + buffer.len()).expect("a range within the content");
        buffer.copy_from_slice(range);
        Ok(())
    }
}
