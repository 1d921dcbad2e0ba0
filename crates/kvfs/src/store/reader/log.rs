//! Reads of the log: the records that are not in a published segment yet.

use tier_log::LogRecord;
use tier_types::{Xid, XidRange};

use super::StoreReader;
use crate::FsError;
use crate::error::Damage;
use crate::store::keys::{self, META_LAST_XID, META_XID_FLOOR, Table};
use crate::store::rows;

impl<'a> StoreReader<'a> {
    /// The last transaction of all, published or not.
    pub(crate) fn last_xid(&self) -> Result<Xid, FsError> {
        let last = self.number(META_LAST_XID)?.map(Xid::new);
        last.ok_or_else(|| FsError::damaged_store(Damage::LastXid))
    }

    /// The filesystem begins behind this transaction.
    pub(crate) fn xid_floor(&self) -> Result<Xid, FsError> {
        let floor = self.number(META_XID_FLOOR)?.map(Xid::new);
        floor.ok_or_else(|| FsError::damaged_store(Damage::XidFloor))
    }

    /// A number about the filesystem as a whole; `None` if it cannot be read.
    fn number(&self, key: &[u8]) -> Result<Option<u64>, FsError> {
        let bytes = self.tables.get(Table::Meta, key)?;
        Ok(bytes.and_then(|bytes| rows::number_from_bytes(&bytes)))
    }

    /// The segments that are recorded as published and not as retired, in order.
    pub(crate) fn published_segments(&self) -> Result<Vec<XidRange>, FsError> {
        let segments = self.tables.scan(Table::Segments, &[], &keys::LAST)?.map(|pair| {
            let (key, value) = pair?;
            let ends = keys::parse_xid(&key).zip(rows::number_from_bytes(&value));
            let range = ends.and_then(|(last, first)| XidRange::new(Xid::new(first), last.next()));
            range.ok_or_else(|| FsError::damaged_store(Damage::SegmentRow))
        });
        segments.collect()
    }

    /// The transaction of the first record.
    pub(crate) fn first_logged(&self) -> Result<Option<Xid>, FsError> {
        let first = self.tables.scan(Table::Log, &[], &keys::LAST)?.next().transpose()?;
        first.map(|(key, _)| parse(&key)).transpose()
    }

    /// The transaction of the last record.
    pub(crate) fn last_logged(&self) -> Result<Option<Xid>, FsError> {
        let last = self.tables.last(Table::Log, &[], &keys::LAST)?;
        last.map(|(key, _)| parse(&key)).transpose()
    }

    /// The records from `from` on.
    pub(crate) fn log_from(
        &self,
        from: Xid,
    ) -> Result<impl Iterator<Item = Result<LogRecord, FsError>> + use<'a>, FsError> {
        let pairs = self.tables.scan(Table::Log, &keys::xid(from), &keys::LAST)?;
        Ok(pairs.map(|pair| {
            let (key, value) = pair?;
            Ok(LogRecord::from_bytes(parse(&key)?, &value)?)
        }))
    }

    /// The records of a range, of which none may be missing.
    pub(crate) fn log_of(
        &self,
        range: XidRange,
    ) -> Result<impl Iterator<Item = Result<LogRecord, FsError>> + use<'a>, FsError> {
        let (from, until) = (keys::xid(range.start()), keys::xid(range.end()));
        let mut pairs = self.tables.scan(Table::Log, &from, &until)?;
        Ok((range.start().get()..range.end().get()).map(move |number| {
            // A record too few and one too many look the same from here: another number comes.
            let missing = || FsError::damaged_store(Damage::LogRecords);
            let (key, value) = pairs.next().ok_or_else(missing)??;
            let xid = keys::parse_xid(&key).filter(|xid| xid.get() == number);
            Ok(LogRecord::from_bytes(xid.ok_or_else(missing)?, &value)?)
        }))
    }

    /// The transactions of all records, in order; `None` for a key that cannot be read.
    pub(crate) fn log_rows(
        &self,
    ) -> Result<impl Iterator<Item = Result<Option<Xid>, FsError>> + use<'a>, FsError> {
        let pairs = self.tables.scan(Table::Log, &[], &keys::LAST)?;
        Ok(pairs.map(|pair| Ok(keys::parse_xid(&pair?.0))))
    }
}

fn parse(key: &[u8]) -> Result<Xid, FsError> {
    keys::parse_xid(key).ok_or_else(|| FsError::damaged_store(Damage::LogKey))
}
