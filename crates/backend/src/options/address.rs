//! Addresses of object stores: service, bucket, and prefix.

use anyhow::{Result, bail};
use std::fmt;

/// The kind of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Amazon S3, and other servers with its protocol
    S3,
    /// Google Cloud Storage
    Google,
    /// Azure Blob Storage
    Azure,
}

impl Service {
    const ALL: [Service; 3] = [Service::S3, Service::Google, Service::Azure];

    /// Returns the scheme of its addresses.
    pub fn scheme(self) -> &'static str {
        match self {
            Service::S3 => "s3",
            Service::Google => "gs",
            Service::Azure => "az",
        }
    }

    /// Returns the prefix of its environment variables.
    pub fn variables(self) -> &'static str {
        match self {
            Service::S3 => "AWS_",
            Service::Google => "GOOGLE_",
            Service::Azure => "AZURE_",
        }
    }

    /// Whether the client library refuses an endpoint without TLS by itself, unless the environment allows it.
    pub fn library_requires_tls(self) -> bool {
        match self {
            Service::S3 | Service::Azure => true,
            Service::Google => false,
        }
    }
}

/// A bucket or container, and the prefix of the entries in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub service: Service,
    pub bucket: String,
    /// Without slashes at its ends. May be empty.
    pub prefix: String,
}

impl Address {
    /// Parses `s3://BUCKET/PREFIX`, or the same with `gs` or `az`. Returns `None` if `text` begins with something
    /// else.
    ///
    /// # Errors
    /// If the bucket is missing, or the prefix is not valid for all three services.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
        let Some(service) = Service::ALL.into_iter().find(|it| it.scheme() == scheme) else {
            return Ok(None);
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let named = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if bucket.is_empty() || !bucket.chars().all(named) {
            bail!("{scheme}:// must be followed by a bucket name, as in {scheme}://bucket/prefix");
        }
        let good = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(named);
        if !prefix.is_empty() && !prefix.split('/').all(good) {
            bail!(
                "the prefix of {scheme}://{bucket}/ may only have letters, digits and - . _ \
                 between slashes"
            );
        }
        // S3 limits keys to 1024 bytes, and the names of entries need the rest.
        if prefix.len() > 512 {
            bail!("the prefix of {scheme}://{bucket}/ is longer than 512 characters");
        }
        Ok(Some(Address { service, bucket: bucket.into(), prefix: prefix.into() }))
    }

    /// Returns the prefix of the keys of all objects at this address.
    pub fn base(&self) -> String {
        if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.service.scheme(), self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_parsed_into_bucket_and_key_prefix() {
        for (text, base) in [
            ("s3://bucket/ci/stores", "ci/stores/"),
            ("gs://my.bucket", ""),
            ("az://container/a_b.c/", "a_b.c/"),
        ] {
            let address = Address::parse(text).unwrap().unwrap();
            assert_eq!(address.base(), base);
            assert_eq!(address.to_string(), text.trim_end_matches('/'));
        }
        for none in ["github", "dir:/srv", "ftp://x/y", "s3:bucket"] {
            assert_eq!(Address::parse(none).unwrap(), None, "{none}");
        }
        for wrong in
            ["s3://", "s3:///x", "gs://b/a/../b", "az://b/a//b", "s3://u:p@host/x", "s3://b/a?b"]
        {
            let error = Address::parse(wrong).unwrap_err().to_string();
            assert!(!error.contains("u:p"), "{error}");
        }
    }
}
