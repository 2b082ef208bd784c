//! Packs the frozen store into a snapshot.

use super::SaveRun;
use super::lookup::Existing;
use crate::commands::delta_base::DeltaBase;
use crate::commands::guix_profiles::{self, ProfileReport};
use crate::commands::job_state::State;
use crate::commands::run_error::RunError;
use crate::commands::session::Session;
use crate::config::{Baseline, Save};
use crate::report;
use anyhow::{Context, Result};
use std::io::Write;
use std::time::Instant;
use storecache_key::Key;
use storecache_root_helper::HelperError;
use storecache_root_helper::protocol::{FreezeReport, PackReport, Reply, Request};
use storecache_snapshot::{DELTA, FULL, Frame, Head, ProfileFacts, SnapshotWriter};
use tracing::{debug, trace};

/// The snapshot that is to be packed.
pub struct PackPlan<'a> {
    pub head: Head,
    /// The snapshot that it is a delta on.
    base: Option<&'a DeltaBase>,
}

impl SaveRun<'_> {
    /// Decides whether the snapshot is a delta, and describes it.
    pub fn plan<'a>(
        &mut self,
        session: &mut Session,
        existing: &'a Existing,
        frozen: FreezeReport,
        profiles: Vec<ProfileFacts>,
    ) -> PackPlan<'a> {
        let FreezeReport { own, mut items, mut nar_bytes, .. } = frozen;
        let mut head = self.head(&session.key, frozen, profiles);
        let mut base = None;
        if let (Some(candidate), Some(delta)) = (&existing.base, &self.options.delta) {
            let decision = candidate.decide(delta, own, &head);
            base = Some(candidate).filter(|_| decision.used().is_some());
            let (share, reason) = (decision.share, &decision.reason);
            debug!(
                base = candidate.name(),
                used = base.is_some(),
                share,
                reason,
                "judged the base"
            );
            self.found.base = Some(decision);
        }
        if let Some(base) = base {
            head.format = DELTA;
            head.base = Some(base.name().into());
            session.progress.detail(|| format!("a delta on {}", base.name()));
            if let Some(own) = own {
                (items, nar_bytes) = (own.items, own.nar_bytes.unwrap_or(nar_bytes));
            }
        }
        session.progress.detail(|| format!("{} to pack", report::plural(items, "item")));
        session.progress.phase("pack", nar_bytes, Some(items));
        PackPlan { head, base }
    }

    /// The head of a full snapshot.
    fn head(&self, key: &Key, frozen: FreezeReport, profiles: Vec<ProfileFacts>) -> Head {
        let ingredients = self.state.map(|state| state.ingredients.clone());
        let watched_since = frozen.used.and_then(|_| self.watched_since(self.state?));
        Head {
            format: FULL,
            tool: concat!("storecache ", env!("CARGO_PKG_VERSION")).into(),
            store: frozen.facts,
            key: key.text.clone().into(),
            base: None,
            ingredients: ingredients.unwrap_or_else(|| key.digests()),
            origin: self.origin.clone(),
            created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
            items: frozen.items,
            nar_bytes: frozen.nar_bytes,
            cold_seconds: self.found.cold_seconds,
            watched_since: watched_since.map(Into::into),
            profiles,
        }
    }

    /// End of the restore, if all saved items from before that time were restored. For any other item it is not
    /// known whether it was read.
    fn watched_since(&self, state: &State) -> Option<String> {
        let nothing_before = || state.baseline.as_ref().is_some_and(Vec::is_empty);
        let alone = self.options.baseline == Baseline::Exclude || nothing_before();
        alone.then(|| state.when.clone())
    }

    /// Receives the frames from the root helper and writes a snapshot of them to `out`.
    pub fn pack<W: Write>(
        &mut self,
        session: &mut Session,
        plan: &PackPlan<'_>,
        out: W,
    ) -> Result<W, RunError> {
        let Save { signing, .. } = self.options;
        let Session { root, progress, .. } = session;
        let snapshot = SnapshotWriter::new(out, &plan.head).map_err(anyhow::Error::from)?;
        let mut snapshot = snapshot.signed_with(&signing.keys);
        root.send(&Request::Pack { delta: plan.base.is_some() }, &[])?;
        let packing = Instant::now();
        let mut writing = 0.0;
        let packed = loop {
            let (reply, bytes) = root.receive()?;
            match reply {
                Reply::Frame { raw, sha256, continues, items, raw_total } => {
                    progress.at(raw_total, Some(items));
                    self.found.packed_bytes = raw_total;
                    let before = Instant::now();
                    let (bytes, _claim) = bytes.into_parts();
                    trace!(raw, bytes = bytes.len(), items, "received a frame");
                    let frame =
                        Frame { bytes, raw, sha256, continues, progress: Default::default() };
                    snapshot.frame(frame).context("write the snapshot")?;
                    writing += before.elapsed().as_secs_f64();
                }
                Reply::Packed(packed) => break packed,
                _ => return Err(HelperError::unexpected_reply("Frame").into()),
            }
        };
        let PackReport { items_under, items, inherited, database, missing, left_out, rows_only } =
            packed;
        let ProfileReport { profiles, warnings } =
            guix_profiles::packed(&plan.head.profiles, &items, &inherited);
        self.found.profiles = profiles;
        self.found.run.warnings.extend(warnings);
        self.found.saved_items = (items.len() + inherited.len()) as u64;
        self.found.inherited_items = inherited.len() as u64;
        (self.found.missing, self.found.left_out) = (missing, left_out);
        let base = plan.base.map(|base| base.named(inherited));
        let (out, _, length) = snapshot
            .finish(&items_under, items, database, base, Some(rows_only))
            .context("write the snapshot")?;
        self.found.snapshot_bytes = length;
        self.found.write_seconds = writing;
        self.found.pack_seconds = packing.elapsed().as_secs_f64() - writing;
        Ok(out)
    }
}
