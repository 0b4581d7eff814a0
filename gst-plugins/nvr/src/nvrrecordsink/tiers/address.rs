//! How a tier in a bucket is written: `s3:https://host[:port]/bucket[/prefix]`, without secrets.

use nvr_core::secret::redact;
use url::Url;

use super::s3::S3Error;
use super::secrets::Secrets;

/// A location, taken apart.
#[derive(Debug)]
pub struct Address {
    pub endpoint: Url,
    pub bucket: String,
    /// Empty, or ends with a slash.
    pub prefix: String,
}

/// Whether a location is one of a bucket.
pub fn is_bucket(location: &str) -> bool {
    location.starts_with("s3:")
}

pub fn address(location: &str) -> Result<Address, S3Error> {
    let text = location.strip_prefix("s3:").ok_or(S3Error::Address("that is no bucket"))?;
    let mut url = Url::parse(text).map_err(|_| S3Error::Address("that is no address"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(S3Error::Address("the scheme is neither https nor http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(S3Error::Address("secrets do not belong into an address: use `s3-credentials`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(S3Error::Address("there is more behind the path"));
    }
    // As it was written: what has to be encoded is when a request is signed.
    let path = text.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let mut parts = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned);
    let bucket = parts.next().ok_or(S3Error::Address("the bucket is missing"))?;
    let prefix: String = parts.map(|part| part + "/").collect();
    url.set_path("");
    Ok(Address { endpoint: url, bucket, prefix })
}

/// The one way to write a location, without secrets that somebody put there.
pub fn canonical(location: &str) -> String {
    match address(location) {
        Ok(Address { endpoint, bucket, prefix }) => {
            format!("s3:{endpoint}{bucket}/{prefix}").trim_end_matches('/').to_owned()
        }
        Err(_) => redact(location).into_owned(),
    }
}

/// AWS says the region in its host names; others are told, or do not care.
pub fn region(secrets: &Secrets, endpoint: &Url) -> String {
    let host = endpoint.host_str().unwrap_or_default();
    let of_host = host.strip_suffix(".amazonaws.com").and_then(|rest| {
        let rest = rest.strip_prefix("s3.").or_else(|| rest.strip_prefix("s3-"))?;
        Some(rest.strip_prefix("dualstack.").unwrap_or(rest).to_owned())
    });
    secrets.region.clone().or(of_host).unwrap_or_else(|| "us-east-1".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_in_one_way_and_keep_no_secrets() {
        for (location, expected) in [
            ("s3:https://Store.example/b", "s3:https://store.example/b"),
            ("s3:https://store.example:443//b//site/1/", "s3:https://store.example/b/site/1"),
            ("s3:http://[::1]:9000/b/", "s3:http://[::1]:9000/b"),
            ("s3:https://store.example/b/Site one/", "s3:https://store.example/b/Site one"),
            ("s3:nonsense", "s3:nonsense"),
        ] {
            assert_eq!(canonical(location), expected);
            assert_eq!(canonical(&canonical(location)), expected);
        }
        assert!(!canonical("s3:https://user:secret@store.example/b").contains("secret"));
        for wrong in [
            "s3:https://store.example",
            "s3:ftp://store.example/b",
            "s3:https://u@store.example/b",
            "s3:https://store.example/b?x=1",
            "/mnt/b",
        ] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        let taken = address("s3:https://store.example/b/site/1").unwrap();
        assert_eq!((taken.bucket.as_str(), taken.prefix.as_str()), ("b", "site/1/"));
    }

    #[test]
    fn the_region_is_told_or_stands_in_the_host_name() {
        let told = |region: Option<&str>| Secrets {
            key: rusty_s3::Credentials::new("k", "s"),
            region: region.map(str::to_owned),
        };
        for (host, region_told, expected) in [
            ("https://s3.eu-west-1.amazonaws.com", None, "eu-west-1"),
            ("https://s3.dualstack.eu-west-3.amazonaws.com", None, "eu-west-3"),
            ("https://store.example", None, "us-east-1"),
            ("https://store.example", Some("garage"), "garage"),
        ] {
            assert_eq!(region(&told(region_told), &host.parse().unwrap()), expected);
        }
    }
}
