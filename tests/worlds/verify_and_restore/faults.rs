//! The faults that a snapshot with valid digests can have, each in an otherwise good snapshot.

use storecache_snapshot::{Frame, ItemEntry};

use super::saved_store::{APP, DERIVATION, LIB, LONG, MISSING, TWO, with_sql};
use crate::support::extract_dir::continuation;
use crate::support::snapshot_builder::{
    self, SnapshotParts, directory, file, frame, hard_link, long_named_file, member, raw_bytes,
    symlink, with_index,
};

type Fault = fn(&[u8]) -> Vec<u8>;

/// A name, words of the error, and a function that makes the fault. The words are empty if the error depends on
/// which frame a restore reads first.
pub const FAULTS: &[(&str, &str, Fault)] = &[
    // Frames.
    ("a member between the parts of a file", "the next frame", |bytes| {
        changed(bytes, |parts| {
            let at = part(parts) as u32;
            insert(parts, at, frame(&file(&below(LONG, "between"), b"x")));
            more(parts, LONG, 1);
        })
    }),
    ("parts of a file that changed places", "the next frame", |bytes| {
        changed(bytes, |parts| {
            let at = part(parts);
            parts.frames.swap(at, at + 1);
        })
    }),
    ("a part that continues at another place", "does not continue it there", |bytes| {
        changed(bytes, |parts| {
            let at = part(parts);
            let continues = parts.frames[at].continues.as_mut().unwrap();
            continues.offset -= 512;
        })
    }),
    ("a file that nothing continues", "", |bytes| {
        changed(bytes, |parts| {
            let at = part(parts);
            parts.frames[at].continues = None;
        })
    }),
    ("a frame that continues nothing", "", |bytes| {
        changed(bytes, |parts| {
            let at = parts.items[position(parts, LIB)].frames.0 as usize;
            let path = String::from_utf8(below(LIB, "lib/a.so")).unwrap();
            parts.frames[at].continues = continuation(&path, 512, 1024);
        })
    }),
    ("a file that the archive ends in", "is incomplete", |bytes| {
        changed(bytes, |parts| {
            let at = position(parts, LONG);
            parts.items[at].frames.1 = part(parts) as u32;
            parts.frames.truncate(parts.items[at].frames.1 as usize + 1);
            let gone = parts.items.split_off(at + 1).into_iter().map(|item| item.name);
            let rows_only = parts.rows_only.get_or_insert_default();
            rows_only.extend(gone);
            // The items that share the frame behind the database are gone, so remove that frame too.
            parts.frames.remove(1);
            for item in &mut parts.items {
                item.shared.clear();
                item.frames = (item.frames.0 - 1, item.frames.1 - 1);
            }
        })
    }),
    ("a frame of nothing", "belongs to no item", |bytes| {
        changed(bytes, |parts| {
            let last = parts.frames.len() - 1;
            parts.frames.insert(last, frame(&directory(b"nix/store/more")));
        })
    }),
    ("the end of the archive in a frame of its own", "the archive ends before", |bytes| {
        changed(bytes, |parts| {
            let at = parts.items[position(parts, LIB)].frames.1 + 1;
            insert(parts, at, frame(&[0; 1024]));
            let lib = position(parts, LIB);
            parts.items[lib].frames.1 += 1;
        })
    }),
    ("the end of the archive behind members", "the archive ends before", |bytes| {
        edited(bytes, APP, |raw| raw.extend([0; 1024]))
    }),
    ("a block of zeros behind members", "the archive ends before", |bytes| {
        edited(bytes, APP, |raw| raw.extend([0; 512]))
    }),
    ("members behind the end of the archive", "empty header", |bytes| {
        appended(bytes, APP, &[vec![0; 1024], file(&below(APP, "zz"), b"x")].concat(), 1)
    }),
    ("a frame with another digest", "digest", |bytes| {
        changed(bytes, |parts| {
            let at = parts.items[position(parts, APP)].frames.0 as usize;
            parts.frames[at].sha256 = parts.frames[0].sha256;
        })
    }),
    // Members against the index.
    ("a member more than the index says", "has more than", |bytes| {
        changed(bytes, |parts| {
            let at = position(parts, LIB);
            parts.items[at].files -= 1;
        })
    }),
    ("a member less than the index says", "members", |bytes| {
        changed(bytes, |parts| more(parts, LIB, 1))
    }),
    ("an item without members", "has no members", |bytes| {
        changed(bytes, |parts| {
            let at = position(parts, LIB);
            parts.items[at].files = 0;
        })
    }),
    ("more content than the index says", "is larger than", |bytes| {
        changed(bytes, |parts| {
            let at = position(parts, LONG);
            parts.items[at].disk = 1 << 20;
            let at = position(parts, LIB);
            parts.items[at].disk += 20 << 20;
        })
    }),
    ("a member of no item", "contradicts the index", |bytes| {
        appended(bytes, APP, &file(b"nix/store/more", b"x"), 0)
    }),
    ("a member in a frame of another item", "contradicts the index", |bytes| {
        appended(bytes, APP, &file(&below(LIB, "zz"), b"x"), 0)
    }),
    ("a shared frame that the index does not name", "contradicts the index", |bytes| {
        changed(bytes, |parts| {
            let at = position(parts, TWO);
            parts.items[at].shared.clear();
        })
    }),
    ("an item that lies in another one", "lies in the item", |bytes| {
        changed(bytes, |parts| {
            let at = position(parts, APP);
            parts.items[at].name = format!("{LIB}/lib");
        })
    }),
    // Members against each other.
    ("a member twice in a frame", "appears twice", |bytes| {
        let again = file(&below(APP, "zz"), b"x");
        appended(bytes, APP, &[again.clone(), again].concat(), 2)
    }),
    ("a member twice in two frames", "appears twice", |bytes| {
        changed(bytes, |parts| {
            let at = parts.items[position(parts, LONG)].frames.1 + 1;
            insert(parts, at, frame(&file(&below(LONG, "last"), b"again\n")));
            let long = position(parts, LONG);
            parts.items[long].frames.1 += 1;
            more(parts, LONG, 1);
        })
    }),
    ("a shared file that the item has too", "appears twice", |bytes| {
        let again = file(&below(TWO, "bin/program"), &[1; 9000]);
        changed(bytes, |parts| {
            edit(parts, TWO, |raw| drop(raw.splice(1024..1024, again)));
            more(parts, TWO, 1);
        })
    }),
    ("a directory that is not a member", "does not follow its directory", |bytes| {
        changed(bytes, |parts| {
            edit(parts, LIB, |raw| remove(raw, &below(LIB, "lib/deep/")));
            let at = position(parts, LIB);
            parts.items[at].files -= 1;
        })
    }),
    ("a directory of a shared file that is not a member", "is not a member itself", |bytes| {
        changed(bytes, |parts| {
            edit(parts, TWO, |raw| remove(raw, &below(TWO, "bin/")));
            let at = position(parts, TWO);
            parts.items[at].files -= 1;
        })
    }),
    ("a member below a file", "does not follow its directory", |bytes| {
        let members = [file(&below(APP, "zz"), b"x"), file(&below(APP, "zz/y"), b"x")];
        appended(bytes, APP, &members.concat(), 2)
    }),
    ("a member below a link", "does not follow its directory", |bytes| {
        let members = [symlink(&below(APP, "zz"), b".."), file(&below(APP, "zz/y"), b"x")];
        appended(bytes, APP, &members.concat(), 2)
    }),
    ("a directory with members in two places", "does not follow its directory", |bytes| {
        appended(bytes, LIB, &file(&below(LIB, "lib/zz"), b"x"), 1)
    }),
    ("a directory that the next frame comes back to", "does not follow its directory", |bytes| {
        changed(bytes, |parts| {
            let at = parts.items[position(parts, LIB)].frames.1 + 1;
            insert(parts, at, frame(&file(&below(LIB, "lib/zz"), b"x")));
            let lib = position(parts, LIB);
            parts.items[lib].frames.1 += 1;
            more(parts, LIB, 1);
        })
    }),
    ("a hard link before its target", "precedes its target", |bytes| {
        let link = hard_link(&below(APP, "y"), &below(APP, "z"));
        appended(bytes, APP, &[link, file(&below(APP, "z"), b"x")].concat(), 2)
    }),
    ("a hard link to nothing", "a hard link to a missing file", |bytes| {
        appended(bytes, APP, &hard_link(&below(APP, "y"), &below(APP, "z")), 1)
    }),
    ("a hard link to a directory", "a hard link to the directory", |bytes| {
        appended(bytes, APP, &hard_link(&below(APP, "y"), &below(APP, "empty")), 1)
    }),
    ("a hard link to a hard link", "to the hard link", |bytes| {
        let to = |name: &str, target: &str| hard_link(&below(APP, name), &below(APP, target));
        let members = [file(&below(APP, "x"), b"x"), to("y", "x"), to("z", "y")];
        appended(bytes, APP, &members.concat(), 3)
    }),
    ("a hard link to another item", "points outside its item", |bytes| {
        appended(bytes, APP, &hard_link(&below(APP, "y"), &below(LIB, "lib/a.so")), 1)
    }),
    // Values that no system call accepts.
    ("an empty link target", "an empty target", |bytes| {
        appended(bytes, APP, &symlink(&below(APP, "y"), b""), 1)
    }),
    ("a zero byte in a link target", "zero byte", |bytes| {
        let target = [&[b't'; 100][..], b"\0u"].concat();
        let link = [long(b'K', &target), symlink(&below(APP, "y"), &target[..100])].concat();
        appended(bytes, APP, &link, 1)
    }),
    ("a link target of PATH_MAX", "longer than any path", |bytes| {
        let target = [b't'; 4096];
        let link = [long(b'K', &target), symlink(&below(APP, "y"), &target[..100])].concat();
        appended(bytes, APP, &link, 1)
    }),
    ("a link target over PATH_MAX", "longer than any path", |bytes| {
        let target = [b't'; 5000];
        let link = [long(b'K', &target), symlink(&below(APP, "y"), &target[..100])].concat();
        appended(bytes, APP, &link, 1)
    }),
    ("a name of 256 bytes", "a component that is too long", |bytes| {
        appended(bytes, APP, &long_named_file(&below(APP, &"y".repeat(256))), 1)
    }),
    ("a zero byte in a name", "zero byte", |bytes| {
        let name = below(APP, &format!("{}\0z", "y".repeat(80)));
        let mut other = name.clone();
        other.truncate(100);
        appended(bytes, APP, &[long(b'L', &name), file(&other, b"x")].concat(), 1)
    }),
    // Headers that tar readers interpret differently.
    ("a checksum in another form", "not in canonical form", |bytes| {
        changed(bytes, |parts| {
            edit(parts, APP, |raw| {
                let digits = raw[149..155].to_vec();
                raw[148..156].copy_from_slice(&[&digits[..], b"\0 "].concat());
            })
        })
    }),
    ("a size in another form", "not in canonical form", |bytes| {
        let mut odd = file(&below(APP, "zz"), b"x");
        odd[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        appended(bytes, APP, &summed(odd), 1)
    }),
    ("a short name as a long one", "not in canonical form", |bytes| {
        let name = below(APP, "zz");
        appended(bytes, APP, &[long(b'L', b"nix/store/other"), file(&name, b"x")].concat(), 1)
    }),
    ("a name in a pax header", "other than mtime", |bytes| {
        let pax = member(b"././@PaxHeader", b'x', b"", b"19 path=nix/store/x\n");
        appended(bytes, APP, &[pax, file(&below(APP, "zz"), b"x")].concat(), 1)
    }),
    ("a mode that no store has", "not valid for a file in a store", |bytes| {
        let mut odd = file(&below(APP, "zz"), b"x");
        odd[100..108].copy_from_slice(b"0000644\0");
        appended(bytes, APP, &summed(odd), 1)
    }),
    ("a setuid bit", "not valid for a file in a store", |bytes| {
        let mut odd = file(&below(APP, "zz"), b"x");
        odd[100..108].copy_from_slice(b"0004555\0");
        appended(bytes, APP, &summed(odd), 1)
    }),
    ("a time that no store has", "not valid for a file in a store", |bytes| {
        let mut odd = file(&below(APP, "zz"), b"x");
        odd[136..148].copy_from_slice(b"00000000002\0");
        appended(bytes, APP, &summed(odd), 1)
    }),
    // The database in the archive.
    ("no database", "the snapshot has no database", |bytes| {
        changed(bytes, SnapshotParts::remove_database)
    }),
    ("a database at another path", "its database is", |bytes| {
        changed(bytes, |parts| {
            let content = parts.database();
            parts.database.as_mut().unwrap().path = "etc/database".into();
            parts.replace_database(&content);
        })
    }),
    ("a database twice", "contradicts the index", |bytes| {
        appended(bytes, APP, &file(b"nix/var/nix/db/db.sqlite", b"x"), 0)
    }),
    ("a database behind a member", "not the first member", |bytes| {
        changed(bytes, |parts| {
            let lib = position(parts, LIB);
            parts.items[lib].shared.clear();
            let top = directory(&below(LIB, ""));
            let raw = [top, raw_bytes(&parts.frames[0])].concat();
            parts.frames[0] = frame(&raw);
            parts.items[lib].frames.0 = 0;
        })
    }),
    ("items in another directory", "its items are under", |bytes| {
        changed(bytes, |parts| parts.items_under = "gnu/store".into())
    }),
    // Rows against the index.
    ("hashes that are all zero", "in the database, and", |bytes| {
        let zeros = "0".repeat(64);
        sql(bytes, &format!("UPDATE ValidPaths SET hash = 'sha256:{zeros}'"))
    }),
    ("another hash", "in the database, and", |bytes| {
        let other = "1".repeat(64);
        sql(
            bytes,
            &format!("UPDATE ValidPaths SET hash = 'sha256:{other}' WHERE path LIKE '%-app'"),
        )
    }),
    ("no hash in the index", "in the database, and", |bytes| {
        changed(bytes, |parts| {
            let at = position(parts, APP);
            parts.items[at].nar_hash = None;
        })
    }),
    ("another NAR size", "has the NAR size", |bytes| {
        sql(bytes, "UPDATE ValidPaths SET narSize = 7 WHERE path LIKE '%-app'")
    }),
    ("no NAR size", "has the NAR size", |bytes| {
        sql(bytes, "UPDATE ValidPaths SET narSize = NULL WHERE path LIKE '%-app'")
    }),
    ("an item without a row", "has no row for", |bytes| {
        sql(bytes, "DELETE FROM ValidPaths WHERE path LIKE '%-two'")
    }),
    ("a row without files and without a mark", "nor lists it as left out", |bytes| {
        with_index(bytes, |index| index.rows_only = Some(Vec::new()))
    }),
    ("a row more", "nor lists it as left out", |bytes| {
        let path = format!("/nix/store/{}-more", "9".repeat(32));
        sql(
            bytes,
            &format!(
                "INSERT INTO ValidPaths (path, hash, registrationTime) VALUES ('{path}', 'x', 1)"
            ),
        )
    }),
    ("a mark without a row", "the database has no row for it", |bytes| {
        let name = format!("{}-more", "9".repeat(32));
        with_index(bytes, |index| index.rows_only.get_or_insert_default().push(name))
    }),
    ("a mark of an item with files", "both as saved and as left out", |bytes| {
        with_index(bytes, |index| index.rows_only.get_or_insert_default().push(APP.into()))
    }),
    ("a mark twice", "as left out twice", |bytes| {
        with_index(bytes, |index| {
            let rows_only = index.rows_only.get_or_insert_default();
            rows_only.extend([MISSING, MISSING].map(str::to_owned));
        })
    }),
    // Rows by themselves and against each other.
    ("a reference to no row", "refers to a missing row", |bytes| {
        sql(bytes, "INSERT INTO Refs SELECT id, 999 FROM ValidPaths WHERE path LIKE '%-app'")
    }),
    ("a reference of a row without files to no row", "refers to a missing row", |bytes| {
        sql(bytes, "INSERT INTO Refs SELECT id, 999 FROM ValidPaths WHERE path LIKE '%-missing'")
    }),
    ("a row twice", "twice", |bytes| {
        sql(
            bytes,
            "CREATE TABLE v AS SELECT * FROM ValidPaths; DROP TABLE ValidPaths;
             ALTER TABLE v RENAME TO ValidPaths;
             INSERT INTO ValidPaths SELECT 777, path, hash, registrationTime, deriver, narSize, ultimate, \
             sigs, ca FROM ValidPaths WHERE path LIKE '%-two'",
        )
    }),
    ("a reference twice", "twice", |bytes| {
        sql(
            bytes,
            "DROP TRIGGER DeleteSelfRefs; CREATE TABLE r AS SELECT * FROM Refs; DROP TABLE Refs; ALTER TABLE r RENAME TO Refs;
             INSERT INTO Refs SELECT * FROM Refs LIMIT 1",
        )
    }),
    ("an output twice", "twice", |bytes| {
        sql(
            bytes,
            "CREATE TABLE o AS SELECT * FROM DerivationOutputs; DROP TABLE DerivationOutputs;
             ALTER TABLE o RENAME TO DerivationOutputs;
             INSERT INTO DerivationOutputs SELECT * FROM DerivationOutputs",
        )
    }),
    ("an output that is not an item", "has an invalid output", |bytes| {
        sql(bytes, "UPDATE DerivationOutputs SET path = '/etc/passwd'")
    }),
    ("a deriver that is not an item", "in the column deriver", |bytes| {
        sql(bytes, "UPDATE ValidPaths SET deriver = '/etc/passwd' WHERE path LIKE '%-app'")
    }),
    ("a hash that is not valid", "in the column hash", |bytes| {
        changed(bytes, |parts| {
            let odd = "md5:00000000000000000000000000000000";
            let at = position(parts, DERIVATION);
            parts.items[at].nar_hash = Some(odd.into());
            let set = format!("UPDATE ValidPaths SET hash = '{odd}' WHERE path LIKE '%.drv'");
            let database = with_sql(&parts.database(), &set);
            parts.replace_database(&database);
        })
    }),
    ("a path of another store", "not an item path", |bytes| {
        sql(bytes, "UPDATE ValidPaths SET path = '/gnu' || substr(path, 5) WHERE path LIKE '%-two'")
    }),
    ("no table of references", "no table Refs", |bytes| {
        sql(bytes, "DROP TRIGGER DeleteSelfRefs; DROP TABLE Refs")
    }),
];

/// Deviations that older versions may have written, and that both programs must accept.
pub const OLD: &[(&str, Fault)] = &[("a row more", |bytes| {
    let path = format!("/nix/store/{}-more", "9".repeat(32));
    let hash = format!("sha256:{}", "0".repeat(64));
    let row = format!("VALUES ('{path}', '{hash}', 1)");
    sql(bytes, &format!("INSERT INTO ValidPaths (path, hash, registrationTime) {row}"))
})];

fn changed(bytes: &[u8], change: impl FnOnce(&mut SnapshotParts)) -> Vec<u8> {
    let mut parts = SnapshotParts::new(bytes);
    change(&mut parts);
    parts.build()
}

fn sql(bytes: &[u8], script: &str) -> Vec<u8> {
    changed(bytes, |parts| {
        let database = with_sql(&parts.database(), script);
        parts.replace_database(&database);
    })
}

pub fn position(parts: &SnapshotParts, name: &str) -> usize {
    parts.items.iter().position(|item| item.name == name).unwrap()
}

/// Returns the number of the first frame that begins inside a file.
fn part(parts: &SnapshotParts) -> usize {
    parts.frames.iter().position(|frame| frame.continues.is_some()).unwrap()
}

/// Returns the archive path of an item, or of a path below it.
fn below(item: &str, path: &str) -> Vec<u8> {
    format!("nix/store/{item}/{path}").trim_end_matches(|c| c == '/' && path.is_empty()).into()
}

/// Makes the index announce more members of an item, and space for them.
fn more(parts: &mut SnapshotParts, name: &str, members: u64) {
    let at = position(parts, name);
    parts.items[at].files += members;
    parts.items[at].disk += 1 << 20;
}

/// Inserts a frame; items whose frames surround it get it.
pub fn insert(parts: &mut SnapshotParts, at: u32, frame: Frame) {
    let moved = |number: &mut u32| *number += u32::from(*number >= at);
    for ItemEntry { frames, shared, .. } in &mut parts.items {
        moved(&mut frames.0);
        moved(&mut frames.1);
        shared.iter_mut().for_each(moved);
    }
    if let Some(database) = &mut parts.database {
        moved(&mut database.frames.0);
        moved(&mut database.frames.1);
    }
    parts.frames.insert(at as usize, frame);
}

/// Changes the tar bytes of the last frame of an item.
fn edit(parts: &mut SnapshotParts, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let at = parts.items[position(parts, name)].frames.1 as usize;
    let mut raw = raw_bytes(&parts.frames[at]);
    change(&mut raw);
    let continues = parts.frames[at].continues.clone();
    parts.frames[at] = Frame { continues, ..frame(&raw) };
}

fn edited(bytes: &[u8], name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    changed(bytes, |parts| edit(parts, name, change))
}

/// Adds members to an item, and to its number of members.
fn appended(bytes: &[u8], name: &str, members: &[u8], count: u64) -> Vec<u8> {
    changed(bytes, |parts| {
        edit(parts, name, |raw| raw.extend(members));
        more(parts, name, count);
    })
}

/// Removes a member without content.
fn remove(raw: &mut Vec<u8>, name: &[u8]) {
    let blocks = raw.chunks(512);
    let at = blocks
        .into_iter()
        .position(|block| block.starts_with(name) && block.get(name.len()) == Some(&0));
    let at = at.unwrap() * 512;
    raw.drain(at..at + 512);
}

/// Returns GNU's extension for a long name or target.
pub fn long(kind: u8, text: &[u8]) -> Vec<u8> {
    let mut bytes = snapshot_builder::member(b"././@LongLink", kind, b"", &[text, b"\0"].concat());
    bytes[100..108].copy_from_slice(b"0000644\0");
    bytes[136..148].copy_from_slice(b"00000000000\0");
    summed(bytes)
}

/// Corrects the checksum of the first header.
pub fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut header = tar::Header::from_byte_slice(&bytes[..512]).clone();
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    bytes
}
