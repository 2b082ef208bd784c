//! Raw requests to the root helper, as an attacker would send them without the real client.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use storecache_root_helper::protocol::{PROTOCOL, write_message};
use storecache_runtime::memory::{Packing, Unpacking};
use storecache_snapshot::Opened;

use super::invocation::{Output, Running};
use super::snapshot_builder::open_bytes;
use super::world::World;

/// The line for sudoers from the documentation.
pub const RULE: &str = "runner ALL=(root) NOPASSWD: /usr/local/bin/storecache privileged\n";

/// Starts the root helper as the rule allows.
pub const ROOT_HELPER_COMMAND: &str = "sudo -n -- /usr/local/bin/storecache privileged";

/// Runs one root helper for each conversation in `/tmp/talks`, and keeps each pipe open until the helper
/// ends.
const CLIENT: &str = "import json, subprocess, sys
ended = []
for number in range(int(sys.argv[1])):
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    talking = subprocess.Popen(sys.argv[2:], **pipes)
    try:
        with open(f'/tmp/talks/{number}', 'rb') as talk:
            talking.stdin.write(talk.read())
        talking.stdin.flush()
    except BrokenPipeError:
        pass
    said = talking.stdout.read().decode('utf-8', 'replace')
    ended.append({'code': talking.wait(), 'said': said})
    try:
        talking.stdin.close()
    except BrokenPipeError:
        pass
print(json.dumps(ended))
";

/// The exit code of a root helper, and everything that it replied.
#[derive(Debug, serde::Deserialize)]
pub struct HelperResult {
    pub code: i32,
    pub said: String,
}

/// Requests as bytes of the protocol.
#[derive(Clone, Default)]
pub struct RequestStream(pub Vec<u8>);

impl RequestStream {
    /// The first message.
    pub fn hello() -> RequestStream {
        RequestStream::default().say(json!({ "Hello": { "protocol": PROTOCOL } }))
    }

    /// The first two messages, for the Nix store below `/`.
    pub fn for_nix_store() -> RequestStream {
        RequestStream::hello().say(store(json!({})))
    }

    pub fn say(self, message: Value) -> RequestStream {
        self.with(message, &[])
    }

    pub fn with(mut self, message: Value, payload: &[u8]) -> RequestStream {
        write_message(&mut self.0, &message, payload).unwrap();
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> RequestStream {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Sends everything through sudo as `runner`, and closes the pipe.
    pub fn run(&self, world: &World) -> Output {
        let words = ROOT_HELPER_COMMAND.split(' ');
        world.command(words).user("runner").input(self.0.clone()).run()
    }

    /// Sends everything, waits until each helper has ended, and only then closes the pipe.
    pub fn run_each_until_exit(talks: &[RequestStream], world: &World) -> Vec<HelperResult> {
        fs::create_dir(world.host("/tmp/talks")).unwrap();
        for (number, talk) in talks.iter().enumerate() {
            fs::write(world.host(format!("/tmp/talks/{number}")), &talk.0).unwrap();
        }
        let count = talks.len().to_string();
        let words =
            ["python3", "-c", CLIENT, &count].into_iter().chain(ROOT_HELPER_COMMAND.split(' '));
        let said = world.command(words).user("runner").ok();
        world.sh("rm -r /tmp/talks");
        serde_json::from_str(&said.stdout).unwrap()
    }

    /// Sends everything, and keeps the pipe open.
    pub fn hold<'w>(&self, world: &'w World, user: &str, helper_command: &str) -> Running<'w> {
        let said = "/tmp/said";
        fs::write(world.host(said), &self.0).unwrap();
        let script = format!("{{ cat {said}; sleep 1000; }} | {helper_command}");
        world.command(["bash", "-c", &script]).user(user).spawn()
    }
}

/// The `Store` request for the Nix store below `/`, with the given fields changed or added.
pub fn store(differs: Value) -> Value {
    let timeout = json!({ "secs": 10, "nanos": 0 });
    let mut request = json!({
        "kind": "nix", "root": "/", "paths": [], "daemon": "auto", "asks_version": false,
        "shepherds": [], "lock_timeout": timeout, "daemon_timeout": timeout, "stall": timeout,
    });
    let fields = request.as_object_mut().unwrap();
    fields.extend(differs.as_object().unwrap().clone());
    json!({ "Store": request })
}

/// A `Save` request, with the given fields changed or added.
pub fn save(differs: Value) -> Value {
    let mut request = json!({
        "level": 1, "long": false, "memory": Packing::on(1), "leave_out": [], "known": [],
        "restored": {}, "roots": [], "max_size": null, "base": null,
    });
    request.as_object_mut().unwrap().extend(differs.as_object().unwrap().clone());
    json!({ "Save": request })
}

/// A snapshot and the requests that restore it.
pub struct Snapshot {
    content: Vec<u8>,
    pub opened: Opened,
}

impl Snapshot {
    /// Reads the snapshot from a file on this machine.
    pub fn open(file: &Path) -> Snapshot {
        let content = fs::read(file).unwrap();
        let opened = open_bytes(&content).unwrap();
        Snapshot { content, opened }
    }

    pub fn restore(&self) -> Value {
        json!({ "Restore": {
            "store": self.opened.head.store, "memory": Unpacking::on(1), "replace": false,
            "verify_content": true, "sync": false,
        } })
    }

    pub fn frame(&self, number: u32) -> (Value, &[u8]) {
        let frame = &self.opened.index.frames[number as usize];
        let bytes = &self.content[frame.at as usize..][..frame.size as usize];
        (json!({ "Frame": { "which": "entry", "number": number } }), bytes)
    }

    /// The numbers of the frames that hold the database.
    pub fn database(&self) -> RangeInclusive<u32> {
        let (first, last) = self.opened.index.database.as_ref().unwrap().frames;
        first..=last
    }

    /// All requests up to the plan.
    pub fn planned(&self) -> RequestStream {
        self.planned_after(RequestStream::for_nix_store())
    }

    /// As [`Snapshot::planned`], after other first messages.
    pub fn planned_after(&self, about: RequestStream) -> RequestStream {
        let talk = about.with(self.restore(), &self.opened.index_bytes);
        self.database().fold(talk, |talk, number| {
            let (message, bytes) = self.frame(number);
            talk.with(message, bytes)
        })
    }

    /// The numbers of the frames that hold items.
    pub fn wanted(&self) -> Vec<u32> {
        self.opened.index.frames_of(0..self.opened.index.items.len())
    }

    /// All requests up to, but without, the commit.
    pub fn staged(&self) -> RequestStream {
        self.staged_after(RequestStream::for_nix_store())
    }

    /// As [`Snapshot::staged`], after other first messages.
    pub fn staged_after(&self, about: RequestStream) -> RequestStream {
        self.wanted().into_iter().fold(self.planned_after(about), |talk, number| {
            let (message, bytes) = self.frame(number);
            talk.with(message, bytes)
        })
    }
}

/// The newest entry in the backend of a world.
pub fn entry(world: &World) -> PathBuf {
    let found = fs::read_dir(world.backend().host_path()).unwrap();
    let mut files: Vec<_> = found.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.pop().unwrap()
}
