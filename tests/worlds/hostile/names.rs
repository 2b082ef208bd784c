//! Names that lead elsewhere, and names that readers interpret differently.

use super::archive::{Archive, Harmless, Refused, below};
use super::listings::{BsdTar, GnuTar, Python};
use super::tar_blocks::{directory, file, header, long, named, pax, symlink};

pub fn archives() -> Vec<Archive> {
    let up = "it/../../bystander";
    vec![
        below(
            "dots",
            "GNU tar CVE-2001-1267",
            &[file(up, b"x")],
            (GnuTar, up),
            Refused("dot component"),
        ),
        below(
            "dots behind slashes",
            "GNU tar CVE-2002-0399",
            &[file("it/..//../bystander", b"x")],
            (GnuTar, "it/..//../bystander"),
            Refused("dot component"),
        ),
        below(
            "dots at the end",
            "GNU tar CVE-2007-4131",
            &[directory("it/..")],
            (GnuTar, "it/../"),
            Refused("dot component"),
        ),
        below(
            "dots of a directory above",
            "GNU tar CVE-2007-4131",
            &[directory("it/../..")],
            (GnuTar, "it/../../"),
            Refused("dot component"),
        ),
        below(
            "absolute",
            "CPython CVE-2007-4559",
            &[file("/tmp/storecache-canary", b"x")],
            (Python, "'/tmp/storecache-canary'"),
            Refused("empty component"),
        ),
        below(
            "out of the directory",
            "CPython CVE-2007-4559",
            &[file("../outside/new", b"x")],
            (Python, "'../outside/new'"),
            Refused("dot component"),
        ),
        below(
            "out and back",
            "GNU tar CVE-2016-6321",
            &[file("it/../it/x", b"x")],
            (GnuTar, "it/../it/x"),
            Refused("dot component"),
        ),
        below(
            "two slashes before",
            "libarchive CVE-2010-4666, node-tar CVE-2021-32804",
            &[file("//tmp/storecache-canary", b"x")],
            (BsdTar, "//tmp/storecache-canary"),
            Refused("empty component"),
        ),
        below(
            "backslashes",
            "node-tar CVE-2021-37713",
            &[file("it/..\\..\\bystander", b"x")],
            (Python, r"it/..\\..\\bystander"),
            Harmless(2),
        ),
        below(
            "a drive",
            "node-tar CVE-2021-37713",
            &[file("it/C:bystander", b"x")],
            (GnuTar, "it/C:bystander"),
            Harmless(2),
        ),
        below(
            "beginning in another field",
            "POSIX: two fields for one name",
            &[header("x", b'0').posix(b"../outside").bytes(b"")],
            (GnuTar, "../outside/x"),
            Refused("not in canonical form"),
        ),
        below(
            "beginning that is hidden",
            "POSIX: two fields for one name",
            &[header("it/x", b'0').posix(b"..").bytes(b"")],
            (BsdTar, "../it/x"),
            Refused("not in canonical form"),
        ),
        below(
            "path in an extended header",
            "pax: path",
            &[pax(b'x', &[("path", up)]), file("it/x", b"x")],
            (GnuTar, up),
            Refused("other than mtime"),
        ),
        below(
            "path for all",
            "pax: global path",
            &[pax(b'g', &[("path", up)]), file("it/x", b"x")],
            (GnuTar, up),
            Refused("type 'g'"),
        ),
        below(
            "long name with dots",
            "GNU: long name",
            &[long(b'L', up.as_bytes()), file("it/x", b"x")],
            (GnuTar, up),
            Refused("in canonical form"),
        ),
        below(
            "long name of a short one",
            "two names for one member",
            &[long(b'L', b"it/y"), file("it/x", b"x")],
            (GnuTar, "it/y"),
            Refused("not in canonical form"),
        ),
        below(
            "long name twice",
            "Go: gnu-multi-hdrs",
            &[long(b'L', &[b'a'; 120]), long(b'L', up.as_bytes()), file("it/x", b"x")],
            (GnuTar, up),
            Refused("given twice"),
        ),
        below(
            "zero in a long name",
            "Go: gnu-long-nul",
            &[long(b'L', b"it/a\0/../../../bystander"), file("it/a", b"x")],
            (Python, "'it/a'"),
            Refused(""),
        ),
        below(
            "zero in a path",
            "Go: pax-nul-path",
            &[pax(b'x', &[("path", "it/a\0b")]), file("it/x", b"x")],
            (Python, "it/a"),
            Refused("other than mtime"),
        ),
        below(
            "name of another item",
            "the index says which item is where",
            &[file("other/x", b"x")],
            (GnuTar, "other/x"),
            Refused("contradicts the index"),
        ),
        below(
            "item whose name begins alike",
            "tar-rs, string prefixes instead of components",
            &[file("item", b"x")],
            (GnuTar, "item"),
            Refused("contradicts the index"),
        ),
        below(
            "file with a slash behind",
            "old tars: a directory",
            &[file("it/x/", b"")],
            (GnuTar, "it/x/"),
            Refused("empty component"),
        ),
        below(
            "no name",
            "GNU tar: empty name",
            &[file("", b"x")],
            (Python, "''"),
            Refused("empty component"),
        ),
        below(
            "a dot",
            "a directory that is itself",
            &[directory("it/.")],
            (GnuTar, "it/./"),
            Refused("dot component"),
        ),
        below(
            "file called dot",
            "a directory that is itself",
            &[file("it/.", b"x")],
            (GnuTar, "it/."),
            Refused("dot component"),
        ),
        below(
            "empty component",
            "two names for one file",
            &[file("it//x", b"x")],
            (GnuTar, "it//x"),
            Refused("empty component"),
        ),
        below(
            "256 bytes in a component",
            "longer than any file system has",
            &[named(b'0', &[&b"it/"[..], &[b'n'; 256]].concat())],
            (GnuTar, "nnnnnnnn"),
            Refused("component that is too long"),
        ),
        below(
            "4097 bytes",
            "longer than PATH_MAX",
            &[named(b'0', &[&b"it"[..], &b"/n".repeat(2048)].concat())],
            (GnuTar, "/n/n/n"),
            Refused("longer than any path"),
        ),
        below(
            "10,000 deep",
            "a path deeper than any reader's stack",
            &[named(b'0', &[&b"it"[..], &b"/d".repeat(10_000)].concat())],
            (GnuTar, "/d/d/d"),
            Refused("longer than any path"),
        ),
        below(
            "2,000 deep",
            "as deep as a path can be",
            &deep(2_000),
            (GnuTar, "/d/d/d"),
            Refused("too deep"),
        ),
        below(
            "500 deep",
            "as deep as a reader takes",
            &deep(500),
            (GnuTar, "/d/d/d"),
            Harmless(501),
        ),
        below(
            "500 levels without members",
            "inodes without a member",
            &[named(b'0', &[&b"it"[..], &b"/d".repeat(500)].concat())],
            (GnuTar, "/d/d/d"),
            Refused("does not follow its directory"),
        ),
        below(
            "no UTF-8",
            "libarchive CVE-2016-8687",
            &[file(&b"it/\xFF\xFE\x80\xC0"[..], b"x")],
            (BsdTar, "it/"),
            Harmless(2),
        ),
        below(
            "much that cannot be shown",
            "libarchive CVE-2016-8687",
            &[named(b'0', &[&b"it/"[..], &[0xC3; 600]].concat())],
            (BsdTar, "it/"),
            Refused("component that is too long"),
        ),
        below(
            "composed and decomposed",
            "node-tar CVE-2021-37701, git CVE-2014-9390",
            &[file("it/\u{e9}", b"1"), file("it/e\u{301}", b"2")],
            (GnuTar, "it/e"),
            Harmless(3),
        ),
        below(
            "letters of one case",
            "git CVE-2014-9390",
            &[directory("it/D"), file("it/D/x", b"1"), directory("it/d"), file("it/d/x", b"2")],
            (GnuTar, "it/d/x"),
            Harmless(5),
        ),
        below(
            "letters that fold to one",
            "node-tar CVE-2026-23950",
            &[file("it/stra\u{df}e", b"1"), file("it/strasse", b"2")],
            (Python, "'it/strasse'"),
            Harmless(3),
        ),
        below(
            "characters that some leave out",
            "git CVE-2014-9390",
            &[
                symlink("it/.g\u{200c}it", "../../outside"),
                directory("it/.git"),
                file("it/.git/x", b"x"),
            ],
            (GnuTar, "it/.git/x"),
            Harmless(4),
        ),
    ]
}

/// Returns directories, each inside the previous one.
fn deep(depth: usize) -> Vec<Vec<u8>> {
    (1..=depth)
        .map(|depth| {
            let name = [&b"it"[..], &b"/d".repeat(depth), b"/"].concat();
            let short = name.len() <= 100;
            let head = header(&name[..name.len().min(100)], b'5').mode(0o755).bytes(b"");
            if short { head } else { [long(b'L', &name), head].concat() }
        })
        .collect()
}
