//! Links, and members below links.

use super::archive::{Archive, Harmless, Refused, below};
use super::listings::{GnuTar, Python};
use super::tar_blocks::{directory, file, hard_link, header, long, pax, symlink};

pub fn archives() -> Vec<Archive> {
    let out = || symlink("it/out", "../../outside");
    let mut archives = vec![
        below(
            "file through a link",
            "tar of all times",
            &[out(), file("it/out/new", b"x")],
            (GnuTar, "it/out -> ../../outside"),
            Refused(""),
        ),
        below(
            "directory through a link",
            "tar-rs CVE-2021-38511",
            &[out(), directory("it/out/new")],
            (GnuTar, "it/out/new/"),
            Refused(""),
        ),
        below(
            "deep through a link",
            "tar-rs CVE-2021-38511",
            &[out(), file("it/out/a/b", b"x")],
            (GnuTar, "it/out/a/b"),
            Refused(""),
        ),
        below(
            "mode through a link",
            "libarchive CVE-2021-31566, CPython CVE-2024-12718",
            &[out(), header("it/out/", b'5').mode(0o777).bytes(b"")],
            (GnuTar, "drwxrwxrwx"),
            Refused("the same name"),
        ),
        below(
            "file over a link",
            "GNU tar before 1.13",
            &[symlink("it/x", "../../bystander"), file("it/x", b"x")],
            (GnuTar, "it/x -> ../../bystander"),
            Refused("appears twice"),
        ),
        below(
            "link over a directory",
            "node-tar CVE-2021-32803",
            &[directory("it/d"), symlink("it/d", "../../outside"), file("it/d/x", b"x")],
            (GnuTar, "it/d -> ../../outside"),
            Refused("appears twice"),
        ),
        below(
            "link to a link",
            "CPython CVE-2025-4330",
            &[
                directory("it/a"),
                symlink("it/a/b", ".."),
                symlink("it/c", "a/b/../../outside"),
                file("it/c/new", b"x"),
            ],
            (Python, "'a/b/../../outside'"),
            Refused(""),
        ),
        below(
            "link over PATH_MAX",
            "CPython CVE-2025-4517",
            &beyond_path_max(),
            (Python, "'../../outside'"),
            Refused(""),
        ),
        below(
            "link to itself",
            "a loop",
            &[symlink("it/loop", "loop"), file("it/loop/x", b"x")],
            (GnuTar, "it/loop -> loop"),
            Refused(""),
        ),
        below(
            "links in a ring",
            "a loop",
            &[symlink("it/a", "b"), symlink("it/b", "a"), directory("it/a/d")],
            (GnuTar, "it/b -> a"),
            Refused(""),
        ),
        below(
            "link to nothing",
            "an empty target",
            &[symlink("it/l", "")],
            (Python, "'it/l' ''"),
            Refused(""),
        ),
        below(
            "link with a zero",
            "a target that ends twice",
            &[
                long(b'K', &[&[b't'; 100][..], b"\0/../.."].concat()),
                header("it/l", b'2').mode(0o777).target([b't'; 100]).bytes(b""),
            ],
            (Python, "'it/l'"),
            Refused(""),
        ),
        below(
            "link with content",
            "libarchive CVE-2016-4809",
            &[header("it/l", b'2').mode(0o777).target("x").size(3).bytes(b"abc")],
            (GnuTar, "it/l -> x"),
            Refused("only a file"),
        ),
        below(
            "links that lead out and stay",
            "a store is full of these",
            &[out(), symlink("it/etc", "/etc/passwd")],
            (GnuTar, "it/etc -> /etc/passwd"),
            Harmless(3),
        ),
    ];
    archives.extend(hard_links());
    archives
}

fn hard_links() -> Vec<Archive> {
    let first = || file("it/first", b"first");
    vec![
        below(
            "hard link out",
            "tar-rs CVE-2018-20990",
            &[hard_link("it/h", "../bystander")],
            (Python, "'../bystander'"),
            Refused("points outside its item"),
        ),
        below(
            "hard link out, and a file over it",
            "tar-rs CVE-2018-20990",
            &[hard_link("it/h", "../bystander"), file("it/h", b"x")],
            (Python, "'../bystander'"),
            Refused(""),
        ),
        below(
            "absolute hard link",
            "node-tar CVE-2026-23745",
            &[hard_link("it/h", "/etc/passwd")],
            (Python, "'/etc/passwd'"),
            Refused("points outside its item"),
        ),
        below(
            "hard link with dots inside",
            "CPython CVE-2025-4138",
            &[first(), hard_link("it/h", "it/d/../../bystander")],
            (Python, "'it/d/../../bystander'"),
            Refused("points outside its item"),
        ),
        below(
            "hard link through a link",
            "libarchive CVE-2016-5418",
            &[symlink("it/out", "../../outside"), hard_link("it/h", "it/out/secret")],
            (GnuTar, "link to it/out/secret"),
            Refused(""),
        ),
        below(
            "hard link with content",
            "libarchive CVE-2016-5418",
            &[first(), header("it/h", b'1').target("it/first").size(3).bytes(b"abc")],
            (Python, "'it/h' 'it/first'"),
            Refused("only a file"),
        ),
        below(
            "hard link to a link that leads out, and a file over it",
            "CPython CVE-2025-4330",
            &[
                symlink("it/out", "../../bystander"),
                hard_link("it/h", "it/out"),
                file("it/h", b"x"),
            ],
            (GnuTar, "link to it/out"),
            Refused("appears twice"),
        ),
        below(
            "hard link to a link that leads out",
            "the link itself has two names",
            &[symlink("it/out", "../../bystander"), hard_link("it/h", "it/out")],
            (GnuTar, "link to it/out"),
            Harmless(3),
        ),
        below(
            "hard link of another owner",
            "CPython CVE-2026-4360",
            &[first(), header("it/h", b'1').target("it/first").owner(1234).mode(0o6777).bytes(b"")],
            (GnuTar, "1234/0"),
            Harmless(3),
        ),
        below(
            "hard link before its target",
            "a link to what is not there yet",
            &[hard_link("it/h", "it/late"), file("it/late", b"x")],
            (GnuTar, "link to it/late"),
            Refused("precedes its target"),
        ),
        below(
            "hard link to a hard link",
            "what comes of it depends on the order",
            &[first(), hard_link("it/a", "it/first"), hard_link("it/b", "it/a")],
            (GnuTar, "it/b link to it/a"),
            Refused("to the hard link"),
        ),
        below(
            "hard links in a ring",
            "a loop",
            &[hard_link("it/a", "it/b"), hard_link("it/b", "it/a")],
            (GnuTar, "it/b link to it/a"),
            Refused("to the hard link"),
        ),
        below(
            "hard link to itself",
            "a loop",
            &[hard_link("it/h", "it/h")],
            (GnuTar, "it/h link to it/h"),
            Refused("to the hard link"),
        ),
        below(
            "hard link to a directory",
            "a loop of directories",
            &[directory("it/d"), hard_link("it/d/h", "it/d")],
            (GnuTar, "link to it/d"),
            Refused(""),
        ),
        below(
            "hard link to the item",
            "a loop of directories",
            &[hard_link("it/h", "it")],
            (GnuTar, "link to it"),
            Refused("points outside its item"),
        ),
        below(
            "hard link to nothing",
            "a target that is not there",
            &[hard_link("it/h", "it/missing")],
            (GnuTar, "link to it/missing"),
            Refused("a hard link to a missing file"),
        ),
        below(
            "hard link to another item",
            "the index says what stands alone",
            &[hard_link("it/h", "other/file")],
            (GnuTar, "link to other/file"),
            Refused("points outside its item"),
        ),
        below(
            "target in an extended header",
            "pax: linkpath",
            &[first(), pax(b'x', &[("linkpath", "/etc/passwd")]), hard_link("it/h", "it/first")],
            (Python, "'/etc/passwd'"),
            Refused("other than mtime"),
        ),
        below(
            "target twice",
            "Go: gnu-multi-hdrs",
            &[
                first(),
                long(b'K', b"it/first"),
                long(b'K', b"/etc/passwd"),
                hard_link("it/h", "it/first"),
            ],
            (GnuTar, "link to etc/passwd"),
            Refused("given twice"),
        ),
        below(
            "short target as a long one",
            "two targets for one member",
            &[first(), long(b'K', b"/etc/passwd"), hard_link("it/h", "it/first")],
            (Python, "'/etc/passwd'"),
            Refused("not in canonical form"),
        ),
    ]
}

/// Directories with long names and short links to them, until the resolved path is longer than a path may be,
/// followed by a link that leads out.
fn beyond_path_max() -> Vec<Vec<u8>> {
    let component = "d".repeat(247);
    let mut members = Vec::new();
    let mut path = "it".to_owned();
    for step in "abcdefghijklmnop".chars() {
        let long_name = format!("{path}/{component}/");
        let head = header(&long_name.as_bytes()[..100], b'5').mode(0o755).bytes(b"");
        members.push([long(b'L', long_name.as_bytes()), head].concat());
        let target = component.as_bytes();
        let link = header(format!("{path}/{step}"), b'2').mode(0o777).target(&target[..100]);
        members.push([long(b'K', target), link.bytes(b"")].concat());
        path = format!("{path}/{step}");
    }
    members.push(symlink(format!("{path}/up"), "../".repeat(16).as_str()));
    members.push(symlink("it/escape", "../../outside"));
    members.push(file("it/escape/new", b"x"));
    members
}
