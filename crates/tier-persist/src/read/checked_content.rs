//! Content that is compared while it is read: what is copied from store to store must be what was
//! written.

use parking_lot::Mutex;
use tier_types::{Call, ErrorKind, ObjectContent, ObjectStore, PortError, to_u64};

use crate::format::digest::ContentStream;
use crate::read::link::StoredObject;

/// An object of a store as the content of another one's, which ends with an error of kind `Damaged`
/// if it is not what it must be. So an object that rotted where it lies is told apart from one that
/// rotted where it was put, and is not put at all.
///
/// Its bytes are compared if they are read in order, as often as a store likes; one that is read in
/// another order is not, and is left to what reads it back.
pub struct CheckedContent<'a> {
    store: &'a dyn ObjectStore,
    object: &'a StoredObject,
    /// What was read from the start on.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    len_bytes: u64,
    stream: ContentStream,
    /// All of it was what it must be.
    is_whole: bool,
}

impl std::fmt::Debug for CheckedContent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckedContent").field("object", &self.object.name).finish_non_exhaustive()
    }
}

impl<'a> CheckedContent<'a> {
    /// The object as this store has it.
    pub fn new(store: &'a dyn ObjectStore, object: &'a StoredObject) -> Self {
        Self { store, object, seen: Mutex::default() }
    }

    /// Whether all of it was read in order, and was what it must be. If not, only what reads back
    /// what was put can tell.
    pub fn was_compared(&self) -> bool {
        self.seen.lock().is_whole
    }

    fn damaged(&self) -> PortError {
        let (name, url) = (&self.object.name, self.store.url());
        PortError::new(
            ErrorKind::Damaged,
            format!("{name} in {url} is damaged: its digest is wrong"),
        )
    }
}

impl ObjectContent for CheckedContent<'_> {
    fn len_bytes(&self) -> u64 {
        self.object.content.len_bytes
    }

    fn read_at(
        &self,
        call: &Call<'_>,
        offset_bytes: u64,
        buffer: &mut [u8],
    ) -> Result<(), PortError> {
        self.store.read_range(call, &self.object.name, offset_bytes, buffer)?;
        let mut seen = self.seen.lock();
        if seen.len_bytes == offset_bytes && !buffer.is_empty() {
            seen.stream.update(buffer);
            seen.len_bytes += to_u64(buffer.len());
            if seen.len_bytes == self.object.content.len_bytes {
                seen.is_whole = std::mem::take(&mut seen.stream).finish() == self.object.content;
                if !seen.is_whole {
                    // Read once more from the start, it is compared once more.
                    seen.len_bytes = 0;
                    return Err(self.damaged());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tier_testkit::MemoryStore;
    use tier_types::ObjectName;

    use super::*;
    use crate::format::digest::ContentDigest;

    #[test]
    fn what_rotted_where_it_lies_is_told_before_it_is_put() {
        let (from, to, call) = (MemoryStore::default(), MemoryStore::default(), Call::bulk());
        let bytes: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
        let name = ObjectName::new("a").unwrap();
        from.put(&call, &name, &bytes.as_slice()).unwrap();
        let object = StoredObject { name: name.clone(), content: ContentDigest::of(&bytes) };
        to.put(&call, &name, &CheckedContent::new(&from, &object)).unwrap();
        to.delete(&call, &name, None).unwrap();
        from.tamper(&name, |bytes| bytes[50_000] ^= 1);
        let error = to.put(&call, &name, &CheckedContent::new(&from, &object)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert_eq!(to.names(&call, "").unwrap(), [], "nothing was put");
    }

    #[test]
    fn what_is_read_twice_or_in_another_order_is_no_damage() {
        let (store, call) = (MemoryStore::default(), Call::bulk());
        let name = ObjectName::new("a").unwrap();
        store.put(&call, &name, &&[7; 100][..]).unwrap();
        let object = StoredObject { name, content: ContentDigest::of(&[7; 100]) };
        let content = CheckedContent::new(&store, &object);
        for (offset, len) in [(0, 60), (0, 60), (60, 40), (50, 50), (0, 10)] {
            content.read_at(&call, offset, &mut vec![0; len]).unwrap();
        }
        assert!(content.was_compared());
        let content = CheckedContent::new(&store, &object);
        for (offset, len) in [(60, 40), (0, 60)] {
            content.read_at(&call, offset, &mut vec![0; len]).unwrap();
            assert!(!content.was_compared(), "the end came before the start");
        }
    }
}
