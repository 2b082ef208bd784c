//! The main function of the root helper: one conversation, from greeting to end.

use super::capabilities::Stage;
use super::client::ROOT_SPEAKS;
use super::connection::{Conversation, checked};
use super::events::EventSender;
use super::failure_kind::FailureKind;
use super::guardian::Guardian;
use super::protocol::{PROTOCOL, Phase, Reply, Request, StoreRequest, read_first, write_message};
use super::requester_rights::Caller;
use super::resource_share::Share;
use super::sanitize::{lift_limits, settle};
use super::seccomp::{Confinement, confine};
use super::store_facts::survey;
use super::{closure_query, doctor, restore_plain, restore_store, save};
use anyhow::{Context, Result, bail};
use std::io::{BufReader, Stdin, stdin, stdout};
use std::sync::PoisonError;
use storecache_runtime::advice::{Advice, in_one_line};
use storecache_runtime::standard_error::note;
use storecache_runtime::{RunContext, disclosure};
use tracing::debug;

/// The most bytes of a cause that are reported: some causes quote input.
const CAUSE_LIMIT: usize = 8 << 10;

/// Serves the user process on standard input and output. Returns the exit code. With `everywhere`, root's rights are
/// used on any path that the user process names.
pub fn serve(run: &RunContext, everywhere: bool) -> u8 {
    let mut phase = Phase::Start;
    let mut rights = None;
    let mut output = None;
    let mut input = BufReader::with_capacity(1 << 16, stdin());
    let done = greet(everywhere, &mut input).and_then(|mandate| {
        phase = Phase::Plan;
        let Agreed { store, share, guardian, confinement, events } =
            agree(run, &mut input, mandate, &mut rights)?;
        let (largest, limit) = (share.message(), store.mandate.limit());
        let talk =
            Conversation::start(run.clone(), input, largest, limit, confinement.warning(), events)?;
        output = Some(talk.output());
        converse(&talk, &store, share, guardian).inspect_err(|_| phase = talk.phase())
    });
    let Err(e) = done else { return 0 };
    let causes = e.chain().filter(|cause| !cause.is::<Advice>());
    let causes = causes.map(|cause| shortened(cause.to_string())).collect();
    let advice = Advice::find(e.as_ref()).cloned().unwrap_or_default();
    let advice = advice.and(rights.unwrap_or_default());
    let fault = FailureKind::from_error(&e);
    let reply = Reply::Failed { phase, causes, advice, fault };
    let sent = match output {
        // Events may have filled the pipe, so this waits for room.
        Some(output) => {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            write_message(&mut *output, &reply, &[])
        }
        None => write_message(&mut stdout().lock(), &reply, &[]),
    };
    if sent.is_err() {
        // The user process may have ended.
        note(format!("{ROOT_SPEAKS}{}", in_one_line(e.as_ref())));
    }
    1
}

fn shortened(mut cause: String) -> String {
    if let Some((end, _)) = cause.char_indices().find(|&(at, _)| at >= CAUSE_LIMIT) {
        cause.truncate(end);
        cause.push('…');
    }
    cause
}

/// Determines the requester and answers the greeting.
fn greet(everywhere: bool, input: &mut BufReader<Stdin>) -> Result<Caller> {
    let mandate = Caller::from_environment(&settle()?, everywhere)?;
    match first(input)? {
        Request::Hello { protocol: PROTOCOL } => {}
        Request::Hello { protocol } => {
            bail!("the user process uses protocol {protocol}, but the root helper uses {PROTOCOL}")
        }
        other => bail!("protocol error: expected `Hello`, received `{}`", other.name()),
    }
    let hello = Reply::Hello { protocol: PROTOCOL, pid: std::process::id() };
    write_message(&mut stdout().lock(), &hello, &[])?;
    Ok(mandate)
}

/// The store of the conversation, and the rights and resources of the root helper for it.
struct Agreed {
    store: StoreRequest,
    share: Share,
    guardian: Option<Guardian>,
    confinement: Confinement,
    /// Sends events, if the user process wants any.
    events: Option<EventSender>,
}

/// Receives the store request, and gives up all rights that it does not need. Sets `rights` to advice if the
/// process runs without root's rights.
fn agree(
    run: &RunContext,
    input: &mut BufReader<Stdin>,
    mut mandate: Caller,
    rights: &mut Option<Advice>,
) -> Result<Agreed> {
    let mut store = match first(input)? {
        Request::Store(store) => store,
        other => bail!("protocol error: expected `Store`, received `{}`", other.name()),
    };
    let events = store.events.map(EventSender::start);
    *rights = mandate.apply(&mut store)?;
    let Caller { requester, everywhere } = mandate;
    let without_root = rights.as_ref().map(ToString::to_string);
    debug!(?requester, everywhere, without_root, "chose the rights");
    store.mandate = mandate;
    if mandate.requester.is_some() {
        lift_limits()?;
    }
    // The guardian may have to start a daemon, which may need all of root's rights.
    let guardian = store.kind.has_database().then(|| Guardian::start(run)).transpose()?;
    Stage::Asked.enter()?;
    let confinement = confine()?;
    disclosure::limit_to(store.mandate.confined())?;
    let share = Share::new(&store.mandate);
    share.enforce()?;
    debug!(?share, stall = ?store.stall, locks = ?store.lock_timeout, "set the limits");
    Ok(Agreed { store, share, guardian, confinement, events })
}

fn first(input: &mut BufReader<Stdin>) -> Result<Request> {
    let message = checked(read_first(input))?;
    let (request, _) = message.context("canceled: the user process closed the connection")?;
    Ok(request)
}

fn converse(
    talk: &Conversation,
    store: &StoreRequest,
    share: Share,
    guardian: Option<Guardian>,
) -> Result<()> {
    talk.run.set_stall_timeout(store.stall);
    talk.tell_signs();
    talk.reply(&Reply::Store(survey(&talk.run, store, store.asks_version)?))?;
    // Only one save or restore is served, because rights that it does not need are given up permanently.
    let mut guardian = Some(guardian);
    while let Some(message) = talk.receive_or_end()? {
        match message {
            (Request::Save(mut request), _) if guardian.is_some() => {
                request.memory = share.of_packing(request.memory);
                save::save(talk, store, &request, guardian.take().flatten())?;
            }
            (Request::Restore(mut request), index) if guardian.is_some() => {
                request.memory = share.of_unpacking(request.memory);
                let guardian = guardian.take().flatten();
                // The index stays in memory, so it must not count against the memory for frames.
                let (index, _) = index.into_parts();
                match guardian {
                    None => restore_plain::restore(talk, store, &request, &index)?,
                    Some(guardian) => {
                        restore_store::restore(talk, store, &request, &index, guardian)?;
                    }
                }
            }
            (Request::Check(patterns), _) => closure_query::check(talk, store, &patterns, None)?,
            (Request::Valid, _) => closure_query::valid(talk, store)?,
            (Request::Examine, _) if guardian.is_some() => doctor::examine(talk, store)?,
            (other, _) => bail!("protocol error: unexpected `{}`", other.name()),
        }
        talk.holds_no_locks();
    }
    Ok(())
}
