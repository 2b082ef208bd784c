//! The root helper's part of restoring a store with a database: plan, stage, then [`Commit`].
//!
//! All slow work happens here, in a staging directory, while the daemon runs.

use super::capabilities::Stage;
use super::closure_query::check;
use super::commit::Commit;
use super::connection::Conversation;
use super::consistency_checks::{check_database, check_kind};
use super::failure_kind::OfBase;
use super::guardian::{Guardian, GuardianSetup};
use super::protocol::{
    FrameId, Phase, Plan, Reply, Request, RestoreRequest, Restored, SnapshotRole, StoreRequest,
};
use super::snapshot_files::Files;
use super::store_context::{
    StoreTarget, check_space, directory, is_there, receive_frames, writeback,
};
use super::verify_nar::Hashes;
use super::write_access::Access;
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::Mode;
use std::path::Path;
use std::sync::Arc;
use storecache_daemon::{Listener, await_ready};
use storecache_runtime::advice::WithAdvice;
use storecache_runtime::retry::insist;
use storecache_runtime::untrusted_text::Untrusted;
use storecache_snapshot::{Index, StoreFacts, write_database};
use storecache_store::{
    ItemName, Layout, LiveDatabase, LockMode, Owner, RestoreSelection, Rows, SnapshotDatabase,
    SnapshotRows, Staging, TempDb, choose, lock, make_lock_file, of_snapshot, record_plan, system,
};
use tracing::{debug, trace};

pub fn restore(
    talk: &Conversation,
    store_request: &StoreRequest,
    request: &RestoreRequest,
    index: &[u8],
    mut guardian: Guardian,
) -> Result<()> {
    talk.enter(Phase::Plan);
    let target = StoreTarget::new(&talk.run, store_request)?;
    let layout = &target.layout;
    let cancelled = || talk.cancel.check();
    // Obtain write access before reading anything of the snapshot.
    let access = Access::to(layout)?;
    Stage::Restoring.enter()?;
    let index = Index::from_bytes(index)?;
    index.check()?;
    check_fit(layout, &request.store)?;
    check_kind(layout.kind, &index)?;
    let base = index.base.is_some().then(|| receive_base(talk, layout)).transpose()?;

    let _run_lock = target.run_lock(&cancelled)?;
    let gc_lock = target.gc_lock(&cancelled)?;
    talk.holds_locks();
    let warnings = guardian.watch(&GuardianSetup::new(&target, true))?;
    access.clean_up(&talk.run, layout)?;
    let (snapshot, _kept) = receive_database(talk, layout, &index)?;
    let live = is_there(&layout.database())?.then(|| LiveDatabase::open(layout)).transpose()?;
    let files = Files::new(index, base)?;
    let (index, base) = files.indexes();
    let judged = check_database(&snapshot, index, base).map_err(of_snapshot)?;
    let choice = plan(layout, &judged, live.as_ref(), &files)?;
    let frames = files.frames(&choice.wanted);
    let disk_bytes = files.items(&choice.wanted).map(|item| item.disk).sum();
    let inodes = files.items(&choice.wanted).map(|item| item.files).sum();
    let store = layout.store();
    check_space(if is_there(&store)? { &store } else { &layout.root }, disk_bytes, inodes)?;
    let hashes = request
        .verify_content
        .then(|| Hashes::from_database(&snapshot, &choice.wanted))
        .transpose()?;
    debug!(
        wanted = choice.wanted.len(),
        present = choice.present.len(),
        skipped = choice.skipped.len(),
        frames = frames.len(),
        disk_bytes,
        inodes,
        "chose the items to restore"
    );
    for skipped in &choice.skipped {
        trace!(item = %skipped.name, reason = skipped.reason, "skip an item");
    }
    let rows = Rows::read(&snapshot, &choice.wanted, live.as_ref())?;
    let broken = || format!("{} is damaged: repair the store first", layout.database().display());
    live.as_ref().map_or(Ok(()), LiveDatabase::check_references).with_context(broken)?;
    // The commit needs the database exclusively: this process must not have it open either.
    drop(live);
    talk.reply(&Reply::Plan(Plan {
        frames: frames.clone(),
        wanted: choice.wanted.len() as u64,
        present: choice.present.len() as u64,
        skipped: choice.skipped.iter().map(|s| (s.name.to_string(), s.reason.clone())).collect(),
        disk_bytes,
        warnings: [&talk.warnings[..], &warnings].concat(),
    }))?;

    talk.holds(request.memory.compressed);
    // A dry run ends here; any other restore sends another request.
    let next = match talk.receive_or_end()? {
        None => return Ok(()),
        Some((Request::Check(patterns), _)) => {
            return check(talk, store_request, &patterns, Some(&rows));
        }
        Some(next) => next,
    };
    if choice.wanted.is_empty() {
        return talk.reply(&Reply::Restored(Restored::default()));
    }
    talk.enter(Phase::Unpack);
    let owner = Owner::find(layout)?;
    prepare_store(&target, owner)?;
    let staging = Staging::create(&access.staging_parent(layout))?;
    let ids = (owner.uid, owner.gid);
    let unpackers =
        files.unpack(&talk.run, &choice.wanted, &staging.directory, ids, &request.memory)?;
    let staged = Arc::new(directory(staging.path())?);
    let mut writeback = writeback(&talk.run, vec![staged], request.sync)?;
    receive_frames(talk, next, &frames, &unpackers, &mut writeback)?;
    let unpacked = unpackers.finish()?;
    let threads = request.memory.threads;
    let check = |hashes: Hashes| hashes.check(talk, &staging.directory, threads, unpacked);
    let content_seconds = hashes.map(check).transpose()?;
    record_plan(&staging, &choice.wanted)?;

    let sync = writeback.end();
    let commit = Commit { talk, target: &target, owner, staging, gc_lock, rows, access, sync };
    let restored = commit.run(&mut guardian)?;
    talk.reply(&Reply::Restored(Restored { bytes: unpacked.bytes, content_seconds, ..restored }))
}

/// Creates a directory that belongs to the store's owner, if it does not exist.
///
/// # Errors
/// If that fails, also if the owner cannot be changed. In that case the directory is removed, because the next run
/// would use it as it is.
fn make_directory(path: &Path, mode: u32, owner: Owner) -> Result<()> {
    if is_there(path)? {
        return Ok(());
    }
    let context = || format!("create {}", path.display());
    rustix::fs::mkdir(path, Mode::from_raw_mode(mode)).with_context(context)?;
    owner.take(path).inspect_err(|_| drop(insist(|| std::fs::remove_dir(path))))
}

/// Refuses a snapshot that was made for another kind of store.
fn check_fit(layout: &Layout, facts: &StoreFacts) -> Result<()> {
    let differs = |what: &str, theirs: &Untrusted, ours: &str| -> Result<()> {
        if *theirs == *ours {
            return Ok(());
        }
        bail!(
            anyhow!("the snapshot is for the {what} {theirs}, but this is {ours}")
                .hint("save one here first")
        )
    };
    differs("store kind", &facts.kind, layout.kind.name())?;
    differs("system", &facts.system, &system())?;
    differs("store directory", &facts.store_dir, layout.store_dir)?;
    let live = layout.live_schema()?.unwrap_or(layout.schema);
    if live != layout.schema {
        bail!(
            anyhow!(
                "the live database has schema {live}, but this storecache supports schema {}",
                layout.schema
            )
            .hint("use a newer storecache")
        );
    }
    match facts.schema {
        Some(schema) if schema > live => bail!(
            anyhow!("the snapshot's database has schema {schema}, the live one has schema {live}")
                .hint("upgrade the package manager, or save a new snapshot with this one")
        ),
        _ => Ok(()),
    }
}

/// Receives the index of the base. Returns it both parsed and as raw bytes.
fn receive_base(talk: &Conversation, layout: &Layout) -> Result<(Index, Vec<u8>)> {
    let (Request::Base(facts), bytes) = talk.receive()? else {
        bail!("protocol error: expected `Base`");
    };
    let (bytes, _) = bytes.into_parts();
    let parsed = Index::from_bytes(&bytes).and_then(|index| index.check().map(|()| index));
    let index = parsed.context(OfBase)?;
    check_fit(layout, &facts).context(OfBase)?;
    check_kind(layout.kind, &index).context(OfBase)?;
    Ok((index, bytes))
}

/// Requests the frames of the database and opens it. Its file exists until the second value, a private temporary
/// directory, is dropped.
fn receive_database(
    talk: &Conversation,
    layout: &Layout,
    index: &Index,
) -> Result<(SnapshotDatabase, TempDb)> {
    talk.reply(&Reply::NeedDatabase)?;
    let place = TempDb::create()?;
    let path = place.path().join("db.sqlite");
    let mut file = std::fs::File::create(&path)?;
    write_database(index, &mut file, |number| match talk.receive()? {
        (Request::Frame(FrameId { which: SnapshotRole::Entry, number: sent }), bytes)
            if sent == number =>
        {
            Ok(bytes)
        }
        _ => bail!("protocol error: expected frame {number} of the database"),
    })?;
    let snapshot = SnapshotDatabase::open(&path, layout).map_err(of_snapshot)?;
    Ok((snapshot, place))
}

fn plan(
    layout: &Layout,
    snapshot: &SnapshotRows,
    live: Option<&LiveDatabase>,
    files: &Files,
) -> Result<RestoreSelection> {
    let items: Vec<ItemName> = snapshot.items.iter().map(|item| item.name.clone()).collect();
    let live = live.map(|live| live.valid(layout)).transpose()?.unwrap_or_default();
    Ok(choose(&items, &snapshot.references, &live, &|name| files.holds(name)))
}

/// Creates the store directory and the database. They do not exist if the package manager was installed but never
/// used.
fn prepare_store(target: &StoreTarget, owner: Owner) -> Result<()> {
    let layout = &target.layout;
    make_directory(&layout.store(), 0o1775, owner)?;
    if is_there(&layout.database())? {
        return Ok(());
    }
    if Listener::find(&layout.socket())?.is_some() {
        // Let the daemon create its own database in its own way.
        await_ready(&target.run, &layout.socket(), &target.layout.probe(), target.daemon_timeout)?;
    }
    make_directory(&layout.database_dir(), 0o755, owner)?;
    make_lock_file(&layout.big_lock(), owner, &layout.state())?;
    let timeout = target.lock_timeout;
    let (path, kind) = (layout.big_lock(), layout.lock_kind);
    let _big_lock = lock(&target.run, &path, kind, LockMode::Exclusive, timeout, &|| Ok(()))?;
    LiveDatabase::create_if_missing(layout, owner)
}
