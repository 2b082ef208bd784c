//! Golden files: bytes that are checked in as a hexdump with comments.
//!
//! A line is 16 bytes as hexadecimal digits, then `|` and the printable characters of these bytes. Lines that
//! begin with `#` are comments.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use storecache_snapshot::{Index, Opened};

use super::snapshot_builder::{frame_bytes, open_bytes};

pub fn path(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join("golden").join(format!("{name}.hex"))
}

/// The bytes of a golden file.
#[track_caller]
pub fn read(name: &str) -> Vec<u8> {
    let path = path(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let digits = lines.flat_map(|line| line.split('|').next().unwrap_or_default().split(' '));
    let bytes = digits.filter(|pair| !pair.is_empty());
    bytes.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Writes a snapshot as a golden file. Use this only for a new format.
pub fn write(name: &str, bytes: &[u8]) {
    let Opened { head, index, .. } = open_bytes(bytes).unwrap();
    let frames_end = index.frames.last().map_or(0, |frame| frame.at + frame.size) as usize;
    let table_at = bytes.len() - (8 + 9 + 8 * (index.frames.len() + 2));
    let mut text = format!("# A snapshot of format {}, written by {}.\n", head.format, head.tool);
    text += "# head: skippable frame: magic, length, JSON\n";
    dump(&mut text, &bytes[..index.head_bytes as usize]);
    for number in 0..index.frames.len() {
        let entry = &index.frames[number];
        let raw = zstd::decode_all(frame_bytes(bytes, &index, number)).unwrap();
        writeln!(text, "# frame {number}: {} bytes of tar", entry.raw).unwrap();
        if let Some(continues) = &entry.continues {
            writeln!(text, "#   goes on with {}", continues.path).unwrap();
        } else {
            members(&mut text, &raw);
        }
        dump(&mut text, frame_bytes(bytes, &index, number));
    }
    text +=
        "# index: skippable frame: magic, length; length of the body, body (zstd), its SHA-256,\n";
    text += "# length of the signatures\n";
    for line in json(&index).lines() {
        writeln!(text, "#   {line}").unwrap();
    }
    dump(&mut text, &bytes[frames_end..table_at]);
    text +=
        "# seek table: skippable frame: magic, length; compressed and decompressed size of each\n";
    text += "# frame, head and index among them; count of frames, descriptor, magic\n";
    dump(&mut text, &bytes[table_at..]);
    fs::create_dir_all(path(name).parent().unwrap()).unwrap();
    fs::write(path(name), text).unwrap();
}

/// The index as text.
pub fn json(index: &Index) -> String {
    serde_json::to_string_pretty(index).unwrap()
}

fn members(text: &mut String, raw: &[u8]) {
    let mut archive = tar::Archive::new(raw);
    // The content of the last member may continue in the next frame.
    for entry in archive.entries().unwrap().map_while(Result::ok) {
        let header = entry.header();
        let kind = header.entry_type().as_byte() as char;
        let path = entry.path_bytes().escape_ascii().to_string();
        let (mode, size) = (header.mode().unwrap(), header.size().unwrap());
        writeln!(text, "#   {kind} {mode:04o} {size:>5} {path}").unwrap();
    }
}

fn dump(text: &mut String, bytes: &[u8]) {
    for line in bytes.chunks(16) {
        let digits: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = line.iter().map(|&byte| match byte {
            b' '..=b'~' => byte as char,
            _ => '.',
        });
        let shown: String = shown.collect();
        writeln!(text, "{:<47} | {}", digits.join(" "), shown.trim_end()).unwrap();
    }
}
