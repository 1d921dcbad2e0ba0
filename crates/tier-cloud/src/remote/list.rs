//! Listing: pages of names in the order of their bytes, also of a store that has another order.
//!
//! A store that keeps its objects in directories lists `a/b` before `a-b`. Where such a page is met
//! the store is listed as a whole from then on, and sorted here. A listing goes on with the store's
//! own mark of where it was, so that no name can be passed over between two pages whatever the
//! order is; a page that goes back behind the one before tells that the order is another one.

use std::sync::atomic::{AtomicBool, Ordering};

use object_store::list::PaginatedListOptions;
use parking_lot::Mutex;
use tier_types::{Call, ErrorKind, ListPage, ListedObject, ObjectName};

use super::bucket::Bucket;
use super::refusal::Failure;
use super::url::Provider;

/// Listings that are under way at a time and are gone on with by the store's own mark.
const N_MARKS_MAX: usize = 16;

/// What is known of a store's listings.
#[derive(Debug, Default)]
pub(super) struct Listings {
    is_unordered: AtomicBool,
    marks: Mutex<Vec<Mark>>,
}

/// Where a listing goes on.
#[derive(Debug)]
struct Mark {
    prefix: String,
    after: ObjectName,
    token: String,
}

impl Listings {
    fn remember(&self, prefix: &str, after: ObjectName, token: String) {
        let mut marks = self.marks.lock();
        // The newest one counts: a store may forget an old one.
        marks.retain(|mark| mark.prefix != prefix || mark.after != after);
        if marks.len() == N_MARKS_MAX {
            marks.remove(0);
        }
        assert!(marks.len() < N_MARKS_MAX, "marks are few");
        marks.push(Mark { prefix: prefix.to_owned(), after, token });
    }

    fn take(&self, prefix: &str, after: &ObjectName) -> Option<String> {
        let mut marks = self.marks.lock();
        let found = marks.iter().position(|mark| mark.prefix == prefix && mark.after == *after)?;
        Some(marks.remove(found).token)
    }
}

/// Where a request begins.
enum From<'a> {
    Name(Option<&'a ObjectName>),
    Token(String),
}

/// Objects in the store's own order, and where it goes on.
async fn ask(
    bucket: &Bucket,
    call: &Call<'_>,
    prefix: &str,
    from: From<'_>,
) -> Result<(Vec<ListedObject>, Option<String>), Failure> {
    let root = bucket.root();
    let mut start = format!("{root}{prefix}");
    // The library leaves out an object of Azure whose whole name is the prefix.
    if bucket.url.provider == Provider::Azure {
        start.pop();
    }
    let start = (!start.is_empty()).then_some(start.as_str());
    let (offset, page_token) = match from {
        From::Name(after) => (after.map(|after| format!("{root}{after}")), None),
        From::Token(token) => (None, Some(token)),
    };
    let options = || PaginatedListOptions {
        offset: offset.clone(),
        page_token: page_token.clone(),
        ..PaginatedListOptions::default()
    };
    let page = bucket.attempts.run(call, || async {
        let listed = bucket.clients.backend.list_paginated(start, options()).await;
        listed.map_err(|error| Failure::of(&error))
    });
    let page = page.await?;
    if page.page_token.is_some() && page.page_token == page_token {
        return Err(Failure::new(ErrorKind::Failed, "the listing does not go on"));
    }
    let listed = page.result.objects.into_iter().filter_map(|object| {
        // What others keep in the bucket has no place in the port.
        let name = ObjectName::new(object.location.as_ref().strip_prefix(&root)?)?;
        let listed = ListedObject { name, len_bytes: object.size };
        listed.name.as_str().starts_with(prefix).then_some(listed)
    });
    Ok((listed.collect(), page.page_token))
}

/// A page of names that come behind one.
pub(super) async fn page(
    bucket: &Bucket,
    listings: &Listings,
    call: &Call<'_>,
    prefix: &str,
    after: Option<&ObjectName>,
) -> Result<ListPage, Failure> {
    let known = after.and_then(|after| Some((after, listings.take(prefix, after)?)));
    let is_continued = known.is_some();
    let mut from = match &known {
        Some((_, token)) => From::Token(token.clone()),
        // A server of another kind may know another order, in which a name is no place to begin.
        None if bucket.url.parameter("endpoint").is_some() => From::Name(None),
        None => From::Name(after),
    };
    loop {
        if listings.is_unordered.load(Ordering::Relaxed) {
            return whole(bucket, call, prefix, after).await;
        }
        let asked = ask(bucket, call, prefix, from).await;
        if let (Err(failure), Some((after, token))) = (&asked, &known)
            && failure.may_pass()
        {
            // It is asked again from there. A mark that the store does not know any more is not.
            listings.remember(prefix, (*after).clone(), token.clone());
        }
        let (objects, token) = asked?;
        let is_behind = |object: &ListedObject| after.is_none_or(|after| object.name > *after);
        // A store that does not know where to begin begins at the start, and that is no disorder.
        let goes_back = is_continued && !objects.iter().all(is_behind);
        if !objects.is_sorted() || goes_back {
            tracing::info!(url = %bucket.url, "the cloud lists names in an order of its own");
            listings.is_unordered.store(true, Ordering::Relaxed);
            if is_continued {
                let text = "names are not listed in order; the listing is to be begun again";
                return Err(Failure::new(ErrorKind::Away, text));
            }
        }
        let objects: Vec<_> = objects.into_iter().filter(is_behind).collect();
        let is_unordered = listings.is_unordered.load(Ordering::Relaxed);
        assert!(is_unordered || objects.is_sorted(), "a page that is not is not given out");
        match (token, objects.last()) {
            _ if is_unordered => from = From::Name(None),
            (None, _) => return Ok(ListPage { objects, is_last: true }),
            (Some(token), Some(last)) => {
                listings.remember(prefix, last.name.clone(), token);
                return Ok(ListPage { objects, is_last: false });
            }
            // Of this page nothing comes behind the name.
            (Some(token), None) => from = From::Token(token),
        }
    }
}

/// All names that come behind one, sorted here.
async fn whole(
    bucket: &Bucket,
    call: &Call<'_>,
    prefix: &str,
    after: Option<&ObjectName>,
) -> Result<ListPage, Failure> {
    let mut all = Vec::new();
    let mut from = From::Name(None);
    loop {
        let (objects, token) = ask(bucket, call, prefix, from).await?;
        let behind = |object: &ListedObject| after.is_none_or(|after| object.name > *after);
        all.extend(objects.into_iter().filter(behind));
        match token {
            Some(token) => from = From::Token(token),
            None => break,
        }
    }
    all.sort();
    // A name that came while the pages were read may be on two of them.
    all.dedup_by(|one, other| one.name == other.name);
    Ok(ListPage { objects: all, is_last: true })
}
