//! Thawing objects of a class that cannot be read at once.
//!
//! The library has no request for it, so that it is made and signed here, with the library's own
//! signature: S3's restore of an object and Azure's change of a blob's tier.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_RestoreObject.html>,
//! <https://learn.microsoft.com/rest/api/storageservices/set-blob-tier>.

use std::sync::Arc;

use http::Request;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::azure::{AzureAuthorizer, MicrosoftAzure};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::path::Path;

use super::refusal::Failure;
use super::url::RemoteUrl;

/// So long an object of S3 can be read when it was thawed: long enough that a recall of a large
/// tree, which is asked for again, finds what it asked for before.
const DAYS: u32 = 7;

/// Asks for an object to be thawed.
pub(super) struct Thawer {
    url: RemoteUrl,
    client: HttpClient,
    keys: Keys,
}

enum Keys {
    S3(Arc<AmazonS3>),
    Azure(Arc<MicrosoftAzure>),
}

impl Thawer {
    pub(super) fn of_s3(url: &RemoteUrl, client: HttpClient, keys: Arc<AmazonS3>) -> Self {
        Self { url: url.clone(), client, keys: Keys::S3(keys) }
    }

    pub(super) fn of_azure(url: &RemoteUrl, client: HttpClient, keys: Arc<MicrosoftAzure>) -> Self {
        Self { url: url.clone(), client, keys: Keys::Azure(keys) }
    }

    pub(super) async fn ask(&self, path: &Path) -> Result<(), Failure> {
        match self.ask_for(path, Some(DAYS)).await {
            // An object of a class that moves objects by itself stays thawed, and takes no number.
            Err(failure) if failure.is_unfit => self.ask_for(path, None).await,
            asked => asked,
        }
    }

    async fn ask_for(&self, path: &Path, days: Option<u32>) -> Result<(), Failure> {
        let mut request = self.request(path, days)?;
        match &self.keys {
            Keys::S3(client) => {
                let keys = client.credentials().get_credential().await;
                let keys = keys.map_err(|error| Failure::of(&error))?;
                let signed = AwsAuthorizer::new(&keys, "s3", self.url.region())
                    .try_authorize(&mut request, None);
                signed.map_err(|error| Failure::of(&error))?;
            }
            Keys::Azure(client) => {
                let keys = client.credentials().get_credential().await;
                let keys = keys.map_err(|error| Failure::of(&error))?;
                let authorizer = AzureAuthorizer::new(&keys, self.url.account());
                let signed = authorizer.try_authorize(&mut request);
                signed.map_err(|error| Failure::of(&error))?;
            }
        }
        let answered = self.client.execute(request).await;
        answered.map(drop).map_err(|error| Failure::of(&error))
    }

    fn request(&self, path: &Path, days: Option<u32>) -> Result<HttpRequest, Failure> {
        let place = self.url.object(path);
        let built = match self.keys {
            Keys::S3(_) => {
                let days = days.map_or(String::new(), |days| format!("<Days>{days}</Days>"));
                let body = format!(
                    "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                     {days}<GlacierJobParameters><Tier>Standard</Tier>\
                     </GlacierJobParameters></RestoreRequest>"
                );
                let request = Request::post(format!("{place}?restore="));
                request.header("content-length", body.len()).body(HttpRequestBody::from(body))
            }
            Keys::Azure(_) => Request::put(format!("{place}?comp=tier"))
                .header("x-ms-access-tier", "Hot")
                .header("content-length", 0)
                .body(HttpRequestBody::empty()),
        };
        built.map_err(|error| Failure::new(tier_types::ErrorKind::Failed, error.to_string()))
    }
}
