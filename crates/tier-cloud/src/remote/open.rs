//! The client of a provider for a URL.
//!
//! The URL says which place, the environment the keys, roles and proxies, by the variables
//! that each provider's own programs read. What the environment says of the place is not looked at
//! here, for the URL has it already.

use std::ffi::OsString;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::HttpConnector;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, HeaderMap, HeaderValue, RetryConfig,
};
use tier_types::{ErrorKind, PortError};

use super::refusal::Failure;
use super::thaw::Thawer;
use super::url::{Provider, RemoteUrl};
use super::wire::Connector;

const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Connections are kept for the next burst, and closed before servers close them.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// What is asked of the library.
pub(super) trait Backend:
    object_store::ObjectStore + MultipartStore + PaginatedListStore
{
}

impl<B: object_store::ObjectStore + MultipartStore + PaginatedListStore> Backend for B {}

/// The clients of a place.
#[derive(Clone)]
pub(super) struct Clients {
    pub(super) backend: Arc<dyn Backend>,
    /// Asks for what the store knows of an object: its checksum as well.
    pub(super) asker: Arc<dyn Backend>,
    /// `None` at a provider that has no class of frozen objects.
    pub(super) thawer: Option<Arc<Thawer>>,
}

/// Names and values of variables of the environment.
pub(super) type Variables = [(String, String)];

/// Those of this process.
pub(super) fn variables() -> Vec<(String, String)> {
    let text = |text: OsString| text.into_string().ok();
    std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

pub(super) fn open(
    url: &RemoteUrl,
    variables: &Variables,
    connector: &Connector,
) -> Result<Clients, PortError> {
    if url.provider == Provider::Azure && url.parameter("account").is_none() {
        let message = format!(
            "{url} names no account: add ?account=NAME to it, or set AZURE_STORAGE_ACCOUNT_NAME"
        );
        return Err(PortError::new(ErrorKind::Failed, message));
    }
    let opened = match url.provider {
        Provider::S3 => s3(url, variables, connector),
        Provider::Gcs => gcs(url, variables, connector).map(Clients::of_one),
        Provider::Azure => azure(url, variables, connector),
    };
    opened.map_err(|error| {
        let message = format!("cannot use {url}: {}", Failure::of(&error).text);
        PortError::new(ErrorKind::Failed, message)
    })
}

impl Clients {
    fn of_one(backend: Arc<dyn Backend>) -> Self {
        Self { asker: Arc::clone(&backend), backend, thawer: None }
    }
}

fn s3(
    url: &RemoteUrl,
    variables: &Variables,
    connector: &Connector,
) -> object_store::Result<Clients> {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-checksum-mode", HeaderValue::from_static("ENABLED"));
    let options = client_options(url, variables)?;
    let settings = settings(variables, "AWS_", |key| is_no_place_s3(*key));
    let builder =
        settings.fold(AmazonS3Builder::new(), |b, (key, value)| b.with_config(key, value));
    let mut builder = builder
        .with_bucket_name(&url.bucket)
        .with_region(url.region())
        .with_virtual_hosted_style_request(url.parameter("style") == Some("virtual"))
        // The store compares what arrives with it.
        .with_checksum_algorithm(Checksum::SHA256)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_tagging(true)
        // A single deletion is known to everything that speaks S3.
        .with_disable_bulk_delete(true)
        .with_retry(no_retry())
        .with_http_connector(connector.clone());
    if let Some(endpoint) = url.parameter("endpoint") {
        builder = builder.with_endpoint(endpoint);
    }
    let asker = builder.clone().with_client_options(options.clone().with_default_headers(headers));
    let client = connector.connect(&options)?;
    let backend = Arc::new(builder.with_client_options(options).build()?);
    let thawer = Thawer::of_s3(url, client, Arc::clone(&backend));
    Ok(Clients { backend, asker: Arc::new(asker.build()?), thawer: Some(Arc::new(thawer)) })
}

fn is_no_place_s3(key: AmazonS3ConfigKey) -> bool {
    !matches!(
        key,
        AmazonS3ConfigKey::Region
            | AmazonS3ConfigKey::DefaultRegion
            | AmazonS3ConfigKey::Bucket
            | AmazonS3ConfigKey::Endpoint
            | AmazonS3ConfigKey::S3Endpoint
            | AmazonS3ConfigKey::VirtualHostedStyleRequest
            | AmazonS3ConfigKey::Client(_)
    )
}

fn gcs(
    url: &RemoteUrl,
    variables: &Variables,
    connector: &Connector,
) -> object_store::Result<Arc<dyn Backend>> {
    let settings = settings(variables, "GOOGLE_", |key| {
        let of_place = [GoogleConfigKey::Bucket, GoogleConfigKey::BaseUrl];
        !of_place.contains(key) && !matches!(key, GoogleConfigKey::Client(_))
    });
    let builder = GoogleCloudStorageBuilder::new();
    let mut builder = settings.fold(builder, |b, (key, value)| b.with_config(key, value));
    builder = builder
        .with_bucket_name(&url.bucket)
        .with_client_options(client_options(url, variables)?)
        .with_retry(no_retry())
        .with_http_connector(connector.clone());
    if let Some(endpoint) = url.parameter("endpoint") {
        builder = builder.with_base_url(endpoint);
    }
    Ok(Arc::new(builder.build()?))
}

fn azure(
    url: &RemoteUrl,
    variables: &Variables,
    connector: &Connector,
) -> object_store::Result<Clients> {
    let of_place =
        [AzureConfigKey::AccountName, AzureConfigKey::ContainerName, AzureConfigKey::Endpoint];
    let settings = settings(variables, "AZURE_", |key| {
        !of_place.contains(key) && !matches!(key, AzureConfigKey::Client(_))
    });
    let builder = MicrosoftAzureBuilder::new();
    let mut builder = settings.fold(builder, |b, (key, value)| b.with_config(key, value));
    builder = builder
        .with_container_name(&url.bucket)
        .with_client_options(client_options(url, variables)?)
        .with_retry(no_retry())
        .with_disable_tagging(true)
        .with_http_connector(connector.clone());
    if let Some(account) = url.parameter("account") {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = url.parameter("endpoint") {
        builder = builder.with_endpoint(endpoint.to_owned());
    }
    let client = connector.connect(&client_options(url, variables)?)?;
    let backend = Arc::new(builder.build()?);
    let thawer = Thawer::of_azure(url, client, Arc::clone(&backend));
    Ok(Clients { thawer: Some(Arc::new(thawer)), ..Clients::of_one(backend) })
}

/// What the environment says of keys and the like.
fn settings<K: FromStr>(
    variables: &Variables,
    start: &str,
    is_wanted: impl Fn(&K) -> bool,
) -> impl Iterator<Item = (K, String)> {
    let ours = variables.iter().filter(move |(name, _)| name.starts_with(start));
    // What is not known to the library is another program's.
    let known = ours
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.clone())));
    known.filter(move |(key, _)| is_wanted(key))
}

fn client_options(url: &RemoteUrl, variables: &Variables) -> object_store::Result<ClientOptions> {
    let is_plain =
        url.parameter("endpoint").is_some_and(|endpoint| endpoint.starts_with("http://"));
    // How long an answer may take depends on what it carries: requests are timed one by one.
    let mut options = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIME)
        .with_pool_idle_timeout(IDLE_TIME)
        .with_http1_only()
        .with_allow_http(is_plain);
    if let Some((_, path)) = variables.iter().find(|(name, _)| name == "AWS_CA_BUNDLE") {
        let read = std::fs::read(path).map_err(|source| object_store::Error::Generic {
            store: "AWS_CA_BUNDLE",
            source: format!("{path}: {source}").into(),
        })?;
        for certificate in Certificate::from_pem_bundle(&read)? {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

/// What is repeated, and how often, is decided outside the library.
fn no_retry() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: CONNECT_TIME, backoff: BackoffConfig::default() }
}
