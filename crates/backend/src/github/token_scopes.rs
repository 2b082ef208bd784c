//! Permissions of this run on the cache, known before any request.

use crate::options::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Permissions to read and to write; a field holds the reason if the permission is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub no_read: Option<String>,
    pub no_write: Option<String>,
}

impl Access {
    /// Reads permissions from `ACTIONS_CACHE_MODE` and from the scopes in the token. Both are read leniently: a value
    /// that is not understood forbids nothing, because the service decides in the end. Source: actions/toolkit
    /// `packages/cache/src/internal/config.ts`, actions/runner #4538.
    pub fn from_token(mode: &str, token: &Secret) -> Self {
        let mode = mode.trim().to_lowercase();
        let by_mode = |allowed: [&str; 2]| {
            let known = ["none", "read", "write", "write-only"].contains(&mode.as_str());
            (known && !allowed.contains(&mode.as_str()))
                .then(|| format!("the workflow sets cache-mode: {mode}"))
        };
        let permissions = permissions(token);
        let by_token = |bits: i64, what: &str| {
            let all = permissions.as_ref()?;
            let denied = all.iter().all(|permission| permission & bits == 0);
            denied.then(|| {
                format!(
                    "its token has no {what} scope, as for events that people without write \
                     access can trigger"
                )
            })
        };
        Access {
            no_read: by_mode(["read", "write"]).or_else(|| by_token(READ | WRITE, "readable")),
            no_write: by_mode(["write", "write-only"]).or_else(|| by_token(WRITE, "writable")),
        }
    }
}

/// Bits of a permission. Tokens of act and Gitea have only the second bit, and both services allow reads with it
/// (nektos/act `pkg/common/auth.go`, go-gitea/gitea `services/actions/auth.go`).
const READ: i64 = 1;
const WRITE: i64 = 2;

/// Returns the permission of every scope in the claim `ac` of the token. The claim is a JSON array inside a string
/// (tonistiigi/go-actions-cache `cache.go`).
fn permissions(token: &Secret) -> Option<Vec<i64>> {
    #[derive(Deserialize)]
    struct Claims {
        ac: String,
    }
    #[derive(Deserialize)]
    struct Scope {
        #[serde(rename = "Permission")]
        permission: i64,
    }
    let payload = token.reveal().split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    let scopes: Vec<Scope> = serde_json::from_str(&claims.ac).ok()?;
    Some(scopes.into_iter().map(|scope| scope.permission).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(ac: &str) -> Secret {
        let claims = serde_json::json!({ "ac": ac, "exp": 1 }).to_string();
        Secret::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)))
    }

    fn allowed(mode: &str, token: &Secret) -> (bool, bool) {
        let Access { no_read, no_write } = Access::from_token(mode, token);
        (no_read.is_none(), no_write.is_none())
    }

    #[test]
    fn cache_mode_limits_access_and_unknown_modes_permit_it() {
        let open = Secret::new("no.jwt.at-all");
        for (mode, expected) in [
            ("", (true, true)),
            ("sideways", (true, true)),
            (" Read\n", (true, false)),
            ("write", (true, true)),
            ("write-only", (false, true)),
            ("none", (false, false)),
        ] {
            assert_eq!(allowed(mode, &open), expected, "{mode:?}");
        }
    }

    #[test]
    fn token_scopes_limit_access() {
        let main = r#"[{"Scope":"refs/heads/main","Permission":1}]"#;
        assert_eq!(allowed("", &token(main)), (true, false));
        let both = r#"[{"Scope":"refs/pull/1/merge","Permission":3},{"Scope":"refs/heads/main","Permission":1}]"#;
        assert_eq!(allowed("", &token(both)), (true, true));
        let by_act = r#"[{"Scope":"","Permission":2}]"#;
        assert_eq!(allowed("", &token(by_act)), (true, true), "write access includes read access");
        assert_eq!(allowed("", &token("[]")), (false, false));
        assert_eq!(allowed("", &token("not json")), (true, true));
    }
}
