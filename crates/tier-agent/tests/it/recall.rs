//! The way back through real parts: an index, tarballs and a store that breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tier_agent::{Recaller, RecallerOptions};
use tier_persist::{Fetcher, FetcherOptions};
use tier_testkit::MemoryStore;
use tier_types::{
    Call, ChunkRange, ErrorKind, FileKind, Ino, LogReader, ObjectName, ObjectStore, PortError,
    RangeRead, Recall, RecallRequest, StoreLayer, Xid,
};

use crate::harness::{Harness, file_name, node};

/// A store in which the first read panics, as a bug in a provider's library would.
struct PanickingStore {
    inner: Arc<MemoryStore>,
    panics: AtomicBool,
}

impl StoreLayer for PanickingStore {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "told to");
        self.inner.read_ranges(call, name, ranges)
    }
}

#[test]
fn a_panic_while_fetching_fails_that_recall_and_no_other() {
    let harness = Harness::new();
    let attr =
        harness.fs().create_node(Ino::ROOT, &file_name("f"), &node(FileKind::Regular, 0o644));
    let ino = attr.unwrap().ino;
    harness.fs().write(ino, 0, &[7; 1000]).unwrap();
    let data_xid = harness.fs().last_xid();
    harness.snapshot().unwrap();

    let panics = AtomicBool::new(true);
    let store = PanickingStore { inner: harness.memory.clone(), panics };
    let options = FetcherOptions { cache_bytes: 20_000, n_tarballs: 2 };
    let (index, keys) = (Arc::clone(&harness.live().index), Arc::clone(&harness.keys));
    let fetcher = Fetcher::new(harness.filesystem, index, keys, vec![Arc::new(store)], options);
    // One thread: if the panic ended it, nothing would come any more.
    let options = RecallerOptions { n_threads: 1, ..RecallerOptions::default() };
    let recaller = Recaller::start(fetcher, options).unwrap();
    let request = RecallRequest { ino, chunks: ChunkRange::ALL, data_xid };

    let error = recaller.recall(&request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
    assert!(error.to_string().contains("told to"), "{error}");
    assert_eq!(recaller.recall(&request).unwrap().bytes(), [7; 1000]);
    let unknown = RecallRequest { data_xid: Xid::new(9999), ..request };
    assert_eq!(recaller.recall(&unknown).unwrap_err().kind(), ErrorKind::Missing);
}
