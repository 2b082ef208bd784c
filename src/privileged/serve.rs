//! The root half: one conversation, from greeting to end.

use super::conversation::Conversation;
use super::protocol::{PROTOCOL, Phase, Reply, Request, StoreRequest};
use super::survey::survey;
use super::{check, examine, restore_plain, restore_store, save};
use crate::pulse;
use crate::store::StoreKind;
use anyhow::{Result, bail};
use rustix::fs::Mode;
use rustix::process::umask;
use std::io::{Write, stderr};

/// Serves the other half on standard input and output. Gives back the exit code.
pub fn serve() -> u8 {
    // Files get the mode that they are opened with, and no other.
    umask(Mode::empty());
    let talk = match Conversation::start() {
        Ok(talk) => talk,
        Err(e) => {
            let _ = writeln!(stderr(), "storecache privileged: {e:#}");
            return 1;
        }
    };
    match converse(&talk) {
        Ok(()) => 0,
        Err(e) => {
            let causes = e.chain().map(ToString::to_string).collect();
            // Nobody may be there to hear it.
            let _ = talk.reply(&Reply::Failed { phase: talk.phase(), causes });
            1
        }
    }
}

fn converse(talk: &Conversation) -> Result<()> {
    match talk.receive()?.0 {
        Request::Hello { protocol: PROTOCOL } => {}
        Request::Hello { protocol } => {
            bail!("the other half speaks protocol {protocol}, this one speaks {PROTOCOL}")
        }
        _ => bail!("a conversation begins with a greeting"),
    }
    talk.reply(&Reply::Hello { protocol: PROTOCOL, pid: std::process::id() })?;

    talk.enter(Phase::Plan);
    let Request::Store(store) = talk.receive()?.0 else { bail!("the store is named first") };
    check_paths(&store)?;
    pulse::set_clock(store.stall);
    talk.tell_signs();
    talk.reply(&Reply::Store(survey(&store, store.asks_version)?))?;

    while let Some(message) = talk.receive_or_end()? {
        match message {
            (Request::Save(request), _) => save::save(talk, &store, &request)?,
            (Request::Restore(request), index) => {
                // It stays, and frames shall not wait for that.
                let (index, _) = index.into_parts();
                match store.kind {
                    StoreKind::Plain => restore_plain::restore(talk, &store, &request, &index)?,
                    _ => restore_store::restore(talk, &store, &request, &index)?,
                }
            }
            (Request::Check(patterns), _) => check::check(talk, &store, &patterns, None)?,
            (Request::Valid, _) => check::valid(talk, &store)?,
            (Request::Examine, _) => examine::examine(talk, &store)?,
            _ => bail!("a store is saved, restored, checked or examined"),
        }
    }
    Ok(())
}

/// Plain paths come from the user: they must be absolute and lead down.
fn check_paths(store: &StoreRequest) -> Result<()> {
    use std::path::Component;
    for path in store.paths.iter().chain([&store.root]) {
        let mut components = path.components();
        let absolute = components.next() == Some(Component::RootDir);
        if !absolute || !components.all(|c| matches!(c, Component::Normal(_))) {
            bail!("the path {} is not absolute, or has dots in it", path.display());
        }
    }
    if store.kind == StoreKind::Plain && store.paths.is_empty() {
        bail!("a plain store needs --path DIR");
    }
    Ok(())
}
