//! The configuration of an object store.

use super::{Address, NetworkTimeouts, Secret, Service, host};

/// Environment variables whose values must never be shown.
pub const SECRETS: [&str; 19] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_OAUTH_ACCESS_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_MASTER_KEY",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ENCRYPTION_KEY",
    "AZURE_FABRIC_SESSION_TOKEN",
    "AWS_TOKEN",
];

/// A bucket or container, and the environment variables that configure access to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStore {
    pub address: Address,
    /// Environment variables of its service, with their values. Some are secrets.
    pub settings: Vec<(String, Secret)>,
    pub timeouts: NetworkTimeouts,
}

impl ObjectStore {
    /// Returns whether a variable is set, and not to `false` or `0`.
    pub fn has(&self, name: &str) -> bool {
        self.settings.iter().any(|(known, value)| {
            known == name && !matches!(value.reveal().trim(), "" | "false" | "0")
        })
    }

    /// Returns the host of the endpoint if it is not the default endpoint of the service.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint_url().map(host).filter(|host| !host.is_empty())
    }

    /// Returns protocol and host of the server, without parts of the URL that may be secret.
    pub fn server(&self) -> String {
        let url = self.endpoint_url().and_then(|url| url.split_once("://"));
        match (url, self.address.service) {
            (Some((protocol, rest)), _) => format!("{protocol}://{}", host(rest)),
            (None, Service::S3) => "https://s3.amazonaws.com".into(),
            (None, Service::Google) => "https://storage.googleapis.com".into(),
            (None, Service::Azure) => {
                let names = ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"];
                let account = names.iter().find_map(|name| self.get(name)).unwrap_or_default();
                format!("https://{account}.blob.core.windows.net")
            }
        }
    }

    fn endpoint_url(&self) -> Option<&str> {
        let names: &[&str] = match self.address.service {
            Service::S3 => &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"],
            Service::Google => &["GOOGLE_BASE_URL"],
            Service::Azure => &["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"],
        };
        names.iter().find_map(|name| self.get(name))
    }

    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.settings.iter().find(|(known, _)| known == name)?;
        Some(value.reveal().trim()).filter(|value| !value.is_empty())
    }
}
