//! Where a cloud is: a bucket or container, a prefix in it, and the service that has it.
//!
//! ```text
//! s3://BUCKET[/PREFIX][?endpoint=URL][&region=NAME][&style=virtual]
//! gs://BUCKET[/PREFIX][?endpoint=URL]
//! az://CONTAINER[/PREFIX]?account=NAME[&endpoint=URL]
//! ```
//!
//! What is verified counts under one URL, so that the URL must say all that decides which place it
//! is, and the environment of a later command nothing of it. [`RemoteUrl::completed`] writes down
//! what the environment says when a store is given its cloud. Keys and passwords stay outside.

use std::fmt;

use object_store::path::Path;
use tier_types::{ErrorKind, ObjectName, PortError};

/// The service that has the objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Provider {
    S3,
    Gcs,
    Azure,
}

/// A parameter of a URL, and the variables of the environment that say the same.
struct Parameter {
    name: &'static str,
    variables: &'static [&'static str],
}

const S3_PARAMETERS: [Parameter; 3] = [
    Parameter {
        name: "endpoint",
        variables: &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"],
    },
    Parameter { name: "region", variables: &["AWS_REGION", "AWS_DEFAULT_REGION"] },
    Parameter { name: "style", variables: &[] },
];
const GCS_PARAMETERS: [Parameter; 1] =
    [Parameter { name: "endpoint", variables: &["STORAGE_EMULATOR_HOST"] }];
const AZURE_PARAMETERS: [Parameter; 2] = [
    Parameter { name: "account", variables: &["AZURE_STORAGE_ACCOUNT_NAME"] },
    Parameter { name: "endpoint", variables: &["AZURE_STORAGE_ENDPOINT"] },
];

impl Provider {
    fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" => Some(Self::S3),
            "gs" => Some(Self::Gcs),
            "az" => Some(Self::Azure),
            _ => None,
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }

    fn parameters(self) -> &'static [Parameter] {
        match self {
            Self::S3 => &S3_PARAMETERS,
            Self::Gcs => &GCS_PARAMETERS,
            Self::Azure => &AZURE_PARAMETERS,
        }
    }
}

/// The URL of a remote store.
///
/// ```
/// use tier_cloud::RemoteUrl;
///
/// let text = "s3://bucket/some/prefix?endpoint=http://127.0.0.1:8333&region=here";
/// let url = RemoteUrl::parse(text)?.expect("a known scheme");
/// assert_eq!(url.to_string(), text);
/// assert!(RemoteUrl::parse("s3://bucket?endpoint=127.0.0.1").is_err());
/// assert_eq!(RemoteUrl::parse("file:///dir")?, None);
/// # Ok::<(), tier_types::PortError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteUrl {
    pub(super) provider: Provider,
    pub(super) bucket: String,
    /// Without slashes at its ends; empty for none.
    pub(super) prefix: String,
    /// By name, in the order of the provider's table.
    parameters: Vec<(&'static str, String)>,
}

impl RemoteUrl {
    /// Reads a URL; `None` if its scheme is none of a remote store.
    pub fn parse(text: &str) -> Result<Option<Self>, PortError> {
        let Some((provider, rest)) = text
            .split_once("://")
            .and_then(|(scheme, rest)| Some((Provider::of_scheme(scheme)?, rest)))
        else {
            return Ok(None);
        };
        let wrong = |what: String| {
            Err(PortError::new(ErrorKind::Failed, format!("{text} is no URL of a cloud: {what}")))
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_end_matches('/');
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'$');
        if bucket.is_empty() || !bucket.bytes().all(is_plain) {
            return wrong(format!("{bucket:?} is no name of a bucket"));
        }
        if !prefix.is_empty() && ObjectName::new(prefix).is_none() {
            return wrong(format!("{prefix:?} is no prefix (A-Z a-z 0-9 . _ - and slashes)"));
        }
        let mut given: Vec<(&str, &str)> = Vec::new();
        for one in query.split('&').filter(|one| !one.is_empty()) {
            let (name, value) = one.split_once('=').unwrap_or((one, ""));
            let known = provider.parameters().iter().any(|parameter| parameter.name == name);
            let is_twice = given.iter().any(|(other, _)| *other == name);
            if !known || is_twice || !is_sound(name, value) {
                return wrong(format!("{one:?} is no parameter of {}://", provider.scheme()));
            }
            given.push((name, value));
        }
        let value = |name| given.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
        let parameters = provider.parameters().iter().filter_map(|parameter| {
            value(parameter.name).map(|value| (parameter.name, value.to_owned()))
        });
        Ok(Some(Self {
            provider,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            parameters: parameters.collect(),
        }))
    }

    /// The same with what the environment says of the place, where the URL says nothing.
    #[must_use]
    pub fn completed(self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let of_environment = |parameter: &Parameter| {
            let values = parameter.variables.iter().filter_map(|name| variable(name));
            let mut sound = values.filter(|value| is_sound(parameter.name, value));
            sound.next()
        };
        let parameters = self.provider.parameters().iter().filter_map(|parameter| {
            let given = self.parameter(parameter.name).map(str::to_owned);
            Some((parameter.name, given.or_else(|| of_environment(parameter))?))
        });
        Self { parameters: parameters.collect(), ..self }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The region, of S3.
    pub(super) fn region(&self) -> &str {
        self.parameter("region").unwrap_or("us-east-1")
    }

    /// The account, of Azure.
    #[expect(clippy::expect_used, reason = "a place of Azure without one is not opened")]
    pub(super) fn account(&self) -> &str {
        self.parameter("account").expect("it was opened with an account")
    }

    /// Whether a host has the objects, and does not give out keys for them.
    pub(super) fn has_host(&self, host: &str) -> bool {
        if let Some(endpoint) = self.parameter("endpoint") {
            let place = endpoint.split_once("://").map_or(endpoint, |(_, place)| place);
            let rest = place.strip_prefix(host);
            return rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']));
        }
        match self.provider {
            Provider::S3 => host.ends_with(".amazonaws.com") && !host.starts_with("sts."),
            Provider::Gcs => host == "storage.googleapis.com",
            Provider::Azure => host.ends_with(".blob.core.windows.net"),
        }
    }

    /// Where an object is, for a request that is made without the library. Keys have no characters
    /// that a URL must not have.
    pub(super) fn object(&self, path: &Path) -> String {
        let bucket = &self.bucket;
        let is_virtual = self.parameter("style") == Some("virtual");
        let root = match (self.provider, self.parameter("endpoint")) {
            (Provider::S3, Some(endpoint)) if is_virtual => endpoint.to_owned(),
            (_, Some(endpoint)) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
            (Provider::S3, None) => {
                let region = self.region();
                match is_virtual {
                    true => format!("https://{bucket}.s3.{region}.amazonaws.com"),
                    false => format!("https://s3.{region}.amazonaws.com/{bucket}"),
                }
            }
            (Provider::Gcs, None) => format!("https://storage.googleapis.com/{bucket}"),
            (Provider::Azure, None) => {
                let account = self.account();
                format!("https://{account}.blob.core.windows.net/{bucket}")
            }
        };
        format!("{root}/{path}")
    }

    /// What an operator knows the place by, without parameters.
    pub(super) fn place(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{}://{}{slash}{}", self.provider.scheme(), self.bucket, self.prefix)
    }
}

/// Whether a parameter may have a value.
fn is_sound(name: &str, value: &str) -> bool {
    let is_graphic = !value.is_empty()
        && value.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b'&' | b'?' | b'#' | b'"'));
    match name {
        // A name and a password in it would be written into settings and logs.
        "endpoint" => {
            let host = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
            is_graphic && host.is_some_and(|host| !host.is_empty() && !host.contains('@'))
        }
        "style" => matches!(value, "virtual" | "path"),
        _ => is_graphic,
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())?;
        for (number, (name, value)) in self.parameters.iter().enumerate() {
            write!(f, "{}{name}={value}", if number == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RemoteUrl {
        RemoteUrl::parse(text).unwrap().unwrap()
    }

    #[test]
    fn a_url_is_written_as_it_was_read() {
        for text in [
            "s3://bucket",
            "s3://bucket/a/b",
            "s3://bucket?region=eu-1",
            "s3://bucket/a?endpoint=https://host:9000/path&region=x&style=virtual",
            "gs://bucket/a",
            "az://container/a?account=me",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
        assert_eq!(
            parse("s3://bucket/a/?region=x&endpoint=http://h").to_string(),
            "s3://bucket/a?endpoint=http://h&region=x",
            "in one order"
        );
        assert_eq!(parse("s3://bucket/a?region=x").place(), "s3://bucket/a");
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for text in [
            "s3://",
            "s3:///a",
            "s3://a b",
            "s3://bucket/a//b",
            "s3://bucket/../b",
            "s3://bucket?endpoint=host:9000",
            "s3://bucket?endpoint=http://me:secret@host",
            "s3://bucket?region=",
            "s3://bucket?region=x&region=y",
            "s3://bucket?style=other",
            "s3://bucket?account=me",
            "gs://bucket?region=x",
        ] {
            let error = RemoteUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        for text in ["file:///a", "bucket", "ftp://host"] {
            assert_eq!(RemoteUrl::parse(text).unwrap(), None);
        }
    }

    #[test]
    fn the_environment_says_what_the_url_does_not() {
        let environment = |name: &str| {
            let value = match name {
                "AWS_ENDPOINT_URL" => "http://host:1",
                "AWS_DEFAULT_REGION" => "there",
                "AZURE_STORAGE_ACCOUNT_NAME" => "me",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let completed = |text: &str| parse(text).completed(environment).to_string();
        assert_eq!(completed("s3://b"), "s3://b?endpoint=http://host:1&region=there");
        assert_eq!(completed("s3://b?region=x"), "s3://b?endpoint=http://host:1&region=x");
        assert_eq!(completed("az://c"), "az://c?account=me");
        assert_eq!(completed("gs://b"), "gs://b");
    }
}
