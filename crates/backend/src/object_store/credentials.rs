//! Creates the client of a service from an address and the environment. Credentials are handled only here.

use super::error::ObjectError;
use super::transport::Connector;
use crate::http_client::RetryingClient;
use crate::options::{ObjectStore as Options, Service};
use anyhow::{Result, anyhow, bail};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use std::sync::Arc;
use std::time::Duration;
use storecache_runtime::advice::WithAdvice;

/// The operations that a service must support.
pub trait Store: ObjectStore + MultipartStore + PaginatedListStore {}

impl<S: ObjectStore + MultipartStore + PaginatedListStore> Store for S {}

/// Names that the tools of the services know, and the library does not.
const ALIASES: [(&str, &str); 3] = [
    ("azure_storage_account", "azure_storage_account_name"),
    ("azure_storage_key", "azure_storage_account_key"),
    ("google_oauth_access_token", "google_bearer_token"),
];

/// Creates the client of the service at an address.
///
/// # Errors
/// If the environment has no credentials for the service, or inconsistent ones. The error does not contain them.
pub fn open(options: &Options, wire: &Arc<RetryingClient>) -> Result<Arc<dyn Store>> {
    let address = &options.address;
    if !has_credentials(options) {
        bail!(
            anyhow!("there are no credentials in the environment")
                .hint(format!("set {}", wanted(address.service)))
        );
    }
    let strict = !address.service.library_requires_tls() && !options.has("GOOGLE_ALLOW_HTTP");
    let connector = Connector { wire: Arc::clone(wire), strict };
    let bucket = &address.bucket;
    let built = match address.service {
        Service::S3 => {
            let mut builder = AmazonS3Builder::new();
            for (key, value) in settings::<AmazonS3ConfigKey>(options) {
                builder = builder.with_config(key, value);
            }
            let builder = builder.with_bucket_name(bucket).with_retry(once());
            builder.with_http_connector(connector).build().map(|it| Arc::new(it) as Arc<dyn Store>)
        }
        Service::Google => {
            let mut builder = GoogleCloudStorageBuilder::new();
            for (key, value) in settings::<GoogleConfigKey>(options) {
                builder = builder.with_config(key, value);
            }
            let builder = builder.with_bucket_name(bucket).with_retry(once());
            builder.with_http_connector(connector).build().map(|it| Arc::new(it) as Arc<dyn Store>)
        }
        Service::Azure => {
            let mut builder = MicrosoftAzureBuilder::new();
            for (key, value) in settings::<AzureConfigKey>(options) {
                builder = builder.with_config(key, value);
            }
            let builder = builder.with_container_name(bucket).with_retry(once());
            builder.with_http_connector(connector).build().map(|it| Arc::new(it) as Arc<dyn Store>)
        }
    };
    built.map_err(|e| {
        let prefix = address.service.variables();
        match ObjectError::from_library(&e) {
            // The error of the library quotes values that it does not understand.
            ObjectError::Permanent(_) => {
                anyhow!("the environment variables {prefix}… are inconsistent")
                    .hint(format!("set {}", wanted(address.service)))
            }
            trouble => trouble.into(),
        }
    })
}

/// Returns the settings that the library knows, as its own keys. The bucket comes from the address alone.
fn settings<K: std::str::FromStr>(options: &Options) -> Vec<(K, String)> {
    let known = options.settings.iter().filter_map(|(name, value)| {
        let name = name.to_ascii_lowercase();
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(&*name, |it| it.1);
        Some((name.parse().ok()?, value.reveal().trim().to_owned()))
    });
    known.collect()
}

/// Disables retries in the library: they would ignore our timeouts and could not be canceled.
fn once() -> RetryConfig {
    let backoff = BackoffConfig::default();
    RetryConfig { backoff, max_retries: 0, retry_timeout: Duration::from_secs(60) }
}

/// Returns whether the environment has all variables of at least one way to authenticate. Without credentials, the
/// library would query the metadata service of the machine, which usually does not exist.
fn has_credentials(options: &Options) -> bool {
    let all = |names: &[&str]| names.iter().all(|name| options.has(name));
    let ways: &[&[&str]] = match options.address.service {
        Service::S3 => &[
            &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
            &["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"],
            &["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"],
            &["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"],
            &["AWS_SKIP_SIGNATURE"],
        ],
        Service::Google => &[
            &["GOOGLE_APPLICATION_CREDENTIALS"],
            &["GOOGLE_SERVICE_ACCOUNT"],
            &["GOOGLE_SERVICE_ACCOUNT_PATH"],
            &["GOOGLE_SERVICE_ACCOUNT_KEY"],
            &["GOOGLE_BEARER_TOKEN"],
            &["GOOGLE_OAUTH_ACCESS_TOKEN"],
            &["GOOGLE_SKIP_SIGNATURE"],
        ],
        Service::Azure => {
            let accounts = ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"];
            if !accounts.iter().any(|name| options.has(name)) {
                return false;
            }
            &[
                &["AZURE_STORAGE_ACCOUNT_KEY"],
                &["AZURE_STORAGE_ACCESS_KEY"],
                &["AZURE_STORAGE_KEY"],
                &["AZURE_STORAGE_SAS_TOKEN"],
                &["AZURE_STORAGE_SAS_KEY"],
                &["AZURE_STORAGE_TOKEN"],
                &["AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"],
                &[
                    "AZURE_STORAGE_CLIENT_ID",
                    "AZURE_STORAGE_CLIENT_SECRET",
                    "AZURE_STORAGE_TENANT_ID",
                ],
                &["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"],
                &["AZURE_SKIP_SIGNATURE"],
            ]
        }
    };
    ways.iter().any(|names| all(names))
}

fn wanted(service: Service) -> &'static str {
    match service {
        Service::S3 => {
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN; \
             see docs/object-stores.md"
        }
        Service::Google => {
            "GOOGLE_APPLICATION_CREDENTIALS to a service account file, or \
             GOOGLE_OAUTH_ACCESS_TOKEN; see docs/object-stores.md"
        }
        Service::Azure => {
            "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or \
             an Entra client; see docs/object-stores.md"
        }
    }
}
